"""Loading what a model folder holds of a network: its encoder and its other weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from valence.config.sections import EncoderSpec
from valence.data.pretrained import load_adapter
from valence.errors import ModelError
from valence.models.encoder import Encoder, TextTokenizer, without_peft_warnings
from valence.storage import atomic


def load_weights(network: nn.Module, path: Path) -> None:
    """Load all weights but those of the encoder.

    Raises:
        ModelError: if the file is missing, truncated or does not fit.
    """
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises errors of its own kinds
        raise ModelError(broken_file(path, error)) from None
    own = {n: v for n, v in network.state_dict().items() if not n.startswith("encoder.")}
    for name in sorted({*own, *tensors}):
        problem = _misfit(own.get(name), tensors.get(name))
        if problem:
            raise ModelError(f"{path} does not fit its config: {name} {problem}")
    network.load_state_dict(tensors, strict=False)


def _misfit(own: Tensor | None, given: Tensor | None) -> str:
    """Why a tensor of a file is not that of a network; empty where it is."""
    if own is None or given is None:
        return "is missing" if given is None else "is not in the network"
    if own.shape != given.shape:
        return f"has the shape {tuple(given.shape)}, not {tuple(own.shape)}"
    if own.dtype != given.dtype:
        return f"has the type {given.dtype}, not {own.dtype}"
    if given.is_floating_point() and not bool(given.isfinite().all()):
        return "contains numbers that are not finite"
    return ""


@contextmanager
def fits(path: Path) -> Iterator[None]:
    """Say of sizes with which no network can be made that a model folder has them.

    Args:
        path: The file with the weights of that network.
    """
    try:
        yield
    except ModelError:
        raise
    except (RuntimeError, MemoryError, OverflowError, ValueError, TypeError, KeyError) as error:
        raise ModelError(broken_file(path, error)) from None


def save_encoder(encoder: Encoder, tokenizer: TextTokenizer, folder: Path) -> None:
    """Write what a training changed of an encoder: an adapter, or all of it; nothing if frozen."""
    if encoder.spec.adaptation in ("lora", "dora"):
        encoder.model.peft_config["default"].base_model_name_or_path = encoder.spec.name
        with atomic.new_folder(folder / "adapter") as path:
            encoder.model.save_pretrained(str(path), save_embedding_layers=False)
    elif encoder.spec.adaptation == "full":
        with atomic.new_folder(folder / "encoder") as path:
            encoder.model.save_pretrained(path)
            tokenizer.save(path)


def load_encoder(
    folder: Path, spec: EncoderSpec, own: Path | None, base: str | None = None
) -> Encoder:
    """The encoder of a model folder, with its adapter if it has one.

    Args:
        folder: The model folder.
        spec: How the encoder was adapted.
        own: Where its weights are, if the folder has them.
        base: Where the base encoder is, if not where its name says.

    Raises:
        ModelError: if a file is missing or broken.
    """
    if own is not None and not (own / "model.safetensors").exists():
        raise ModelError(f"{own / 'model.safetensors'} is missing; the model folder is not whole")
    if own is not None or spec.adaptation not in ("lora", "dora"):
        try:
            return Encoder(spec, own or base)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(broken_file(own or folder, error)) from None
    encoder = Encoder(spec.model_copy(update={"adaptation": "frozen"}), base, shared=False)
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
