"""Excel and OpenDocument sheets: as a person sees them, which sheet, what is no header."""

from __future__ import annotations

import datetime
from pathlib import Path

import openpyxl
import pytest

from tests.sheets import write_ods
from valence.config.data import DataSpec
from valence.data.sheets import SHEET_SUFFIXES, read_sheet, sheet_note, split_sheet
from valence.data.sources import load_dataset
from valence.data.tables import read_table
from valence.errors import DataError

pytest.importorskip("python_calamine", reason="pip install 'valence[xlsx]'")

Cells = list[list[object]]
HEADER: list[object] = ["text", "label"]
FEW: Cells = [[f"{word} number {i}", word] for i in range(12) for word in ("good", "bad")]


def write(path: Path, sheets: dict[str, Cells]) -> Path:
    if path.suffix == ".ods":
        write_ods(path, sheets)
        return path
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize("suffix", SHEET_SUFFIXES)
def test_the_first_sheet_with_cells_or_the_named_one(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", {"empty": [], "one": [HEADER, *FEW], "two": [HEADER]})
    data = load_dataset(DataSpec(name=str(path)), seed=1)
    assert data.notes[0] == f"{path}: sheet 'one' was used"
    assert len(data.train) + len(data.validation) + len(data.test) == len(FEW)
    assert load_dataset(DataSpec(name=f"{path}#one"), seed=1).fingerprint == data.fingerprint
    assert not len(read_table(Path(f"{path}#two")))
    with pytest.raises(DataError, match=r"no sheet 'three'; it has empty, one, two"):
        load_dataset(DataSpec(name=f"{path}#three"))


def test_numbers_dates_and_blanks_are_as_a_person_sees_them(tmp_path: Path) -> None:
    moment = datetime.datetime(2026, 1, 31, 12, 30)
    rows: Cells = [["n", "x", "d", "t", "b"], [1, 0.5, datetime.date(2026, 1, 31), moment, True],
                   [None] * 5, [1234567, None, None, None, False]]  # fmt: skip
    table = read_table(write(tmp_path / "a.xlsx", {"s": rows}))
    assert table.iloc[0].tolist() == ["1", "0.5", "2026-01-31", "2026-01-31 12:30:00", "TRUE"]
    assert table.iloc[1].tolist() == ["1234567", None, None, None, "FALSE"]


def test_a_title_above_the_header_and_empty_columns_are_passed_over(tmp_path: Path) -> None:
    rows: Cells = [["Survey 2026"], [], [None, "text", None, "label"], [None, "a b", None, "x"]]
    path = write(tmp_path / "a.xlsx", {"s": rows})
    assert read_sheet(path).names == ["text", "label"]
    assert read_sheet(path).rows == [["a b", "x"]]
    assert sheet_note(path) == f"{path}: row 3 has the column names"


def test_what_has_no_header_or_is_no_sheet_is_one_line(tmp_path: Path) -> None:
    rows: Cells = [["text", None, "label"], ["a", "b", "c"]]
    with pytest.raises(DataError, match=r"sheet 's': row 1 has the column names, but not column B"):
        read_table(write(tmp_path / "a.xlsx", {"s": rows}))
    with pytest.raises(DataError, match="has no values"):
        read_table(write(tmp_path / "b.xlsx", {"s": []}))
    (tmp_path / "c.xlsx").write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"c\.xlsx is not a valid XLSX file .*save it again"):
        read_table(tmp_path / "c.xlsx")


def test_a_sheet_stands_behind_files_of_sheets_alone(tmp_path: Path) -> None:
    assert split_sheet(Path("a/b.xlsx#May")) == (Path("a/b.xlsx"), "May")
    assert split_sheet(Path("a/b.csv#May")) == (Path("a/b.csv#May"), None)
    odd = write(tmp_path / "a.xlsx#1.xlsx", {"s": [HEADER, *FEW]})
    assert split_sheet(odd) == (odd, None)
