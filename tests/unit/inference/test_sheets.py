"""Scored rows as an Excel workbook."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from valence.errors import DataError
from valence.inference.bulk import sheets
from valence.inference.bulk.readers import Part
from valence.inference.bulk.writers import open_sink

openpyxl = pytest.importorskip("openpyxl")


def written(tmp_path: Path, *tables: dict[str, list[Any]]) -> Any:
    """The sheet of parts."""
    sink = open_sink(str(tmp_path / "scored.xlsx"))
    sink.check()
    files = []
    for number, table in enumerate(tables):
        files.append(tmp_path / f"part-{number}")
        sink.write(Part(list(table), list(table.values()), 1.0), files[-1])
    sink.join(files, [list(table) for table in tables])
    return openpyxl.load_workbook(tmp_path / "scored.xlsx")["predictions"]


def test_values_keep_their_types_and_parts_their_order(tmp_path: Path) -> None:
    day = datetime.datetime(2026, 1, 30, 12, 0)
    sheet = written(
        tmp_path,
        {"id": [1, 2], "text": ["good", None], "when": [day, None], "prob": [0.25, 1.0]},
        {"id": [3], "text": ["last"], "when": [day], "prob": [float("nan")]},
    )
    rows = list(sheet.iter_rows(values_only=True))
    assert rows[0] == ("id", "text", "when", "prob")
    assert rows[1] == (1, "good", day, 0.25)
    assert rows[2] == (2, None, None, 1.0)
    assert rows[3][:3] == (3, "last", day)


@pytest.mark.parametrize("text", ["=1+1", '=HYPERLINK("http://a.b")', "+1", "-1", "@x", "\tq", "'"])
def test_no_text_is_a_formula(tmp_path: Path, text: str) -> None:
    sheet = written(tmp_path, {text: [text]})
    for cell in (sheet["A1"], sheet["A2"]):
        assert cell.data_type == "s"
        assert cell.value == text


def test_characters_that_xml_cannot_hold_are_escaped(tmp_path: Path) -> None:
    written(tmp_path, {"text": ["a\x1bb", "_x0041_"]})
    again = pd.read_excel(tmp_path / "scored.xlsx", engine="calamine")["text"].tolist()
    assert again in (["a\x1bb", "_x0041_"], ["a_x001B_b", "_x005F_x0041_"])


def test_what_a_sheet_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"column 'text' has 40,000; use \.csv"):
        written(tmp_path, {"text": ["x" * 40_000]})
    monkeypatch.setattr(sheets, "MOST_ROWS", 3)
    with pytest.raises(DataError, match="holds 2 rows and there are 3"):
        written(tmp_path, {"text": ["a", "b"]}, {"text": ["c"]})
    assert not (tmp_path / "scored.xlsx").exists()
