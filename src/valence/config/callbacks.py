"""Callbacks of long-running work."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[float, str], None]
"""Called with the fraction done in [0, 1] and a short message."""

EvalCallback = Callable[[float], None]
"""Called with the validation score of every evaluation, negated where lower is better; an
exception it raises ends the training."""
