"""What a table shows of a run: scores of classes, or of an intensity."""

from __future__ import annotations

from dataclasses import dataclass

from valence.evaluation.classification import METRICS
from valence.evaluation.regression import INTENSITY_METRICS
from valence.runs.store import RunResult


@dataclass(frozen=True)
class Scoring:
    """How runs of one target are shown.

    Attributes:
        main: The metric that ranks and is tested.
        shown: The metrics of the leaderboard.
        titles: Headings by metric.
        explained: Metrics whose meaning a report says.
        lower_is_better: Of ``main``.
    """

    main: str
    shown: tuple[str, ...]
    titles: dict[str, str]
    explained: tuple[str, ...]
    lower_is_better: bool = False

    def gain(self, difference: float) -> bool:
        """Whether a difference of the main metric is for the better."""
        return difference < 0 if self.lower_is_better else difference > 0


CLASSES = Scoring(
    "macro_f1",
    ("macro_f1", "tail_f1", "middle_f1", "head_f1", "accuracy", "g_mean", "auc"),
    {name: metric.title for name, metric in METRICS.items()},
    ("macro_f1", "tail_f1", "g_mean"),
)
_TITLES = {name: metric.title for name, metric in INTENSITY_METRICS.items()}
MOSI = Scoring(
    "mae",
    ("mae", "corr", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "acc5", "acc7"),
    _TITLES, ("mae", "acc2_has0", "acc2_non0", "acc7"), lower_is_better=True,
)  # fmt: skip
CH_SIMS = Scoring(
    "mae", ("mae", "corr", "acc2", "f1", "acc3", "acc5"), _TITLES, ("mae", "acc2", "acc3"),
    lower_is_better=True,
)  # fmt: skip


def scoring_of(result: RunResult) -> Scoring:
    """How a run is shown."""
    if "mae" not in result.test:
        return CLASSES
    return MOSI if "acc7" in result.test else CH_SIMS


def explanation(metric: str) -> str:
    """``title: what it is``."""
    info = METRICS.get(metric) or INTENSITY_METRICS[metric]
    return f"{info.title}: {info.explanation}"
