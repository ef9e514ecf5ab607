"""``valence evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console
from valence.cli.options import (
    DataOptions,
    ModelFolder,
    ModelHardware,
    SplitName,
    TableOptions,
    with_groups,
)
from valence.cli.scores import (
    class_records,
    measured_representations,
    print_class_table,
    print_representations,
    representation_records,
)
from valence.cli.tables import print_table

if TYPE_CHECKING:
    import numpy as np

    from valence.data.sources import LabeledRows
    from valence.evaluation.classification import ClassTable
    from valence.evaluation.representations import Representations

Scores = dict[str, float | None]
SHOWN_BY_GROUP = ("rows", "macro_f1", "weighted_f1", "accuracy")


@with_groups
def evaluate(
    model: ModelFolder,
    data: DataOptions,
    hardware: ModelHardware,
    output: TableOptions,
    split: SplitName = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; default: MODEL/report.")
    ] = None,
    representations: Annotated[
        bool,
        typer.Option(
            "--representations", help="Also measure how well the features separate the classes."
        ),
    ] = False,
) -> None:
    """Evaluate a saved model on labeled rows."""
    import pandas as pd

    from valence.data.sources import load_split
    from valence.inference.predictor import Predictor
    from valence.reports.records import record_scores

    data.refuse_other_settings("data")
    predictor = Predictor(model, hardware=hardware.requested())
    loaded = load_split(
        data.spec(data.data, target=predictor.target), predictor.classes,
        split=split, data_dir=data.data_dir, trained_on=predictor.config.data,
    )  # fmt: skip
    if not output.quiet:
        print_notes(loaded)
        console.info(str(loaded))
    outputs = predictor.outputs(loaded.rows.examples())
    logits, scores = outputs.logits, predictor.task.scores(outputs.logits, loaded.rows.labels)
    measured = None
    if representations:
        measured = measured_representations(outputs, loaded.rows, predictor)
    is_grouped = bool(data.group or data.groups)
    by_group = scores_by_group(loaded, logits, predictor.classes) if is_grouped else {}
    entry = {
        "model": predictor.config.method, "mode": "evaluate", "data": data.data,
        "rows": len(loaded.rows), "metrics": scores, "parameters": predictor.config.spec,
        **({"groups": by_group} if by_group else {}),
        **({} if measured is None else representation_records(measured, predictor.classes)),
    }  # fmt: skip
    shown = pd.DataFrame({"text": loaded.rows.texts, "label": loaded.rows.labels})
    record_scores(out or model / "report", entry, shown, logits, predictor.classes)
    table = class_table(loaded.rows.labels, logits.argmax(axis=1), predictor.classes)
    print_scores(
        scores, output, by_group=by_group, classes=table, representations=measured,
    )  # fmt: skip


def print_notes(loaded: LabeledRows) -> None:
    """What was left out of the rows, a line each."""
    for note in loaded.notes:
        console.info(f"Note: {note}")


def scores_by_group(
    loaded: LabeledRows, logits: np.ndarray, classes: tuple[str, ...]
) -> dict[str, Scores]:
    """Scores of every group of the rows; none where they have no groups or no classes."""
    from valence.data.groups import group_values
    from valence.evaluation.classification import group_scores

    if not loaded.group or not classes:
        return {}
    names = group_values(loaded.rows.extra[loaded.group]).to_numpy(dtype=str)
    return group_scores(loaded.rows.labels, logits.argmax(axis=1), names, classes)


def class_table(
    labels: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]
) -> ClassTable | None:
    """What (N,) predicted ids make of (N,) true ones; None where a number is predicted."""
    from valence.evaluation.classification import ClassTable, confusion

    return ClassTable(classes, confusion(labels, predicted, len(classes))) if classes else None


def print_scores(
    scores: dict[str, Any], output: TableOptions, *,
    by_group: dict[str, Scores] | None = None, classes: ClassTable | None = None,
    representations: Representations | None = None,
) -> None:  # fmt: skip
    """Test scores as tables or as JSON: overall, by class with the confusion matrix, by group.

    Args:
        scores: Every score by name.
        output: How they are shown.
        by_group: Scores of every group.
        classes: What is predicted of every class; none where a number is.
        representations: How well the features separate the classes, if it was measured.
    """
    from valence.evaluation.classification import METRICS
    from valence.evaluation.regression import INTENSITY_METRICS

    titles = {n: m.title for n, m in METRICS.items()}
    titles |= {n: m.title for n, m in INTENSITY_METRICS.items()}
    if output.json:
        more = {} if classes is None else class_records(classes)
        if classes is not None and representations is not None:
            more |= representation_records(representations, classes.classes)
        console.print_json({**scores, **more, **({"groups": by_group} if by_group else {})})
        return
    rows = [
        [titles[name], console.number(value)] for name, value in scores.items() if name in titles
    ]
    print_table(["test score", "value"], rows)
    if classes is not None:
        print_class_table(classes, wide=output.wide)
        if representations is not None:
            print_representations(representations, classes.classes, wide=output.wide)
    if by_group:
        heads = ["group", *(titles.get(name, name) for name in SHOWN_BY_GROUP)]
        print_table(heads, [_group_row(*pair) for pair in by_group.items()])


def _group_row(name: str, scores: Scores) -> list[str]:
    rows, *values = (scores[metric] for metric in SHOWN_BY_GROUP)
    return [name, "–" if rows is None else f"{rows:.0f}", *map(console.number, values)]
