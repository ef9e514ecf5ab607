"""``valence features`` as a person uses it."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from valence import cli


@pytest.fixture
def valence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["valence", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


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
    assert "Note: audio lengths are not in the file" in err
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
