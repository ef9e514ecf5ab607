"""Durations as people write and read them."""

from __future__ import annotations

import re

from valence.errors import SpecError

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """``"90s"``, ``"5m"``, ``"2h"`` or a number of seconds → seconds.

    Raises:
        SpecError: if it is none.
    """
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text.lower())
    if parts is None or not float(parts[1]):
        raise SpecError(f"The budget {text!r} is not a duration; write 90s, 5m or 2h")
    return float(parts[1]) * UNIT_SECONDS[parts[2] or "s"]


def duration(seconds: float) -> str:
    """``75`` → ``1 min 15 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
