"""The runs at the points of a sweep, apart from those of the methods as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valence.comparison.grid import Comparison, Outcome, plan
from valence.config.spec import RunSpec
from valence.runs.store import RunResult


@dataclass(frozen=True)
class Sweep:
    """Settings that were swept, and what came out.

    Attributes:
        axes: Dotted settings with their values.
        results: Runs at the points; a method as it is counts where it stands at one.
    """

    axes: Mapping[str, Sequence[Any]]
    results: Sequence[RunResult]


def separate_sweep(
    outcome: Outcome, comparison: Comparison, overrides: Mapping[str, Any] | None = None
) -> tuple[list[RunResult], Sweep | None]:
    """The runs of the methods as they are, and those of the sweep; None without one.

    Args:
        outcome: What became of the comparison's plan.
        comparison: What is compared.
        overrides: Dotted settings from the command line, as for :func:`plan`.
    """
    if not comparison.sweep:
        return outcome.results, None
    plain = {s.digest() for s in plan(comparison.model_copy(update={"sweep": {}}), overrides)}
    done = [(cell.spec, cell.result) for cell in outcome.cells if cell.result is not None]
    swept = {cell.spec.method for cell in outcome.cells if cell.spec.digest() not in plain}
    points = [
        result for spec, result in done
        if spec.method in swept and _is_point(spec, comparison.sweep)
    ]  # fmt: skip
    return [r for spec, r in done if spec.digest() in plain], Sweep(comparison.sweep, points)


def _is_point(spec: RunSpec, axes: Mapping[str, Sequence[Any]]) -> bool:
    return all(spec.get(axis) in list(values) for axis, values in axes.items())
