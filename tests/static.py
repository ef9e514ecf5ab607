"""Tiny tables of static embeddings, as model2vec and sentence-transformers write them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.conftest import WORDS

VOCABULARY = ("[PAD]", "[UNK]", *WORDS)
WIDTH = 12


def write_static(folder: Path, *, quantized: bool = False) -> Path:
    """A table of random vectors with a word tokenizer.

    Args:
        folder: Where to.
        quantized: Whether tokens share vectors and have weights, as in newer versions.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    ids = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    draw = torch.Generator().manual_seed(0)
    rows = 20 if quantized else len(VOCABULARY)
    tensors = {"embeddings": torch.randn(rows, WIDTH, generator=draw)}
    if quantized:
        tensors["mapping"] = torch.randint(0, rows, (len(VOCABULARY),), generator=draw)
        tensors["weights"] = torch.rand(len(VOCABULARY), generator=draw)
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": False}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
