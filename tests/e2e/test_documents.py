"""Every command and every piece of Python in the README works as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT, make_reviews
from tests.pages import blocks, commands, give, page

README = page("README.md")
COMMANDS = commands("README.md")


def test_every_command_is_of_a_known_kind() -> None:
    for command in COMMANDS:
        assert command.split()[0] in {"valence", "make", "pip"}, command
        if command.startswith("make"):
            assert f"\n{command.split()[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("readme")
    make_reviews(140).to_csv(place / "reviews.csv", index=False)
    make_reviews(30, seed=1).drop(columns="label").to_csv(place / "new.csv", index=False)
    return place


OWN = [c for c in COMMANDS if c.startswith("valence")]


@pytest.mark.parametrize("command", OWN)
def test_command_of_the_readme(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They run in the order of the text, since one trains what the next uses."""
    words = shlex.split(command)
    if "compare" in words:  # the same command at a size for tests
        words += ["--seeds", "1", "--methods", "majority,tfidf-lr"]
    if "fit" in words:
        words += ["--budget", "1s"]
    monkeypatch.chdir(folder)
    assert give(words, monkeypatch) == 0, capsys.readouterr().err
    if "new.csv" in words:
        scored = pd.read_csv(folder / "scored.csv")
        assert len(scored) == 30
        assert {"label", "prob_good"} <= set(scored)


def test_config_command_plans(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = next(c for c in commands("docs/papers.md") if "compare --config configs/" in c)
    monkeypatch.chdir(ROOT)
    assert give([*shlex.split(command), "--dry-run"], monkeypatch) == 0
    assert capsys.readouterr().out.count("hy-mora\t") == 5


def test_python_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("README.md", "python")
    exec(compile(code, "README", "exec"), {})
    printed = capsys.readouterr().out
    assert "'good'" in printed


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 66
    targets = re.findall(r"\]\((docs/[^)#]+)", README)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).is_file()] == []
