"""Doubtful labels as files of annotation tools: Label Studio, Argilla, a spreadsheet."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pandas as pd

from valence.audit.audit import Audit
from valence.errors import DataError, RunError
from valence.storage import atomic

CHECK = "label-errors"
ROW_ID = "row_id"
CORRECTED = "corrected"
AGENT = "valence audit"
MOST_CHOICES = 250  # characters of the list that a spreadsheet cell may choose from


def rows_to_check(audit: Audit) -> pd.DataFrame:
    """The rows whose labels look doubtful, the most doubtful first.

    Returns:
        ``row_id`` (split and row in the source, as ``train:17``), ``split``, ``row``, ``text``,
        ``label``, ``suggestion`` and ``score``: how doubtful the label is, in [0, 1].
    """
    doubtful = next(finding.rows for finding in audit.findings if finding.check == CHECK)
    if not len(doubtful):
        raise DataError(f"{audit.source.name}: no label looks doubtful; nothing to check")
    table = doubtful[["split", "row", "text", "label"]].copy()
    table.insert(0, ROW_ID, table["split"] + ":" + table["row"].astype(str))
    score = (1.0 - doubtful["chance_of_label"].astype(float)).round(4)
    return table.assign(suggestion=doubtful["suggested"], score=score)


def write_rows_to_check(audit: Audit, tool: str, folder: Path) -> list[Path]:
    """Write the doubtful rows in the import format of a tool.

    Args:
        audit: With its check of labels.
        tool: A name of :data:`TOOLS`.
        folder: Gets the files.

    Raises:
        DataError: if no label looks doubtful.
        RunError: if the folder cannot be written, or openpyxl is not installed.
    """
    table = rows_to_check(audit)
    labels = sorted(audit.source.rows["label"].unique())
    return TOOLS[tool](table, [str(label) for label in labels], folder)


def label_studio_tasks(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Tasks of Label Studio, each with the suggested label as a prediction."""
    return [
        {
            "data": {name: row[name] for name in (ROW_ID, "text", "label")},
            "predictions": [
                {
                    "model_version": AGENT, "score": row["score"],
                    "result": [
                        {"id": "suggestion", "from_name": CORRECTED, "to_name": "text",
                         "type": "choices", "value": {"choices": [row["suggestion"]]}}
                    ],
                }
            ],
        }
        for row in _records(table)
    ]  # fmt: skip


def label_studio_config(labels: list[str]) -> str:
    """The labeling interface for these tasks."""
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        '<View>\n  <Text name="text" value="$text"/>\n  <Header value="Label now: $label"/>\n'
        f'  <Choices name="{CORRECTED}" toName="text" choice="single">\n{choices}\n'
        "  </Choices>\n</View>\n"
    )


def argilla_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Records of Argilla 2, each with the suggested label, as ``Records.from_json`` reads them."""
    return [
        {
            "id": row[ROW_ID], "status": "pending", "fields": {"text": row["text"]},
            "metadata": {"label": row["label"]}, "vectors": {}, "responses": {},
            "suggestions": {
                CORRECTED: {"value": row["suggestion"], "score": row["score"], "agent": AGENT}
            },
        }
        for row in _records(table)
    ]  # fmt: skip


def argilla_settings(labels: list[str]) -> dict[str, Any]:
    """The settings of a data set for these records, as ``Settings.from_json`` reads them."""
    return {
        "guidelines": "Choose the right label for each text.", "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "fields": [{"name": "text", "title": "Text", "required": True,
                    "settings": {"type": "text", "use_markdown": False}}],
        "questions": [
            {"name": CORRECTED, "title": "Label", "required": True,
             "settings": {"type": "label_selection", "visible_options": None,
                          "options": [{"value": label, "text": label} for label in labels]}}
        ],
        "vectors": [],
        "metadata": [{"name": "label", "title": "Label now", "visible_for_annotators": True,
                      "settings": {"type": "terms", "values": None}}],
    }  # fmt: skip


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    records = table.to_dict("records")
    return [{str(name): _plain(value) for name, value in row.items()} for row in records]


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, float)) else str(value)


def _to_label_studio(table: pd.DataFrame, labels: list[str], folder: Path) -> list[Path]:
    tasks, config = folder / "label-studio.json", folder / "label-studio.xml"
    _write_json(tasks, label_studio_tasks(table))
    atomic.write_text(config, label_studio_config(labels))
    return [tasks, config]


def _to_argilla(table: pd.DataFrame, labels: list[str], folder: Path) -> list[Path]:
    records, settings = folder / "argilla.json", folder / "argilla-settings.json"
    _write_json(records, argilla_records(table))
    _write_json(settings, argilla_settings(labels))
    return [records, settings]


def _to_xlsx(table: pd.DataFrame, labels: list[str], folder: Path) -> list[Path]:
    """A sheet with an empty column to fill, whose cells offer the labels."""
    try:
        from openpyxl import Workbook
        from openpyxl.worksheet.datavalidation import DataValidation
    except ImportError:
        raise RunError("Excel files need openpyxl: pip install 'valence[xlsx]'") from None
    book = Workbook()
    sheet = book.active
    heads = [ROW_ID, "text", "label", "suggestion", "score", CORRECTED]
    sheet.append(heads)
    for number, row in enumerate(_records(table), start=2):
        for column, name in enumerate(heads[:-1], start=1):
            cell = sheet.cell(row=number, column=column, value=row[name])
            if isinstance(row[name], str):
                cell.data_type = "s"  # a text that begins with = is no formula
    listed = ",".join(labels)
    if len(listed) <= MOST_CHOICES and not any("," in label for label in labels):
        choice = DataValidation(type="list", formula1=f'"{listed}"', allow_blank=True)
        sheet.add_data_validation(choice)
        choice.add(f"F2:F{len(table) + 1}")
    sheet.freeze_panes = "A2"
    for letter, width in zip("ABCDEF", (12, 80, 14, 14, 8, 14), strict=True):
        sheet.column_dimensions[letter].width = width
    path = folder / "to-check.xlsx"
    with atomic.new_file(path) as scratch:
        book.save(scratch)
    return [path]


def _write_json(path: Path, value: Any) -> None:
    atomic.write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


TOOLS: Mapping[str, Callable[[pd.DataFrame, list[str], Path], list[Path]]] = {
    "label-studio": _to_label_studio, "argilla": _to_argilla, "xlsx": _to_xlsx,
}  # fmt: skip
"""Who writes the files of which tool."""
