"""What a result belongs to: :class:`ResultKey`, and the content of files as a short hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

KEY_FORMAT = 2
"""Raised when the same settings on the same rows would give another result than before."""

WHOLE_BYTES = 1 << 20
SAMPLES, SAMPLE_BYTES = 64, 1 << 16
"""Of a large file that many pieces of this size are read: weights that were trained differ
everywhere, and reading 15 GB before every run would take longer than many a run."""


@dataclass(frozen=True)
class ResultKey:
    """Everything that decides a result; two results with one key are the same.

    Attributes:
        spec: Settings that decide the result, as plain values.
        rows: Hash of the rows, their labels and groups.
        content: Hashes of the files a result is made with, such as an encoder's: not their path.
        precision: The number format in effect.
        calibration: Hash of the calibration that is applied.
        prior: Class shares that decisions are moved towards.
        format: :data:`KEY_FORMAT`.
    """

    spec: Mapping[str, Any]
    rows: str = ""
    content: tuple[str, ...] = ()
    precision: str = "fp32"
    calibration: str = ""
    prior: str = ""
    format: int = KEY_FORMAT

    def digest(self, digits: int = 10) -> str:
        """So many hex digits that name the key."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:digits]


def folder_content(folder: Path, patterns: Sequence[str] = ("*",)) -> str:
    """Sixteen hex digits of the files of a folder; of large ones evenly spread pieces.

    Args:
        folder: The folder.
        patterns: Of the names of the files that count.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if not any(fnmatch(file.name, pattern) for pattern in patterns):
            continue
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder)}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= WHOLE_BYTES + SAMPLES * SAMPLE_BYTES:
                digest.update(stream.read())
                continue
            for i in range(SAMPLES):
                stream.seek(i * (size - SAMPLE_BYTES) // (SAMPLES - 1))
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]
