"""Loading what a model folder holds of a network: its encoder and its other weights."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from valence.config.sections import EncoderSpec
from valence.data.pretrained import load_adapter
from valence.errors import ModelError
from valence.models.encoder import Encoder, without_peft_warnings


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


def load_encoder(folder: Path, spec: EncoderSpec, own: Path | None) -> Encoder:
    """The encoder of a model folder, with its adapter if it has one.

    Args:
        folder: The model folder.
        spec: How the encoder was adapted.
        own: Where its weights are, if the folder has them.

    Raises:
        ModelError: if a file is missing or broken.
    """
    if own is not None and not (own / "model.safetensors").exists():
        raise ModelError(f"{own / 'model.safetensors'} is missing; the model folder is not whole")
    if own is not None or spec.adaptation not in ("lora", "dora"):
        try:
            return Encoder(spec, own)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(broken_file(own or folder, error)) from None
    encoder = Encoder(spec.model_copy(update={"adaptation": "frozen"}))
    try:
        with without_peft_warnings():
            adapted = load_adapter(encoder.model, folder / "adapter")
    except ModelError:
        raise
    except Exception as error:  # peft, safetensors and json raise errors of their own kinds
        raise ModelError(broken_file(folder / "adapter", error)) from None
    encoder.spec = spec
    encoder.model = adapted
    return encoder


def broken_file(path: Path, error: Exception) -> str:
    """What is said about a file or folder that cannot be loaded."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return f"{path} is missing or broken ({reason}); save or copy the model folder again"
