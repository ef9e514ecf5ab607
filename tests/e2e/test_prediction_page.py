"""Every command of docs/prediction.md works as written, and a killed prediction goes on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import make_reviews
from tests.models import untrained
from tests.pages import commands, give
from valence.config.data import DataSpec
from valence.data.sources import load_dataset
from valence.inference.export import runtimes
from valence.methods.registry import make_spec
from valence.models.torch_model import TorchModel
from valence.runs.runner import run
from valence.runs.store import RunStore

COMMANDS = commands("docs/prediction.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    place = tmp_path_factory.mktemp("page")
    make_reviews(60, seed=3).to_csv(place / "reviews.csv", index=False)
    new = make_reviews(30, seed=1).drop(columns="label")
    new.to_csv(place / "new.csv", index=False)
    new.to_excel(place / "new.xlsx", index=False)
    make_reviews(30, seed=2).to_csv(place / "labelled.csv", index=False)
    settings = {"encoder.name": str(tiny_encoder), "encoder.max_length": 12}
    data = DataSpec(name=str(place / "reviews.csv"))
    spec = make_spec("lora", data, settings=settings)
    rows = load_dataset(data, seed=spec.seed).without_test()
    untrained(spec, rows).save(place / "models/reviews")
    return place


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They run in the order of the text, since some make what others use."""
    words = shlex.split(command)
    if "export" in words:
        pytest.importorskip("nncf" if "openvino" in words else "onnxscript")
        traced = folder / "traced.onnx"  # tracing costs seconds; the exports of a model share it
        write = runtimes.write_onnx

        def write_once(model: TorchModel, path: Path, *_: object) -> None:
            if not traced.exists():
                write(model, traced)
            shutil.copyfile(traced, path)

        monkeypatch.setattr(runtimes, "write_onnx", write_once)
    monkeypatch.chdir(folder)
    code = give(words, monkeypatch)
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "Warning" not in said.err
    target = words[words.index("--out") + 1] if "--out" in words else ""
    if target.endswith(".csv"):
        assert pd.read_csv(folder / target)["label"].notna().sum() == 30


def test_an_exported_model_is_used_without_torch(folder: Path) -> None:
    if not (folder / "models/onnx").exists():
        pytest.skip("nothing was exported")
    code = (
        "import sys; from valence import cli\n"
        "sys.argv = ['valence', 'predict', 'models/onnx', *sys.argv[1:]]\n"
        "try: cli.main()\nexcept SystemExit as end: assert not end.code, end\n"
        "heavy = {'torch', 'transformers', 'peft', 'pandas', 'pyarrow', 'sklearn', 'matplotlib',\n"
        "         'scipy', 'sqlalchemy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    for words in (["good film"], ["new.csv", "--out", "light.csv"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=folder
        )
        assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr
    assert len(pd.read_csv(folder / "light.csv")) == 30


def test_goes_on_after_a_real_kill(tmp_path: Path, reviews: Path) -> None:
    store = RunStore(tmp_path / "runs")
    result = run(make_spec("tfidf-lr", DataSpec(name=str(reviews))), store=store, keep_model=True)
    rows = pd.concat([make_reviews(500)] * 40, ignore_index=True)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    model = str(store.path(result.key) / "model")
    words = [sys.executable, "-m", "valence", "predict", model, "rows.csv", "--out", "out.csv"]
    started = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL)
    third = tmp_path / ".out.csv.parts/part-000001.json"
    deadline = time.monotonic() + 200
    while not third.exists():
        assert started.poll() is None, "ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert not (tmp_path / "out.csv").exists()
    done = subprocess.run([*words, "--resume"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    resumed = int(re.search(r"Note: (\d+) rows were already done", done.stderr)[1])  # type: ignore[index]
    assert resumed >= 2 * 4096
    scored = pd.read_csv(tmp_path / "out.csv")
    assert list(scored["text"]) == list(rows["text"])
    assert scored["label"].notna().all()
