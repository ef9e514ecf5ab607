"""The command line in two processes: one speaks, one writes, and none waits for a dead one."""

from __future__ import annotations

from pathlib import Path

from tests.together import launched


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
    assert "valence compare runs in one process, and 2 were started" in line
    assert list(tmp_path.glob("**/*.*")) == []


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
