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
    OutputOptions,
    SplitName,
    with_groups,
)

if TYPE_CHECKING:
    import numpy as np

    from valence.data.sources import LabeledRows

Scores = dict[str, float | None]
SHOWN_BY_GROUP = ("rows", "macro_f1", "weighted_f1", "accuracy")


@with_groups
def evaluate(
    model: ModelFolder,
    data: DataOptions,
    hardware: ModelHardware,
    output: OutputOptions,
    split: SplitName = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the record; MODEL/report when none.")
    ] = None,
) -> None:
    """Score a saved model on labeled rows: all of a file, or a split of a source with several."""
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
    logits, scores = predictor.scored(loaded.rows)
    is_grouped = bool(data.group or data.groups)
    by_group = scores_by_group(loaded, logits, predictor.classes) if is_grouped else {}
    entry = {
        "model": predictor.config.method, "mode": "evaluate", "data": data.data,
        "rows": len(loaded.rows), "metrics": scores, "parameters": predictor.config.spec,
        **({"groups": by_group} if by_group else {}),
    }  # fmt: skip
    shown = pd.DataFrame({"text": loaded.rows.texts, "label": loaded.rows.labels})
    record_scores(out or model / "report", entry, shown, logits, predictor.classes)
    print_scores(scores, as_json=output.json, by_group=by_group)


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


def print_scores(
    scores: dict[str, Any], *, as_json: bool, by_group: dict[str, Scores] | None = None
) -> None:
    """Test scores as a table or as JSON; those of groups in a second table."""
    from valence.evaluation.classification import METRICS
    from valence.evaluation.regression import INTENSITY_METRICS

    titles = {n: m.title for n, m in METRICS.items()}
    titles |= {n: m.title for n, m in INTENSITY_METRICS.items()}
    if as_json:
        console.print_json({**scores, "groups": by_group} if by_group else scores)
        return
    rows = [
        [titles.get(name, name.replace("f1/", "F1 of ")), console.number(value)]
        for name, value in scores.items()
    ]
    console.print_table(["test score", "value"], rows)
    if by_group:
        heads = ["group", *(titles.get(name, name) for name in SHOWN_BY_GROUP)]
        console.print_table(heads, [_group_row(*pair) for pair in by_group.items()])


def _group_row(name: str, scores: Scores) -> list[str]:
    rows, *values = (scores[metric] for metric in SHOWN_BY_GROUP)
    return [name, "–" if rows is None else f"{rows:.0f}", *map(console.number, values)]
