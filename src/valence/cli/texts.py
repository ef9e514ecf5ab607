"""Texts that a person gives to a saved model: words of the command line, clips, stdin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from valence.errors import DataError

CLIP_SUFFIXES = (
    ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4a", ".mp3", ".wav", ".flac", ".ogg", ".aac",
)  # fmt: skip


def is_clip(name: str) -> bool:
    """Whether it is a sound or video file."""
    return Path(name).suffix.lower() in CLIP_SUFFIXES and Path(name).is_file()


def texts_of(given: Sequence[str]) -> list[str]:
    """The texts given, or the lines of stdin.

    Raises:
        DataError: if there is none.
    """
    texts = list(given) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not texts:
        raise DataError("There is no text; give some, or a file, or lines on stdin")
    return texts
