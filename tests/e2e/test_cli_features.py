"""``valence features`` as a person uses it."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.clips import make_clip
from valence.data.features.archive import FeatureArchive


@pytest.fixture
def file(tmp_path: Path) -> Path:
    content = {}
    for name, rows in (("train", 4), ("valid", 2), ("test", 3)):
        audio = np.ones((rows, 5, 3), dtype=np.float32)
        audio[:, 2:] = 0
        audio[0, 0, 0] = -np.inf
        content[name] = {
            "raw_text": [f"{name} {i}" for i in range(rows)],
            "id": [f"{name}{i}" for i in range(rows)],
            "audio": audio,
            "vision": np.ones((rows, 4, 2)),
            "regression_labels": np.linspace(-1, 1, rows),
        }
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def test_convert_and_show(valence, file: Path) -> None:
    code, out, err = valence("features", "convert", file, "--out", "archive")
    assert code == 0, err
    assert out.splitlines()[1].split("\t") == ["train", "4", "-1 to 1", "2.0", "2", "4.0", "4"]
    assert "Note: 3 of -inf in audio read as 0" in err
    assert "Note: audio lengths are missing" in err
    assert "Archive: archive" in err
    code, out, _ = valence("features", "show", "archive", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == {"train": 4, "validation": 2, "test": 3}
    assert json.loads(valence("features", "cards", "--json")[1])["ch-sims"]["language"] == "zh"
    assert "ch-sims" in valence("features", "cards")[1]


class Hostile:
    def __reduce__(self) -> object:
        return os.system, ("touch touched",)


def test_hostile_and_missing_files_are_one_line(valence, tmp_path: Path) -> None:
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"train": Hostile()}))
    for words in (("convert", "bad.pkl", "--out", "a"), ("show", "nowhere")):
        code, out, err = valence("features", *words)
        assert (code, out) == (1, "")
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "a").exists()


def test_extract_a_clip_and_a_table_of_clips(valence, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra media is not installed")
    for i, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        make_clip(tmp_path / name, pitch=100 + 40 * i, seconds=1.0)
    make_clip(tmp_path / "d.m4a", fps=None, seconds=0.5)
    code, out, err = valence("features", "extract", "a.mp4", "--out", "a.safetensors")
    assert code == 0, err
    assert out.splitlines()[2] == "vision\t5\t24"
    assert (tmp_path / "a.safetensors").is_file()
    rows = ["clip,text,label,split", "a.mp4,good,1,train", "b.mp4,bad,-1,valid"]
    rows += ["c.mp4,fine,0.5,test", "d.m4a,,0,train"]
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    words = ("features", "extract", "clips.csv", "--out", "archive", "--frames-per-second", 4)
    code, out, err = valence(*words, "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["rows"] == {"train": 2, "validation": 1, "test": 1}
    assert shown["extractor"]["frames_per_second"] == 4
    assert "1 rows have no vision" in shown["notes"]
    split = FeatureArchive.open(tmp_path / "archive").split("train")
    batch = split.batch([0, 1])
    assert batch.steps["vision"].shape == (2, 4, 24)
    assert batch.masks["vision"].sum(1).tolist() == [4, 0]
    assert batch.texts == ["good", ""]
    written = (tmp_path / "archive" / "manifest.json").stat().st_mtime_ns
    assert valence(*words)[0] == 0
    assert (tmp_path / "archive" / "manifest.json").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("none.mp4,x,1,train", r"row 1 (none.mp4): the clip does not exist"),
        ("clips.csv,x,good,train", "the label is not a number"),
        ("clips.csv,x,1,later", "the split is not"),
        ("clips.csv,x,1,train", "no row of split 'validation'"),
    ],
)
def test_a_table_that_cannot_be_used(valence, tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "clips.csv").write_text(f"clip,text,label,split\n{row}\n")
    code, _, err = valence("features", "extract", "clips.csv", "--out", "archive")
    assert code == 1
    assert message in err
    assert not (tmp_path / "archive").exists()
