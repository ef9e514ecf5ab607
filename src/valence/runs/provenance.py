"""Where and with what a result was made, and how much memory it took."""

from __future__ import annotations

import functools
import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from valence.distributed import process_group
from valence.models.cpu import usable_cores

PACKAGES = ("valence", "torch", "transformers", "peft", "scikit-learn", "numpy")


def provenance(device: str, started: datetime) -> dict[str, Any]:
    """Versions, commit, machine and times; never a token, a path or a user name."""
    now = datetime.now(UTC)
    torch = _imported_torch()
    return {
        "started": started.isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch and device == "cuda" else device,
        "cores": os.cpu_count(),
        "processes": process_group.world_size(),
        "threads": usable_cores() if torch is None else torch.get_num_threads(),
    }


def reset_peak_memory() -> None:
    """Start a new measurement of peak memory where the system allows it."""
    torch = _imported_torch()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # elsewhere the peak is that of the whole process so far


def peak_memory_mib(device: str) -> float:
    """Peak memory since the last reset: of the GPU where one is used, else of the process."""
    torch = _imported_torch()
    if torch is not None and device == "cuda":
        peak_bytes: int = torch.cuda.max_memory_allocated()
        return peak_bytes / 2**20
    try:
        status = Path("/proc/self/status").read_text()
        line = next(row for row in status.splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 1024)


def _imported_torch() -> Any:
    """PyTorch where the run has imported it; a model of n-grams is trained without."""
    return sys.modules.get("torch")


@functools.cache
def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
