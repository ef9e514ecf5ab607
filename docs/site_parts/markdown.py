"""Markdown that the generated parts share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar within a cell is kept."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(text: str) -> str:
    """Text that may stand in a cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(str(text).split()))


def slug(title: str) -> str:
    """The anchor that MyST gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower().replace(" ", "-"))


def toctree(caption: str, pages: Sequence[str]) -> str:
    """A part of the contents with those of the pages that are there; nothing without any."""
    there = [name for name in pages if (DOCS / f"{name}.md").exists()]
    if not there:
        return ""
    return f"```{{toctree}}\n:caption: {caption}\n:hidden:\n\n" + "\n".join(there) + "\n```"
