"""The command line as a person uses it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, reviews: Path, tiny_words: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    words = ["train", str(reviews), "--out", str(folder / "model"), "--runs", str(folder / "runs")]
    done = subprocess.run(
        [sys.executable, "-m", "valence", *words, *tiny_words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "macro-F1" in done.stdout
    assert "Note: test split drawn at random" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    return folder / "model"


def test_predict_texts_a_file_and_stdin(
    valence, model: Path, reviews: Path, tmp_path: Path
) -> None:
    code, out, _ = valence("predict", model, "the food was awful", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found[0]) == {"text", "label", "prob_bad", "prob_good", "prob_meh"}
    assert sum(v for k, v in found[0].items() if k.startswith("prob_")) == pytest.approx(
        1, abs=1e-4
    )

    code, _, err = valence("predict", model, reviews, "--out", "scored.parquet")
    scored = pd.read_parquet(tmp_path / "scored.parquet")
    given = pd.read_csv(reviews)
    assert code == 0
    assert "140 rows" in err
    assert list(scored["text"]) == list(given["text"])
    assert list(scored["label_given"]) == list(given["label"])
    single = valence("predict", model, given["text"][3], "--json")
    assert json.loads(single[1])[0]["prob_bad"] == pytest.approx(scored["prob_bad"][3], abs=1e-5)


def test_evaluate_equals_the_scores_of_training(valence, model: Path, reviews: Path) -> None:
    code, out, _ = valence("evaluate", model, reviews, "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] > 0.3


def test_evaluate_measures_representations(valence, model: Path, reviews: Path) -> None:
    words = ("evaluate", model, reviews, "--representations")
    measured = json.loads(valence(*words, "--json")[1])["representations"]
    assert set(measured["per_class"]) == {"bad", "good", "meh"}
    assert measured["within_between"] > 0
    assert measured["effective_rank"] > 1
    own = [values["margin"] for values in measured["per_class"].values()]
    assert measured["margin"] == pytest.approx(sum(own) / 3, abs=1e-6)
    record = json.loads((model / "report" / "results.json").read_text())[-1]
    assert record["representations"]["effective_rank"] == pytest.approx(measured["effective_rank"])
    shown = valence(*words)[1]
    assert "within/between" in shown
    assert "nearest class" in shown


def test_evaluate_refuses_representations_of_a_model_without(
    valence, reviews: Path, tmp_path: Path
) -> None:
    assert valence("train", reviews, "--method", "tfidf-lr", "--out", "words")[0] == 0
    code, _, err = valence("evaluate", "words", reviews, "--representations", "--out", "record")
    assert code != 0
    assert err.splitlines()[-1].endswith("has no features; leave out --representations")
    assert not (tmp_path / "record").exists()


def test_compare_writes_everything_and_runs_only_what_is_missing(
    valence, reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    words = [
        "compare", reviews, "--methods", "majority,tfidf-lr,lora,lora-posthoc,hy-mora",
        "--seeds", "2", "--sweep", "loss.temperature=.1,.5", "--baseline", "lora", *tiny_words,
    ]  # fmt: skip
    code, out, err = valence(*words)
    assert code == 0, err
    assert out.splitlines()[0].startswith("method\tseeds\tmacro-F1")
    assert len(out.splitlines()) == 6
    report = tmp_path / "report"
    page = (report / "report.html").read_text()
    assert len(pd.read_csv(report / "results.csv")) == 14
    assert set(pd.read_csv(report / "sensitivity.csv")["loss.temperature"]) == {0.1, 0.5}
    assert len(list((report / "features").glob("*.npz"))) == 10
    cases = pd.read_csv(next((report / "cases").glob("*hy-mora*.csv")))
    assert list(cases) == ["id", "text", "true", "predicted", "probability"]
    assert "± " in (report / "summary.md").read_text()
    assert len(list((report / "pictures").glob("*.png"))) == 10
    features = pd.read_csv(report / "representations.csv")
    assert sorted(set(features["name"])) == ["hy-mora", "lora", "lora-posthoc"]
    assert features["effective_rank"].gt(1).all()
    assert page.count("data-chart=") >= 9
    assert not re.search(r"<[^>]+(src|href)=", page.partition("<script>")[0]), "nothing is fetched"
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/result.json")}
    code, again, _ = valence(*words)
    assert (code, again) == (0, out)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/result.json")} == before


def test_failed_cell_is_told_and_the_exit_code_says_so(
    valence, reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    words = ["--set", "encoder.lora_targets=[nothing]", "--seeds", "1"]
    code, out, err = valence("compare", reviews, "--methods", "majority,lora", *tiny_words, *words)
    assert code == 1
    assert "majority" in out
    assert "Failed: lora seed 45" in err
    assert "1 of 2 runs failed" in err
    assert "has no layers named nothing" in (tmp_path / "report/report.html").read_text()


def test_names_in_data_are_escaped(valence, tmp_path: Path) -> None:
    rows = [
        {"text": f"<b>{i}</b>", "label": "<script>x</script>" if i % 3 else "b"} for i in range(60)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "odd.csv", index=False)
    code, _, err = valence("compare", "odd.csv", "--methods", "majority,tfidf-lr", "--seeds", "1")
    assert code == 0, err
    assert "<script>x" not in (tmp_path / "report/report.html").read_text()


ERRORS = {
    "unknown method": (["compare", "--methods", "hymora"], "did you mean 'hy-mora'"),
    "unknown setting": (["compare", "--set", "train.epoch=3"], "did you mean 'train.epochs'"),
    "unknown data": (["compare", "sst-5"], "did you mean 'sst5'"),
    "no such file": (["train", "rows.csv", "--out", "m"], "File rows.csv does not exist"),
    "no model": (["predict", "nowhere", "text"], "No model folder at nowhere"),
    "no target": (["predict", "nowhere", "sqlite:///rows.db"], "--out scored.csv"),
    "no such table": (["predict", "nowhere", "rows.csv"], "File rows.csv does not exist"),
    "no config": (["compare", "--config", "none.yaml"], "none.yaml cannot be read"),
    "seeds": (["compare", "--seeds", "many"], "not whole numbers"),
    "baseline": (["compare", "--methods", "lora", "--baseline", "full"], "not among"),
    "no cut": (["data", "longtail", "demo", "--out", "x"], "--ratio 20"),
    "no methods file": (["data", "show", "./nothing"], "Unknown file or data set"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_error_is_one_line_and_an_exit_code(valence, case: str) -> None:
    words, expected = ERRORS[case]
    code, out, err = valence(*words)
    assert code == 1
    assert expected in err
    lines = [line for line in err.splitlines() if line]
    assert lines[-1].startswith("Error: ")
    assert "Traceback" not in err
    assert out == ""


def test_unexpected_error_shows_no_traceback(valence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VALENCE_DEBUG", raising=False)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of a kind nobody foresaw")

    monkeypatch.setattr("valence.data.sources.load_dataset", broken)
    code, _, err = valence("data", "show", "demo")
    assert code == 70
    assert err.startswith("Unexpected error: ZeroDivisionError: of a kind nobody foresaw")
    assert len(err.splitlines()) == 1


def test_lists_and_shows(valence, tmp_path: Path) -> None:
    assert "hy-mora" in valence("methods")[1]
    assert set(json.loads(valence("data", "list", "--json")[1])) >= {"demo", "sst5"}
    assert "very negative *\t30\t40\t80" in valence("data", "show", "demo")[1]
    code, _, _ = valence("data", "longtail", "demo", "--out", "cut", "--ratio", "6")
    assert code == 0
    counts = pd.read_csv(tmp_path / "cut/train.csv")["label"].value_counts()
    assert counts.max() / counts.min() == pytest.approx(6, rel=0.1)
    assert len(pd.read_csv(tmp_path / "cut/test.csv")) == 400
    plan = json.loads(valence("compare", "--dry-run", "--json")[1])
    assert {spec["method"] for spec in plan} >= {"majority", "hy-mora"}


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, valence.cli; sys.argv = ['valence', '--help']\n"
        "try: valence.cli.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'sklearn', 'matplotlib', 'pydantic'}\n"
        "sys.stderr.write(' '.join(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "compare" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_kill_in_the_middle_of_a_grid_loses_nothing(
    reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    words = [
        sys.executable, "-m", "valence", "compare", str(reviews), "--methods", "majority,lora",
        "--seeds", "1", *tiny_words, "--set", "train.epochs=40", "--set", "train.patience=99",
    ]  # fmt: skip
    running = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL)
    waiting = time.monotonic() + 120
    while not list(tmp_path.glob("runs/.unfinished/*lora*/checkpoint-*/trainer_state.json")):
        assert time.monotonic() < waiting
        assert running.poll() is None
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 2
    assert not list(tmp_path.glob("runs/.unfinished/*"))


def test_cache_is_listed_and_cleared(
    valence, reviews: Path, tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "own"))
    small = ["--set", "head.hidden_size=16"]
    code, _, err = valence("compare", reviews, "--methods", "lstm-roberta", "--seeds", "2",
                           *tiny_words, *small)  # fmt: skip
    assert code == 0, err
    code, out, _ = valence("cache", "ls", "--json")
    kept = json.loads(out)
    assert {entry["kind"] for entry in kept} == {"states"}
    assert sum(entry["texts"] for entry in kept) <= 140, "seeds share the texts"
    code, out, err = valence("cache", "ls", "--kind", "states")
    assert out.splitlines()[0] == "kind\twhat\tsize\tlast used (UTC)"
    assert valence("cache", "clear", "--kind", "state")[0] == 1
    code, _, err = valence("cache", "clear", "--kind", "states")
    assert code == 0
    assert "Freed" in err
    assert json.loads(valence("cache", "ls", "--json")[1]) == []
