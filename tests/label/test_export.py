"""Labels as files of other tools, read back by what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.label.test_store import new_store
from valence.errors import DataError, SpecError
from valence.labeling.export import export_labels
from valence.labeling.store import Decision


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    store = new_store(tmp_path / "labels.db")
    for row in range(12):
        store.add(Decision(row, "ann", "label", "bad" if row % 3 == 0 else "good"))
    store.add(Decision(20, "ann", "skip"))
    store.close()
    return tmp_path / "labels.db"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables(labels: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out.{suffix}"
    assert export_labels(labels, target).rows == 12
    table = pd.read_csv(target) if suffix == "csv" else pd.read_parquet(target)
    assert table.columns.tolist() == ["row", "text", "label", "votes", "stars"]
    assert table["row"].tolist() == list(range(10, 22))
    assert table["label"].tolist() == ["bad", "good", "good"] * 4
    assert table["stars"].tolist() == [i % 5 for i in range(12)]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_label_studio(labels: Path, tmp_path: Path) -> None:
    export_labels(labels, tmp_path / "out", "label-studio")
    tasks = read(tmp_path / "out" / "label-studio.json")
    assert [task["data"]["text"] for task in tasks] == [f"text {i}" for i in range(12)]
    (result,) = tasks[0]["annotations"][0]["result"]
    assert result["value"] == {"choices": ["bad"]}
    config = (tmp_path / "out" / "label-studio.xml").read_text(encoding="utf-8")
    assert f'name="{result["from_name"]}"' in config
    assert '<Choice value="good"/>' in config


def test_argilla(labels: Path, tmp_path: Path) -> None:
    export_labels(labels, tmp_path / "out", "argilla")
    records = read(tmp_path / "out" / "argilla.json")
    settings = read(tmp_path / "out" / "argilla-settings.json")
    (question,) = settings["questions"]
    suggestion = records[0]["suggestions"][question["name"]]
    assert (suggestion["value"], suggestion["agent"]) == ("bad", "valence label")
    assert {option["value"] for option in question["settings"]["options"]} == {"good", "bad"}


def test_spacy(labels: Path, tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
    from spacy.tokens import DocBin

    export_labels(labels, tmp_path / "out.spacy")
    docs = list(DocBin().from_disk(tmp_path / "out.spacy").get_docs(spacy.blank("xx").vocab))
    assert [doc.text for doc in docs] == [f"text {i}" for i in range(12)]
    assert docs[0].cats == {"good": 0.0, "bad": 1.0}


def test_unknown_targets_are_refused(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--to csv"):
        export_labels(labels, tmp_path / "out.unknown")
    with pytest.raises(SpecError, match="excel"):
        export_labels(labels, tmp_path / "out", "excel")
    new_store(tmp_path / "empty.db").close()
    with pytest.raises(DataError, match="has no labels yet"):
        export_labels(tmp_path / "empty.db", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
