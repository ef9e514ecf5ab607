"""What a tuner may choose: :class:`Range`, and the ranges that methods share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from valence.config.spec import RunSpec
from valence.errors import SpecError
from valence.losses.table import reads

AROUND = 10.0
"""The default learning rates go from a tenth of the method's own to ten times it."""


@dataclass(frozen=True)
class Range:
    """The values one setting may take.

    Attributes:
        low, high: Ends of an interval, both included; whole numbers give whole numbers.
        log: Whether the logarithm is drawn evenly.
        step: Distance of the values, or None for all.
        choices: The values themselves, in place of an interval.
    """

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: tuple[Any, ...] = ()

    @property
    def ends(self) -> tuple[Any, ...]:
        """Every choice, or the two ends."""
        return self.choices or (self.low, self.high)

    def __post_init__(self) -> None:
        if self.choices:
            if self.low is not None or self.high is not None:
                raise SpecError("A range has low and high, or choices, not both")
            return
        if self.low is None or self.high is None or self.low > self.high:
            raise SpecError(
                f"Range from {self.low} to {self.high}: low and high must both be given, low first"
            )
        if self.log and (self.low <= 0 or self.step is not None):
            raise SpecError("A log range needs low above 0, and goes without a step")
        if self.step is not None and self.step <= 0:
            raise SpecError(f"A range's step must be above 0, not {self.step}")

    @property
    def values(self) -> tuple[Any, ...] | None:
        """Every value, or None where there are too many to name."""
        if self.choices:
            return self.choices
        if not isinstance(self.low, int) or not isinstance(self.high, int) or self.log:
            return None
        step = 1 if self.step is None else int(self.step)
        return tuple(range(self.low, self.high + 1, step))


def every_point(space: Mapping[str, Range], most: int) -> list[dict[str, Any]] | None:
    """Every point of a space that has at most ``most`` of them, else None."""
    axes = [found.values for found in space.values()]
    known = [axis for axis in axes if axis is not None]
    if len(known) < len(axes) or math.prod(len(axis) for axis in known) > most:
        return None
    return [dict(zip(space, point, strict=True)) for point in product(*known)]


TRAINED: Mapping[str, Range] = {
    "train.weight_decay": Range(0.0, 0.1),
    "head.dropout": Range(0.1, 0.5),
}
"""What every trained method reads; the learning rate goes around the method's own."""

LOSS: Mapping[str, Range] = {
    "loss.smoothing": Range(0.0, 0.2),
    "loss.gamma": Range(0.5, 5.0),
    "loss.margin": Range(0.1, 1.0),
    "loss.deferred_share": Range(0.3, 0.9),
    "loss.tau": Range(0.25, 2.0),
    "loss.weight": Range(0.01, 1.0, log=True),
    "loss.temperature": Range(0.05, 1.0, log=True),
}
"""Fields of losses; a method has those that its loss reads."""

RECURRENT: Mapping[str, Range] = {
    "head.hidden_size": Range(choices=(128, 256, 512)),
    "head.layers": Range(1, 3),
    "head.dropout": Range(0.1, 0.5),
    # Published: 1e-6 to 5e-5 for RoBERTa trained whole. Here new layers alone are trained on
    # a frozen encoder, which needs the rates of new layers.
    "train.learning_rate": Range(1e-4, 5e-3, log=True),
    "train.weight_decay": Range(0.0, 0.1),
}
ATTENTION: Mapping[str, Range] = {"head.attention_heads": Range(choices=(2, 4, 8))}
CLASS_WEIGHTS: Mapping[str, Range] = {"loss.class_weights": Range(choices=("none", "balanced"))}
PROBED: Mapping[str, Range] = {
    "head.pooling": Range(choices=("mean", "cls", "max")),
    **CLASS_WEIGHTS,
}


FUSED: Mapping[str, Range] = {
    "train.weight_decay": Range(0.0, 0.1),
    "fusion.modality_dropout": Range(0.0, 0.5),
    "fusion.dropout": Range(0.0, 0.5),
}
"""What ``almt`` reads; its rivals have fewer, see :func:`fusion_space`."""
UNREAD = {
    "almt": set[str](),
    "early": {"fusion.dropout"},
    "late": {"fusion.dropout"},
}


def fusion_space(spec: RunSpec) -> dict[str, Range]:
    """The ranges of a multimodal method: one modality has none to leave out."""
    unread = UNREAD.get(spec.fusion.name, {"fusion.dropout", "fusion.modality_dropout"})
    return {**_rate(spec), **{path: r for path, r in FUSED.items() if path not in unread}}


def _rate(spec: RunSpec) -> dict[str, Range]:
    own = spec.train.learning_rate
    return {"train.learning_rate": Range(own / AROUND, own * AROUND, log=True)}


def shared_space(spec: RunSpec) -> dict[str, Range]:
    """The ranges of a trained method that names none of its own."""
    fields = reads(spec.loss)
    loss = {path: found for path, found in LOSS.items() if path.partition(".")[2] in fields}
    return {**_rate(spec), **TRAINED, **loss}


def parse_range(path: str, value: Any) -> Range | None:
    """What a space file says of a setting: an interval, a list, one value, or null for "leave".

    Args:
        path: The setting, for messages.
        value: What YAML read: ``{low: 1e-5, high: 1e-3, log: true}``, ``[1, 2, 5]``, ``3``.

    Raises:
        SpecError: if it is no range.
    """
    if value is None:
        return None
    if isinstance(value, list):
        if not value:
            raise SpecError(f"Range of {path} is an empty list; give values, or null to leave it")
        return Range(choices=tuple(_number(one) for one in value))
    if not isinstance(value, dict):
        return Range(choices=(_number(value),))
    known = {"low", "high", "log", "step"}
    if not value.keys() <= known or not {"low", "high"} <= value.keys():
        raise SpecError(f"Range of {path} must have low and high, and may have log or step")
    ends = {name: _number(value[name]) for name in value.keys() - {"log"}}
    for name, end in ends.items():
        if isinstance(end, bool) or not isinstance(end, int | float):
            raise SpecError(f"Range of {path}: {name} = {end!r} is no number")
    try:
        return Range(log=value.get("log") is True, **ends)
    except SpecError as error:
        raise SpecError(f"Range of {path}: {error}") from None


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``1e-5`` as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
