"""The command line in two processes: one speaks, one writes, and none waits for a dead one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.together import TORCHRUN, launched, surroundings


def said(stderr: str) -> list[str]:
    """What Valence said, without the launcher's own account."""
    head = stderr.partition("Traceback (most recent call last)")[0]
    ours = [line for line in head.splitlines() if line and "torch/distributed/elastic" not in line]
    return [line for line in ours if not line.startswith("*")]


def test_a_comparison_is_refused_in_one_line(tmp_path: Path) -> None:
    ended = launched("-m", "valence", "compare", "reviews.csv", where=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = said(ended.stderr)
    assert "valence compare runs in one process, but 2 were started" in line
    assert list(tmp_path.glob("**/*.*")) == []


@pytest.mark.slow
def test_a_failure_of_one_process_ends_both_and_is_told_once(
    reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    ended = launched(
        "-m", "tests.failing", "train", reviews, "--method", "lora", "--out", "m", "--quiet",
        "--device", "cpu", *tiny_words, where=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert said(ended.stderr) == ["Error: Memory of machine 1 is full; give it less to do"]
    assert not (tmp_path / "m").exists()
    assert list((tmp_path / "runs").glob("*/result.json")) == []


@pytest.mark.slow
def test_a_killed_training_of_two_goes_on_as_if_it_had_not_been(
    reviews: Path, tiny_words: list[str], tmp_path: Path
) -> None:
    words = ["-m", "valence", "train", reviews, "--method", "hy-mora", "--quiet", "--device", "cpu"]
    words += [*tiny_words, "--set", "train.epochs=12", "--set", "train.patience=99"]
    whole = launched(*words, "--out", "m", "--runs", "whole", where=tmp_path)
    assert whole.returncode == 0, whole.stderr
    command = [*TORCHRUN, *map(str, words), "--out", "n", "--runs", "cut"]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | surroundings(tmp_path), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not list(tmp_path.glob("cut/.unfinished/*/checkpoint-2*/trainer_state.json")):
        assert time.monotonic() < end
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not list(tmp_path.glob("cut/*/result.json"))
    again = launched(*words, "--out", "n", "--runs", "cut", where=tmp_path)
    assert again.returncode == 0, again.stderr
    frames = [
        pd.read_parquet(next(tmp_path.glob(f"{name}/*/predictions.parquet")))
        for name in ("whole", "cut")
    ]
    logits = [frame.filter(like="logit_").to_numpy() for frame in frames]
    assert abs(logits[0] - logits[1]).max() < 1e-5
