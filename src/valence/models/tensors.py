"""Numbers of a model folder that needs no PyTorch: read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from valence.errors import ModelError


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file.

    Raises:
        ModelError: if it is missing or broken.
    """
    try:
        tensors: dict[str, np.ndarray] = load_file(path)
    except Exception as error:  # safetensors raises an error of its own kind
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(
            f"{path} is missing or broken ({reason}); save or copy the model folder again"
        ) from None
    return tensors


def check_shapes(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Refuse tensors that are not those expected, in shape and type, or not finite.

    Raises:
        ModelError: naming the first.
    """
    for name in sorted({*tensors, *expected}):
        problem = _problem(tensors.get(name), expected.get(name))
        if problem:
            raise ModelError(
                f"{path} does not fit the model ({name} {problem}); save or copy the folder again"
            )


def _problem(values: np.ndarray | None, shape: tuple[int, ...] | None) -> str:
    if values is None or shape is None:
        return "is missing" if values is None else "is not in the model"
    if values.shape != shape:
        return f"has the shape {values.shape}, not {shape}"
    if values.dtype not in (np.float32, np.float64):  # the first release wrote both
        return f"has the type {values.dtype}"
    return "" if np.isfinite(values).all() else "contains numbers that are not finite"


@contextmanager
def broken_parts(folder: Path) -> Iterator[None]:
    """Say in one line which folder has a part that is missing or broken."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder} is missing a file or has a broken one ({error}); save or copy it again"
        ) from None
