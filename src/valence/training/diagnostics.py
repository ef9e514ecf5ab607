"""Diagnostics of a training history: signs that contrast with prototypes fails.

The three signs are those that the description of SharpReCL names; the limits are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from valence.evaluation.representations import representations
from valence.evaluation.task import Task

COSINES = "diagnostics/prototype_cosine"
REPRESENTATIONS_OF = "representations/"
UNSEEN = -2.0  # where a class had no row since the last record

DRIFT_FALL = 0.15  # of the mean cosine, from its highest value
PLATEAU_GAIN = 0.01  # of validation accuracy over the second half
COLLAPSE_DIVERSITY = 0.05  # 1 − mean cosine of synthetic positives
COLLAPSE_COSINE = 0.95
TAIL_GAP = 0.1  # accuracy minus macro-F1

HistoryRecord = Mapping[str, Any]
Settings = Mapping[str, Any]


def failure_signs(history: Sequence[HistoryRecord], settings: Settings) -> list[str]:
    """One line for every sign in the history, with what to change.

    Args:
        history: Records by step, as in ``history.jsonl``.
        settings: The dotted settings that the method reads, with their values: no other is
            advised to change.
    """
    checks = (_drift, _collapse, _tail_overfit)
    return [line for check in checks if (line := check(history, settings))]


def _advice(settings: Settings, *options: tuple[str, str]) -> str:
    """Those of some changes that concern settings in use, as the end of a sentence.

    Args:
        settings: As of :func:`failure_signs`.
        options: A setting, and what to do about it.
    """
    changes = [change for setting, change in options if setting in settings]
    if not changes:
        return ""
    first = ", ".join(changes[:-1])
    return f"; {first} or {changes[-1]}" if first else f"; {changes[0]}"


def representation_record(features: np.ndarray, labels: np.ndarray, task: Task) -> dict[str, float]:
    """What a record of the history says of features (N, H) of rows with class ids (N,)."""
    measured = representations(features, labels, len(task.classes), tail=task.tail).summary()
    return {f"{REPRESENTATIONS_OF}{name}": v for name, v in measured.items() if v is not None}


def prototype_cosines(history: Sequence[HistoryRecord]) -> list[tuple[int, float, float]]:
    """(step, mean, lowest) cosine of prototypes with their class's mean feature."""
    cosines = []
    for record in history:
        seen = [c for c in record.get(COSINES, []) if c > UNSEEN]
        if seen:
            cosines.append((int(record["step"]), float(np.mean(seen)), min(seen)))
    return cosines


def series(history: Sequence[HistoryRecord], name: str) -> list[tuple[int, float]]:
    """(step, value) of a field; of a list its first value."""
    points = []
    for record in history:
        value = record.get(name)
        if value is not None:
            number = value[0] if isinstance(value, list) else value
            points.append((int(record["step"]), float(number)))
    return points


def _drift(history: Sequence[HistoryRecord], settings: Settings) -> str:
    cosines = [mean for _, mean, _ in prototype_cosines(history)]
    accuracy = [value for _, value in series(history, "validation/accuracy")]
    losses = [value for _, value in series(history, "loss")]
    if len(cosines) < 3 or len(accuracy) < 4 or len(losses) < 4:
        return ""
    half = len(accuracy) // 2
    still = max(accuracy[half:]) - max(accuracy[:half]) < PLATEAU_GAIN
    falling = np.mean(losses[-len(losses) // 4 :]) < np.mean(losses[: len(losses) // 2])
    fall = max(cosines) - cosines[-1]
    if fall < DRIFT_FALL or not still or not falling:
        return ""
    return (
        f"prototype drift: their cosine with the class means fell by {fall:.2f} while validation "
        "accuracy did not improve"
    ) + _advice(
        settings, ("loss.weight", "lower loss.weight"),
        ("train.learning_rate", "lower train.learning_rate"),
    )  # fmt: skip


def _collapse(history: Sequence[HistoryRecord], settings: Settings) -> str:
    diversity = series(history, "diagnostics/diversity")
    near = series(history, "diagnostics/positive_similarity")
    if not diversity or not near:
        return ""
    if diversity[-1][1] > COLLAPSE_DIVERSITY or near[-1][1] < COLLAPSE_COSINE:
        return ""
    return (
        f"synthetic samples have collapsed onto the prototypes (cosine {near[-1][1]:.2f}, "
        f"diversity {diversity[-1][1]:.2f})"
    ) + _advice(
        settings, ("loss.hard_count", "raise loss.hard_count"), ("loss.weight", "lower loss.weight")
    )


def _tail_overfit(history: Sequence[HistoryRecord], settings: Settings) -> str:
    accuracy = dict(series(history, "validation/accuracy"))
    macro = dict(series(history, "validation/macro_f1"))
    if not macro:
        return ""
    step = max(macro, key=lambda s: macro[s])
    gap = accuracy.get(step, macro[step]) - macro[step]
    if gap < TAIL_GAP:
        return ""
    open_to_change = {
        name: value for name, value in settings.items()
        if (name, value) != ("loss.mixing", "never")
        and (name != "loss.class_weights" or value == "none")
    }  # fmt: skip
    advice = _advice(
        open_to_change, ("loss.positives", "lower loss.positives"),
        ("loss.mixing", "set loss.mixing=never"),
        ("loss.class_weights", "set loss.class_weights=balanced"),
    )  # fmt: skip
    sign = f"tail overfit: validation macro-F1 trails accuracy by {gap:.2f} at the best step"
    return sign + (advice or "; more rows of the rare classes help most")
