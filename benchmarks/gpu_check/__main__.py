"""Run all checks, a process for each group of them, and write a report.

    PYTHONPATH=src python -m benchmarks.gpu_check --out build/gpu-check

A group that dies or hangs is one fault, and the next one goes on. Exit code 1 if there was a
fault. Without a GPU what needs one is skipped; ``--rehearse`` runs it on the CPU with tiny sizes,
to see that the checks themselves work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.gpu_check import checks as outcomes
from benchmarks.gpu_check.checks import Check, Outcome, Place, run_check

GROUPS = ("memory", "language_models", "distributed", "encoders")
LIMIT_SECONDS = {"memory": 90, "language_models": 200, "distributed": 200, "encoders": 300}
BUDGET_SECONDS = 470
PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "datasets", "bitsandbytes")


def main() -> None:
    options = _options()
    if options.group:
        run_group(options)
        return
    start = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    about = environment()
    print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    results: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        for group in options.only or GROUPS:
            left = BUDGET_SECONDS - (time.perf_counter() - start)
            results += _group_outcomes(group, options, Path(scratch), left)
    seconds = time.perf_counter() - start
    write_report(options.out, about, results, seconds)
    faults = sum(one.status == "FAULT" for one in results)
    print(f"{len(results)} checks, {faults} faults, {seconds:.0f} s; report: {options.out}")
    raise SystemExit(1 if faults else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check"))
    parser.add_argument("--only", nargs="*", choices=GROUPS, help="groups of checks")
    parser.add_argument("--rehearse", action="store_true", help="run everything on the CPU, tiny")
    parser.add_argument("--group", choices=GROUPS, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _group_outcomes(
    group: str, options: argparse.Namespace, scratch: Path, left: float
) -> list[Outcome]:
    """What the checks of a group gave, run in a process of their own."""
    path = options.out / f"{group}.jsonl"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--group", group, "--out",
               str(options.out), "--scratch", str(scratch)]  # fmt: skip
    command += ["--rehearse"] if options.rehearse else []
    caches = {"VALENCE_CACHE": str(scratch / "cache"), "HF_HUB_OFFLINE": "1"}
    limit = min(LIMIT_SECONDS[group], max(1.0, left))
    start = time.perf_counter()
    trouble = ""
    try:
        done = subprocess.run(command, env={**os.environ, **caches}, timeout=limit, check=False)
        if done.returncode:
            trouble = f"the process ended with code {done.returncode}"
    except subprocess.TimeoutExpired:
        trouble = f"not finished within {limit:.0f} s"
    results = list(outcomes.read(path))
    path.unlink(missing_ok=True)
    if trouble:
        last = Outcome(f"group {group}", "FAULT", trouble, time.perf_counter() - start)
        print(last.line(), flush=True)
        results.append(last)
    return results


def run_group(options: argparse.Namespace) -> None:
    """All checks of a group, each outcome printed and written at once."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    warnings.filterwarnings("ignore")
    is_gpu = torch.cuda.is_available() and not options.rehearse
    place = Place("cuda" if is_gpu else "cpu", options.rehearse, options.scratch)
    table: dict[str, Check] = import_module(f"benchmarks.gpu_check.{options.group}").checks()
    for name, check in table.items():
        outcome = run_check(name, check, place)
        print(outcome.line(), flush=True)
        outcomes.append(options.out / f"{options.group}.jsonl", outcome)


def environment() -> dict[str, str]:
    """Versions, and the GPU."""
    import platform

    import torch

    about = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            about[name] = version(name)
        except PackageNotFoundError:
            about[name] = "not installed"
    about["gpu"] = "none"
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        about["gpu"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    about["cores"] = str(os.cpu_count())
    return about


def write_report(
    out: Path, about: dict[str, str], results: Iterable[Outcome], seconds: float
) -> None:
    """``report.json`` and ``report.md``."""
    rows = list(results)
    content = {"environment": about, "seconds": seconds, "checks": [asdict(row) for row in rows]}
    (out / "report.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = ["# GPU check", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += [
        f"- seconds: {seconds:.0f}",
        "",
        "| check | outcome | what | s |",
        "|---|---|---|---|",
    ]
    for row in rows:
        text = row.text.replace("|", "\\|")
        lines.append(f"| {row.name} | {row.status} | {text} | {row.seconds:.1f} |")
    (out / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
