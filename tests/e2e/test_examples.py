"""Every example runs as it is, offline, and prints what it found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = {
    "imbalanced_csv": ("training rows: ", "lora-posthoc", "very negative", "prob_positive"),
    "label_rare_class": ("labels per topic: ", "macro-F1: {'value'", "data set: "),
    "small_language": ("tokens a word", "cannot read Han", "linear-probe", "their own rows"),
    "text_audio_vision": ("numbers in a step", "vision-only", "of a clip made for +2.5"),
}
NEEDS = {"text_audio_vision": "av"}


def test_every_example_is_run() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "valence"))
    where = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")], cwd=tmp_path,
        env={**os.environ, **where}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for part in EXAMPLES[name]:
        assert part in done.stdout
    assert "Traceback" not in done.stderr
