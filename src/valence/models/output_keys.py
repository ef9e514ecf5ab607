"""Names of encoder outputs in the cache: hashes of all that decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

import numpy as np
import torch
from torch import Tensor, nn

from valence.models.encoder import Encoder
from valence.storage import cache

FORMAT = "2"  # of the entries in the cache


def output_key(*parts: str) -> str:
    """Sixteen hex digits that identify everything but the texts that determines outputs."""
    return cache.content_key([FORMAT, *parts])


def pooling_key(encoder: Encoder, pooling: nn.Module, name: str) -> str:
    """Sixteen hex digits that identify a frozen encoder and its pooling.

    Args:
        encoder: Its weights and the precision it computes in count.
        pooling: Its parameters count, where it has some.
        name: Its name in ``POOLINGS``.
    """
    device = next(encoder.parameters()).device.type
    precision = precision_in_effect(encoder, device)
    own = tensors_digest(pooling.state_dict().items())
    return output_key(weights_key(encoder), precision, name, own)


def precision_in_effect(encoder: Encoder, device: str) -> str:
    """The number format in which an encoder computes now on a device.

    Args:
        encoder: The type of its weights counts.
        device: ``cpu``, ``cuda`` or ``mps``.
    """
    dtype = next(encoder.parameters()).dtype
    if torch.is_autocast_enabled(device):
        return f"{dtype} autocast to {torch.get_autocast_dtype(device)}"
    if device == "cuda" and torch.get_float32_matmul_precision() != "highest":
        return f"{dtype} {torch.get_float32_matmul_precision()}"
    return str(dtype)


def text_names(input_ids: Sequence[Sequence[int]]) -> np.ndarray:
    """(N,) the names under which outputs of texts are stored: hashes of their token ids."""
    lengths = [len(ids) for ids in input_ids]
    flat = np.fromiter(chain.from_iterable(input_ids), dtype="<i4", count=sum(lengths))
    raw, begin, names = memoryview(flat.tobytes()), 0, []
    for end in accumulate(4 * length for length in lengths):
        names.append(hashlib.blake2b(raw[begin:end], digest_size=16).hexdigest())
        begin = end
    return np.array(names, dtype="S32")


def weights_key(encoder: Encoder) -> str:
    """Sixteen hex digits that identify an encoder's weights and config, wherever they are."""
    config = json.loads(encoder.model.config.to_json_string())
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    weights = tensors_digest(encoder.model.state_dict().items())
    return cache.content_key([json.dumps(config, sort_keys=True), weights])


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Thirty-two hex digits of the names and contents of tensors, in any order."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
