"""What is given to a saved model: files, frames, labels of truth, columns of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import valence as package
from tests.conftest import make_reviews
from tests.sheets import write_ods
from valence.config.data import DataSpec
from valence.data.sources import load_dataset, load_split
from valence.errors import DataError
from valence.inference.predictor import Predictor

ROWS = make_reviews(120)[["text", "label"]]
CLASSES = ("bad", "good", "meh")
OWN = ROWS.rename(columns={"text": "comment", "label": "verdict"})
OWN["title"] = [f"a title of some words, {i}" for i in range(len(OWN))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of rows whose columns have names of their own."""
    folder = tmp_path_factory.mktemp("trained")
    OWN.to_csv(folder / "own.csv", index=False)
    settings = {"data.text_column": "comment", "data.label_column": "verdict"}
    result = package.train(
        str(folder / "own.csv"), "tfidf-lr", settings=settings, runs=folder / "runs"
    )
    return folder / "runs" / result.key / "model"


def truth(folder: Path, labels: list[Any], classes: tuple[str, ...] = CLASSES) -> Any:
    path = folder / "truth.csv"
    ROWS.assign(label=[labels[i % len(labels)] for i in range(len(ROWS))]).to_csv(path, index=False)
    return load_split(DataSpec(name=str(path)), classes)


STARS = ("1", "2", "3", "4", "5")


@pytest.mark.parametrize("stray", ["0", "6", "x", "-1", "①"])
def test_07_one_stray_label_is_an_error_with_its_row(stray: str, tmp_path: Path) -> None:
    labels = [*STARS * 23, "1", "2", stray, "4", "5"]
    with pytest.raises(
        DataError, match=f"row 118: unknown label '{stray}'; the classes are 1, 2, 3"
    ):
        truth(tmp_path, labels, STARS)
    assert len(truth(tmp_path, list(STARS), STARS).rows) == 120


def test_08_positions_of_named_classes_are_said_with_the_mapping(tmp_path: Path) -> None:
    read = truth(tmp_path, ["0", "1", "2"])
    assert list(read.rows.labels[:3]) == [0, 1, 2]
    assert any("0 = bad, 1 = good, 2 = meh" in note for note in read.notes)
    assert not any("position" in note for note in truth(tmp_path, ["bad", "good"]).notes)


@pytest.mark.parametrize("labels", [["1", "2", "3"], ["3"], ["1", "3"]])
def test_08_counts_from_one_are_refused_with_a_hint(labels: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="may number the classes bad, good, meh from 1; use"):
        truth(tmp_path, labels)


@pytest.mark.parametrize("labels", [["1", "2"], ["1"], ["2"]])
def test_08_numbers_that_may_start_at_0_or_at_1_are_refused(
    labels: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="the classes bad, good, meh from 0 or from 1; use the nam"):
        truth(tmp_path, labels)
    assert list(truth(tmp_path, ["0", "2"]).rows.labels[:2]) == [0, 2]


@pytest.mark.parametrize("labels", [["0", "1", "4"], ["0", "bad"], ["-1", "1"], ["--2", "1"]])
def test_08_other_numbers_are_unknown_labels(labels: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row \d+: unknown label '.*'; the classes are"):
        truth(tmp_path, labels)


def test_08_a_label_in_other_case_has_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="write 'bad', or use --normalize-labels"):
        truth(tmp_path, ["BAD", "good"])
    path = tmp_path / "truth.csv"
    spec = DataSpec(name=str(path), normalize_labels=True)
    assert list(load_split(spec, CLASSES).rows.labels[:2]) == [0, 1]


def test_16_numbers_with_and_without_decimals_are_the_same_class(tmp_path: Path) -> None:
    read = truth(tmp_path, ["1", "2", "10"], ("1.0", "2.0", "10.0"))
    assert list(read.rows.labels[:3]) == [0, 1, 2]
    assert any("are one class" in note for note in read.notes)


def test_columns_of_the_training_are_found_again(
    trained: Path, tmp_path: Path, valence: Any
) -> None:
    predictor = Predictor(trained)
    assert predictor.config.data is not None
    assert predictor.config.data.text_column == "comment"
    expected = predictor.predict(list(OWN["comment"]))
    assert list(predictor.table(OWN)["label"]) == expected
    assert predictor.predict(OWN[["title", "comment"]]) == expected
    OWN[["title", "comment"]].to_csv(tmp_path / "new.csv", index=False)
    code, _, error = valence("predict", trained, tmp_path / "new.csv", "--out", tmp_path / "o.csv")
    assert code == 0, error
    assert "column 'comment'" in error
    assert list(pd.read_csv(tmp_path / "o.csv")["label"]) == expected
    OWN.to_csv(tmp_path / "truth.csv", index=False)
    code, _, error = valence("evaluate", trained, tmp_path / "truth.csv")
    assert code == 0, error


@pytest.mark.parametrize(
    "name", ["file.txt", "notes.docx", "missing.csv", "file.xlxs", "archive.7z", "file.json"]
)
def test_a_file_that_is_not_read_is_no_text(
    name: str, trained: Path, tmp_path: Path, valence: Any
) -> None:
    if name != "missing.csv":
        (tmp_path / name).write_text("good film\n")
    for out in ([], ["--out", "out.csv"]):
        code, printed, error = valence("predict", trained, name, *out)
        assert (code, printed) == (1, "")
        assert name in error


def test_a_sheet_is_read(trained: Path, tmp_path: Path, valence: Any) -> None:
    pytest.importorskip("python_calamine", reason="python-calamine is not installed")
    write_ods(tmp_path / "file.ods", {"one": [["comment"], *([t] for t in OWN["comment"][:9])]})
    code, _, error = valence("predict", trained, "file.ods", "--out", "out.csv")
    assert code == 0, error
    assert len(pd.read_csv(tmp_path / "out.csv")) == 9
    code, printed, error = valence("predict", trained, "file.ods")
    assert (code, printed) == (1, "")
    assert "--out" in error


