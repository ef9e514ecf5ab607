"""Sinks that cannot take the text: encodings, full and closed ends, terminals, spreadsheets."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_reviews
from valence.cli.streams import visible, visible_cell
from valence.errors import RunError
from valence.inference.bulk.readers import Part
from valence.inference.bulk.writers import SafeTextSink, TextSink, spreadsheet_text
from valence.reports.groups import PivotTable, write_workbook
from valence.storage import atomic

ESCAPES = ["\x1b[31mred", "\x1b]0;title\x07", "\x9b2J", "a\x08\x08b", "\x00", "\x7f", "a\rb"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose texts and labels hold escapes and letters of several scripts."""
    folder = tmp_path_factory.mktemp("odd")
    with (folder / "odd.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(20):
            writer.writerow([f"größer 服务 {ESCAPES[i % 4]} {i}", "g\x1b[32mé"])
            writer.writerow([f"\x1b[31mbad {i}", "bad"])
    return folder / "odd.csv"


def run(words: list[str], *, encoding: str = "utf-8", stdout: Any = subprocess.PIPE,
        stdin: bytes = b"", closed: str = "") -> subprocess.CompletedProcess[bytes]:  # fmt: skip
    command = [sys.executable, "-m", "valence", *words]
    if closed:
        command = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, input=stdin, timeout=120, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "VALENCE_DEBUG": ""},
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "ascii:strict"])
def test_no_encoding_of_the_terminal_breaks_a_command(odd: Path, encoding: str) -> None:
    done = run(["data", "show", str(odd)], encoding=encoding)
    assert done.returncode == 0, done.stderr
    assert b"Unexpected" not in done.stderr
    for stream in (done.stdout, done.stderr):
        assert not set(stream) & (set(range(32)) - {9, 10})
    assert rb"\x1b[31m" in done.stderr
    assert rb"g\x1b[32m" in done.stdout


def test_an_error_with_letters_of_its_own_is_shown_in_any_encoding() -> None:
    done = run(["data", "show", "größer\x1b[31m.csv"], encoding="ascii")
    assert done.returncode == 1
    assert rb"gr\xf6\xdfer\x1b[31m.csv" in done.stderr
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("words", [["methods"], ["methods", "--json"], ["--version"], ["--help"]])
def test_a_full_stdout_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = run(words, stdout=full)
    assert done.returncode == 1, done
    lines = done.stderr.decode().splitlines()
    assert lines == ["Error: Cannot write to standard output: No space left on device; write to "
    "another "
                     "place"]  # fmt: skip


@pytest.mark.parametrize("words", [["methods"], ["methods", "--json"], ["--version"]])
def test_a_closed_stdout_is_one_line(words: list[str]) -> None:
    done = run(words, closed=">&-")
    assert done.returncode == 1, done
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Error: Cannot write to standard output")


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = run(["methods"], closed="| head -1")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_command_without_output_needs_no_stdout(tmp_path: Path) -> None:
    make_reviews(40).to_csv(tmp_path / "r.csv", index=False)
    words = ["data", "import", str(tmp_path / "r.csv"), "--to", f"sqlite:///{tmp_path}/r.db"]
    done = run([*words, "--quiet"], closed="2>&-")
    assert done.returncode == 0
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "valence", "data", "show", str(tmp_path / "r.csv")]
        noted = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False)
    assert (noted.returncode, b"all" in noted.stdout) == (0, True)


def test_texts_that_are_not_in_the_encoding_of_stdin(tmp_path: Path) -> None:
    import valence

    make_reviews(60).to_csv(tmp_path / "r.csv", index=False)
    result = valence.train(str(tmp_path / "r.csv"), "majority", runs=tmp_path / "runs")
    model = str(tmp_path / "runs" / result.key / "model")
    done = run(["predict", model], stdin=b"gr\xf6\xdfer\n")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"stdin is not utf-8" in done.stderr
    done = run(["predict", model], stdin="größer\x1b[31m\n".encode())
    assert done.returncode == 0
    assert r"größer\x1b[31m" in done.stdout.decode()
    done = run(["predict", model], closed="<&-")
    assert (done.returncode, b"No text given" in done.stderr) == (1, True)


@pytest.mark.parametrize("log", ["/dev/full", "/dev/null/x", "/proc/none/x.log", "."])
def test_a_log_file_that_cannot_be_written_is_said_once(odd: Path, log: str) -> None:
    done = run(["--log-file", log, "data", "show", str(odd)])
    said = [line for line in done.stderr.decode().splitlines() if "writ" in line]
    assert len(said) == 1, done.stderr
    assert done.returncode == (0 if log == "/dev/full" else 1)


