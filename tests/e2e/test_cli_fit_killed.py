"""``valence fit`` killed at five points: nothing is half-written, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import make_reviews
from valence.inference.predictor import Predictor
from valence.models.loader import load_model

POINTS = {
    "encoding": "valence.models.layer_features:LayerFeatures._pooled:2",
    "between models": "valence.methods.portfolio:PortfolioSearch.try_method:2",
    "fine-tuning": "valence.losses.gather:full_batch_loss:4",
    "saving": "valence.models.ensemble:write_config:1",
    "copying": "valence.cli.train:shutil.copytree:1",
}
"""Where the process dies: module, what is called, and at which call."""

RUNNER = """
import os, signal, sys, time
from importlib import import_module

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
sys.argv = ["valence", *sys.argv[2:]]
module, path, count = {point!r}.split(":")
*parents, name = path.split(".")
place = import_module(module)
for parent in parents:
    place = getattr(place, parent)
original, calls = getattr(place, name), 0

def struck(*args, **kwargs):
    global calls
    calls += 1
    if calls < int(count):
        return original(*args, **kwargs)
    if name == "copytree":  # half of the files are there
        os.makedirs(args[1], exist_ok=True)
        open(os.path.join(args[1], "config.json"), "w").write("{{")
    os.kill(os.getpid(), signal.SIG{signal})
    time.sleep(60)  # another thread may be given the signal

setattr(place, name, struck)
if module == "valence.losses.gather":
    import valence.models.classifier as classifier
    classifier.full_batch_loss = struck
from valence import cli
cli.main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("killed")
    frame = make_reviews(600, seed=3)
    frame.rename(columns={"text": "comment"}).to_csv(place / "feedback.csv", index=False)
    return place


def arguments(folder: Path, encoder: Path, out: Path) -> list[str]:
    return [
        "fit", str(folder / "feedback.csv"), "--out", str(out), "--encoder", str(encoder),
        "--budget", "10m", "--set", "portfolio.epochs=1", "--json",
    ]  # fmt: skip


def strike(place: Path, words: list[str], point: str, sign: str = "KILL") -> tuple[int, str]:
    code = RUNNER.format(point=POINTS[point], signal=sign)
    ended = subprocess.run(
        [sys.executable, "-c", code, "", *words], cwd=place, capture_output=True, text=True,
        env=environment(place),
    )  # fmt: skip
    return ended.returncode, ended.stderr


def environment(place: Path) -> dict[str, str]:
    return {**os.environ, "VALENCE_CACHE": str(place / "cache")}


def _results(place: Path) -> list[Path]:
    return sorted((place / "runs").glob("[!.]*/result.json"))


def leftovers(place: Path) -> list[Path]:
    return [path for path in place.rglob(".valence-*") if "cache" not in path.parts]


@pytest.fixture(scope="module")
def whole(
    folder: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float]:
    """The scores of a fit that nothing ended."""
    place = tmp_path_factory.mktemp("whole")
    ended = subprocess.run(
        [sys.executable, "-m", "valence", *arguments(folder, tiny_encoder, place / "model")],
        cwd=place, capture_output=True, text=True, env=environment(place),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    scores: dict[str, float] = json.loads(ended.stdout)["test"]
    return scores


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "before"), [*((point, "nothing") for point in POINTS), ("copying", "a model")]
)
def test_killed_fit_goes_on(
    point: str, before: str, folder: Path, tiny_encoder: Path, whole: dict[str, float],
    tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "models" / "mine"
    words = arguments(folder, tiny_encoder, out)
    if before == "a model":
        small = [*words, "--set", "portfolio.fine_tuned=[]"]
        subprocess.run(
            [sys.executable, "-m", "valence", *small], cwd=tmp_path, check=True,
            capture_output=True, env=environment(tmp_path),
        )  # fmt: skip
        old = Predictor(out).predict_proba(["not good"])
    code, err = strike(tmp_path, words, point)
    assert code == -signal.SIGKILL, err
    if before == "a model":
        np.testing.assert_array_equal(Predictor(out).predict_proba(["not good"]), old)
    else:
        assert not out.exists()
    for finished in (path.parent for path in _results(tmp_path)):
        assert not (finished / "model").exists() or load_model(finished / "model")
    runs = {path: path.stat().st_mtime_ns for path in _results(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "valence", *words], cwd=tmp_path, capture_output=True, text=True,
        env=environment(tmp_path),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["test"] == pytest.approx(whole, abs=1e-6)
    assert len(Predictor(out).predict(["not good"])) == 1
    assert {path: path.stat().st_mtime_ns for path in runs} == runs, "finished models are kept"
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_ctrl_c_while_fine_tuning_keeps_the_best_so_far(
    folder: Path, tiny_encoder: Path, whole: dict[str, float], tmp_path: Path
) -> None:
    out = tmp_path / "model"
    words = [word for word in arguments(folder, tiny_encoder, out) if word != "--json"]
    code, err = strike(tmp_path, words, "fine-tuning", "INT")
    assert code == 130, err
    assert "ldam and lora-balanced were not tried" in " ".join(err.split())
    assert "Traceback" not in err
    assert len(Predictor(out).predict(["not good"])) == 1
    ended = subprocess.run(
        [sys.executable, "-m", "valence", *words, "--json"], cwd=tmp_path, capture_output=True,
        text=True, env=environment(tmp_path),
    )  # fmt: skip
    answer = json.loads(ended.stdout)
    assert answer["complete"]
    assert answer["test"] == pytest.approx(whole, abs=1e-6)
    assert len(pd.DataFrame(answer["portfolio"])) == 4
