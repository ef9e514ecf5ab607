"""``valence reproduce``: the plan, a run to its end, and going on from where it was."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import WORDS
from valence.comparison.papers import paper_names
from valence.data.catalog import DATASETS

SMALL = ["--set", "data.head_count=40", "--set", "train.epochs=1", "--seeds", "1"]
PAPER = """
title: Own paper
source: "nobody"
tables:
  - {config: own.yaml, rows: [80, 20, 60], classes: 6, tokens: 5}
  - {config: own.yaml, methods: [tfidf-lr], sweep: {data.imbalance_ratio: [2, 4]}}
"""
OWN = """
title: Questions
data: {name: trec, imbalance_ratio: 2, head_count: 40}
methods: [majority, tfidf-lr]
seeds: [45, 123]
published: {tfidf-lr: {macro_f1: 0.5, accuracy: 0.6}}
published_source: "the paper, table 1"
"""
OWN_CPU = """
extends: own.yaml
scaled_down: {seeds: to save time}
seeds: [45]
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A small TREC, whose classes have words of their own."""
    draw = random.Random(0)
    for split, count in (("train", 50), ("test", 10)):
        rows = [
            {"text": " ".join([*draw.sample(WORDS, 4), f"{WORDS[i]} {name}"]), "label": name}
            for i, name in enumerate(DATASETS["trec"].classes) for _ in range(count)
        ]  # fmt: skip
        (tmp_path / "data" / "trec").mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(tmp_path / "data" / "trec" / f"{split}.csv", index=False)
    return tmp_path / "data"


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    for name, text in (("paper", PAPER), ("own", OWN), ("own-cpu", OWN_CPU)):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "paper.yaml"


@pytest.mark.parametrize("name", paper_names())
def test_plan_tells_cost_memory_and_hardware_before_anything_is_run(
    valence, name: str, tmp_path: Path
) -> None:
    for scale in ("--published", "--cpu"):
        code, out, err = valence("reproduce", name, "--plan", scale)
        assert code == 0, err
        assert out.splitlines()[0].split("\t") == [
            "table",
            "runs",
            "GPU",
            "CPU here",
            "GiB",
            "rows",
        ]
        assert "Memory: at most " in err
        assert "Models: " in err
        assert ("Nothing was scaled down" in err) == (scale == "--published")
    code, out, _ = valence("reproduce", name, "--plan", "--cpu", "--json")
    plan = json.loads(out)
    assert plan["scale"] == "cpu"
    assert all(table["runs"] > 0 for table in plan["tables"])
    assert all(one["why"] for one in plan["scaled_down"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_paper_is_run_to_its_end_with_the_built_in_encoder(
    valence, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ["reproduce", "sharprecl", "--only", "trec", "--data-dir", data_dir, *SMALL]
    words += ["--methods", "majority,sharprecl", "--set", "data.imbalance_ratio=10"]
    code, out, err = valence(*words)
    assert code == 0, err
    assert "Note: no GPU found, so the scaled-down set-ups run" in err
    assert "Published: SharpReCL, arXiv 2405.11524" in err
    assert "method\tscore\tpublished\tours\tΔ\tn\nsharprecl\taccuracy\t0.972\t" in out
    page = (data_dir.parent / "reproduction" / "reproduction.md").read_text(encoding="utf-8")
    assert "| train.epochs | all | 30 → 1 | given on the command line |" in page
    assert "| encoder.name | all | bert-base-uncased → all-MiniLM-L6-v2 | the built-in" in page
    assert (data_dir.parent / "reproduction" / "trec" / "report.html").exists()


def test_ours_beside_published_and_going_on(valence, data_dir: Path, paper: Path) -> None:
    words = ["reproduce", paper, "--cpu", "--data-dir", data_dir, "--json"]
    code, out, err = valence(*words, "--only", "own")
    assert code == 0, err
    first = json.loads(out)
    figures = {one["metric"]: one for one in first["figures"]}
    ours = next(r for r in first["tables"][0]["rows"] if r["method"] == "tfidf-lr")
    assert figures["accuracy"]["ours"] == pytest.approx(ours["accuracy_mean"])
    assert figures["accuracy"]["difference"] == pytest.approx(ours["accuracy_mean"] - 0.6)
    assert figures["accuracy"]["source"] == "the paper, table 1"
    assert first["scaled_down"] == [
        {"what": "seeds", "tables": "all", "published → here": "without 123", "why": "to save time"}
    ]
    runs = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/result.json")}
    code, out, err = valence(*words)
    assert code == 0, err
    assert [table["name"] for table in json.loads(out)["tables"]] == ["own", "own-imbalance_ratio"]
    assert all(path.stat().st_mtime_ns == before for path, before in runs.items())
    assert len(list(Path("runs").glob("*/result.json"))) == len(runs) + 1, "the second ratio alone"
    swept = pd.read_csv("reproduction/own-imbalance_ratio/sensitivity.csv")
    assert sorted(swept["data.imbalance_ratio"]) == [2, 4]


def test_a_run_that_fails_is_told_and_the_others_stand(
    valence, data_dir: Path, paper: Path
) -> None:
    text = OWN.replace("tfidf-lr]", "tfidf-lr, llm-fixed@no/such-model]")
    (paper.parent / "own.yaml").write_text(text, encoding="utf-8")
    code, out, err = valence("reproduce", paper, "--cpu", "--only", "own", "--data-dir", data_dir)
    assert code == 1
    assert "Failed: llm-fixed@such-model seed 45: " in err
    assert "tfidf-lr\taccuracy\t0.600" in out


def test_what_cannot_be_is_one_line(valence, paper: Path) -> None:
    for words, line in (
        (["reproduce", "sharprcl"], "'sharprecl'"),
        (["reproduce", "sharprecl", "--only", "trek"], "'trec'"),
        (["reproduce", paper, "--cpu", "--methods", "lora"], "No table of the paper has lora"),
    ):
        code, out, err = valence(*words)
        assert (code, out) == (1, "")
        assert line in err
        assert err.count("Error") == 1


def test_compare_says_that_a_set_up_is_scaled_down(valence, data_dir: Path, paper: Path) -> None:
    words = ["compare", "--config", "own-cpu.yaml", "--data-dir", data_dir]
    code, _, err = valence(*words)
    assert code == 0, err
    assert (
        "Note: scaled down from a published set-up: seeds; see own-cpu.yaml for the reasons" in err
    )
    code, _, err = valence(*words[:2], "own.yaml", *words[3:])
    assert code == 0, err
    assert "scaled down" not in err
