"""Pooled features of a frozen encoder: one vector per text, computed once and kept on disk.

They depend on the encoder's weights, on the pooling and on a text's token ids, so that is
what they are kept under; other seeds, cuts and groups of the same corpus find them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from valence.data.batches import Encoded
from valence.models.base import Progress
from valence.models.encoder import Encoder
from valence.models.frozen import (
    CHUNK,
    FREE_SHARE,
    chunk_index,
    free_bytes,
    text_names,
    weights_key,
)
from valence.storage import cache

KIND = "pooled"
_VECTOR_BYTES = 4 * 1024  # of a text with a name, for most encoders more than enough

Compute = Callable[[Encoded, Progress | None], np.ndarray]
"""From tokenised texts to their features (N, F), float32."""


class PooledFeatures:
    """The pooled features of one frozen encoder under one pooling.

    Args:
        key: Names encoder and pooling (see :func:`pooling_key`).
        compute: Makes the features of texts that are not kept yet.
        encoder: Name of the encoder, for people.
    """

    def __init__(self, key: str, compute: Compute, encoder: str) -> None:
        self.key = key
        self.compute = compute
        self.encoder = encoder

    def of(self, encoded: Encoded, progress: Progress | None = None) -> np.ndarray:
        """(N, F) float32 features, in the order of the texts.

        Args:
            encoded: N tokenised texts.
            progress: Told (done, all) texts while a chunk is computed.

        Raises:
            RunError: if the disk refuses.
        """
        wanted = text_names(encoded)
        first = np.unique(wanted, return_index=True)[1]
        missing = first[~np.isin(wanted[first], chunk_index(KIND, self.key)[0])]
        if not len(wanted) or len(missing) * _VECTOR_BYTES > FREE_SHARE * free_bytes():
            return self.compute(encoded, progress)
        for start in range(0, len(missing), CHUNK):
            rows = missing[start : start + CHUNK]
            own = Encoded([encoded.input_ids[i] for i in rows], 0)
            self._write(wanted[rows], self.compute(own, progress))
        names, chunk, begin, chunks = chunk_index(KIND, self.key)
        place = np.searchsorted(names, wanted)
        found = np.empty((len(wanted), chunks[0].shape[1]), dtype=np.float32)
        for number in np.unique(chunk[place]):
            own_rows = chunk[place] == number
            found[own_rows] = chunks[number][begin[place][own_rows]]
        return found

    def _write(self, names: np.ndarray, features: np.ndarray) -> None:
        key = f"{self.key}-{cache.content_key([names.tobytes().hex()])}"
        about = {"encoder": self.encoder, "texts": len(names)}
        with cache.writing(KIND, key, about) as folder:
            np.save(folder / "states.npy", features.astype(np.float32))
            np.savez(folder / "index.npz", names=names, starts=np.arange(len(names)))


def pooling_key(encoder: Encoder, pooling: nn.Module, name: str) -> str:
    """Sixteen hex digits that name a frozen encoder and what pools its states.

    Args:
        encoder: Its weights count.
        pooling: Its parameters count, where it has some.
        name: Its name in ``POOLINGS``.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(weights_key(encoder).encode())
    digest.update(name.encode())
    for part, value in sorted(pooling.state_dict().items()):
        digest.update(part.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
