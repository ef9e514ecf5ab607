"""Token states of a frozen encoder: computed once per text, kept on disk, read by every run.

A text's states depend on the encoder's weights and on its token ids alone, so that is what
they are kept under: other cuts, seeds, trials and corpora find the texts they share. States
are written in chunks, each whole or absent (see ``valence.storage.cache``): a kill loses one chunk.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from valence.data.batches import TOKEN_BUDGET, Encoded, length_batches
from valence.data.collate import pad
from valence.models.base import Progress
from valence.models.encoder import Encoder
from valence.models.inference import inferred
from valence.storage import cache

KIND = "states"
CHUNK = 4096  # texts
FREE_SHARE = 0.5  # of the free disk that states may take at most
FLOAT_BYTES = 4


@dataclass(frozen=True)
class StateRows:
    """Token states of N texts, on disk until they are asked for.

    Attributes:
        chunks: Memory-mapped (tokens, H) float32 arrays.
        chunk, start, length: (N,) where a text's states are.
    """

    chunks: Sequence[np.ndarray]
    chunk: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.chunk)

    def __getitem__(self, row: int) -> np.ndarray:
        """(T, H) states of a text."""
        start = self.start[row]
        found: np.ndarray = self.chunks[self.chunk[row]][start : start + self.length[row]]
        return found


class FrozenStates:
    """The states of one frozen encoder.

    Args:
        encoder: Its weights name the entries of the cache; it computes what is missing.
        pad_id: Id of the padding token.
    """

    def __init__(self, encoder: Encoder, pad_id: int) -> None:
        self.encoder = encoder
        self.pad_id = pad_id
        self.key = weights_key(encoder)

    def attach(
        self, encoded: Encoded, *, device: str = "cpu", progress: Progress | None = None
    ) -> Encoded:
        """``encoded`` with its states; without them where the disk has no room.

        Args:
            encoded: N tokenised texts.
            device: Where missing states are computed.
            progress: Told (done, all) texts that had to be computed.

        Raises:
            RunError: if the disk refuses.
        """
        wanted = text_names(encoded)
        lengths = np.array([len(ids) for ids in encoded.input_ids])
        first = np.unique(wanted, return_index=True)[1]
        missing = first[~np.isin(wanted[first], self._index()[0])]
        needed = int(lengths[missing].sum()) * self.encoder.hidden_size * FLOAT_BYTES
        if needed > FREE_SHARE * free_bytes():
            return encoded
        was = next(self.encoder.parameters()).device
        for start in range(0, len(missing), CHUNK):
            rows = missing[start : start + CHUNK]
            self._write([encoded.input_ids[i] for i in rows], wanted[rows], device)
            if progress is not None:
                progress(start + len(rows), len(missing))
        self.encoder.to(was)
        names, chunk, begin, chunks = self._index()
        place = np.searchsorted(names, wanted)
        return replace(encoded, states=StateRows(chunks, chunk[place], begin[place], lengths))

    def _index(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """Sorted names of the texts at hand, the chunk and start of each, and the chunks."""
        return chunk_index(KIND, self.key)

    def _write(self, input_ids: list[list[int]], names: np.ndarray, device: str) -> None:
        """Compute and keep the states of one chunk."""
        lengths = np.array([len(ids) for ids in input_ids])
        starts = np.cumsum(lengths) - lengths
        total = int(lengths.sum())
        self.encoder.to(device).eval()
        key = f"{self.key}-{cache.content_key([names.tobytes().hex()])}"
        about = {"encoder": self.encoder.spec.name, "texts": len(names), "tokens": total}
        with cache.writing(KIND, key, about) as folder:
            states = np.lib.format.open_memmap(
                folder / "states.npy", mode="w+", dtype=np.float32,
                shape=(total, self.encoder.hidden_size),
            )  # fmt: skip

            def compute(rows: np.ndarray) -> None:
                batch = pad([input_ids[i] for i in rows], self.pad_id)
                found = self.encoder(**{name: t.to(device) for name, t in batch.items()})
                real = batch["attention_mask"].numpy() > 0
                places = starts[rows][:, None] + np.arange(real.shape[1])
                states[places[real]] = found.float().cpu().numpy()[real]

            batches = list(length_batches(lengths.tolist(), token_budget=TOKEN_BUDGET[device]))
            for _ in inferred(compute, batches, device=device):
                pass
            states.flush()
            np.savez(folder / "index.npz", names=names, starts=starts)


def chunk_index(kind: str, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Sorted names of the texts in the chunks of a kind, the chunk and start of each, the chunks.

    Args:
        kind: Kind of the cache entries.
        key: What the keys of its chunks begin with.
    """
    names, starts, owners = [], [], []
    chunks: list[np.ndarray] = []
    for folder in cache.folders(kind, f"{key}-"):
        with np.load(folder / "index.npz") as index:
            names.append(index["names"])
            starts.append(index["starts"])
        owners.append(np.full(len(names[-1]), len(chunks)))
        chunks.append(np.load(folder / "states.npy", mmap_mode="r"))
    if not names:
        none = np.zeros(0, dtype=np.int64)
        return np.zeros(0, dtype="S32"), none, none, []
    joined = np.concatenate(names)
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate(owners)[order], np.concatenate(starts)[order], chunks


def text_names(encoded: Encoded) -> np.ndarray:
    """(N,) the names under which tokenised texts are kept: hashes of their token ids."""
    return np.array([_name(ids) for ids in encoded.input_ids], dtype="S32")


def weights_key(encoder: Encoder) -> str:
    """Sixteen hex digits that name an encoder's weights and configuration."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(encoder.model.config.to_json_string().encode())
    for name, value in sorted(encoder.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def free_bytes() -> int:
    """Free bytes of the disk that holds the cache."""
    folder = cache.cache_root()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _name(ids: Sequence[int]) -> bytes:
    raw = np.asarray(ids, dtype="<i4").tobytes()
    return hashlib.blake2b(raw, digest_size=16).hexdigest().encode()
