"""Which runs are of one setting: the same method with the same settings, whatever the seed.

Runs of one setting are averaged over their seeds; runs of two settings never are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valence.config.spec import RunSpec
from valence.errors import DataError
from valence.runs.store import RunResult


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but the seed.

    Attributes:
        method: Their method.
        name: The method, with the settings in which the compared runs of the method differ:
            ``hy-mora (loss.temperature=0.1)``.
        runs: By seed, in the order given.
    """

    method: str
    name: str
    runs: Mapping[int, RunResult]

    @property
    def first(self) -> RunResult:
        """The run of the first seed."""
        return next(iter(self.runs.values()))


def by_setting(results: Sequence[RunResult]) -> list[Setting]:
    """Runs of one set-up by method and settings, in the order of their first runs.

    Args:
        results: Runs on the same data; one that is given twice counts once.

    Raises:
        DataError: if two runs have the same settings and seed, and other rows.
    """
    names = setting_names(results)
    groups: dict[str, dict[int, RunResult]] = {}
    for result in results:
        known = groups.setdefault(names[result.key], {}).setdefault(result.spec.seed, result)
        if known.key != result.key:
            raise DataError(
                f"Runs {known.key} and {result.key} have the same settings and seed but different "
                "rows; compare runs of one data set"
            )
    return [
        Setting(next(iter(runs.values())).spec.method, name, runs) for name, runs in groups.items()
    ]


def setting_names(results: Sequence[RunResult], *, ignored: Collection[str] = ()) -> dict[str, str]:
    """By key of a run: its method, with the settings in which runs of the method differ.

    Args:
        results: Runs; their data is not looked at.
        ignored: Dotted settings that do not count, such as the axis of a sweep.
    """
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for result in results:
        own = by_method.setdefault(result.spec.method, {})
        own[result.key] = _values(result.spec, ignored)
    names = {}
    for method, runs in by_method.items():
        paths = _differing(list(runs.values()))
        for key, values in runs.items():
            parts = [f"{path}={_shown(values.get(path))}" for path in paths]
            names[key] = f"{method} ({', '.join(parts)})" if parts else method
    return names


def _values(spec: RunSpec, ignored: Collection[str]) -> dict[str, Any]:
    """Every setting that may change the result and is not ignored, by its dotted path."""
    return {path: value for path, value in spec.settings().items() if path not in ignored}


def _differing(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    paths = dict.fromkeys(path for run in runs for path in run)
    return [path for path in paths if any(run.get(path) != runs[0].get(path) for run in runs)]


def _shown(value: Any) -> str:
    """A value as the option ``--set`` takes it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_shown, value))}]"
    return "null" if value is None else str(value)
