"""``valence fit``: the best model for some rows, how good it is, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence.comparison.advice import LearningCurve, advice_of, learning_curve
from valence.comparison.bootstrap import Difference, paired_bootstrap
from valence.config.callbacks import ProgressCallback, part_of
from valence.config.data import DataSpec
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.methods.portfolio import PORTFOLIO_FILE
from valence.methods.registry import make_spec
from valence.models.loaded_once import frozen_encoders_loaded_once
from valence.runs.runner import RunStopped, run
from valence.runs.store import RunResult, RunStore

METHOD = "auto"
FLOOR = "majority"
CURVE_START = 0.85
"""Fraction of the progress after which the learning curve is made."""
FEW_ROWS = 20
"""Training rows of a class below which it is small."""
RESAMPLES = 2000


@dataclass(frozen=True)
class RowCheck:
    """What the rows look like, in numbers.

    Attributes:
        leaked: Test rows whose text is among the training or validation rows.
        repeated: Training rows whose text came before.
        contradicting: Training texts that occur with several labels.
        small: Classes with fewer than ``FEW_ROWS`` training rows, and how many they have.
    """

    leaked: int
    repeated: int
    contradicting: int
    small: Mapping[str, int]

    def lines(self) -> tuple[str, ...]:
        """Two lines for people."""
        repeats = (
            f"{self.repeated} training rows repeat another one, {self.contradicting} texts have "
            f"several labels, {self.leaked} test texts are among the training rows"
        )
        thin = ", ".join(f"{name} {rows}" for name, rows in self.small.items())
        classes = f"few training rows: {thin}" if thin else "every class has enough training rows"
        return repeats, classes


@dataclass(frozen=True)
class BestModel:
    """The result of ``valence fit``.

    Attributes:
        result: The run of the chosen model; its model is in the run folder.
        check: What the rows look like.
        portfolio: One row per model that was tried.
        score: Macro-F1 on the test rows with its 95% interval; None without test rows.
        over_floor: Difference to always the largest class; None without test rows.
        over_next: Difference to the best other model by validation; None where none was tried.
        next_name: That model.
        advice: What would help most, in one line.
        model: The folder of the model.
        is_complete: Whether all was tried; False after an interrupt.
    """

    result: RunResult
    check: RowCheck
    portfolio: pd.DataFrame
    score: Difference
    over_floor: Difference
    over_next: Difference | None
    next_name: str
    advice: str
    model: Path
    is_complete: bool = True


@frozen_encoders_loaded_once()
def fit_best(
    data: DataSpec,
    *,
    store: RunStore,
    settings: Mapping[str, Any] | None = None,
    seed: int = 45,
    data_dir: str | Path | None = None,
    progress: ProgressCallback | None = None,
    track: str | None = None,
) -> BestModel:
    """Fit the portfolio of ``auto``, keep the best model, and compare it on the test rows.

    Everything is chosen out of fold and on validation rows. Fitted models are kept in the store,
    so that the same call goes on where an earlier one was stopped. An interrupt after the first
    fitted model ends the search, and the result is the best so far.

    Args:
        data: Which rows.
        store: Where run folders are.
        settings: Dotted settings of ``auto``.
        seed: Random seed.
        data_dir: Folder of corpora.
        progress: Called with the fraction done and a message.
        track: A tool to log to.

    Raises:
        ValenceError: if the rows, the settings or the fit fail.
    """
    spec = make_spec(METHOD, data, seed=seed, settings=settings)
    rows = load_dataset(spec.data, seed=seed, data_dir=data_dir)
    home, is_complete = store, True
    try:
        result = run(
            spec, store=store, dataset=rows, keep_model=True, track=track,
            progress=part_of(progress, 0.0, CURVE_START),
        )  # fmt: skip
    except RunStopped as stopped:
        home, result = stopped.keep()
        is_complete = False
    floor = run(make_spec(FLOOR, data, seed=seed), store=store, dataset=rows)
    folder = home.path(result.key)
    portfolio = pd.read_csv(folder / PORTFOLIO_FILE, keep_default_na=False)
    other = _best_other(portfolio)
    last = part_of(progress, CURVE_START, 1.0)
    curve: LearningCurve | str = "you stopped before it"
    if is_complete:
        curve = _curve(portfolio, rows, store, data_dir, last)
    ours = _predicted(home, result.key)
    labels = rows.test.labels
    return BestModel(
        result, check_rows(rows), portfolio,
        _shift(paired_bootstrap([labels], [ours], [labels], class_count=len(rows.classes))),
        _difference(rows, ours, _predicted(store, floor.key)),
        None if other is None else _difference(rows, ours, _predicted(store, other["run"])),
        "" if other is None else other["model"], advice_of(result, curve), folder / "model",
        is_complete,
    )  # fmt: skip


def _curve(
    portfolio: pd.DataFrame, rows: Dataset, store: RunStore, data_dir: str | Path | None,
    progress: ProgressCallback | None,
) -> LearningCurve | str:  # fmt: skip
    """The learning curve of the largest member that trains nothing in the encoder, or why none."""
    quick = portfolio[portfolio["out_of_fold"] & (portfolio["run"] != "")]
    if not len(quick):
        return "every member trains the encoder"
    key = str(quick.sort_values("share")["run"].iloc[-1])
    return learning_curve(key, rows, store, data_dir=data_dir, progress=progress)


def check_rows(data: Dataset) -> RowCheck:
    """Count leaks, repeats, contradictions and small classes.

    Args:
        data: The rows.
    """
    train = pd.DataFrame({"text": _plain(data.train.texts), "label": data.train.labels})
    known = {*train["text"], *_plain(data.validation.texts)}
    counts = data.train.counts(len(data.classes))
    return RowCheck(
        leaked=sum(text in known for text in _plain(data.test.texts)),
        repeated=int(train["text"].duplicated().sum()),
        contradicting=int((train.groupby("text")["label"].nunique() > 1).sum()),
        small={data.classes[i]: int(n) for i, n in enumerate(counts) if n < FEW_ROWS},
    )


def _plain(texts: list[str]) -> list[str]:
    """Texts in lower case, spaces joined: as they are compared."""
    return [" ".join(text.lower().split()) for text in texts]


def _predicted(store: RunStore, key: str) -> np.ndarray:
    table = store.predictions(key)
    predicted: np.ndarray = table.loc[table["split"] == "test", "predicted"].to_numpy()
    return predicted


def _difference(rows: Dataset, ours: np.ndarray, others: np.ndarray) -> Difference:
    return paired_bootstrap(
        [rows.test.labels], [ours], [others], class_count=len(rows.classes), resamples=RESAMPLES
    )


def _shift(below_perfect: Difference) -> Difference:
    """A score from its difference to perfect predictions, whose macro-F1 is 1."""
    value, low, high = (
        None if number is None else number + 1
        for number in (below_perfect.value, below_perfect.low, below_perfect.high)
    )
    return Difference(value, low, high, None)


def _best_other(portfolio: pd.DataFrame) -> dict[str, str] | None:
    """The best tried model that is not the chosen one by itself."""
    members = portfolio[portfolio["share"] > 0]
    alone = members["model"].iloc[0] if len(members) == 1 else None
    others = portfolio[(portfolio["model"] != alone) & (portfolio["run"] != "")]
    if not len(others):
        return None
    best = others.sort_values("expected_macro_f1", ascending=False).iloc[0]
    return {"model": str(best["model"]), "run": str(best["run"])}
