"""Static embeddings: a vector per token, without context, as model2vec writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput

from valence.data.pretrained import file_path, read_json
from valence.errors import ModelError

MODEL_TYPE = "model2vec"
SUBFOLDER = "0_StaticEmbedding"
"""Where sentence-transformers has them, if not beside ``modules.json``."""
VECTORS = ("embeddings", "embedding.weight")
"""Names of the table of vectors, of model2vec and of sentence-transformers."""
NOTHING = -1
"""Id of padding, and of a text without a known token: its vector is zero."""


class StaticConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The size of a table of vectors."""

    model_type = MODEL_TYPE


class StaticVectors(nn.Embedding):
    """Vectors by token id; :data:`NOTHING` has the first row, which is zero."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T, D) of ids (B, T)."""
        return super().forward(input_ids - NOTHING)


class StaticModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A table of vectors in the place of a transformer.

    Args:
        table: (V, D) vectors by token id.
    """

    config_class = StaticConfig

    def __init__(self, table: Tensor) -> None:
        rows, width = table.shape
        super().__init__(StaticConfig.from_dict({"vocab_size": rows, "hidden_size": width}))
        zero = table.new_zeros(1, width)
        self.vectors = StaticVectors(rows + 1, width, _weight=torch.cat([zero, table]))

    def get_input_embeddings(self) -> nn.Module:
        """The table."""
        return self.vectors

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None, output_hidden_states: bool = False,
    ) -> BaseModelOutput:  # fmt: skip
        """Token states (B, T, D) of ids (B, T) or of vectors (B, T, D); the only layer."""
        states = self.vectors(input_ids) if inputs_embeds is None else inputs_embeds
        return BaseModelOutput(states, hidden_states=(states,) if output_hidden_states else None)


def static_folder(where: str) -> str | None:
    """Where in an encoder's folder static embeddings are; None where it is no such encoder.

    Args:
        where: A folder or a hub name.
    """
    config = read_json(where, "config.json")
    if isinstance(config, dict) and "model_type" in config:
        return "" if config["model_type"] == MODEL_TYPE else None
    modules = read_json(where, "modules.json") or []
    first = modules[0] if isinstance(modules, list) and modules else {}
    if not str(first.get("type", "")).endswith(".StaticEmbedding"):
        return None
    return "" if str(first.get("path", "")) in ("", ".") else str(first["path"])


def load_static_model(where: str, folder: str) -> StaticModel:
    """The table of a folder; vectors that tokens share are written out.

    Raises:
        ModelError: if the file is missing or holds no vectors.
    """
    path = _file(where, folder, "model.safetensors")
    try:
        tensors = load_file(path)
        table = next(tensors[name] for name in VECTORS if name in tensors).float()
        if "mapping" in tensors:
            table = table[tensors["mapping"].long()]
        if "weights" in tensors:
            table = table * tensors["weights"].float().unsqueeze(1)
    except Exception as error:  # safetensors and torch raise errors of their own kinds
        reason = str(error) or "no embeddings"
        raise ModelError(f"{path} has no static embeddings ({reason}); copy it again") from None
    return StaticModel(table)


def load_static_tokenizer(where: str, folder: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder, which adds no special tokens.

    Raises:
        ModelError: if the file is missing or broken.
    """
    path = _file(where, folder, "tokenizer.json")
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise ModelError(f"{path} is broken ({error}); copy it again") from None
    backend.post_processor = None
    unknown = _unknown_token(json.loads(backend.to_str())["model"])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, unk_token=unknown
    )


def _unknown_token(model: dict[str, Any]) -> str | None:
    """The token of unknown words; a unigram model has its place in the vocabulary."""
    place = model.get("unk_id")
    return model.get("unk_token") if place is None else str(model["vocab"][place][0])


def _file(where: str, folder: str, name: str) -> Path:
    path = file_path(where, f"{folder}/{name}" if folder else name)
    if path is None:
        raise ModelError(f"{name} of the static embeddings {where} is missing; copy them again")
    return path
