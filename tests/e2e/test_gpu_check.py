"""The checks of a GPU run to their end without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _report(out: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(out), *options], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return done.returncode, report, done.stdout


@pytest.mark.slow
def test_without_a_gpu_what_needs_one_is_skipped_by_name(tmp_path: Path) -> None:
    code, report, printed = _report(tmp_path, "--only", "memory", "language_models")
    outcomes = {one["name"]: one for one in report["checks"]}
    assert code == 0, printed
    assert outcomes["memory plan: a 7B model"]["status"] == "figure"
    assert outcomes["memory plan: against a measured step"]["status"] == "pass"
    scored = outcomes["language model: label scores and generation in bf16"]
    assert scored["status"] == "skipped"
    assert scored["text"] == "no CUDA GPU"
    assert all(f"{one['status']:8}{name}: " in printed for name, one in outcomes.items())
    table = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in table for name in outcomes)


@pytest.mark.slow
def test_a_rehearsal_runs_every_check_without_a_fault(tmp_path: Path) -> None:
    code, report, printed = _report(tmp_path, "--rehearse")
    assert code == 0, printed
    statuses = [one["status"] for one in report["checks"]]
    assert statuses.count("pass") > 25
    skipped = [one["text"] for one in report["checks"] if one["status"] == "skipped"]
    assert set(skipped) == {"NF4 needs a CUDA GPU"}


def test_a_check_that_raises_is_one_line(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.gpu_check.checks import Place, run_check
    finally:
        sys.path.remove(str(ROOT))

    def broken(place: Place) -> Any:
        raise ValueError("first line\nsecond line")

    outcome = run_check("broken", broken, Place("cpu", rehearsal=False, scratch=tmp_path))
    assert outcome.status == "FAULT"
    assert outcome.text.startswith("ValueError: first line [test_gpu_check.py:")
