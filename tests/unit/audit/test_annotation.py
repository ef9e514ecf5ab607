"""Doubtful labels to annotation tools and back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import make_reviews
from valence.audit.annotation import TOOLS, rows_to_check, write_rows_to_check
from valence.audit.audit import Audit, audit
from valence.audit.checks import read_source
from valence.audit.merge import Correction, merge_corrections, read_corrections
from valence.config.data import DataSpec
from valence.errors import DataError


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = make_reviews(300, seed=3).rename(columns={"label": "mood"})
    frame.loc[frame.sample(20, random_state=2).index, "mood"] = "good"
    frame.loc[0, "text"] = ""  # a row that is left out, so that rows and places differ
    path = tmp_path_factory.mktemp("annotated") / "reviews.csv"
    frame.to_csv(path, index=False)
    return path


def spec_of(file: Path) -> DataSpec:
    return DataSpec(name=str(file), text_column="text", label_column="mood")


@pytest.fixture(scope="module")
def audited(file: Path) -> Audit:
    return audit(spec_of(file))


def exported(tool: str, table: pd.DataFrame, answers: dict[str, str | None], path: Path) -> Path:
    """What the tool exports when these answers were given, by row id."""
    if tool == "xlsx":
        sheet = pd.read_excel(path / "to-check.xlsx", dtype=object, engine="calamine")
        sheet["corrected"] = [answers.get(name) for name in sheet["row_id"]]
        sheet.to_excel(path / "done.xlsx", index=False)
        return path / "done.xlsx"
    records: list[dict[str, Any]] = json.loads((path / f"{tool}.json").read_text("utf-8"))
    for record in records:
        name = record["id"] if tool == "argilla" else record["data"]["row_id"]
        answer = answers.get(name)
        if tool == "argilla":
            user = {"value": answer, "user_id": "0-1", "status": "submitted"}
            record["responses"] = {"corrected": [user]} if answer else {}
        else:
            part = {"from_name": "corrected", "to_name": "text", "type": "choices",
                    "value": {"choices": [answer]}}  # fmt: skip
            record["annotations"] = [{"was_cancelled": not answer, "result": [part]}]
    (path / "done.json").write_text(json.dumps(records), encoding="utf-8")
    return path / "done.json"


@pytest.mark.parametrize("tool", TOOLS)
def test_there_and_back(audited: Audit, file: Path, tmp_path: Path, tool: str) -> None:
    if tool == "xlsx":
        pytest.importorskip("openpyxl")
    table = rows_to_check(audited)
    assert len(table) >= 3
    assert table["score"].between(0, 1).all()
    assert table["score"].iloc[0] == table["score"].max()
    files = write_rows_to_check(audited, tool, tmp_path)
    assert all(path.stat().st_size for path in files)
    ids = table["row_id"].tolist()
    kept = table["label"].iloc[1]
    answers = {ids[0]: "meh", ids[1]: kept}
    done = exported(tool, table, answers, tmp_path)
    before = pd.read_csv(file, keep_default_na=False)
    source = read_source(spec_of(file))
    report = merge_corrections(source, read_corrections(done), tmp_path / "new.csv")
    after = pd.read_csv(tmp_path / "new.csv", keep_default_na=False)
    changed = int(table["label"].iloc[0] != "meh")
    assert (report.changed, report.confirmed) == (changed, 2 - changed)
    assert report.unanswered == len(table) - 2
    row = int(ids[0].partition(":")[2])
    assert after.loc[row, "mood"] == "meh"
    expected = before.copy()
    expected.loc[row, "mood"] = "meh"
    assert after.astype(str).equals(expected.astype(str)), "nothing else changed"


def test_what_does_not_fit_is_refused(audited: Audit, file: Path, tmp_path: Path) -> None:
    source = read_source(spec_of(file))
    name = rows_to_check(audited)["row_id"].iloc[0]
    out = tmp_path / "new.csv"
    for corrections, words in (
        ({"all:99999": Correction("good", None)}, "not in the data"),
        ({name: Correction("good", "another text")}, "differ in the data"),
        ({name: Correction("wonderful", None)}, "Unknown labels 'wonderful'"),
    ):
        with pytest.raises(DataError, match=words):
            merge_corrections(source, corrections, out)
    (tmp_path / "other.csv").write_text("text,label\na,b\n")
    with pytest.raises(DataError, match="row_id is missing"):
        read_corrections(tmp_path / "other.csv")
    assert not out.exists()


def test_the_commands(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from valence import cli

    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> object:
        monkeypatch.setattr(sys, "argv", ["valence", *map(str, words), "--quiet"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0

    columns = ("--text-column", "text", "--label-column", "mood")
    assert call("audit", file, *columns, "--to", "argilla") == 1, "where to is not said"
    assert call("audit", file, *columns, "--to", "argilla", "--out", "check") == 0
    words = ("data", "merge", file, "check/argilla.json", *columns)
    assert call(*words, "--out", file) == 1, "never over the data"
    assert call(*words, "--out", "new.csv") == 0
    assert len(pd.read_csv("new.csv")) == 300


def test_label_studio_reads_the_tasks(audited: Audit, tmp_path: Path) -> None:
    interface = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk is not installed"
    )
    write_rows_to_check(audited, "label-studio", tmp_path)
    config = interface.LabelInterface((tmp_path / "label-studio.xml").read_text("utf-8"))
    config.validate()
    for task in json.loads((tmp_path / "label-studio.json").read_text("utf-8")):
        assert config.validate_prediction(task["predictions"][0])


def test_argilla_reads_the_records(audited: Audit, tmp_path: Path) -> None:
    argilla = pytest.importorskip("argilla", reason="argilla is not installed")
    write_rows_to_check(audited, "argilla", tmp_path)
    for record in json.loads((tmp_path / "argilla.json").read_text("utf-8")):
        read = argilla.Record.from_dict(record)
        assert read.id == record["id"]
        assert read.to_dict()["suggestions"] == record["suggestions"]
