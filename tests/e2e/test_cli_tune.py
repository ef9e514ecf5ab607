"""Tuning, training and further training as a person does them, kills included."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import make_reviews

pytest.importorskip("optuna")
WAIT_SECONDS = 120


def test_best_yaml_goes_through_train(
    valence, reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    words = ["--method", "lora", "--method", "tfidf-lr", "--trials", "2", "--epochs", "1"]
    code, out, err = valence("tune", reviews, *words, *tiny_words, "--sample", ".5")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split("\t")[:4] == ["method", "trials", "pruned", "failed"]
    assert [line.split("\t")[0] for line in lines[1:]] == ["lora", "tfidf-lr"]
    folder = tmp_path / "tuning" / "reviews-lora"
    assert {p.name for p in folder.iterdir()} >= {
        "best.yaml", "trials.csv", "history.png", "parallel.png", "results.json", "confusion.png"
    }  # fmt: skip
    record = json.loads((folder / "results.json").read_text())[0]
    assert (record["model"], record["mode"]) == ("lora", "tune")
    assert set(record["chosen"]) == set(pd.read_csv(folder / "trials.csv")) & set(record["chosen"])
    code, out, err = valence(
        "train", reviews, "--config", folder / "best.yaml", "--out", "best", "--json"
    )
    assert code == 0, err
    scores = json.loads(out)
    assert scores.pop("confusion")
    assert set(scores.pop("per_class")) == {"bad", "good", "meh"}
    assert scores == record["metrics"]["test"]
    assert len(list((tmp_path / "runs").glob("*lora*"))) == 1, "tune's final run is that run"


def test_several_methods_and_a_record_beside_each(
    valence, reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    words = ["--method", "lora", "--method", "majority", "--out", "models/x", *tiny_words]
    code, out, err = valence("--log-file", "logs/a.log", "train", reviews, *words)
    assert code == 0, err
    assert out.splitlines()[0].startswith("method\tmacro-F1")
    for name in ("lora", "majority"):
        assert (tmp_path / "models/x" / name / "config.json").exists()
        assert (tmp_path / "models/x" / name / "report/confusion.png").exists()
    log = (tmp_path / "logs/a.log").read_text()
    assert "Model: models/x/lora" in log
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", log)
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in log.splitlines())
    said = [line.rstrip() for line in err.splitlines() if line.strip()]
    assert [line[20:] for line in log.splitlines()] == said

    model = tmp_path / "models/x/lora"
    assert valence("evaluate", model, reviews, "--json")[0] == 0
    assert valence("train", reviews, *words)[0] == 0
    entries = json.loads((model / "report/results.json").read_text())
    assert [entry["mode"] for entry in entries] == ["train", "evaluate", "train"]
    assert {"text", "true", "predicted", "probability"} == set(entries[1]["examples"][0])
    assert valence("predict", model, "the food was awful")[0] == 0


def test_training_goes_on_with_new_rows(
    valence, reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    frame = make_reviews(120, seed=3)
    frame.loc[frame.index % 5 == 0, "label"] = "odd"
    frame.to_csv(tmp_path / "new.csv", index=False)
    assert valence("train", reviews, "--method", "lora", "--out", "x", *tiny_words)[0] == 0
    code, out, err = valence("train", "new.csv", "--from", "x", "--out", "y")
    assert (code, out) == (1, "")
    assert "new.csv has a label that x does not know: odd" in err.splitlines()[-1]
    code, out, err = valence("train", "new.csv", "--from", "x", "--out", "y", "--extend-labels")
    assert code == 0, err
    assert "odd" in [line.split("\t")[0] for line in out.splitlines()]
    assert json.loads((tmp_path / "y/report/results.json").read_text())[0]["mode"] == "continue"
    found = json.loads(valence("predict", "y", "the food was awful", "--json")[1])
    assert set(found[0]) >= {"prob_odd", "prob_bad", "prob_good", "prob_meh"}


ERRORS = {
    "nothing to tune": (["tune", "demo", "--method", "majority"], "has nothing to tune"),
    "unknown method": (["tune", "demo", "--method", "hymora"], "did you mean 'hy-mora'"),
    "no space file": (
        ["tune", "demo", "--method", "lora", "--space", "no.yaml"], "no.yaml cannot be read"
    ),
    "storage": (
        ["tune", "demo", "--method", "tfidf-lr", "--storage", "nonsense"], "check --storage"
    ),
    "two sources": (
        ["train", "demo", "--out", "m", "--method", "lora", "--from", "x"], "Use only one of"
    ),
    "extend what": (["train", "demo", "--out", "m", "--extend-labels"], "needs --from"),
    "no config": (["train", "demo", "--out", "m", "--config", "no.yaml"], "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error_is_one_line_and_an_exit_code(valence, case: str) -> None:
    words, expected = ERRORS[case]
    code, out, err = valence(*words)
    assert (code, out) == (1, "")
    assert expected in err.splitlines()[-1]
    assert "Traceback" not in err


def command(data: Path, tiny_words: list[str], *more: str) -> list[str]:
    return [sys.executable, "-m", "valence", "tune", str(data), "--method", "lora", "--no-final",
            *tiny_words, *more]  # fmt: skip


def states(folder: Path) -> list[str]:
    """States of the trials in the study's file; read past Optuna, so that no cache answers."""
    path = folder / "tuning/reviews-lora.db"
    if not path.exists():
        return []
    connection = sqlite3.connect(path, timeout=60)
    try:
        rows = connection.execute("select state from trials order by trial_id").fetchall()
    except sqlite3.OperationalError:  # the tables are not made yet
        return []
    finally:
        connection.close()
    return [row[0] for row in rows]


