"""What commands show in terminals of 80 and 120 columns, beside files that were looked at.

After a wanted change: ``VALENCE_REGENERATE=1 pytest tests/e2e/test_terminal.py``, and read the
difference. Times and sizes, which vary by machine, are masked.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.cells import cell_len

from valence import cli
from valence.cli.console import SEQUENCE

FOLDER = Path(__file__).parents[1] / "golden" / "terminal"
WIDTHS = (80, 120)
MASKED = ("train s", "test s", "params M", "MiB", "time")
METHODS = ("--methods", "majority,tfidf-lr", "--baseline", "majority")
LABELS = 28
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
Show = Callable[..., str]
COMMANDS: dict[str, tuple[str, ...]] = {
    "compare": ("compare", *METHODS, "--seeds", "2"),
    "compare-wide": ("compare", *METHODS, "--seeds", "2", "--wide"),
    "train": ("train", "demo", "--method", "tfidf-lr", "--out", "m"),
    "evaluate-28": ("evaluate", "many", "many.csv"),
    "predict-5": ("predict", "m", "the room was cold and the staff was awful", "good"),
    "predict-28": ("predict", "many", "I feel seven two one", "I feel one two three " * 30),
    "data-show": ("data", "show", "demo"),
    "data-show-28": ("data", "show", "many.csv"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the commands are run, with a model of five classes and one of 28."""
    here = tmp_path_factory.mktemp("terminal")
    rows = [(f"I feel {NUMBERS[i % 7]} {NUMBERS[i // 7]} {NUMBERS[(i + j) % 11]}", f"mood-{i:02}")
            for i in range(LABELS) for j in range(24)]  # fmt: skip
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(here / "many.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for data, out in (("demo", "m"), ("many.csv", "many")):
            words = ["train", data, "--method", "tfidf-lr", "--out", out, "--quiet", "--json"]
            patch.setattr(sys, "argv", ["valence", *words])
            with pytest.raises(SystemExit):
                cli.main()
        yield here


@pytest.fixture
def show(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Show:
    """Run a command as in a terminal: what it shows, notes first, without colors."""

    def call(*words: str, width: int) -> str:
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(width))
            patch.setenv("TERM", "xterm-256color")
            patch.setattr(sys, "argv", ["valence", *words])
            patch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        printed = capsys.readouterr()
        assert ended.value.code in (0, None), printed.err
        lines = SEQUENCE.sub("", printed.err + printed.out).splitlines()
        return "\n".join(line.rstrip() for line in masked(lines)) + "\n"

    return call


def masked(lines: list[str]) -> list[str]:
    """The lines with machines' numbers and keys of runs replaced, whatever their width."""
    spans: list[tuple[int, int, int]] = []
    shown: list[str] = []
    for line in lines:
        if re.match(r"\[?\d+ of \d+ done|.* left$", line) or re.match(r"\S+ +\d+% ", line):
            continue
        heads = [re.search(rf"( *)  ({re.escape(name)})(?=  |$)", line) for name in MASKED]
        if any(heads):
            spans = [(*head.span(2), len(head[1])) for head in heads if head is not None]
            line = _cells(line, spans, {start: line[start:end] for start, end, _ in spans})
        elif not line.strip() or line.startswith("Hidden columns"):
            spans = []
        elif spans and line[:1] == "─":
            line = "─" * len(shown[-1])
        elif spans:
            line = _cells(line, spans, {start: "#" for start, end, _ in spans if line[start:end]})
        shown.append(re.sub(r"(?<=-s45-)[0-9a-f]{10}", "#" * 10, line))
    return shown


def _cells(line: str, spans: list[tuple[int, int, int]], values: dict[int, str]) -> str:
    """A line with values at spans, each column as wide as its heading."""
    for start, end, more in sorted(spans, reverse=True):
        value = values.get(start, "") if line[start - more : end].strip() else ""
        line = line[: start - more] + value.rjust(end - start) + line[end:]
    return line


def test_goldens_do_not_depend_on_how_wide_a_number_is() -> None:
    narrow = ["method    test s  MiB", "─────────────────────", "tfidf-lr       1  213", "majority"]
    wide = [
        "method    test s   MiB",
        "──────────────────────",
        "tfidf-lr    10.5  1024",
        "majority",
    ]
    assert masked(narrow) == masked(wide)
    assert masked(narrow)[2].split() == ["tfidf-lr", "#", "#"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_terminal_shows_what_was_looked_at(show: Show, name: str, width: int) -> None:
    text = show(*COMMANDS[name], width=width)
    path = FOLDER / f"{name}-{width}.txt"
    if os.environ.get("VALENCE_REGENERATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_every_table_fits(path: Path) -> None:
    """Notes may be wrapped by the terminal; tables may not, but for those of ``--wide``."""
    if "wide" in path.stem:
        return
    width = int(path.stem.rpartition("-")[2])
    blocks = re.split(r"\n(?=\S.*\n─)", path.read_text(encoding="utf-8"))
    for block in blocks[1:]:
        for line in block.partition("\n\n")[0].splitlines():
            assert cell_len(line) <= width, line


def test_a_text_too_long_for_a_file_name_is_a_text(show: Show) -> None:
    assert "…" in show("predict", "m", "good " * 200, width=80)


def test_no_golden_is_left_over() -> None:
    known = {f"{name}-{width}.txt" for name in COMMANDS for width in WIDTHS}
    assert {path.name for path in FOLDER.iterdir()} == known


def test_progress_counts_all_runs(show: Show, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of the four runs are there; the others are counted on from them."""
    from valence.cli.compare import grid_callback
    from valence.comparison.grid import Cell, GridProgress
    from valence.config.spec import RunSpec

    class Seen:
        def __init__(self) -> None:
            self.shown: list[tuple[Any, ...]] = []

        def show(self, *args: Any, seconds_left: float, important: bool) -> None:
            self.shown.append((*args, seconds_left, important))

    meter = Seen()
    cell = Cell(RunSpec())
    grid_callback(meter)(GridProgress(2, 4, cell, 0.5, "step 5", 10.0, total=0.625))  # type: ignore[arg-type]
    cell.status = "done"
    grid_callback(meter)(GridProgress(2, 4, cell, 1.0, "", 5.0, total=0.75))  # type: ignore[arg-type]
    assert [words[0].partition("]")[0] for words in meter.shown] == ["[2 of 4 done", "[3 of 4 done"]
    assert [words[1] for words in meter.shown] == [0.625, 0.75]
    assert [words[3] for words in meter.shown] == [10.0, 5.0]
