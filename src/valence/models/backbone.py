"""Loading the pretrained network of an encoder and its tokenizer, and asking what it is like.

No code of a model's folder is run and nothing is asked on the terminal. What a configuration
does not say the same way for all architectures, such as the width of the token states, the
network itself is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from valence.data.pretrained import check_source, load_companion, load_network, read_json
from valence.errors import ModelError
from valence.models.static import (
    MODEL_TYPE,
    load_static_model,
    load_static_tokenizer,
    static_folder,
)

FIRST_AFTER_PADDING = (
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet",
    "longformer", "data2vec-text", "ibert", "xmod",
)  # fmt: skip
"""Architectures whose positions are counted from the one after the padding token's id."""
SAME = 1e-6
"""Relative difference of states below which they count as the same."""


class Traits(NamedTuple):
    """What a network is like.

    Attributes:
        width: Of its token states.
        static: Whether it is a table of static embeddings, without context.
        causal: Whether a token does not see those after it.
    """

    width: int
    static: bool
    causal: bool


def load_backbone(name: str, where: str) -> Any:
    """The pretrained network in float32: of an encoder-decoder its encoder.

    Args:
        name: The encoder, for messages.
        where: A folder or a hub name.

    Raises:
        ModelError: if it cannot be loaded, or would need code of its own.
    """
    static = static_folder(where)
    if static is not None:
        table: Any = load_static_model(where, static)
        return table.eval()
    model_type = _checked_type(name, where)
    half = MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(model_type)
    whole = MODEL_MAPPING_NAMES.get(model_type)
    has_half = half is not None and half != whole
    loader: Any = AutoModelForTextEncoding if has_half else AutoModel
    try:
        model = load_network(loader, where, options={"dtype": torch.float32})
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors and torch raise errors of many kinds
        raise _unavailable(name, error) from None
    _check_finite(model, name)
    if model.config.is_encoder_decoder and not has_half:
        raise ModelError(
            f"Encoder {name!r} generates text (an encoder-decoder, {model_type}); use an encoder, "
            "or T5, mT5 or UMT5, whose encoder is used"
        )
    return model


def load_tokenizer(name: str, where: str) -> Any:
    """The tokenizer of an encoder.

    Raises:
        ModelError: if it cannot be loaded.
    """
    static = static_folder(where)
    if static is not None:
        return load_static_tokenizer(where, static)
    _checked_type(name, where)
    try:
        return load_companion(AutoTokenizer, where)
    except ModelError:
        raise
    except Exception as error:  # transformers and tokenizers raise errors of many kinds
        raise _unavailable(name, error) from None


def position_count(where: str) -> int | None:
    """Most tokens that an encoder has positions for; None where it has no such limit."""
    if static_folder(where) is not None:
        return None
    try:
        config = load_companion(AutoConfig, where).get_text_config()
    except (OSError, ValueError):  # a folder of a tokenizer alone
        return None
    count = getattr(config, "max_position_embeddings", None)
    if not isinstance(count, int) or count < 1:
        return None
    if config.model_type in FIRST_AFTER_PADDING:
        return count - 1 - (1 if config.model_type == "mpnet" else int(config.pad_token_id or 0))
    return count


def is_causal_type(where: str) -> bool:
    """Whether the architecture of an encoder is one of language models that write.

    A guess from its configuration, for where the weights are not loaded.
    """
    config = read_json(where, "config.json")
    model_type = config.get("model_type") if isinstance(config, dict) else None
    writes = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return writes and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


@torch.no_grad()
def traits_of(model: Any, name: str) -> Traits:
    """Ask a network by two short texts that differ behind their first token.

    Args:
        model: In evaluation mode.
        name: The encoder, for messages.

    Raises:
        ModelError: if it does not give a state per token.
    """
    middle = model.get_input_embeddings().num_embeddings // 2
    ids = torch.tensor([[middle, middle + 1, middle + 1], [middle, middle + 2, middle + 2]])
    try:
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        width = int(states.shape[2])
    except Exception as error:  # networks of other inputs raise errors of all kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(
            f"Encoder {name!r} does not give token states ({reason}); use a text encoder"
        ) from None
    difference = (states[0, 0] - states[1, 0]).abs().max()
    static = model.config.model_type == MODEL_TYPE
    return Traits(width, static, not static and bool(difference <= SAME * states.abs().max()))


def _checked_type(name: str, where: str) -> str:
    """The architecture of an encoder.

    Raises:
        ModelError: if it would need code of its own, or is unknown.
    """
    check_source(where)
    config = read_json(where, "config.json")
    values = config if isinstance(config, dict) else {}
    model_type = str(values.get("model_type", ""))
    if not model_type or model_type in CONFIG_MAPPING:
        return model_type
    raise ModelError(
        f"Encoder {name!r} has the architecture {model_type!r}, which the installed transformers "
        "does not support; use another encoder or a newer transformers"
    )


def _check_finite(model: Any, name: str) -> None:
    """Refuse weights that are no numbers, with which no text would get an answer."""
    for part, values in model.named_parameters():
        if not bool(torch.isfinite(values).all()):
            raise ModelError(
                f"Encoder {name!r} has weights that are not finite ({part}); copy it again"
            )


def _unavailable(name: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else "not found"
    there = f"its folder {name} lacks files or they are broken; copy it again"
    elsewhere = f"use a local folder, or download it once: hf download {name}"
    advice = there if Path(name).is_dir() else elsewhere
    return ModelError(f"Encoder {name!r} cannot be loaded ({reason}); {advice}")
