"""The facts that a bug report needs, and what is wrong with the machine: :func:`examine`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from valence.storage.cache import cache_root, entries

State = Literal["ok", "note", "bad"]
LOW_DISK_GIB = 2.0
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@dataclass(frozen=True)
class InstallationCheck:
    """One check.

    Attributes:
        name: What it is.
        found: The result; never a token, a password or a user's name.
        state: ``bad`` needs mending, ``note`` may explain a problem.
        advice: What to do; empty where nothing need be done.
    """

    name: str
    found: str
    state: State = "ok"
    advice: str = ""


def examine() -> list[InstallationCheck]:
    """Look at versions, extras, cores, memory, GPU, disk, cache, hub access and credentials."""
    return [*_system(), *_packages(), *_torch(), *_disk(), *_hub()]


def _system() -> Iterator[InstallationCheck]:
    yield InstallationCheck("valence", version("valence"))
    yield InstallationCheck("python", f"{platform.python_version()} ({sys.implementation.name})")
    yield InstallationCheck(
        "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    )
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield InstallationCheck("cores", f"{allowed} usable of {os.cpu_count()}")
    memory = _memory_gib()
    if memory is not None:
        low = memory < 4
        yield InstallationCheck(
            "memory", f"{memory:.1f} GiB", "note" if low else "ok",
            "Low for fine-tuning: use linear-probe or a smaller train.batch_size" if low else "",
        )  # fmt: skip


def _memory_gib() -> float | None:
    """Memory this process may use: the machine's, or less where a container's limit says so."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total / 2**30


def _packages() -> Iterator[InstallationCheck]:
    """Installed versions against what this package requires, the core first, then by extra."""
    from packaging.requirements import Requirement

    extras: dict[str, list[str]] = {}
    for line in requires("valence") or []:
        needed = Requirement(line)
        match = re.search(r"extra\s*==\s*['\"](\w[\w-]*)", line)
        extra = match[1] if match else ""
        if extra == "dev" or needed.name == "valence":
            continue
        try:
            there = version(needed.name)
        except PackageNotFoundError:
            there = ""
        if extra:
            extras.setdefault(extra, []).append("" if there else needed.name)
        if there and not needed.specifier.contains(there, prereleases=True):
            yield InstallationCheck(
                needed.name, there, "bad",
                f"Valence needs {needed.specifier}: pip install '{needed.name}{needed.specifier}'",
            )  # fmt: skip
        elif not extra and not there:
            yield InstallationCheck(needed.name, "missing", "bad", f"pip install {needed.name}")
        elif not extra:
            yield InstallationCheck(needed.name, there)
    for extra, missing in sorted(extras.items()):
        lacking = [name for name in missing if name]
        yield InstallationCheck(
            f"extra {extra}", f"without {', '.join(lacking)}" if lacking else "there", "ok",
            f"To use it: pip install 'valence[{extra}]'" if lacking else "",
        )  # fmt: skip


def _torch() -> Iterator[InstallationCheck]:
    import torch

    built, there = torch.version.cuda, torch.cuda.is_available()
    if there:
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        yield InstallationCheck("GPU", f"{torch.cuda.device_count()} × {', '.join(sorted(names))}")
    elif torch.backends.mps.is_available():
        yield InstallationCheck("GPU", "Apple (mps)")
    elif built:
        yield InstallationCheck(
            "GPU", f"torch (CUDA {built}) cannot use any", "note",
            "Install a driver for this CUDA, or the smaller CPU build of torch",
        )  # fmt: skip
    else:
        yield InstallationCheck("GPU", "none; torch is a CPU build")
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    many = threads > cores
    yield InstallationCheck(
        "threads", f"{threads} for torch; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')}",
        "bad" if many else "ok",
        f"More threads than cores is much slower: OMP_NUM_THREADS={cores}" if many else "",
    )  # fmt: skip


def _disk() -> Iterator[InstallationCheck]:
    root = cache_root()
    cached = entries()
    size = sum(entry.size for entry in cached) / 2**20
    yield InstallationCheck("cache", f"{len(cached)} entries, {size:.1f} MiB")
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    low = free < LOW_DISK_GIB
    yield InstallationCheck(
        "disk of the cache", f"{free:.1f} GiB free", "bad" if low else "ok",
        "Free space with valence cache clear, or set VALENCE_CACHE to a larger disk" if low else "",
    )  # fmt: skip
    if not os.access(place, os.W_OK):
        yield InstallationCheck(
            "cache folder",
            "cannot be written",
            "bad",
            "Set VALENCE_CACHE to a folder you can write to",
        )


def _hub() -> Iterator[InstallationCheck]:
    from huggingface_hub import get_token

    offline = [name for name in OFFLINE if os.environ.get(name, "").lower() in {"1", "true", "yes"}]
    yield InstallationCheck(
        "hub", f"offline by {', '.join(offline)}" if offline else "online when needed",
        "note" if offline else "ok",
        "Only cached encoders and corpora can be loaded by hub name" if offline else "",
    )  # fmt: skip
    yield InstallationCheck("hub token", "present" if get_token() else "none")
    key = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle") / "kaggle.json"
    kaggle = key.exists() or bool(os.environ.get("KAGGLE_KEY"))
    yield InstallationCheck("Kaggle credentials", "present" if kaggle else "none")
    data = os.environ.get("VALENCE_DATA")
    if data:
        gone = not Path(data).is_dir()
        yield InstallationCheck(
            "VALENCE_DATA", "no such folder" if gone else "set", "bad" if gone else "ok",
            "Set it to the folder with one subfolder per corpus" if gone else "",
        )  # fmt: skip
