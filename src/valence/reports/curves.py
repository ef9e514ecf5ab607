"""The curves of a fine-tuning: loss by step, validation macro-F1 by epoch."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from valence.errors import RunError
from valence.storage import atomic
from valence.storage.lines import read_lines


def write_curves(folder: Path) -> Path:
    """Draw ``history.jsonl`` of a folder as ``curves.png``.

    Raises:
        RunError: if the folder cannot be read or written.
    """
    try:
        lines = read_lines(folder / "history.jsonl")
        rows = [json.loads(line) for line in lines]
        figure = Figure(figsize=(6, 3), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        for axes, name, title in (
            (left, "loss", "training loss"),
            (right, "validation/macro_f1", "validation macro-F1"),
        ):
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot([x for x, _ in points], [y for _, y in points], marker=".")
            axes.set(xlabel="step", title=title)
    except OSError as error:
        raise RunError(f"Cannot draw the curves of {folder}: {error.strerror or error}") from None
    with atomic.new_file(folder / "curves.png") as path:
        figure.savefig(path, dpi=150)
    return folder / "curves.png"
