"""How long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[float, str], None]
"""Called with the part done in [0, 1] and a few words on what happened."""

EvalCallback = Callable[[float], None]
"""Called with the validation score of every evaluation, its sign turned where lower is better;
what it raises ends the training."""
