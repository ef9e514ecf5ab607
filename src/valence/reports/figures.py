"""The figures of a page: as charts inside it, and as PNG files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from valence.reports.charts import Chart, charts_of
from valence.reports.confusions import confusions
from valence.runs.store import RunResult, RunStore
from valence.storage import atomic

DPI = 160


class PageFigures:
    """Collects what a page draws, and writes every figure as a file.

    Attributes:
        charts: In the order of their numbers.
        confusions: Confusion matrices by set-up.

    Args:
        folder: Where the PNG files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.charts: list[Chart] = []
        self.confusions: list[dict[str, Any]] = []
        self._names: set[str] = set()

    def add(self, title: str, figure: Figure | None) -> list[int]:
        """Write a figure; the numbers of its charts, none where there is no figure.

        Raises:
            RunError: if the file cannot be written.
        """
        if figure is None:
            return []
        with atomic.new_file(self.folder / self._file(title), durable=False) as path:
            figure.savefig(path, format="png", dpi=DPI, facecolor="white")
        first = len(self.charts)
        self.charts += charts_of(title, figure)
        return list(range(first, len(self.charts)))

    def confusion(self, store: RunStore, group: Sequence[RunResult]) -> int:
        """Add the confusion matrices of a set-up; their number."""
        self.confusions.append(confusions(store, group))
        return len(self.confusions) - 1

    def _file(self, title: str) -> str:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        name, number = f"{stem}.png", 1
        while name in self._names:
            number += 1
            name = f"{stem}-{number}.png"
        self._names.add(name)
        return name
