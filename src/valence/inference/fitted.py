"""``valence.fit``: the best model for some rows, ready for texts: :class:`Fitted`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.comparison.best_model import BestModel, fit_best
from valence.comparison.fit_report import report_text
from valence.config.data import DataSpec
from valence.config.duration import parse_duration
from valence.config.sections import AUTO_ENCODER
from valence.config.spec import build
from valence.data.frames import as_frame, frames_as_names
from valence.data.sources import load_split
from valence.errors import SpecError
from valence.evaluation.task import MetricScores
from valence.inference.predictor import Predictor
from valence.models.config_file import CONFIG_FILE
from valence.runs.store import RunResult, RunStore
from valence.storage import atomic

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from valence.config.callbacks import ProgressCallback
    from valence.data.dataset import Split


@dataclass(frozen=True)
class Fitted:
    """The model that :func:`valence.fit` chose, and how good it is.

    Attributes:
        best: Scores, intervals and the models that were tried.
        predictor: The model.
    """

    best: BestModel
    predictor: Predictor

    @property
    def result(self) -> RunResult:
        """The run of the model: its scores on validation and test rows."""
        return self.best.result

    @property
    def classes(self) -> tuple[str, ...]:
        """Label names in the order of the probabilities."""
        return self.predictor.classes

    @property
    def is_complete(self) -> bool:
        """Whether all was tried; False where an interrupt ended the search."""
        return self.best.is_complete

    def predict(self, texts: Any) -> list[str] | pd.Series:
        """The most probable label of every text; of a DataFrame as a Series with its index.

        Args:
            texts: A list, a column, or a DataFrame with a column of texts: that of the training,
                else as ``load_dataset`` finds it.
        """
        frame = None if isinstance(texts, list) else as_frame(texts)
        if frame is None:
            return self.predictor.predict(texts)
        return self.predictor.table(frame)["label"]

    def predict_proba(self, texts: Any) -> np.ndarray | pd.DataFrame:
        """(N, C) probabilities; of a DataFrame as one with its index and a column per class.

        Args:
            texts: As for :meth:`predict`.
        """
        frame = None if isinstance(texts, list) else as_frame(texts)
        if frame is None:
            return self.predictor.predict_proba(texts)
        table = self.predictor.table(frame)
        columns = {f"prob_{name}": name for name in self.classes}
        return table[list(columns)].rename(columns=columns)

    def table(self, texts: Any) -> pd.DataFrame:
        """Columns ``label`` and ``prob_<class>``; of a DataFrame behind its own columns.

        Args:
            texts: As for :meth:`predict`.
        """
        return self.predictor.table(texts)

    def score(self, data: Any) -> float | None:
        """Macro-F1 on labeled rows; None where it is not defined.

        Args:
            data: As for :meth:`evaluate`.
        """
        return self.evaluate(data)[self.predictor.task.main_metric]

    def evaluate(self, data: Any) -> MetricScores:
        """Every score of the model on labeled rows.

        Args:
            data: A DataFrame or a source with the columns of the training, or with columns that
                are found as ``load_dataset`` finds them; all of its rows, or its test split.

        Raises:
            DataError: if it has a label that the model does not know.
        """
        with _labeled_rows(data, self.predictor) as rows:
            return self.predictor.evaluate(rows)

    def report(self) -> str:
        """What ``valence fit`` prints: the rows, the models that were tried, how good it is."""
        return report_text(self.best)

    def save(self, folder: str | Path) -> None:
        """Write the model as a folder that ``valence.load_model`` and the command line take.

        A model that is there is replaced, whole.

        Raises:
            RunError: if the disk refuses, or the folder holds something else.
        """
        with atomic.new_folder(folder, marker=CONFIG_FILE) as scratch:
            shutil.copytree(self.predictor.folder, scratch, dirs_exist_ok=True)


@contextmanager
def _labeled_rows(data: Any, predictor: Predictor) -> Iterator[Split]:
    with frames_as_names([data]) as (name,):
        yield load_split(
            DataSpec(name=name), predictor.classes, trained_on=predictor.config.data
        ).rows


def fit_rows(
    data: Any,
    *,
    columns: Mapping[str, str | None],
    settings: Mapping[str, Any],
    seed: int,
    store: RunStore,
    data_dir: str | Path | None,
    track: str | None,
    progress: ProgressCallback | None = None,
) -> Fitted:
    """Fit the best model for rows; see :func:`valence.fit`.

    Args:
        data: What ``load_dataset`` takes.
        columns: Columns by the field of ``DataSpec``; None for those that are to be found.
        settings: Dotted settings of ``auto``.
        seed: Seed of everything random.
        store: Where run folders are.
        data_dir: Folder of corpora.
        track: A tool to log to.
        progress: Called with the fraction done and a short message.
    """
    given = {field: name for field, name in columns.items() if name is not None}
    with frames_as_names([data]) as (name,):
        best = fit_best(
            build(DataSpec, {**given, "name": name}), store=store, settings=settings, seed=seed,
            data_dir=data_dir, track=track, progress=progress,
        )  # fmt: skip
    return Fitted(best, Predictor(best.model))


def budget_settings(budget: str | float | None, encoder: str) -> dict[str, Any]:
    """The dotted settings of a budget and an encoder.

    Args:
        budget: ``"90s"``, ``"5m"``, ``"2h"``, a number of seconds, or None for no limit.
        encoder: An encoder, or ``auto``.

    Raises:
        SpecError: if the budget is no duration.
    """
    chosen = {} if encoder == AUTO_ENCODER else {"encoder.name": encoder}
    if budget is None:
        return chosen
    if isinstance(budget, bool) or not isinstance(budget, str | int | float):
        raise SpecError(f"The budget {budget!r} is not a duration; write 90s, 5m or 2h")
    return {"portfolio.budget_seconds": parse_duration(str(budget)), **chosen}
