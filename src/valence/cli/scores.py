"""Scores of one model in a terminal: overall, by class, and which classes are confused."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from valence.cli import console
from valence.cli.tables import GAP, print_table

if TYPE_CHECKING:
    from valence.data.dataset import Split
    from valence.evaluation.classification import ClassTable
    from valence.evaluation.representations import Representations
    from valence.inference.predictor import Predictor
    from valence.models.base import Outputs

MOST_CONFUSIONS = 10


def print_class_table(table: ClassTable, *, wide: bool | None = None) -> None:
    """Precision, recall, F1 and rows of every class, then the confusion matrix.

    A matrix that does not fit the terminal is replaced by its largest cells off the diagonal.
    """
    columns = ["class", "precision", "recall", "F1", "rows"]
    _blank_line()
    print_table(columns, _class_rows(table), wide=wide)
    heads = _matrix_heads(table, wide=wide)
    _blank_line()
    if heads is None:
        _print_confusions(table, wide=wide)
        return
    rows = [
        [name if head == name else f"{head} {name}", *map(str, counts)]
        for name, head, counts in zip(table.classes, heads, table.counts, strict=True)
    ]
    print_table(["true class \\ predicted", *heads], rows, wide=wide)


def class_records(table: ClassTable) -> dict[str, Any]:
    """The same as JSON: ``per_class`` and ``confusion``."""
    return {
        "per_class": {name: table.scores(i) for i, name in enumerate(table.classes)},
        "confusion": table.counts.tolist(),
    }


def measured_representations(
    outputs: Outputs, rows: Split, predictor: Predictor
) -> Representations:
    """How well the features of a model separate the classes of some rows.

    Raises:
        SpecError: if the model predicts a number, or has no features.
    """
    from valence.errors import SpecError
    from valence.evaluation.representations import representations

    if not predictor.classes or not outputs.features.shape[1]:
        lack = "has no features" if predictor.classes else "predicts a number"
        raise SpecError(
            f"{predictor.folder} ({predictor.config.method}) {lack}; leave out --representations"
        )
    tail = predictor.task.tail
    return representations(outputs.features, rows.labels, len(predictor.classes), tail=tail)


def print_representations(
    measured: Representations, classes: tuple[str, ...], *, wide: bool | None = None
) -> None:
    """Measures of the features: of all rows, then of every class."""
    from valence.evaluation.representations import REPRESENTATIONS

    _blank_line()
    numbers = [
        [REPRESENTATIONS[name].title, console.number(value), REPRESENTATIONS[name].explanation]
        for name, value in measured.summary().items()
    ]
    print_table(["features", "value", "what it is"], numbers, keep=["features", "value"], wide=wide)
    _blank_line()
    rows = [
        [name, console.number(own["margin"]), own["nearest"] or "–", console.number(own["cosine"])]
        for name, own in representation_records(measured, classes)["representations"][
            "per_class"
        ].items()
    ]
    print_table(["class", "margin", "nearest class", "cosine"], rows, wide=wide)


def representation_records(
    measured: Representations, classes: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """The same as JSON: ``representations``, with every class under ``per_class``."""

    def number(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    per_class = {
        name: {
            "margin": number(measured.margins[i]),
            "nearest": classes[measured.nearest[i]] if measured.nearest[i] >= 0 else None,
            "cosine": number(measured.cosines[i]),
        }
        for i, name in enumerate(classes)
    }
    return {"representations": {**measured.summary(), "per_class": per_class}}


def _class_rows(table: ClassTable) -> list[list[str]]:
    rows = []
    for i, name in enumerate(table.classes):
        scores = table.scores(i)
        values = [console.number(scores[key]) for key in ("precision", "recall", "f1")]
        rows.append([name, *values, f"{table.counts[i].sum()}"])
    return rows


def _matrix_heads(table: ClassTable, *, wide: bool | None) -> list[str] | None:
    """Headings of the matrix: names, or numbers where these do not fit; None where neither."""
    numbers = [str(i + 1) for i in range(len(table.classes))]
    available = console.out().width if sys.stdout.isatty() and not wide else None
    digits = [max(len(str(n)) for n in column) for column in table.counts.T.tolist()]
    for heads in (list(table.classes), numbers):
        longest = max(map(len, table.classes), default=0) + (3 if heads is numbers else 0)
        cells = [max(len(head), d) for head, d in zip(heads, digits, strict=True)]
        needed = max(longest, len("true class \\ predicted")) + sum(cells) + GAP * len(cells)
        if available is None or needed <= available:
            return heads
    return None


def _print_confusions(table: ClassTable, *, wide: bool | None) -> None:
    most = table.confusions()[:MOST_CONFUSIONS]
    if not most:
        console.out().print("No class is confused with another")
        return
    rows = [
        [table.classes[true], table.classes[predicted], str(count), f"{part:.0%}"]
        for true, predicted, count, part in most
    ]
    heads = ["true class", "predicted as", "rows", "of the class"]
    print_table(heads, rows, title="Most frequent confusions", wide=wide)
    if sys.stdout.isatty():
        console.out().print("All cells: --wide", style="dim")


def _blank_line() -> None:
    if sys.stdout.isatty():
        sys.stdout.write("\n")
