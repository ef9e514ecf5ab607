"""Labels as files of other tools: the table :data:`EXPORTS`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from valence.audit.annotation import (
    CORRECTED,
    ROW_ID,
    argilla_records,
    argilla_settings,
    label_studio_config,
)
from valence.errors import DataError, RunError, SpecError, UnknownNameError
from valence.labeling.store import LabelStore
from valence.storage import atomic

OWN = ("row", "text", "label", "votes")
"""Columns of a table of labels; those of the pool stand behind them."""
SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".spacy": "spacy"}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: The files.
        rows: Labels in them.
    """

    files: tuple[Path, ...]
    rows: int


def export_labels(source: Path, target: Path, tool: str | None = None) -> Exported:
    """Write the labels of a label file for another tool.

    Args:
        source: The label file.
        target: The file; a folder for ``label-studio`` and ``argilla``.
        tool: A name of :data:`EXPORTS`; by the suffix of ``target`` when None.

    Raises:
        DataError: if it is no label file, or has no labels.
        SpecError: if the tool is unknown.
        RunError: if the files cannot be written.
    """
    name = tool or SUFFIXES.get(target.suffix.lower())
    if name is None:
        raise SpecError(f"What is {target} to be? Say --to {', --to '.join(EXPORTS)}")
    if name not in EXPORTS:
        raise UnknownNameError("kind of export", name, EXPORTS)
    store = LabelStore(source)
    try:
        table = label_table(store)
        if not len(table):
            raise DataError(f"{source} has no labels yet; label rows first")
        return Exported(tuple(EXPORTS[name](table, store.classes, target)), len(table))
    finally:
        store.close()


def label_table(store: LabelStore) -> pd.DataFrame:
    """One row per labeled text: ``row`` in the source, ``text``, ``label``, ``votes``, the rest."""
    extra = store.extra_of_labeled()
    records = [
        {**{name: value for name, value in own.items() if name not in OWN},
         "row": row, "text": text, "label": label, "votes": votes}
        for (row, text, label, votes), own in zip(store.labels(), extra, strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(records)
    others = [name for name in table.columns if name not in OWN]
    return table[[*OWN, *others]] if len(table) else table


def _to_csv(table: pd.DataFrame, classes: tuple[str, ...], target: Path) -> list[Path]:
    with atomic.new_file(target) as scratch:
        table.to_csv(scratch, index=False)
    return [target]


def _to_parquet(table: pd.DataFrame, classes: tuple[str, ...], target: Path) -> list[Path]:
    with atomic.new_file(target) as scratch:
        table.to_parquet(scratch, index=False)
    return [target]


def _to_label_studio(table: pd.DataFrame, classes: tuple[str, ...], target: Path) -> list[Path]:
    tasks = [
        {
            "data": {ROW_ID: str(row["row"]), "text": row["text"], "label": row["label"]},
            "annotations": [
                {"result": [
                    {"id": uuid.uuid5(uuid.NAMESPACE_OID, str(row["row"])).hex[:10],
                     "from_name": CORRECTED, "to_name": "text", "type": "choices",
                     "value": {"choices": [row["label"]]}}
                ]}
            ],
        }
        for row in _records(table)
    ]  # fmt: skip
    path, config = target / "label-studio.json", target / "label-studio.xml"
    _write_json(path, tasks)
    atomic.write_text(config, label_studio_config(list(classes)))
    return [path, config]


def _to_argilla(table: pd.DataFrame, classes: tuple[str, ...], target: Path) -> list[Path]:
    """Labels as suggestions: a response names a user of the server, who is not known here."""
    given = pd.DataFrame({
        ROW_ID: table["row"].astype(str), "text": table["text"], "label": table["label"],
        "suggestion": table["label"], "score": 1.0,
    })  # fmt: skip
    records = argilla_records(given)
    for record in records:
        for suggestion in record["suggestions"].values():
            suggestion["agent"] = "valence label"
    path, settings = target / "argilla.json", target / "argilla-settings.json"
    _write_json(path, records)
    _write_json(settings, argilla_settings(list(classes)))
    return [path, settings]


def _to_spacy(table: pd.DataFrame, classes: tuple[str, ...], target: Path) -> list[Path]:
    """A ``DocBin`` for the text categorizer: every label in ``doc.cats``."""
    try:
        import spacy
        from spacy.tokens import DocBin
    except ImportError:
        raise RunError("Files of spaCy need spaCy: pip install spacy") from None
    tokenizer = spacy.blank("xx").tokenizer
    docs = DocBin()
    for text, label in zip(table["text"], table["label"], strict=True):
        doc = tokenizer(text)
        doc.cats = {name: float(name == label) for name in classes}
        docs.add(doc)
    with atomic.new_file(target) as scratch:
        scratch.write_bytes(docs.to_bytes())
    return [target]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _write_json(path: Path, value: Any) -> None:
    atomic.write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


Writer = Callable[[pd.DataFrame, tuple[str, ...], Path], list[Path]]

EXPORTS: Mapping[str, Writer] = {
    "csv": _to_csv, "parquet": _to_parquet, "label-studio": _to_label_studio,
    "argilla": _to_argilla, "spacy": _to_spacy,
}  # fmt: skip
"""Who writes the files of which tool."""
