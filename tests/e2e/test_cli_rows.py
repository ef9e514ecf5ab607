"""Which rows a command reads: the same of one source for every command, and said how many."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import valence as package
from tests.conftest import make_reviews
from tests.unit.serving.conftest import make_numbers
from tests.unit.serving.conftest import numeric_model as numeric_model
from valence.inference.export import export
from valence.models.config_file import read_config

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    make_reviews(140).to_csv(folder / "reviews.csv", index=False)
    result = package.train(str(folder / "reviews.csv"), "tfidf-lr", runs=folder / "runs")
    return folder / "runs" / result.key / "model"


def split_folder(folder: Path) -> Path:
    folder.mkdir()
    for i, (name, rows) in enumerate((("train", 70), ("validation", 28), ("test", 35))):
        make_reviews(rows, seed=i).to_csv(folder / f"{name}.csv", index=False)
    return folder


def last_record(model: Path) -> Any:
    return json.loads((model / "report" / "results.json").read_text())[-1]


def test_evaluate_of_numbers_scores_every_row_of_a_file(
    valence: Call, numeric_model: Path, tmp_path: Path
) -> None:
    make_numbers(100, seed=3).to_csv(tmp_path / "numbers.csv", index=False)
    code, out, err = valence("evaluate", numeric_model, "numbers.csv", "--json", "--out", "record")
    assert code == 0, err
    assert err.splitlines()[-1] == "100 rows of numbers.csv"
    record = json.loads((tmp_path / "record" / "results.json").read_text())[-1]
    assert record["rows"] == 100
    assert json.loads(out)["mae"] == record["metrics"]["mae"]
    mode = ["train"] * 60 + ["valid"] * 30 + ["test"] * 10
    make_numbers(100, seed=3).assign(mode=mode).to_csv(tmp_path / "modes.csv", index=False)
    for words, counted in (
        ((), "10 rows of modes.csv (test)"),
        (("--split", "validation"), "30 rows of modes.csv (validation)"),
    ):
        code, _, err = valence("evaluate", numeric_model, "modes.csv", *words, "--out", "record")
        assert (code, err.splitlines()[-1]) == (0, counted)


def test_evaluate_of_classes_takes_all_of_a_file_and_a_split_of_a_folder(
    valence: Call, model: Path, tmp_path: Path
) -> None:
    make_reviews(91, seed=3).to_csv(tmp_path / "new.csv", index=False)
    split_folder(tmp_path / "corpus")
    for words, counted in (
        (("new.csv",), "91 rows of new.csv"),
        (("corpus",), "35 rows of corpus (test)"),
        (("corpus", "--split", "train"), "70 rows of corpus (train)"),
        (("demo-of-nothing.csv",), None),
        (("corpus", "--split", "tests"), None),
        (("corpus", "--set", "data.train_total=9"), None),
        (("corpus", "--set", "train.epochs=9"), None),
    ):
        code, _, err = valence("evaluate", model, *words, "--out", "record")
        assert code == (1 if counted is None else 0)
        assert counted is None or err.splitlines()[-1] == counted
        assert len(err.strip().splitlines()) == 1


def test_evaluate_of_groups(valence: Call, model: Path, tmp_path: Path) -> None:
    frame = make_reviews(70, seed=3)
    frame["place"] = ["inn", "bar"] * 35
    frame.to_csv(tmp_path / "places.csv", index=False)
    words = ("evaluate", model, "places.csv", "--group", "place", "--out", "record")
    code, out, err = valence(*words, "--json")
    assert code == 0, err
    found = json.loads(out)["groups"]
    assert {name: row["rows"] for name, row in found.items()} == {"bar": 35, "inn": 35}
    code, out, err = valence(*words, "--groups", "bar")
    assert (code, err.splitlines()[-1]) == (0, "35 rows of places.csv")
    assert out.splitlines()[-1].startswith("bar\t35\t")
    assert found["bar"]["accuracy"] == pytest.approx(
        float(out.splitlines()[-1].split("\t")[-1]), abs=1e-3
    )
    code, _, err = valence(*words, "--groups", "pub")
    assert (code, "Unknown place 'pub'" in err) == (1, True)


def test_calibrate_takes_the_same_rows(
    valence: Call, model: Path, numeric_model: Path, tmp_path: Path
) -> None:
    make_reviews(91, seed=3).to_csv(tmp_path / "new.csv", index=False)
    split_folder(tmp_path / "corpus")
    for words, counted in (
        (("--data", "new.csv"), "91 rows of new.csv"),
        (("--data", "corpus"), "28 rows of corpus (validation)"),
        (("--data", "corpus", "--split", "test"), "35 rows of corpus (test)"),
        ((), "11 rows of the training's data (validation)"),
    ):
        code, out, err = valence("calibrate", model, *words, "--json")
        assert code == 0, err
        assert err.splitlines()[0] == counted
        assert json.loads(out)["calibration"]["rows"] == int(counted.split()[0])
    assert valence("calibrate", model, "--off")[0] == 0
    code, _, err = valence("calibrate", model, "--label-column", "stars")
    assert (code, "needs --data" in err) == (1, True)
    code, _, err = valence("calibrate", numeric_model)
    assert (code, "there are no probabilities to calibrate" in err) == (1, True)


@dataclass
class Exported:
    """What an export was called with."""

    sizes: tuple[int, int] = (0, 0)

    def __call__(self, model: Path, out: Path, data: Any, *, options: Any) -> dict[str, Any]:
        self.sizes = len(data.train), len(data.validation)
        titles = dict.fromkeys(("macro_f1", "macro_recall", "worst_f1"), (0.5, 0.5))
        return {"rows": self.sizes[1], "flips": 0.0, "largest_difference": 0.0, **titles}


def test_export_takes_the_same_rows(
    valence: Call, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = Exported()
    monkeypatch.setattr(export, "export_model", exported)
    make_reviews(600, seed=3).rename(columns={"text": "body"}).to_csv("rows.csv", index=False)
    split_folder(tmp_path / "corpus")
    for words, sizes, counted in (
        (("--data", "rows.csv", "--text-column", "body"), (600, 600), "600 rows of rows.csv"),
        (("--data", "corpus"), (70, 28), "28 rows of corpus (validation)"),
        (("--data", "corpus", "--split", "train"), (70, 70), "70 rows of corpus (train)"),
        ((), (101, 11), "11 rows of the training's data (validation)"),
    ):
        code, _, err = valence("export", model, "--out", "exported", *words)
        assert code == 0, err
        assert exported.sizes == sizes
        assert err.splitlines()[0].endswith(f"checked on {counted}")
    monkeypatch.setattr(export, "CHECKED_ROWS", 500)
    words = ("--data", "rows.csv", "--text-column", "body")
    err = valence("export", model, "--out", "exported", *words)[2]
    assert err.splitlines()[0].endswith("checked on 500 of 600 rows of rows.csv")


def test_explain_says_whose_rows_are_near(valence: Call, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    make_reviews(91, seed=3).to_csv(tmp_path / "new.csv", index=False)
    split_folder(tmp_path / "corpus")
    for words, counted in (
        (("--data", "new.csv"), "The nearest of 91 rows of new.csv"),
        (("--data", "corpus"), "The nearest of 70 rows of corpus (train)"),
    ):
        for name in ("--neighbors", "--neighbours"):  # the old name is read too
            code, _, err = valence("explain", model, "good food", *words, name, "2")
            assert code == 0, err
            assert counted in err
            assert "training texts" not in err


def test_what_drifted_apart_is_there(valence: Call, tmp_path: Path, tiny_words: list[str]) -> None:
    """Options that single commands lacked: a query, columns, a group, an encoding."""
    frame = make_reviews(140).assign(place=["inn", "bar"] * 70)
    with sqlite3.connect(tmp_path / "rows.db") as base:
        frame.to_sql("rows", base, index=False)
        frame.head(3).to_sql("others", base, index=False)
    base.close()
    url = f"sqlite:///{tmp_path}/rows.db"
    query = "SELECT * FROM rows WHERE label <> 'meh'"
    code, _, err = valence("data", "longtail", url, "--query", query, "--ratio", 4, "--out", "cut")
    assert code == 0, err
    assert set(pd.read_csv(tmp_path / "cut" / "train.csv")["label"]) == {"good", "bad"}
    code, out, err = valence("data", "longtail", url, "--table", "rows", "--ratio", 4, "--out",
                             "cut", "--json", "--quiet")  # fmt: skip
    assert (code, err, len(json.loads(out)["classes"])) == (0, "", 3)
    words = ("--method", "majority", "--group", "place", "--groups", "bar", "--table", "rows")
    code, _, err = valence("train", url, *words, "--out", "model", "--json")
    assert code == 0, err
    data = read_config(tmp_path / "model").data
    assert (data.group, data.groups, data.table) == ("place", ("bar",), "rows")
    code, out, err = valence("audit", url, "--fast", "--table", "rows", "--group", "place",
                             "--groups", "bar", "--json", "--fix", "fixed", "--quiet")  # fmt: skip
    assert (code, json.loads(out)["rows"]) == (0, {"all": 70}), err
    assert list(pd.read_csv(next((tmp_path / "fixed").glob("*.csv")))) == list(frame)
    to = ("--to", f"sqlite:///{tmp_path}/copy.db")
    code, out, err = valence("data", "import", url, *to, "--from-table", "rows", "--group",
                             "place", "--groups", "inn", "--json", "--quiet")  # fmt: skip
    assert (code, json.loads(out)["added"]) == (0, 70), err


def test_an_encoding_is_named_once_and_everywhere(valence: Call, tmp_path: Path) -> None:
    frame = make_reviews(140)
    frame["text"] = frame["text"] + " café"
    frame.to_csv("latin.csv", index=False, encoding="latin-1")
    frame.to_csv("utf8.csv", index=False, encoding="utf-8-sig")
    train = ("train", "latin.csv", "--method", "tfidf-lr", "--out", "model")
    code, _, err = valence(*train)
    assert (code, err) == (
        1, "Error: latin.csv, line 2: not UTF-8, probably cp1252; try --encoding cp1252 and "
        "check the texts\n",
    )  # fmt: skip
    latin = ("--encoding", "latin-1")
    assert valence(*train, *latin, "--quiet")[0] == 0
    assert read_config(tmp_path / "model").data.encoding == "iso8859-1"
    scores = [
        valence("evaluate", "model", *words, "--json", "--quiet")[1]
        for words in (("latin.csv", *latin), ("utf8.csv",), ("utf8.csv", "--encoding", "UTF-8"))
    ]
    assert scores[0] == scores[1] == scores[2]
    assert valence("predict", "model", "latin.csv", *latin, "--out", "scored.csv")[0] == 0
    assert list(pd.read_csv("scored.csv")["text"]) == list(frame["text"])
    (tmp_path / "parts").mkdir()
    frame.to_csv("parts/a.csv", index=False, encoding="latin-1")
    assert valence("predict", "model", "parts", *latin, "--out", "scored")[0] == 0
    assert list(pd.read_csv("scored/a.csv")["text"]) == list(frame["text"])
    frame.to_json("latin.jsonl", orient="records", lines=True, force_ascii=False)
    text = Path("latin.jsonl").read_text(encoding="utf-8")
    Path("latin.jsonl").write_text(text, encoding="cp1252")
    code, out, _ = valence("data", "show", "latin.jsonl", "--encoding", "cp1252", "--json")
    assert (code, len(json.loads(out)["classes"])) == (0, 3)
    for words, said in (
        (("evaluate", "model", "latin.csv", "--encoding", "ascii"), "line 2: not ascii; set"),
        (("evaluate", "model", "latin.csv", "--encoding", "utf9"), "Encoding 'utf9' is unknown"),
        (("evaluate", "model", "demo", *latin), "remove --encoding"),
        (("predict", "model", "a.parquet", *latin, "--out", "b.csv"), "remove --encoding"),
        (("predict", "model", "sqlite:///a.db", *latin, "--out", "b.csv"), "is for files"),
        (("llm", "finetune", "x", "--out", "y", "--model", "m", *latin), "need --unlabeled"),
    ):
        frame.to_parquet("a.parquet")
        code, _, err = valence(*words)
        assert (code, len(err.strip().splitlines())) == (1, 1), err
        assert said in err


def test_a_killed_prediction_does_not_go_on_with_another_prior(
    valence: Call, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valence.inference.bulk import stream

    make_reviews(90, seed=3).to_csv(tmp_path / "big.csv", index=False)
    add = stream.Parts.add
    monkeypatch.setattr(stream, "PART_ROWS", 30)

    def killed(self: Any, number: int, *rest: Any) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return add(self, number, *rest)

    words = ("predict", model, "big.csv", "--out", "scored.csv", "--target-prior")
    with monkeypatch.context() as patch:
        patch.setattr(stream.Parts, "add", killed)
        patch.setattr(stream.StreamOptions, "__init__", _small(stream.StreamOptions.__init__))
        assert valence(*words, "bad=.98,good=.01,meh=.01")[0] == 130
    monkeypatch.setattr(stream.StreamOptions, "__init__", _small(stream.StreamOptions.__init__))
    code, _, err = valence(*words, "bad=.01,good=.98,meh=.01", "--resume")
    assert (code, "60 rows made with another target prior" in err) == (1, True), err
    assert not (tmp_path / "scored.csv").exists()
    code, _, err = valence(*words, "bad=.98,good=.01,meh=.01", "--resume", "--json")
    assert (code, "60 rows were already done" in err) == (0, True), err


def _small(make: Callable[..., None]) -> Callable[..., None]:
    def options(self: Any, *values: Any, **named: Any) -> None:
        make(self, *values, **{**named, "part_rows": 30})

    return options