def test_a_terminal_gets_no_escape_of_a_text(odd: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "valence", "data", "show", str(odd)], stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        shown += part
    assert done.wait(60) == 0
    for escape in (b"\x1b[31m", b"\x1b[32m", b"\x1b]0;", b"\x9b", b"\x07"):
        assert escape not in shown
    assert rb"\x1b[31mbad" in shown


@settings(max_examples=200)
@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = visible(text)
    assert all((ord(c) > 31 and not 127 <= ord(c) < 160) or c in "\n\t" for c in shown)
    assert len(visible_cell(text).splitlines()) <= 1 or not {"\n", "\r"} & set(visible_cell(text))
    if text.isprintable():
        assert shown == text


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", "-", "=", "-x"]
PLAIN = ["-0.5", "+3", "-1,000.25", "-1e-05", "+12%", "a=1", " =1", "", "1", "'=1", "–5", "5-3"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_marked(text: str) -> None:
    assert spreadsheet_text(text) == f"'{text}"


@pytest.mark.parametrize("text", PLAIN)
def test_numbers_and_texts_are_not(text: str) -> None:
    assert spreadsheet_text(text) == text


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_csv_is_faithful_unless_it_is_to_be_safe(tmp_path: Path, suffix: str) -> None:
    columns: list[list[Any]] = [FORMULAS, list(range(len(FORMULAS)))]
    for kind, expected in (
        (TextSink, FORMULAS), (SafeTextSink, [f"'{text}" for text in FORMULAS]),
    ):  # fmt: skip
        path = tmp_path / f"out{suffix}"
        sink = kind(str(path), suffix, path)
        sink.write(Part(["=text", "n"], columns, 1.0), tmp_path / "part")
        sink.join([tmp_path / "part"], [["=text", "n"]])
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines, delimiter="\t" if suffix == ".tsv" else ","))
        assert [row[0] for row in rows[1:]] == expected
        assert rows[0][0] == ("=text" if kind is TextSink else "'=text")
        assert [row[1] for row in rows[1:]] == [str(i) for i in range(len(FORMULAS))]


def test_safe_csv_of_the_command(tmp_path: Path, valence) -> None:  # type: ignore[no-untyped-def]
    make_reviews(60).to_csv(tmp_path / "r.csv", index=False)
    assert valence("train", "r.csv", "--method", "majority", "--out", "m", "--quiet")[0] == 0
    (tmp_path / "new.csv").write_text('text\n=1+1\n"-good"\nplain\n')
    for words, first in (([], "=1+1"), (["--safe-csv"], "'=1+1")):
        assert valence("predict", "m", "new.csv", "--out", "out.csv", "--quiet", *words)[0] == 0
        with (tmp_path / "out.csv").open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert rows[0]["text"] == first
        assert rows[2]["text"] == "plain"
    (tmp_path / "in").mkdir()
    shutil.copy(tmp_path / "new.csv", tmp_path / "in" / "new.csv")
    assert valence("predict", "m", "in", "--out", "folder", "--safe-csv", "--quiet")[0] == 0
    assert "'=1+1" in (tmp_path / "folder" / "new.csv").read_text()
    code, _, said = valence("predict", "m", "new.csv", "--out", "o.parquet", "--safe-csv")
    assert (code, "--safe-csv works with CSV" in said) == (1, True)


def test_a_workbook_holds_texts_and_no_formula(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    heads = ["=method", "+en", "-de", "@fr", "\tit", "nan"]
    rows = [[text, "0.5", "-0.25", text, "–", "inf"] for text in [*FORMULAS, "1e5", "nan", "\x1b["]]
    table = PivotTable(heads, rows, [[False] * len(heads) for _ in rows])
    sheets = {"=one": table, "two": table, "[*]:\x07": table}
    assert write_workbook(sheets, tmp_path / "book.xlsx") == []
    book = openpyxl.load_workbook(tmp_path / "book.xlsx")
    assert len(book.worksheets) == 3
    for sheet in book.worksheets:
        cells = list(sheet.iter_rows())
        assert all(cell.data_type != "f" for row in cells for cell in row)
        assert [cell.value for cell in cells[0]] == heads
        for own, row in zip(rows, cells[1:], strict=True):
            assert row[0].data_type == "s"
            assert row[0].value == own[0].replace("\x1b", r"\x1b").replace("\r", r"\x0d")
            assert [row[1].value, row[2].value, row[4].value] == [0.5, -0.25, "–"]


def test_a_folder_that_cannot_be_copied_says_why(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        (source / f"link{i}").symlink_to(tmp_path / f"nothing{i}")
    with pytest.raises(RunError) as refused, atomic.new_folder(tmp_path / "copy") as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True)
    said = str(refused.value)
    assert "No such file or directory: " in said
    assert "(and 2 more)" in said
    assert "[(" not in said
    assert len(said) < 400


def test_json_is_faithful(odd: Path) -> None:
    done = run(["data", "show", str(odd), "--json"], encoding="ascii")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
