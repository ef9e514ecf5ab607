"""Commands import only what they need: a model of n-grams is used in under a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from valence.config.data import DataSpec
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunStore

HEAVY = (
    "torch", "transformers", "peft", "accelerate", "tokenizers", "onnxruntime", "sklearn", "joblib",
    "pandas", "pyarrow", "narwhals", "matplotlib", "sqlalchemy", "datasets", "jinja2", "cleanlab",
    "scipy.stats", "scipy.special", "scipy.optimize", "scipy.linalg", "scipy.sparse.linalg",
)  # fmt: skip
"""Modules that cost a tenth of a second or more."""
RUN = """
import sys
from valence import cli
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
sys.stderr.write("imported:" + " ".join(sys.modules))
"""


def imported(words: list[str], folder: Path) -> set[str]:
    """What of HEAVY a command imports."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return set(HEAVY) & set(done.stderr.rpartition("imported:")[2].split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("light")


@pytest.fixture(params=["tfidf-lr", "kernel-ridge"])
def model(request: pytest.FixtureRequest, reviews: Path, folder: Path) -> str:
    settings = {"ridge.views": "text"} if request.param == "kernel-ridge" else {}
    store = RunStore(folder / "runs")
    spec = make_spec(request.param, DataSpec(name=str(reviews)), settings=settings)
    return str(store.path(run(spec, store=store, keep_model=True).key) / "model")


def test_predict_with_n_grams(model: str, folder: Path) -> None:
    pd.DataFrame({"text": ["good food", "bad food", ""]}).to_csv(folder / "in.csv", index=False)
    assert imported(["predict", model, "good food"], folder) == set()
    assert imported(["predict", model, "in.csv", "--out", "out.csv"], folder) == set()
    assert pd.read_csv(folder / "out.csv")["label"].notna().sum() == 2


@pytest.mark.parametrize("words", [["--help"], ["methods"], ["encoders"], ["predict", "--help"]])
def test_lists_and_help(words: list[str], folder: Path) -> None:
    assert imported(words, folder) == set()


def test_audit_trains_nothing_in_an_encoder(reviews: Path, folder: Path) -> None:
    assert not imported(["audit", str(reviews)], folder) & {
        "torch", "transformers", "peft", "accelerate", "matplotlib"
    }  # fmt: skip


@pytest.mark.parametrize("words", [("tfidf-lr",), ("kernel-ridge", "--set", "ridge.views=text")])
def test_n_grams_are_trained_without_torch(
    words: tuple[str, ...], reviews: Path, folder: Path
) -> None:
    out = str(folder / f"trained-{words[0]}")
    command = ["train", str(reviews), "--method", *words, "--out", out, "--runs", f"{out}-runs"]
    assert not imported(command, folder) & {"torch", "transformers", "peft", "accelerate"}
