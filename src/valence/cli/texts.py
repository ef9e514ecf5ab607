"""Texts that a person gives to a saved model: words of the command line, clips, stdin."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from valence.errors import DataError

CLIP_SUFFIXES = (
    ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4a", ".mp3", ".wav", ".flac", ".ogg", ".aac",
)  # fmt: skip
OTHER_SUFFIXES = (
    ".txt", ".json", ".xls", ".xlsb", ".doc", ".docx", ".pdf", ".odt", ".rtf", ".html", ".xml",
    ".gz", ".bz2", ".xz", ".zst", ".zip", ".feather", ".arrow", ".pkl", ".dta", ".sav",
)  # fmt: skip
"""Of files that people have texts in and that are not read."""


def is_clip(name: str) -> bool:
    """Whether it is a sound or video file."""
    return Path(name).suffix.lower() in CLIP_SUFFIXES and is_path(name) and Path(name).is_file()


def is_path(word: str) -> bool:
    """Whether a file could have this name; a text is often too long for one."""
    try:
        Path(word).exists()
    except (OSError, ValueError):
        return False
    return True


def refuse_files(given: Sequence[str]) -> None:
    """Refuse words that are the name of a file and no text.

    Raises:
        DataError: with the first: a file that is not there, or is of a kind that is not read.
    """
    from valence.data.formats import SUFFIXES, is_table

    known = (*SUFFIXES, *CLIP_SUFFIXES, *OTHER_SUFFIXES)
    for word in given:
        path = Path(word)
        is_file = bool(path.suffix or path.parent.name) and path.is_file()
        if not is_file and not difflib.get_close_matches(
            path.suffix.lower(), known, n=1, cutoff=0.75
        ):
            continue  # also misspelt ones are of a file: .xlxs
        if not is_path(word):
            continue
        if any(c.isspace() for c in path.stem) and not path.exists():
            continue  # a text that ends like one
        if not path.exists():
            raise DataError(
                f"File {word} does not exist; check the path, or pass a text with --text"
            )
        if not is_table(path) and path.suffix.lower() not in CLIP_SUFFIXES:
            raise DataError(
                f"{word}: cannot read {path.suffix} as a table; use {', '.join(SUFFIXES)}, or send "
                f"its lines to stdin: valence predict MODEL < {path.name}"
            )
        raise DataError(f"{word} is mixed with other inputs; pass only files, with --out FOLDER")


def texts_of(given: Sequence[str]) -> list[str]:
    """The texts given, or the lines of stdin.

    Raises:
        DataError: if there is none.
    """
    texts = list(given) or _lines_of_stdin()
    if not texts:
        raise DataError("No text given; pass texts, a file, or lines on stdin")
    return texts


def _lines_of_stdin() -> list[str]:
    if sys.stdin is None:  # closed before the start
        return []
    try:
        return [line.rstrip("\n") for line in sys.stdin if line.strip()]
    except UnicodeDecodeError:
        raise DataError(
            f"stdin is not {sys.stdin.encoding}; convert it with iconv, or set PYTHONIOENCODING"
        ) from None
