"""The verdict of a comparison: which method to use, how sure that is, and what it costs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from valence.comparison.bootstrap import Difference
from valence.comparison.settings import by_setting
from valence.comparison.significance import against_setting, score_interval
from valence.config.duration import duration
from valence.config.spec import RunSpec
from valence.methods.registry import find_method, make_spec
from valence.reports.leaderboard import ALPHA
from valence.runs.store import RunResult, RunStore

CHEAPER = 0.5  # of the training time: a method that is as good and takes less is named


@dataclass(frozen=True)
class Recommendation:
    """What a person is advised to use.

    Attributes:
        name: The method, with the settings in which its rows differ.
        score: Its main score with the interval over test rows.
        metric: What the score is called.
        lines: How sure it is and what it costs, a sentence each.
        commands: Commands that train it, the one to use first.
    """

    name: str
    score: Difference
    metric: str
    lines: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def lead(self) -> str:
        """The score in words."""
        own = self.score
        if own.value is None or own.low is None or own.high is None:
            return f"{self.metric} is not defined on these test rows"
        return f"{self.metric} {own.value:.3f} (95% interval {own.low:.3f} to {own.high:.3f})"


def recommend(
    store: RunStore, group: Sequence[RunResult], table: pd.DataFrame
) -> Recommendation | None:
    """The method of one set-up to use; None where its score is defined for none.

    Args:
        store: Where the predictions are.
        group: Runs of the set-up.
        table: Their leaderboard, the best on top.
    """
    task = group[0].task
    main = f"{task.main_metric}_mean"
    if pd.isna(table[main].iloc[0]):
        return None
    best = table.iloc[0]
    setting = next(s for s in by_setting(group) if s.name == best["name"])
    lines = (*_certainty(store, group, table), _cost(best, group[0]))
    return Recommendation(
        str(best["name"]), score_interval(store, setting, metric=task.main_metric),
        task.main_title, lines, train_commands(setting.first.spec),
    )  # fmt: skip


def _certainty(store: RunStore, group: Sequence[RunResult], table: pd.DataFrame) -> list[str]:
    best, task = table.iloc[0], group[0].task
    seeds, rows = int(best["seeds"]), group[0].sizes["test"]
    plural = "s" if seeds != 1 else ""
    lines = [f"Measured with {seeds} seed{plural} on {rows} test rows."]
    compared = against_setting(store, group, str(best["name"]), metric=task.main_metric)
    if not len(compared):
        return lines
    close = compared[compared["p_holm"].isna() | (compared["p_holm"] >= ALPHA)]
    if not len(close):
        lines.append("It is significantly better than every other method here.")
    else:
        lines.append(
            f"Not clearly better than {_list(close['name'])}: more test rows may show a difference."
        )
        lines += _cheaper(table, close["name"])
    if seeds == 1:
        lines.append("One seed does not show how much the score changes with another seed.")
    return lines


def _cheaper(table: pd.DataFrame, names: pd.Series) -> list[str]:
    best = table.iloc[0]
    others = table[table["name"].isin(names)].sort_values("train_seconds")
    if not len(others):
        return []
    first = others.iloc[0]
    if first["train_seconds"] > CHEAPER * best["train_seconds"] or best["train_seconds"] < 1:
        return []
    times = [duration(row["train_seconds"]) for row in (first, best)]
    return [f"If training time matters, take {first['name']}: {times[0]} instead of {times[1]}."]


def _cost(best: pd.Series, first: RunResult) -> str:
    train, label = _time(best["train_seconds"]), _time(best["inference_seconds"])
    memory = f"{best['peak_memory_mib']:.0f} MiB of memory"
    rows = first.sizes["test"]
    return f"It trains in {train}, labels {rows} rows in {label} and needs {memory}."


def _time(seconds: float) -> str:
    return "less than a second" if seconds < 1 else duration(seconds)


def _list(names: Sequence[str] | pd.Series) -> str:
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def train_commands(spec: RunSpec) -> tuple[str, ...]:
    """Commands that train a method as a run did, and that let ``fit`` look further."""
    data = [spec.data.name, *_data_options(spec)]
    fit = ["valence", "fit", *data, "--out", "models/best"]
    if find_method(spec.method).family == "prompting":
        return (shlex.join(fit),)
    name = spec.method
    train = ["valence", "train", *data, "--method", name, *_settings(spec)]
    return (
        shlex.join([*train, "--seed", str(spec.seed), "--out", f"models/{name}"]),
        shlex.join(fit),
    )


def _data_options(spec: RunSpec) -> list[str]:
    usual = type(spec.data)(name=spec.data.name).model_dump(mode="json")
    own = spec.data.model_dump(mode="json")
    options = {"text_column": "--text-column", "label_column": "--label-column"}
    words: list[str] = []
    for name, value in own.items():
        if value != usual[name] and name in options:
            words += [options[name], str(value)]
        elif value != usual[name]:
            words += ["--set", f"data.{name}={_value(value)}"]
    return words


def _settings(spec: RunSpec) -> list[str]:
    """``--set`` for what differs from the method as it is."""
    usual = _flat(make_spec(spec.method, spec.data, seed=spec.seed).model_dump(mode="json"))
    own = _flat(spec.model_dump(mode="json"))
    words: list[str] = []
    for path, value in own.items():
        if value != usual.get(path) and not path.startswith(("data.", "seed", "method")):
            words += ["--set", f"{path.removeprefix('config.')}={_value(value)}"]
    return words


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{before}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
