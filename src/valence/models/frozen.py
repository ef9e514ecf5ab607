"""Outputs of frozen encoders: computed once per text, stored on disk, read by every run.

A text's outputs depend on the encoder's weights, on the precision it computes in and on the
text's token ids, which together are their cache key: other subsamples, seeds, trials and corpora
reuse the texts they share. They are written in chunks, each whole or absent (see
``valence.storage.cache``), and read through memory maps. A chunk that is missing or broken is
computed again, whatever deleted it.

One :class:`OutputCache` stores token states (:class:`FrozenStates`), pooled features
(:class:`PooledFeatures`) and the embeddings of ``valence.llm.retrieval``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from valence.data.batches import TOKEN_BUDGET, Encoded, length_batches, rows_done
from valence.data.collate import pad
from valence.models.base import Progress
from valence.models.encoder import Encoder
from valence.models.inference import run_batches
from valence.models.output_keys import output_key, precision_in_effect, text_names, weights_key
from valence.storage import cache

CHUNK = 4096  # texts
VECTOR_BYTES = 4 * 1024  # of a text's vector, for most encoders more than enough
VALUES, INDEX = "values.npy", "index.npz"

Compute = Callable[[Encoded, Progress | None], np.ndarray]
"""From tokenized texts to their features (N, F), float32."""

Allocate = Callable[[int], np.ndarray]
"""Makes the array on disk for outputs of a width."""

Fill = Callable[[np.ndarray, Progress | None, Allocate], None]
"""Computes the outputs of some texts into an array, one text after the other. It takes their row
numbers in the current batch, a callback with (done, total) texts, and the allocator."""


@dataclass(frozen=True)
class StateRows:
    """Outputs of N texts, on disk until they are read.

    Attributes:
        chunks: Memory-mapped (rows, H) float32 arrays.
        chunk: (N,) the chunk of every text.
        start: (N,) where its rows begin there.
        length: (N,) how many they are.
    """

    chunks: Sequence[np.ndarray]
    chunk: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.chunk)

    def __getitem__(self, row: int) -> np.ndarray:
        """(T, H) outputs of a text."""
        start = self.start[row]
        states: np.ndarray = self.chunks[self.chunk[row]][start : start + self.length[row]]
        return states

    def vectors(self, columns: slice = slice(None)) -> np.ndarray:
        """(N, H) outputs of texts with one row each, in memory; or some columns of them."""
        width = self.chunks[0][:1, columns].shape[1]
        vectors = np.empty((len(self), width), dtype=np.float32)
        order = np.argsort(self.chunk, kind="stable")
        bounds = np.searchsorted(self.chunk[order], np.arange(len(self.chunks) + 1))
        for number, values in enumerate(self.chunks):
            own = order[bounds[number] : bounds[number + 1]]
            vectors[own] = values[self.start[own], columns]
        return vectors


@dataclass(frozen=True)
class _Chunk:
    """A chunk on disk: sorted names of its texts, and their outputs one after the other."""

    names: np.ndarray
    lengths: np.ndarray
    values: np.ndarray


class _RowIndex:
    """Where the outputs of texts with sorted names are; chunk −1 where they are missing."""

    def __init__(self, names: np.ndarray, lengths: np.ndarray) -> None:
        self.names, self.lengths = names, lengths
        self.chunks: list[np.ndarray] = []
        self.chunk = np.full(len(names), -1, dtype=np.int64)
        self.start = np.zeros(len(names), dtype=np.int64)

    @property
    def missing(self) -> np.ndarray:
        """Texts that are in no chunk so far."""
        return np.flatnonzero(self.chunk < 0)

    def add(self, chunk: _Chunk) -> bool:
        """Add the missing texts that a chunk has; whether there were any."""
        if not len(self.names) or not len(chunk.names):
            return False
        at = np.searchsorted(self.names, chunk.names).clip(max=len(self.names) - 1)
        same = (self.names[at] == chunk.names) & (self.lengths[at] == chunk.lengths)
        own = np.flatnonzero(same & (self.chunk[at] < 0))
        self.start[at[own]] = (np.cumsum(chunk.lengths) - chunk.lengths)[own]
        self.chunk[at[own]] = len(self.chunks)
        if len(own):
            self.chunks.append(chunk.values)
        return bool(len(own))


@dataclass(frozen=True)
class OutputCache:
    """Outputs of one frozen encoder, by the token ids of texts.

    Attributes:
        cache_kind: Of its entries.
        key: Identifies the encoder and its settings; see ``output_key``.
        about: What its entries are made from, for people.
    """

    cache_kind: cache.CacheKind
    key: str
    about: Mapping[str, str]

    def rows(
        self, input_ids: Sequence[Sequence[int]], lengths: np.ndarray, fill: Fill, *,
        row_bytes: int, progress: Progress | None = None,
    ) -> StateRows | None:  # fmt: skip
        """The outputs of N texts, missing ones computed; None where the disk has no room.

        Args:
            input_ids: Token ids of N texts.
            lengths: (N,) rows of outputs per text.
            fill: Computes what is missing; of texts with equal ids one is computed.
            row_bytes: Size of a row of outputs, or an estimate, to check whether there is room.
            progress: Called with (done, total) texts that have to be computed.

        Raises:
            RunError: if the disk refuses.
        """
        names, first, inverse = np.unique(
            text_names(input_ids), return_index=True, return_inverse=True
        )
        index = _RowIndex(names, np.asarray(lengths, dtype=np.int64)[first])
        self._look_up(index)
        missing = index.missing
        needed = int(index.lengths[missing].sum()) * row_bytes
        if not cache.has_room(self.cache_kind, needed):
            return None
        for begin in range(0, len(missing), CHUNK):
            part = missing[begin : begin + CHUNK]
            shifted = progress and partial(_with_offset, progress, begin, len(missing))
            own = partial(fill, first[part], shifted)
            index.add(self._write(names[part], index.lengths[part], own))
        return StateRows(
            index.chunks, index.chunk[inverse], index.start[inverse], index.lengths[inverse]
        )

    def stored(self, input_ids: Sequence[Sequence[int]]) -> bool:
        """Whether the outputs of N texts with one row each are all stored."""
        names = np.unique(text_names(input_ids))
        index = _RowIndex(names, np.ones(len(names), dtype=np.int64))
        self._look_up(index)
        return not len(index.missing)

    def _look_up(self, index: _RowIndex) -> None:
        for folder in cache.folders(self.cache_kind, f"{self.key}-"):
            if not len(index.missing):
                return
            try:
                chunk = _open_chunk(folder)
            except Exception as error:  # NumPy and zipfile raise errors of many kinds
                cache.discard(folder, str(error))
                continue
            if index.add(chunk):
                cache.touch(folder)

    def _write(
        self, names: np.ndarray, lengths: np.ndarray, fill: Callable[[Allocate], None]
    ) -> _Chunk:
        """Compute and store a chunk; it stays readable here if another process deletes it."""
        key = f"{self.key}-{cache.content_key([names.tobytes().hex()])}"
        about = {**self.about, "texts": len(names)}
        with cache.writing(self.cache_kind, key, about) as folder:
            fill(partial(_allocate, folder / VALUES, int(lengths.sum())))
            np.savez(folder / INDEX, names=names, lengths=lengths)
            return _open_chunk(folder)


def _allocate(path: Path, rows: int, width: int) -> np.ndarray:
    """A (rows, width) float32 array on disk."""
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, width))
    if sys.platform == "linux":  # a disk that fills up under a map would kill the process
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return values


def _with_offset(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def _open_chunk(folder: Path) -> _Chunk:
    """Open a chunk; raises errors of many kinds if it is missing, truncated or broken."""
    with (folder / INDEX).open("rb") as file, np.load(file) as index:
        names, lengths = index["names"], index["lengths"]
    values = np.load(folder / VALUES, mmap_mode="r")
    rows = int(lengths.sum())
    if values.ndim != 2 or len(values) != rows or len(names) != len(lengths):
        raise ValueError(f"{VALUES} holds {values.shape} for {rows} rows")
    return _Chunk(names, lengths, values)


class FrozenStates:
    """The token states of one frozen encoder.

    Args:
        encoder: Its weights are part of the cache key; it computes missing states.
        pad_id: Id of the padding token.
    """

    def __init__(self, encoder: Encoder, pad_id: int) -> None:
        self.encoder = encoder
        self.pad_id = pad_id
        self.weights = weights_key(encoder)

    def attach(
        self, encoded: Encoded, *, device: str = "cpu", progress: Progress | None = None
    ) -> Encoded:
        """``encoded`` with its states; without them where the disk has no room.

        Args:
            encoded: N tokenized texts.
            device: Where missing states are computed.
            progress: Called with (done, total) texts that have to be computed.

        Raises:
            RunError: if the disk refuses.
        """
        key = output_key(self.weights, precision_in_effect(self.encoder, device))
        outputs = OutputCache(cache.STATES, key, {"encoder": self.encoder.spec.name})
        lengths = np.array([len(ids) for ids in encoded.input_ids])
        original_device = next(self.encoder.parameters()).device
        states = outputs.rows(
            encoded.input_ids, lengths, partial(self._fill, encoded.input_ids, device),
            row_bytes=self.encoder.hidden_size * 4, progress=progress,
        )  # fmt: skip
        self.encoder.to(original_device)
        return encoded if states is None else replace(encoded, states=states)

    def _fill(
        self, input_ids: Sequence[Sequence[int]], device: str, rows: np.ndarray,
        progress: Progress | None, allocate: Allocate,
    ) -> None:  # fmt: skip
        lengths = np.array([len(input_ids[i]) for i in rows])
        starts = np.cumsum(lengths) - lengths
        values = allocate(self.encoder.hidden_size)
        self.encoder.to(device).eval()

        def compute(batch: np.ndarray) -> None:
            padded = pad([input_ids[i] for i in rows[batch]], self.pad_id)
            states = self.encoder(**{name: t.to(device) for name, t in padded.items()})
            real = padded["attention_mask"].numpy() > 0
            positions = starts[batch][:, None] + np.arange(real.shape[1])
            values[positions[real]] = states.float().cpu().numpy()[real]

        batches = list(length_batches(lengths.tolist(), token_budget=TOKEN_BUDGET[device]))
        for done, _ in enumerate(run_batches(compute, batches, device=device), start=1):
            if progress is not None:
                progress(rows_done(done, len(batches), len(rows)), len(rows))


def cached_vectors(
    outputs: OutputCache, compute: Compute, encoded: Encoded, progress: Progress | None = None,
    *, columns: slice = slice(None), row_bytes: int = VECTOR_BYTES,
) -> np.ndarray:  # fmt: skip
    """(N, F) float32 vectors of texts, in their order; those that are missing are computed.

    Args:
        outputs: Where they are stored.
        compute: Computes the vectors of texts that are not in the cache yet.
        encoded: N tokenized texts.
        progress: Called with (done, total) texts that have to be computed.
        columns: Of a vector; no others are read from the disk.
        row_bytes: Size of a vector, or an estimate, to check whether there is room.

    Raises:
        RunError: if the disk refuses.
    """
    if not len(encoded):
        return compute(encoded, progress)[:, columns]

    def fill(rows: np.ndarray, progress: Progress | None, allocate: Allocate) -> None:
        vectors = compute(Encoded([encoded.input_ids[i] for i in rows], 0), progress)
        allocate(vectors.shape[1])[:] = vectors

    rows = outputs.rows(
        encoded.input_ids, np.ones(len(encoded), dtype=np.int64), fill, row_bytes=row_bytes,
        progress=progress,
    )  # fmt: skip
    return compute(encoded, progress)[:, columns] if rows is None else rows.vectors(columns)


class PooledFeatures:
    """The pooled features of one frozen encoder under one pooling: a vector per text.

    Args:
        key: Identifies encoder and pooling (see ``pooling_key``).
        compute: Computes the features of texts that are not in the cache yet.
        encoder: Name of the encoder, for people.
    """

    def __init__(self, key: str, compute: Compute, encoder: str) -> None:
        self.key = key
        self.compute = compute
        self.encoder = encoder

    def of(self, encoded: Encoded, progress: Progress | None = None) -> np.ndarray:
        """(N, F) float32 features, in the order of the texts.

        Args:
            encoded: N tokenized texts.
            progress: Called with (done, total) texts that have to be computed.

        Raises:
            RunError: if the disk refuses.
        """
        key = output_key(self.key, *(d for d in TOKEN_BUDGET if torch.is_autocast_enabled(d)))
        outputs = OutputCache(cache.POOLED, key, {"encoder": self.encoder})
        return cached_vectors(outputs, self.compute, encoded, progress)
