"""The same command given twice at the same moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import make_reviews


@pytest.mark.slow
def test_30_the_second_waits_and_takes_the_result(tiny_words: list[str], tmp_path: Path) -> None:
    make_reviews(90).to_csv(tmp_path / "reviews.csv", index=False)
    command = [
        sys.executable, "-m", "valence", "train", tmp_path / "reviews.csv", "--method", "lora",
        "--seed", "2", "--runs", tmp_path / "runs", "--out", tmp_path / "model", *tiny_words,
    ]  # fmt: skip
    environment = {**os.environ, "VALENCE_CACHE": str(tmp_path / "cache")}
    both = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.name[0] != ".")
    assert (run / "result.json").is_file()
    answer = subprocess.run(
        [sys.executable, "-m", "valence", "predict", tmp_path / "model", "good", "--json"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert json.loads(answer.stdout)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
