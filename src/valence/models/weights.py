"""Loading the weights of a network that its model folder holds."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from valence.errors import ModelError


def load_weights(network: nn.Module, path: Path) -> None:
    """Load all weights but those of the encoder.

    Raises:
        ModelError: if the file is missing, truncated or does not fit.
    """
    try:
        missing, unexpected = network.load_state_dict(load_file(path), strict=False)
    except Exception as error:  # safetensors and torch raise errors of their own kinds
        raise ModelError(broken_file(path, error)) from None
    lost = [name for name in missing if not name.startswith("encoder.")] + list(unexpected)
    if lost:
        raise ModelError(f"{path} does not fit its config: {lost[0]}")


def broken_file(path: Path, error: Exception) -> str:
    """What is said about a file or folder that cannot be loaded."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return f"{path} is missing or broken ({reason}); save or copy the model folder again"
