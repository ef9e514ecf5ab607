"""Devices and number formats, and how a model is run: :class:`Hardware`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from valence.errors import SpecError

Precision = Literal["fp32", "bf16", "auto"]
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Hardware:
    """How a model is run; the defaults suit the machine and change no result.

    Attributes:
        threads: Processor threads; the usable cores when None.
        device: ``auto`` (the best there is), ``cpu``, ``cuda`` or ``mps``.
        precision: ``fp32``; ``bf16``; ``auto`` takes bfloat16 on a GPU that has it, which is
            faster and moves probabilities by some thousandths.
        batch_tokens: Most tokens of a batch; what suits the device when None.
    """

    threads: int | None = None
    device: str = "auto"
    precision: Precision = "fp32"
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16", "auto"):
            raise SpecError(f"Precision {self.precision!r} is unknown; use fp32, bf16 or auto")
        for name, value in (("threads", self.threads), ("batch tokens", self.batch_tokens)):
            if value is not None and value < 1:
                raise SpecError(f"{value} {name} are not possible; use at least 1")


def pick_device(requested: str) -> str:
    """``auto`` → the best device at hand.

    Raises:
        SpecError: if a device is named that does not exist or is not there.
    """
    if requested == "cpu":
        return requested
    if requested not in DEVICES:
        raise SpecError(f"Device {requested!r} is unknown; use {', '.join(DEVICES)}")
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if requested == "auto":
        return next((name for name, ok in there.items() if ok), "cpu")
    if not there[requested]:
        raise SpecError(f"Device {requested!r} is not available; use --device auto or cpu")
    return requested


def check_device(requested: str) -> None:
    """Refuse a device that is not there, for models that run on the processor anyway.

    Raises:
        SpecError: as :func:`pick_device`.
    """
    if requested != "auto":
        pick_device(requested)


def use_bf16(precision: str, device: str) -> bool:
    """Whether to compute in bfloat16.

    ``auto`` means: on a GPU that has it. On CPUs without AMX it is 2.6–3 times slower than
    float32 (measured), so there it must be asked for.
    """
    if precision != "auto":
        return precision == "bf16"
    if device != "cuda":
        return False
    import torch

    return bool(torch.cuda.is_bf16_supported())


def precision_in_effect(precision: str, device: str) -> str:
    """``bf16`` or ``fp32``: what ``auto`` comes to on a device."""
    return "bf16" if use_bf16(precision, pick_device(device)) else "fp32"
