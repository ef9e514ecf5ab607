"""Our scores beside published ones, figure by figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from valence.reports.tables import by_setup, mean_sd
from valence.runs.store import RunResult

if TYPE_CHECKING:
    from valence.comparison.grid import Comparison

PER_GROUP = "/"
"""Between a metric and the group it is of: ``accuracy/pl``."""


@dataclass(frozen=True)
class PublishedFigure:
    """A published score and ours.

    Attributes:
        setup: The rows and the encoder of ours; the comparison's title where there is none.
        method: As published.
        metric: Its title, with the group it is of.
        published: The published score.
        ours: Our mean over seeds; None where nothing was measured.
        spread: Its standard deviation over seeds; None with one seed.
        seeds: How many.
        name: Our method, where it goes by another model.
        source: Where the published score stands.
    """

    setup: str
    method: str
    metric: str
    published: float
    ours: float | None
    spread: float | None
    seeds: int
    name: str
    source: str

    @property
    def difference(self) -> float | None:
        """Ours less the published one."""
        return None if self.ours is None else self.ours - self.published

    def cells(self) -> list[str]:
        """Method, score, published, ours, difference and seeds as people read them."""
        change = "–" if self.difference is None else f"{self.difference:+.3f}"
        ours = mean_sd(self.ours, self.spread)
        return [self.name, self.metric, f"{self.published:.3f}", ours, change, str(self.seeds)]


HEADS = ["method", "score", "published", "ours", "Δ", "n"]


def published_figures(
    comparison: Comparison, results: Sequence[RunResult]
) -> list[PublishedFigure]:
    """Every published score of a comparison beside ours.

    Args:
        comparison: Names the scores, and the settings a set-up must have.
        results: Our runs of the methods as they are.
    """
    conditions = comparison.published_for
    fitting = {
        label: group for label, group in by_setup(results).items()
        if all(group[0].spec.get(path) == value for path, value in conditions.items())
    }  # fmt: skip
    groups: Mapping[str, Sequence[RunResult]] = fitting or {comparison.title: ()}
    return [
        _figure(label, method, metric, value, group, comparison.published_source)
        for label, group in groups.items()
        for method, scores in comparison.published.items()
        for metric, value in scores.items()
    ]


def _figure(
    label: str, method: str, metric: str, value: float, runs: Sequence[RunResult], source: str
) -> PublishedFigure:
    own = [run for run in runs if run.spec.method == method]
    if not own:  # another model stands in
        plain = method.partition("@")[0]
        own = [run for run in runs if "@" in method and run.spec.method.startswith(f"{plain}@")]
    scores = [score for run in own if (score := _score(run, metric)) is not None]
    plain, _, group = metric.partition(PER_GROUP)
    title = own[0].task.titles.get(plain, plain) if own else plain
    return PublishedFigure(
        label, method, f"{title}, {group}" if group else title, value,
        fmean(scores) if scores else None, stdev(scores) if len(scores) > 1 else None, len(scores),
        own[0].spec.method if own else method, source,
    )  # fmt: skip


def _score(run: RunResult, metric: str) -> float | None:
    plain, _, group = metric.partition(PER_GROUP)
    scores: Mapping[str, Any] = run.groups.get(group, {}) if group else run.test
    return scores.get(plain)


def figures_json(figures: Sequence[PublishedFigure]) -> list[dict[str, Any]]:
    """One mapping per figure, with the difference."""
    return [{**vars(figure), "difference": figure.difference} for figure in figures]


def reproduction_markdown(
    title: str, tables: Mapping[str, tuple[list[str], list[list[str]]]]
) -> str:
    """A page of tables under headings; nothing where a table has no rows."""
    parts = [f"# {title}"]
    for heading, (heads, rows) in tables.items():
        lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
        rule = "|" + "---|" * len(heads)
        parts.append(f"## {heading}")
        parts.append("\n".join([lines[0], rule, *lines[1:]]) if rows else "Nothing.")
    return "\n\n".join(parts) + "\n"
