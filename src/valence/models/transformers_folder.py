"""Model folders of transformers: written so that other tools load them as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.data.quiet import quiet_transformers
from valence.models.config_file import CONFIG_FILE
from valence.storage import atomic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from valence.models.encoder import TextTokenizer


def save_transformers(
    network: PreTrainedModel, tokenizer: TextTokenizer, folder: Path
) -> Mapping[str, Any]:
    """Write weights, tokenizer and ``config.json``, and return what stands in the latter.

    The tokenizer says by itself how many tokens are read, so that ``truncation=True`` truncates
    where we do.

    Args:
        network: The encoder, or a classifier of transformers.
        tokenizer: Of the encoder.
        folder: It exists.
    """
    part = folder / "transformers.part"
    with atomic.new_folder(part) as scratch, quiet_transformers():
        network.save_pretrained(scratch)
    for file in part.iterdir():  # whole, and with the modes that other files have
        file.replace(folder / file.name)
    part.rmdir()
    save_tokenizer(tokenizer, folder)
    config: Mapping[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return config


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Write the tokenizer, with our limit as the longest text it gives."""
    backend = tokenizer.backend
    before = backend.model_max_length
    backend.model_max_length = tokenizer.max_length
    try:
        backend.save_pretrained(folder)
    finally:
        backend.model_max_length = before
