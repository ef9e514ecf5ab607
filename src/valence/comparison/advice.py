"""What would help a fitted model most: more labels, or a look at those there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from valence.config.callbacks import ProgressCallback, part_of
from valence.data.dataset import Dataset
from valence.data.frames import PREFIX as FRAME
from valence.data.sources import load_dataset
from valence.errors import ValenceError
from valence.evaluation.classification import expected_macro_f1
from valence.evaluation.gains import gain_error
from valence.runs.runner import run
from valence.runs.store import RunResult, RunStore

MOST_ROWS = 20_000
"""Training rows above which the learning curve is left out."""
FEWEST_ROWS = 20
"""Training rows below which it is."""
LOGIT = "logit_"


@dataclass(frozen=True)
class LearningCurve:
    """Macro-F1 of one method by its training rows.

    It is scored on the validation rows and on the training rows of the half. Each training row is
    scored by models that were fitted without it.

    Attributes:
        method: Its name.
        rows: Training rows, all of them.
        scored: Rows that both scores are taken from.
        half, full: Macro-F1 with half of the training rows, and with all.
        error: Standard error of the difference.
    """

    method: str
    rows: int
    scored: int
    half: float
    full: float
    error: float

    @property
    def gain(self) -> float:
        """What the second half of the rows added."""
        return self.full - self.half


def learning_curve(
    key: str, data: Dataset, store: RunStore, *, data_dir: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> LearningCurve | str:  # fmt: skip
    """Fit the method of a run on all training rows and on half of every class.

    Args:
        key: A finished run.
        data: Its rows.
        store: Where it is; the other runs go there too.
        data_dir: Folder of corpora.
        progress: Called with the fraction done and a message.

    Returns:
        The curve, or why there is none: the rows are too few or too many, or the method cannot
        do with half of them.
    """
    known = store.get(key)
    if known is None:
        return f"run {key} is missing"
    if not FEWEST_ROWS <= len(data.train) <= MOST_ROWS:
        return f"it needs {FEWEST_ROWS} to {MOST_ROWS:,} training rows"
    counts = data.train.counts(len(data.classes))
    halves = {name: int(n + 1) // 2 for name, n in zip(data.classes, counts, strict=True)}
    cleared = {"data.imbalance_ratio": None, "data.head_count": None, "data.train_total": None}
    spec = known.spec.override({"refit.when": "never"})
    try:
        steps = (part_of(progress, a, a + 0.5) for a in (0.0, 0.5))
        first, second = (one and _titled(one) for one in steps)
        full = run(spec, store=store, dataset=data, progress=first)
        fewer = spec.override({**cleared, "data.train_counts": halves})
        half = run(
            fewer, store=store, progress=second,
            dataset=load_dataset(fewer.data, seed=spec.seed, data_dir=data_dir),
        )  # fmt: skip
    except ValenceError as error:
        return f"half of the rows cannot be used ({error})"
    tables = [_unseen(store, one.key) for one in (half, full)]
    shared = tables[0].index.intersection(tables[1].index)
    if shared.empty:
        return "its runs have no unseen rows in common"
    before, after = (one.loc[shared].filter(like=LOGIT).to_numpy() for one in tables)
    labels = tables[1].loc[shared, "label"].to_numpy()
    counts = np.bincount(data.validation.labels, minlength=len(data.classes))
    shares = counts / counts.sum()
    low, high = (expected_macro_f1(one, labels, shares) for one in (before, after))
    deviation = gain_error(before, after, labels, shares)
    return LearningCurve(spec.method, len(data.train), len(shared), low, high, deviation)


def _titled(progress: ProgressCallback) -> ProgressCallback:
    return lambda done, message: progress(done, f"learning curve: {message}")


def _unseen(store: RunStore, key: str) -> pd.DataFrame:
    """Label and logits of the rows that a model was not fitted on, by split and id."""
    table = store.predictions(key)
    return table[table["split"] != "test"].set_index(["split", "id"])


def advice_of(result: RunResult, curve: LearningCurve | str = "") -> str:
    """What would help most, from the learning curve, validation scores and class sizes.

    Args:
        result: The run of the chosen model.
        curve: Of its largest member, or why there is none.
    """
    scores = {name: result.validation.get(f"f1/{name}") for name in result.classes}
    known = {name: score for name, score in scores.items() if score is not None}
    if not known:
        return "more validation rows: no class has a score"
    weakest = min(known, key=lambda name: known[name])
    sizes = dict(zip(result.classes, result.train_counts, strict=True))
    where = f"{weakest!r} (F1 {known[weakest]:.2f} on validation, {sizes[weakest]} training rows)"
    name = result.spec.data.name
    look = "valence audit" if name.startswith(FRAME) else f"valence audit {name}"
    if isinstance(curve, str):
        why = f". No learning curve: {curve}" if curve else ""
        return f"more labels of {where}, or a check of its labels: {look}{why}"
    measured = (
        f"macro-F1 of {curve.method} on {curve.scored} rows it was not fitted on is "
        f"{curve.half:.3f} with half of the {curve.rows} training rows and {curve.full:.3f} with "
        f"all ({curve.gain:+.3f} ± {curve.error:.3f})"
    )
    if curve.gain > curve.error:
        return f"more labels, above all of {where}: {measured}"
    return f"a check of the labels of {where}: {look}. More rows may not help: {measured}"
