"""How many tokens texts have, and how many of them an encoder reads.

For a built-in encoder its tokenizer file alone is opened: an audit that trains nothing needs
neither PyTorch nor transformers, whose imports take longer than all its checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from valence.config.sections import EncoderSpec
from valence.data.pretrained import read_json
from valence.models.built_in import BUILT_IN, encoder_location
from valence.models.encoder_files import resolve_prompt

BLOCK = 2000  # texts tokenized at once
Counter = Callable[[Sequence[str]], list[int]]
"""From texts to their tokens, without truncation, special tokens and prompt included."""


def token_lengths(spec: EncoderSpec, texts: Sequence[str]) -> tuple[np.ndarray, int]:
    """(N,) tokens of N texts, prompt and special tokens included, and the limit.

    Args:
        spec: Names the encoder, its limit and its prompt.
        texts: N texts; they are not truncated.

    Raises:
        ModelError: if the tokenizer cannot be loaded.
    """
    count, limit = _of_built_in(spec) if spec.name in BUILT_IN else _of_any(spec)
    lengths = [count(texts[start : start + BLOCK]) for start in range(0, len(texts), BLOCK)]
    return np.array([length for part in lengths for length in part], dtype=np.int64), limit


def _of_built_in(spec: EncoderSpec) -> tuple[Counter, int]:
    from tokenizers import Tokenizer

    where = encoder_location(spec.name)
    backend: Any = Tokenizer.from_file(str(Path(where) / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    prompt = resolve_prompt(spec.prompt, where).text
    own = (read_json(where, "tokenizer_config.json")["model_max_length"],
           read_json(where, "config.json")["max_position_embeddings"])  # fmt: skip

    def count(texts: Sequence[str]) -> list[int]:
        return [len(one) for one in backend.encode_batch_fast([prompt + text for text in texts])]

    return count, min(spec.max_length, *own)


def _of_any(spec: EncoderSpec) -> tuple[Counter, int]:
    from valence.models.encoder import TextTokenizer

    tokenizer = TextTokenizer(spec)

    def count(texts: Sequence[str]) -> list[int]:
        rows = tokenizer.backend(
            tokenizer.prompted(texts), return_attention_mask=False, return_token_type_ids=False,
            verbose=False,
        )["input_ids"]  # fmt: skip
        return [len(ids) for ids in rows]

    return count, tokenizer.max_length
