"""Which device and number format a training uses."""

from __future__ import annotations

import torch

from valence.errors import SpecError


def pick_device(wanted: str) -> str:
    """``auto`` → the best device at hand.

    Raises:
        SpecError: if a device is asked for by name and not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next((name for name, ok in there.items() if ok), "cpu")
    if not there.get(wanted, True):
        raise SpecError(f"Device {wanted!r} is not available here; use --device auto or cpu")
    return wanted


def use_bf16(precision: str, device: str) -> bool:
    """Whether to train in bfloat16.

    ``auto`` means: on a GPU that has it. On CPUs without AMX it is 2.6–3 times slower than
    float32 (measured), so there it must be asked for.
    """
    if precision != "auto":
        return precision == "bf16"
    return device == "cuda" and torch.cuda.is_bf16_supported()
