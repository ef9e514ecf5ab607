"""Model folders of any content: finite answers or one line, soon."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fuzz.changes import FEW, MANY, changed_bytes, outcomes_of, tried
from valence.inference.predictor import Predictor

RELEASE = Path(__file__).parents[1] / "fixtures" / "v0.1.0"
KINDS = [
    "majority",
    "tfidf-lr",
    "lora",
    "full",
    "linear-probe",
    "calibrated",
    "almt-classes",
    "han-roberta",
]
if find_spec("onnxruntime"):
    KINDS.append("onnx")
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 10**11, 10**30, -0.5, 1e308, float("nan"), float("inf"), "", "x",
    "../../etc/passwd", "/etc/passwd", "a\nb", "\x00", [], [1], {}, {"a": 1}, ["x"] * 3,
    [[[]]] * 50,
]  # fmt: skip
TEXTS = ["a good film", "bad", "größer 🙂"]


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value in JSON."""
    inner = values.items() if isinstance(values, dict) else enumerate(values)
    found = []
    for name, value in inner:
        found.append((*path, name))
        if isinstance(value, dict | list):
            found += places(value, (*path, name))
    return found


def change_json(path: Path, draw: random.Random) -> None:
    """Replace, delete, rename or add some values."""
    values = json.loads(path.read_text())
    for _ in range(draw.randint(1, 3)):
        every = places(values)
        if not every:
            break
        *outer, name = draw.choice(every)
        part = values
        for one in outer:
            part = part[one]
        way = draw.random()
        if way < 0.7:
            part[name] = copy.deepcopy(draw.choice(VALUES))
        elif way < 0.85:
            del part[name]
        elif isinstance(part, dict):
            part[draw.choice(["auto_map", "x", name + "_", "0", "1"])] = copy.deepcopy(
                draw.choice(VALUES)
            )
    path.write_text(json.dumps(values))


def change_tensors(path: Path, draw: random.Random) -> None:
    """Other shapes, types, numbers, names."""
    from safetensors.numpy import load_file, save_file

    tensors = dict(load_file(path))
    name = draw.choice(sorted(tensors))
    own = tensors[name]
    way = draw.randrange(6)
    if way == 0:
        tensors[name] = own.ravel()[:1].copy()
    elif way == 1:
        tensors[name] = own.astype(draw.choice([np.float16, np.float64, np.int32]))
    elif way == 2 and own.size:
        own = own.copy()
        own.flat[draw.randrange(own.size)] = (
            draw.choice([np.nan, np.inf]) if own.dtype.kind == "f" else 0
        )
        tensors[name] = own
    elif way == 3:
        del tensors[name]
    elif way == 4:
        tensors["other"] = own
    else:
        tensors[name] = np.concatenate([own, own]) if own.ndim else own.reshape(1)
    save_file(tensors, path)


def change(folder: Path, draw: random.Random) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "README.md")
    path = draw.choice(files)
    way = draw.random()
    if way < 0.08:
        path.unlink()
    elif way < 0.12:
        path.unlink()
        os.mkfifo(path)
    elif way < 0.16:
        path.unlink()
        path.symlink_to(draw.choice(["/dev/zero", "/etc/passwd", "nowhere", "."]))
    elif way < 0.3:
        raw = path.read_bytes()[:20_000] if draw.random() < 0.5 else path.read_bytes()
        path.write_bytes(
            changed_bytes(raw, draw, [b"{", b"NaN", b"\xff", b"\x00" * 8, b"[" * 9000])
        )
    elif path.suffix == ".json":
        change_json(path, draw)
    elif path.suffix == ".safetensors":
        change_tensors(path, draw)


def predicted(folder: Path) -> None:
    columns = Predictor(folder).columns(TEXTS)
    numbers = [values for name, values in columns.items() if name != "label"]
    assert np.isfinite(np.asarray(numbers, dtype=float)).all(), "not finite"
    assert all(len(values) == len(TEXTS) for values in columns.values())


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_model_folder_answers_or_is_refused(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RELEASE / "encoder", tmp_path / "encoder")
    for kind in KINDS:  # what is imported once is no work of an input
        predicted(RELEASE / "models" / kind)

    def one(draw: random.Random) -> str:
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(RELEASE / "models" / draw.choice(KINDS), folder)
        change(folder, draw)
        return tried(lambda: predicted(folder))

    assert outcomes_of(count, one) == {"value", "refused"}
