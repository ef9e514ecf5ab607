"""Lines of text files that other lines must not break: JSONL."""

from __future__ import annotations

from pathlib import Path


def read_lines(path: Path) -> list[str]:
    r"""The lines of a UTF-8 file that hold anything, split at ``\n`` alone.

    ``str.splitlines`` also splits at U+2028, U+0085 and others, which JSON leaves as they are
    inside a text.

    Raises:
        OSError: if the file cannot be read.
        UnicodeDecodeError: if it is no UTF-8.
    """
    return split_lines(path.read_bytes().decode("utf-8"))


def split_lines(text: str) -> list[str]:
    r"""The lines of a text that hold anything, split at ``\n`` alone."""
    return [line for line in text.split("\n") if line.strip()]
