"""Pretrained networks and tokenizers that several models of one job share.

A fit of a portfolio loads the same frozen encoder for every candidate, and once more to check what
it wrote. Nothing changes a frozen encoder, so one copy in memory serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

_loaded: ContextVar[dict[Hashable, Any] | None] = ContextVar("loaded", default=None)
Loaded = TypeVar("Loaded")


@contextmanager
def frozen_encoders_loaded_once() -> Iterator[None]:
    """Inside, frozen encoders and tokenizers are loaded once; the memory is freed at the end.

    Where there is a GPU nothing is shared, because models are moved there one by one.
    """
    if _loaded.get() is not None:
        yield
        return
    token = _loaded.set({})
    try:
        yield
    finally:
        _loaded.reset(token)


def loaded_once(key: Hashable, load: Callable[[], Loaded]) -> Loaded:
    """What was loaded under a key, or what ``load`` gives.

    Args:
        key: Names what is loaded and everything it depends on.
        load: Loads it. If it draws random numbers it is called every time, so that what is drawn
            after it stays the same.
    """
    import torch

    from valence.distributed.device import pick_device

    known = _loaded.get()
    if known is None or pick_device("auto") != "cpu":
        return load()
    if key in known:
        value: Loaded = known[key]
        return value
    before = torch.get_rng_state()
    value = load()
    if torch.equal(before, torch.get_rng_state()):
        known[key] = value
    return value
