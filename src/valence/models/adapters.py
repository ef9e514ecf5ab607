"""Which layers of a network get adapters: a table by architecture, else the network's structure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from valence.errors import ModelError

QUERY_KEY_VALUE = ("query", "key", "value")
PROJECTIONS = ("q_proj", "k_proj", "v_proj")

LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    "bert": QUERY_KEY_VALUE,
    "roberta": QUERY_KEY_VALUE,
    "xlm-roberta": QUERY_KEY_VALUE,
    "camembert": QUERY_KEY_VALUE,
    "electra": QUERY_KEY_VALUE,
    "albert": QUERY_KEY_VALUE,
    "rembert": QUERY_KEY_VALUE,
    "distilbert": ("q_lin", "k_lin", "v_lin"),
    "mpnet": ("q", "k", "v"),
    "deberta": ("in_proj",),
    "deberta-v2": ("query_proj", "key_proj", "value_proj"),
    "modernbert": ("Wqkv",),
    "modernbert-decoder": PROJECTIONS,
    "eurobert": PROJECTIONS,
    "nomic_bert": PROJECTIONS,
    "gemma3_text": PROJECTIONS,
    "embedding_gemma2_text": PROJECTIONS,
    "llama": PROJECTIONS,
    "qwen2": PROJECTIONS,
    "qwen3": PROJECTIONS,
    "t5": ("q", "k", "v"),
    "mt5": ("q", "k", "v"),
    "umt5": ("q", "k", "v"),
}
"""Query, key and value of the attention by ``model_type``, as the published LoRA results have
them; peft's own table leaves the key out, and knows fewer encoders."""

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
PROJECTION = re.compile(
    r"(w?qkv|w_?[qkv]|[qkv]|query|key|value|query_key_value|in|c_attn)(_?(proj|lin|linear|layer))?",
    re.IGNORECASE,
)
"""Names that projections of an attention have; those of its output are others."""


def lora_targets(model: nn.Module, model_type: str, *, encoder: str) -> tuple[str, ...]:
    """The layers that get adapters, by the last part of their names.

    Args:
        model: The network.
        model_type: Its architecture, as its config names it.
        encoder: Its name, for messages.

    Raises:
        ModelError: if no projection of an attention is found.
    """
    listed = LORA_TARGETS.get(model_type)
    if listed is None:
        # Imported here: it takes seconds, and few models need it.
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

        known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model_type)
        listed = tuple(known) if isinstance(known, list) else _attention_projections(model)
    if not listed:
        raise ModelError(
            f"Encoder {encoder!r} has no known attention layers; set encoder.lora_targets to some "
            f"of: {', '.join(linear_layers(model))}"
        )
    return listed


def linear_layers(model: nn.Module) -> list[str]:
    """The last parts of the names of all linear layers."""
    return sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules()
                   if isinstance(module, nn.Linear)})  # fmt: skip


def _attention_projections(model: nn.Module) -> tuple[str, ...]:
    names = set()
    for name, module in model.named_modules():
        parent, _, leaf = name.rpartition(".")
        if isinstance(module, nn.Linear) and ATTENTION.search(parent):
            names |= {leaf} if PROJECTION.fullmatch(leaf) else set()
    return tuple(sorted(names))
