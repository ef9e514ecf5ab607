"""Every command of docs/languages.md works as written."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.conftest import make_reviews
from tests.pages import commands, give

COMMANDS = commands("docs/languages.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("languages")
    for number, name in enumerate(("de", "en", "sw")):
        (root / "reviews" / name).mkdir(parents=True)
        for split, rows in (("train", 40), ("test", 20)):
            table = make_reviews(rows, seed=10 * number + rows)
            table.to_csv(root / "reviews" / name / f"{split}.csv", index=False)
    make_reviews(60).assign(domain=["hotel", "school"] * 30).to_csv(
        root / "domains.csv", index=False
    )
    return root


def call(
    command: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[str, str]:  # fmt: skip
    monkeypatch.chdir(folder)
    code = give(command, monkeypatch)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out, printed.err


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    if "compare" in words:  # the same command at a size for tests
        words += ["--seeds", "1", "--methods", "tfidf-lr"]
    out, _ = call(words, folder, monkeypatch, capsys)
    report = folder / "report"
    if "--transfer" in words:
        assert (report / "transfer-tfidf-lr.png").exists()
        assert "Transfer:" in (report / "report.html").read_text(encoding="utf-8")
    elif "domains.csv" in words:
        assert (report / "by-domain.xlsx").exists()
        assert "By domain" in (report / "report.html").read_text(encoding="utf-8")
    elif "--json" in words:
        assert [group["group"] for group in json.loads(out)["groups"]] == ["de", "en", "sw"]


def test_transfer_without_methods_is_of_frozen_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["valence", "compare", "--transfer", "reviews", "--dry-run", "--seeds", "1"]
    out, _ = call(words, folder, monkeypatch, capsys)
    assert out.count("kernel-ridge-encoder") == 3
    assert len(out.splitlines()) == 4


def test_a_wrong_group_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert give(["valence", "data", "readiness", "reviews", "--groups", "dee"], monkeypatch) == 1
    assert "Unknown language 'dee'; did you mean 'de'?" in capsys.readouterr().err
