"""Loading a causal language model: its tokenizer, and its weights in a number format."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import torch

from valence.data.pretrained import load_adapted, load_companion, load_network
from valence.distributed import process_group
from valence.distributed.device import pick_device
from valence.errors import ModelError, SpecError
from valence.llm.language_model import LanguageModel
from valence.models.encoder import without_peft_warnings

WeightFormat = Literal["fp32", "bf16", "nf4"]


def load_language_model(
    name: str, *, quantization: str = "auto", device: str = "auto", precision: str = "auto",
    max_length: int | None = None,
) -> LanguageModel:  # fmt: skip
    """A causal model by hub name or folder; with 4-bit NF4 weights where possible.

    Args:
        name: Hub name, or a folder that holds a model or an adapter of one.
        quantization: ``nf4``, ``none``, or ``auto``: NF4 on a GPU with bitsandbytes.
        device: As in ``train.device``.
        precision: Of weights that are not quantized; ``auto`` is bf16 on a GPU, fp32 elsewhere.
        max_length: Limit of a question with its answer, in tokens.

    Raises:
        ModelError: if it cannot be loaded.
        SpecError: if NF4 is requested and not available.
    """
    place = pick_device(device)
    weight_format = weight_format_in_effect(quantization, precision, place)
    tokenizer = load_tokenizer(name)
    model = load_weights(name, weight_format=weight_format, device=place)
    return LanguageModel(
        model, tokenizer, device=place, max_length=max_length, weight_format=weight_format,
        notes=(weight_note(weight_format, quantization, place),),
    )  # fmt: skip


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model, by hub name or folder.

    Raises:
        ModelError: if it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return load_companion(AutoTokenizer, name)
    except (OSError, ValueError) as error:
        raise _unavailable(name, error) from None


def load_weights(
    name: str, *, weight_format: str = "fp32", device: str = "cpu", keep_on_cpu: bool = False
) -> Any:
    """The weights of a causal model; an adapter's folder gives its base with the adapter.

    Args:
        name: Hub name or folder.
        weight_format: ``fp32``, ``bf16`` or ``nf4``.
        device: Where they will be used.
        keep_on_cpu: Whether they stay in main memory until they are sharded.

    Raises:
        ModelError: if they cannot be loaded.
    """
    from pathlib import Path

    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    nf4 = weight_format == "nf4"
    dtype = torch.float32 if weight_format == "fp32" else torch.bfloat16
    quantization_config = None
    if nf4:
        quantization_config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
    place = {"": torch.cuda.current_device()} if nf4 else None
    adapter = (Path(name) / "adapter_config.json").exists()
    options = {"dtype": dtype, "quantization_config": quantization_config, "device_map": place}
    try:
        if adapter:
            from peft import AutoPeftModelForCausalLM

            with without_peft_warnings():
                model: Any = load_adapted(AutoPeftModelForCausalLM, name, options=options)
        else:
            model = load_network(AutoModelForCausalLM, name, options=options)
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable(name, error) from None
    return model if nf4 or keep_on_cpu else model.to(device)


def weight_format_in_effect(
    quantization: str, precision: str, device: str, *, setting: str = "llm.quantization"
) -> WeightFormat:
    """The number format of the weights: what the settings come to on a device.

    Args:
        quantization: ``nf4``, ``none``, or ``auto``: NF4 on a GPU with bitsandbytes.
        precision: Of weights that are not quantized.
        device: A device that is there.
        setting: What the user calls the quantization, for the message.

    Raises:
        SpecError: if NF4 is requested and not available.
    """
    available = device == "cuda" and find_spec("bitsandbytes") is not None
    available = available and not process_group.shards_weights()
    if quantization == "nf4" and not available:
        raise SpecError(
            "4-bit NF4 needs a CUDA GPU and bitsandbytes (pip install 'valence[llm-gpu]'), and "
            f"whole weights in each process; without them set {setting}=none"
        )
    if available and quantization != "none":
        return "nf4"
    if precision == "auto":
        return "bf16" if device == "cuda" else "fp32"
    return "bf16" if precision == "bf16" else "fp32"


def weight_note(weight_format: str, quantization: str, device: str) -> str:
    """A line for the user on the number format of the weights, and why it is not NF4."""
    note = f"the language model's weights are {weight_format} on {device}"
    if device != "cuda" or quantization != "auto" or weight_format == "nf4":
        return note
    reason = "they are sharded" if process_group.shards_weights() else (
        "bitsandbytes is not installed: pip install 'valence[llm-gpu]'"
    )  # fmt: skip
    return f"{note}, about three times as large as in 4 bits ({reason})"


def _unavailable(name: str, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or ["not found"])[0][:160]
    return ModelError(
        f"Language model {name!r} cannot be loaded ({reason}); use a local folder, or download it "
        f"once: hf download {name}"
    )
