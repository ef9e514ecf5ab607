"""What the lower half of an encoder makes of texts, for a cheap second opinion on labels.

The upper layers serve the encoder's own training goal. With 7% of the labels of 2,000 rows changed
on purpose, the middle layer of MiniLM found more of the changed ones than its last on TweetEval,
SST-5, TREC and CR, at half the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from valence.config.sections import EncoderSpec
from valence.data.batches import TOKEN_BUDGET, length_batches
from valence.data.collate import pad
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.inference import run_batches
from valence.models.pooling import masked_mean


def lower_half_features(
    spec: EncoderSpec, texts: Sequence[str], progress: Callable[[float], None] | None = None
) -> np.ndarray:
    """(N, H) means of the token states of N texts at the middle of an encoder's layers.

    Args:
        spec: Names the encoder, its limit and its prompt; texts are truncated at the limit.
        texts: N texts.
        progress: Called with the fraction done.

    Raises:
        ModelError: if the encoder cannot be loaded.
    """
    encoder, tokenizer = Encoder(spec), TextTokenizer(spec)
    remove_upper_half(encoder.model)
    encoder.eval()
    encoded = tokenizer(texts)
    features = np.zeros((len(texts), encoder.hidden_size), dtype=np.float32)
    lengths = [len(ids) for ids in encoded.input_ids]

    def embed(rows: np.ndarray) -> None:
        batch = pad([encoded.input_ids[i] for i in rows], tokenizer.pad_id)
        features[rows] = masked_mean(encoder(**batch), batch["attention_mask"]).numpy()

    batches = list(length_batches(lengths, token_budget=TOKEN_BUDGET["cpu"]))
    for done, _ in enumerate(run_batches(embed, batches, device="cpu"), start=1):
        if progress is not None:
            progress(done / len(batches))
    return features


def remove_upper_half(network: Any) -> int:
    """Remove the upper half of the layers; returns how many there are left.

    A network whose layers are not one list, such as a table of static embeddings, stays whole.
    """
    count = int(getattr(network.config, "num_hidden_layers", 0) or 0)
    lists = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if count < 2 or len(lists) != 1:
        return count
    (parent, name, layers), half = lists[0], -(-count // 2)
    setattr(parent, name, layers[:half])
    network.config.num_hidden_layers = half
    return half