def wait_until(met: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not met():
        assert time.monotonic() < end
        assert running.poll() is None
        time.sleep(0.05)


@pytest.mark.slow
def test_two_workers_and_a_second_command_share_a_study(
    reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    words = command(reviews, tiny_words, "--trials", "14", "--epochs", "1")
    first = subprocess.Popen([*words, "--workers", "2"], cwd=tmp_path, text=True,
                             stderr=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    second = subprocess.Popen(words, cwd=tmp_path, text=True,
                              stderr=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    for process in (first, second):
        _, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        assert "locked" not in err
        assert "Traceback" not in err
    found = states(tmp_path)
    assert sum(state in ("COMPLETE", "PRUNED") for state in found) == 14
    assert "RUNNING" not in found
    table = pd.read_csv(tmp_path / "tuning/reviews-lora/trials.csv")
    assert len(table) == 14
    assert table["trial"].is_unique
    connection = sqlite3.connect(tmp_path / "tuning/reviews-lora.db")
    workers = connection.execute(
        "select distinct value_json from trial_user_attributes where key = 'worker'"
    ).fetchall()
    connection.close()
    assert len(workers) >= 2, "more than one process made trials"


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_kill_in_a_trial_then_go_on(
    workers: str, reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    long = ["--epochs", "25", "--trials", "3", "--set", "train.patience=99", "--workers", workers]
    words = command(reviews, tiny_words, *long)
    running = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL, text=True)
    wait_until(lambda: "COMPLETE" in (now := states(tmp_path)) and now[-1] == "RUNNING", running)
    time.sleep(0.3)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = states(tmp_path)
    assert sum(state in ("COMPLETE", "PRUNED") for state in found) == 3
    assert "FAIL" in found
    assert "RUNNING" not in found


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_keeps_finished_trials(
    workers: str, reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    long = ["--epochs", "25", "--trials", "30", "--set", "train.patience=99", "--workers", workers]
    words = command(reviews, tiny_words, *long)
    running = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: "COMPLETE" in (now := states(tmp_path)) and now[-1] == "RUNNING", running)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    found = states(tmp_path)
    assert "COMPLETE" in found
    assert "RUNNING" not in found
    assert len(pd.read_csv(tmp_path / "tuning/reviews-lora/trials.csv")) >= 1


@pytest.mark.slow
def test_two_processes_share_a_journal(
    reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    journal = f"journal://{tmp_path}/shared/study.log"
    words = command(reviews, tiny_words, "--trials", "8", "--epochs", "1", "--storage", journal)
    both = [
        subprocess.Popen(words, cwd=folder, text=True, stderr=subprocess.PIPE,
                         stdout=subprocess.PIPE)
        for folder in (tmp_path / "a", tmp_path / "b")
        if folder.mkdir() is None
    ]  # fmt: skip
    for process in both:
        _, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        assert "Traceback" not in err
    tables = [pd.read_csv(tmp_path / x / "tuning/reviews-lora/trials.csv") for x in "ab"]
    assert tables[0]["trial"].tolist() == tables[1]["trial"].tolist()
    assert len(tables[0]) == 8
    lines = (tmp_path / "shared/study.log").read_text().splitlines()
    assert (
        len({w for line in lines if (w := json.loads(line).get("user_attr", {}).get("worker"))})
        == 2
    )