def test_the_file_that_is_read_is_not_written(trained: Path, tmp_path: Path, valence: Any) -> None:
    OWN.to_csv(tmp_path / "a.csv", index=False)
    before = (tmp_path / "a.csv").read_bytes()
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    for out in ("a.csv", "./a.csv", "link.csv"):
        code, _, error = valence("predict", trained, "a.csv", "--out", out)
        assert code == 1
        assert "is the input file" in error
    assert (tmp_path / "a.csv").read_bytes() == before


def test_a_table_without_a_header_loses_no_row(trained: Path, tmp_path: Path, valence: Any) -> None:
    ROWS.to_csv(tmp_path / "a.csv", index=False, header=False)
    code, _, error = valence("predict", trained, "a.csv", "--out", "out.csv")
    assert code == 1
    assert "--no-header" in error
    code, _, error = valence("predict", trained, "a.csv", "--out", "out.csv", "--no-header")
    assert code == 0, error
    assert len(pd.read_csv(tmp_path / "out.csv")) == 120


def test_one_text_is_no_list_of_letters(trained: Path) -> None:
    predictor = Predictor(trained)
    for call in (predictor.predict, predictor.predict_proba, predictor.table, predictor.columns):
        with pytest.raises(DataError, match="list of texts, not a single text"):
            call("good film")
    classifier = package.SentimentClassifier.load(trained)
    with pytest.raises(DataError, match="list of texts, not a single text"):
        classifier.predict("good film")


def test_frames_are_read_by_their_columns(trained: Path, tmp_path: Path) -> None:
    classifier = package.SentimentClassifier.load(trained)
    assert list(classifier.predict(OWN[["comment"]])) == Predictor(trained).predict(OWN)
    frame = OWN.rename(columns={"comment": "text", "verdict": "label"})
    outcome = package.compare(frame, ["majority"], seeds=[1], runs=tmp_path / "runs")
    (result,) = outcome.results
    assert result.classes == CLASSES


def test_a_path_and_a_string_are_read_alike(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "x.csv", index=False)
    one = load_dataset(str(tmp_path / "x.csv"), seed=1)
    assert one.fingerprint == load_dataset(tmp_path / "x.csv", seed=1).fingerprint
    assert one.fingerprint == package.load_dataset(str(tmp_path / "x.csv"), seed=1).fingerprint


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
def test_a_sheet_without_a_header_loses_no_row(
    suffix: str, trained: Path, tmp_path: Path, valence: Any
) -> None:
    """Whether the first row shows by its length or by a label that others have."""
    rows = make_reviews(40)
    path = tmp_path / f"rows.{suffix}"
    if suffix == "xlsx":
        rows.to_excel(path, header=False, index=False)
    else:
        rows.to_csv(path, header=False, index=False, sep="\t" if suffix == "tsv" else ",")
    code, _, error = valence("predict", trained, path, "--out", tmp_path / "out.csv")
    assert code == 1
    assert "--no-header" in error
    assert not (tmp_path / "out.csv").exists()


def test_a_marker_column_is_no_label_of_a_missing_header(
    trained: Path, tmp_path: Path, valence: Any
) -> None:
    rows = make_reviews(40).rename(columns={"text": "what they wrote"}).drop(columns="label")
    marked = rows.assign(verified=["verified", ""] * 20)
    marked.to_csv(tmp_path / "rows.csv", index=False)
    code, _, error = valence(
        "predict", trained, tmp_path / "rows.csv", "--out", tmp_path / "out.csv"
    )
    assert code == 0, error
    assert len(pd.read_csv(tmp_path / "out.csv")) == 40


def test_two_columns_of_texts_of_one_name_are_refused(
    trained: Path, tmp_path: Path, valence: Any
) -> None:
    (tmp_path / "rows.csv").write_text("text,text\n" + "good film,bad film\n" * 20)
    code, _, error = valence("predict", trained, tmp_path / "rows.csv", "--out", "out.csv")
    assert code == 1
    assert "several columns are named 'text'" in error


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_lists_of_one_text_are_unwrapped_and_others_refused(
    suffix: str, trained: Path, tmp_path: Path, valence: Any
) -> None:
    def predicted(texts: list[Any]) -> tuple[int, str]:
        frame = pd.DataFrame({"text": texts})
        path = tmp_path / f"rows.{suffix}"
        if suffix == "jsonl":
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_parquet(path)
        code, _, error = valence("predict", trained, path, "--out", tmp_path / "out.csv")
        return code, error

    code, error = predicted([["good film"], ["bad film"]])
    assert code == 0, error
    assert "every text is read from a list of one value" in error
    nested = pd.read_csv(tmp_path / "out.csv")
    predicted(["good film", "bad film"])
    plain = pd.read_csv(tmp_path / "out.csv")
    columns = [name for name in plain.columns if name != "text"]
    pd.testing.assert_frame_equal(nested[columns], plain[columns])
    code, error = predicted([["good film"], ["bad", "film"]])
    assert code == 1
    assert "row 2 is a list of 2" in error
    code, error = predicted([{"a": "good"}, {"a": "bad"}])
    assert code == 1
    assert "is an object with 'a'" in error


def test_messages_show_the_beginning_of_a_long_label(tmp_path: Path) -> None:
    rows = make_reviews(40)
    rows.to_csv(tmp_path / "train.csv", index=False)
    rows.assign(label="x" * 5000).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match="label 'xxx") as error:
        load_dataset(DataSpec(name=str(tmp_path)))
    assert len(str(error.value)) < 400
