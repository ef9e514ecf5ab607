"""Every command and every piece of Python of docs/fit.md works as written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.conftest import make_reviews
from tests.pages import blocks, commands, give, page

COMMANDS = commands("docs/fit.md")
PYTHON = blocks("docs/fit.md", "python")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fit-page")
    make_reviews(160, seed=3).to_csv(place / "reviews.csv", index=False)
    make_reviews(40, seed=4)[["text"]].to_csv(place / "new.csv", index=False)
    make_reviews(40, seed=5).to_csv(place / "labelled.csv", index=False)
    return place


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page(
    command: str, folder: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """They run in the order of the text, since some make what others use."""
    words = shlex.split(command)
    if words[1] == "fit":
        words += ["--encoder", str(tiny_encoder), "--set", "portfolio.epochs=1"]
    monkeypatch.chdir(folder)
    code = give(words, monkeypatch)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert "Warning" not in shown.err
    assert ("kernel-ridge" in shown.out) == (words[1] == "fit")


@pytest.mark.parametrize("code", PYTHON)
def test_python_of_the_page(
    code: str, folder: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    small = f'encoder={str(tiny_encoder)!r}, settings={{"portfolio.epochs": 1}}'
    code = code.replace('budget="5m"', f'budget="5m", {small}')
    code = code.replace('("kernel-ridge")', f'("kernel-ridge", encoder={str(tiny_encoder)!r})')
    assert str(tiny_encoder) in code
    monkeypatch.chdir(folder)
    exec(compile(code, "docs/fit.md", "exec"), {})
    assert "['" in capsys.readouterr().out


def test_the_page_says_what_the_command_says(
    folder: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines that the page shows begin as those of a report do."""
    import valence

    monkeypatch.chdir(folder)
    report = valence.fit(
        "reviews.csv", encoder=str(tiny_encoder), budget="1s", settings={"portfolio.epochs": 1}
    ).report()
    shown = blocks("docs/fit.md", "text")[0].splitlines()
    for beginning in ("Note: mean of", "Rows: ", "model  ", "Macro-F1 0.", "Compared with always"):
        assert any(line.startswith(beginning) for line in shown), beginning
        assert any(line.startswith(beginning) for line in report.splitlines()), beginning


def test_the_page_is_linked() -> None:
    index = page("docs/index.md")
    assert "(fit.md)" in index
    assert "\nfit\n" in index
