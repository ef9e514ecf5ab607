"""What a tuner may choose: :class:`Range`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from valence.errors import SpecError


@dataclass(frozen=True)
class Range:
    """The values one setting may take.

    Attributes:
        low, high: Ends of an interval, both included; whole numbers give whole numbers.
        log: Whether the logarithm is sampled uniformly.
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
                raise SpecError("A range has either low and high, or choices")
            return
        if self.low is None or self.high is None or self.low > self.high:
            raise SpecError(
                f"Range from {self.low} to {self.high}: set both low and high, low first"
            )
        if self.log and (self.low <= 0 or self.step is not None):
            raise SpecError("A log range needs low above 0 and no step")
        if self.step is not None and self.step <= 0:
            raise SpecError(f"A range's step must be above 0, not {self.step}")

    @property
    def values(self) -> tuple[Any, ...] | None:
        """Every value, or None where they cannot be enumerated."""
        if self.choices:
            return self.choices
        if not isinstance(self.low, int) or not isinstance(self.high, int) or self.log:
            return None
        step = 1 if self.step is None else int(self.step)
        return tuple(range(self.low, self.high + 1, step))


def every_point(space: Mapping[str, Range], most: int) -> list[dict[str, Any]] | None:
    """Every point of a space that has at most ``most`` of them, else None."""
    axes = [one.values for one in space.values()]
    known = [axis for axis in axes if axis is not None]
    if len(known) < len(axes) or math.prod(len(axis) for axis in known) > most:
        return None
    return [dict(zip(space, point, strict=True)) for point in product(*known)]


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
            raise SpecError(f"Range of {path} is an empty list; add values, or use null to skip it")
        return Range(choices=tuple(_number(one) for one in value))
    if not isinstance(value, dict):
        return Range(choices=(_number(value),))
    known = {"low", "high", "log", "step"}
    if not value.keys() <= known or not {"low", "high"} <= value.keys():
        raise SpecError(f"Range of {path} must have low and high, and may have log or step")
    ends = {name: _number(value[name]) for name in value.keys() - {"log"}}
    for name, end in ends.items():
        if isinstance(end, bool) or not isinstance(end, int | float):
            raise SpecError(f"Range of {path}: {name} = {end!r} is not a number")
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
