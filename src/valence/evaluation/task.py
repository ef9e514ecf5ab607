"""What is predicted and how it is scored: :class:`Classification` and :class:`Regression`.

A place that asks "classes or a number?" belongs here. A task knows its metrics, the losses that
fit it, how outputs become predictions and columns of tables, and what a report shows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from valence.errors import SpecError, UnknownNameError
from valence.evaluation.classification import METRICS, classification_scores, group_scores
from valence.evaluation.regression import INTENSITY_METRICS, Scale, intensity_scores

CERTAIN = 5.0
"""Logit of an answer without probabilities; the other labels have 0."""
DECIMALS = 6
LABEL_FORMATS: Mapping[str, str] = {"classes": "<i8", "intensity": "<f4"}
MetricScores = dict[str, float | None]
"""Scores by metric name; None where a score is undefined."""


class Task(ABC):
    """What a model predicts.

    Attributes:
        target: The value of ``data.target`` that names the task.
        problem_type: Its name in a ``config.json`` of transformers.
        main_metric: The metric that ranks and is tested.
        counts: (C,) training rows per class; none where a number is predicted.
        tail: Ids of the tail classes.
    """

    counts: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()
    target: ClassVar[Literal["classes", "intensity"]]
    problem_type: ClassVar[Literal["single_label_classification", "regression"]]
    main_metric: ClassVar[str]

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Label names in the order of their ids; empty where a number is predicted."""

    @property
    @abstractmethod
    def titles(self) -> Mapping[str, str]:
        """Every metric with the heading of its column."""

    @property
    @abstractmethod
    def shown_metrics(self) -> tuple[str, ...]:
        """The metrics of a leaderboard, the main one first."""

    @property
    @abstractmethod
    def explanations(self) -> tuple[str, ...]:
        """A line on each metric whose meaning a report explains."""

    @property
    def output_size(self) -> int:
        """Numbers a model gives for one row."""
        return max(1, len(self.classes))

    @property
    def label_format(self) -> str:
        """NumPy format in which labels are hashed."""
        return LABEL_FORMATS[self.target]

    @abstractmethod
    def scores(self, logits: np.ndarray, truth: np.ndarray) -> MetricScores:
        """Every metric of N rows.

        Args:
            logits: (N, C), or (N, 1) numbers.
            truth: (N,) class ids or numbers.
        """

    @abstractmethod
    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """(N,) class ids, or numbers, of logits (N, C)."""

    @abstractmethod
    def columns(self, logits: np.ndarray, labels: Sequence[str]) -> dict[str, list[Any]]:
        """What a table of predictions holds, by column.

        Args:
            logits: (N, C).
            labels: N decided labels; ignored where a number is predicted.
        """

    @abstractmethod
    def named(self, logits: np.ndarray) -> list[dict[str, float]]:
        """The prediction of each row, by name: probabilities by label, or the number."""

    def output_name(self, output: int) -> str:
        """What an output is called: the label, or the target."""
        return self.classes[output] if self.classes else self.target

    def group_scores(
        self, logits: np.ndarray, truth: np.ndarray, groups: np.ndarray
    ) -> dict[str, MetricScores]:
        """Scores of every group of rows, by group; empty where the task has none."""
        return {}

    def fill_unanswered(self, logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Logits in which rows with NaN are filled so that they count as wrong."""
        return logits

    def lower_is_better(self, metric: str) -> bool:
        """Whether lower values of a metric are better."""
        return False

    def signed(self, metric: str, value: float) -> float:
        """The value, negated where lower is better: of two, the larger is the better."""
        return -value if self.lower_is_better(metric) else value

    @property
    def main_lower_is_better(self) -> bool:
        """Whether lower values of the main metric are better."""
        return self.lower_is_better(self.main_metric)

    @property
    def main_title(self) -> str:
        """The heading of the main metric."""
        return self.titles[self.main_metric]

    @abstractmethod
    def perfect_logits(self, truth: np.ndarray) -> np.ndarray:
        """(N, C) logits of a model that is always right."""

    def check_metric(self, metric: str, truth: np.ndarray | None = None) -> None:
        """Refuse a metric that this task does not have, or that has no value on some rows.

        Args:
            metric: The setting ``train.metric``.
            truth: (N,) class ids or numbers of the rows it will be computed on.

        Raises:
            UnknownNameError: with the closest known one.
            SpecError: if it has no value.
        """
        if metric not in self.titles:
            raise UnknownNameError("metric", metric, self.titles)
        if truth is not None:
            self.chosen_score(self.scores(self.perfect_logits(truth), truth), metric)

    def chosen_score(self, scores: Mapping[str, float | None], metric: str) -> float:
        """The score by which something is chosen; of two, the larger is the better.

        Args:
            scores: Scores of the validation rows.
            metric: The setting ``train.metric``.

        Raises:
            UnknownNameError: if the task has no such metric.
            SpecError: if it has no value on these rows.
        """
        self.check_metric(metric)
        value = scores.get(metric)
        if value is None:
            known = ", ".join(n for n, v in scores.items() if v is not None and n in self.titles)
            raise SpecError(
                f"train.metric {metric!r} is undefined on the validation rows; use one of {known}"
            )
        return self.signed(metric, value)


@dataclass(frozen=True)
class Classification(Task):
    """One of C labels.

    Attributes:
        names: Label names in the order of their ids.
        counts: (C,) training rows per class.
        tail: Ids of the tail classes.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()

    target = "classes"
    problem_type = "single_label_classification"
    main_metric = "macro_f1"

    @property
    def classes(self) -> tuple[str, ...]:
        """Label names in the order of their ids."""
        return self.names

    @property
    def titles(self) -> Mapping[str, str]:
        """Every metric with the heading of its column."""
        return {name: metric.title for name, metric in METRICS.items()}

    @property
    def shown_metrics(self) -> tuple[str, ...]:
        """The metrics of a leaderboard, the main one first."""
        return ("macro_f1", "tail_f1", "middle_f1", "head_f1", "accuracy", "g_mean", "auc")

    @property
    def explanations(self) -> tuple[str, ...]:
        """A line on each metric whose meaning a report explains."""
        names = ("macro_f1", "tail_f1", "g_mean")
        return tuple(f"{METRICS[n].title}: {METRICS[n].explanation}" for n in names)

    def scores(self, logits: np.ndarray, truth: np.ndarray) -> MetricScores:
        """As :meth:`Task.scores`; ``f1/<class>`` too."""
        return classification_scores(
            truth, logits, classes=self.names, train_counts=self.counts, tail=self.tail
        )

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """(N,) class ids."""
        ids: np.ndarray = logits.argmax(axis=1)
        return ids

    def named(self, logits: np.ndarray) -> list[dict[str, float]]:
        """Probabilities by label, of each row."""
        return [dict(zip(self.names, row.tolist(), strict=True)) for row in softmax(logits)]

    def perfect_logits(self, truth: np.ndarray) -> np.ndarray:
        """(N, C) logits of a model that is always right."""
        ones: np.ndarray = np.eye(len(self.names), dtype=np.float32)[truth]
        return ones

    def columns(self, logits: np.ndarray, labels: Sequence[str]) -> dict[str, list[Any]]:
        """``label`` and ``prob_<class>``."""
        rounded = softmax(logits).astype(np.float64).round(DECIMALS)
        named = {f"prob_{name}": rounded[:, i].tolist() for i, name in enumerate(self.names)}
        return {"label": list(labels), **named}

    def group_scores(
        self, logits: np.ndarray, truth: np.ndarray, groups: np.ndarray
    ) -> dict[str, MetricScores]:
        """Scores of every group of rows, by group."""
        return group_scores(truth, logits.argmax(axis=1), groups, self.names)

    def fill_unanswered(self, logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Rows not answered get the most frequent training class that is not their truth."""
        missing = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if not len(missing):
            return logits
        first, second = np.argsort(np.asarray(self.counts), kind="stable")[::-1][:2]
        filled = logits.copy()
        filled[missing] = 0.0
        filled[missing, np.where(truth[missing] == first, second, first)] = CERTAIN
        return filled


@dataclass(frozen=True)
class Regression(Task):
    """A number between two ends.

    Attributes:
        low, high: Ends of the scale: −3 to 3 of MOSI and MOSEI, −1 to 1 of CH-SIMS.
    """

    low: float = -3.0
    high: float = 3.0
    _titles: dict[str, str] = field(
        default_factory=lambda: {n: m.title for n, m in INTENSITY_METRICS.items()},
        repr=False, compare=False,
    )  # fmt: skip

    target = "intensity"
    problem_type = "regression"
    main_metric = "mae"

    @classmethod
    def of_scale(cls, scale: Scale) -> Regression:
        """The task of a published scale."""
        return cls(-1.0, 1.0) if scale == "ch-sims" else cls()

    @property
    def scale(self) -> Scale:
        """The published scale whose metrics are reported."""
        return "ch-sims" if self.high <= 1.0 else "mosi"

    @property
    def classes(self) -> tuple[str, ...]:
        """No labels."""
        return ()

    @property
    def titles(self) -> Mapping[str, str]:
        """Every metric of the scale with the heading of its column."""
        known = INTENSITY_METRICS.items()
        return {name: self._titles[name] for name, m in known if self.scale in m.scales}

    @property
    def shown_metrics(self) -> tuple[str, ...]:
        """The metrics of a leaderboard, the main one first."""
        if self.scale == "ch-sims":
            return ("mae", "corr", "acc2", "f1", "acc3", "acc5")
        return ("mae", "corr", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "acc5", "acc7")

    @property
    def explanations(self) -> tuple[str, ...]:
        """A line on each metric whose meaning a report explains."""
        narrow, wide = ("mae", "acc2", "acc3"), ("mae", "acc2_has0", "acc2_non0", "acc7")
        metrics = [INTENSITY_METRICS[n] for n in (narrow if self.scale == "ch-sims" else wide)]
        return tuple(f"{m.title}: {m.explanation}" for m in metrics)

    def scores(self, logits: np.ndarray, truth: np.ndarray) -> MetricScores:
        """As :meth:`Task.scores`."""
        return intensity_scores(truth, logits[:, 0], scale=self.scale)

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """(N,) numbers."""
        numbers: np.ndarray = logits[:, 0]
        return numbers

    def named(self, logits: np.ndarray) -> list[dict[str, float]]:
        """The number, of each row."""
        return [{self.target: float(value)} for value in logits[:, 0]]

    def perfect_logits(self, truth: np.ndarray) -> np.ndarray:
        """(N, 1) numbers of a model that is always right."""
        return np.asarray(truth, dtype=np.float32)[:, None]

    def columns(self, logits: np.ndarray, labels: Sequence[str]) -> dict[str, list[Any]]:
        """``intensity``."""
        return {"intensity": logits[:, 0].astype(np.float64).round(DECIMALS).tolist()}

    def lower_is_better(self, metric: str) -> bool:
        """Whether lower values of a metric are better."""
        info = INTENSITY_METRICS.get(metric)
        return info is not None and info.better == "low"


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) probabilities of logits (N, C); avoids the slow import of SciPy."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probs
