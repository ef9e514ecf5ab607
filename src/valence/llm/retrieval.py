"""Demonstrations by likeness: for every text the nearest other training text of each label.

Texts are embedded once, in batches of like length, and kept by content; the search is exact:
one matrix product per block of queries, and the best of every label picked from it at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from valence.config.sections import EncoderSpec
from valence.data.batches import TOKEN_BUDGET, length_batches
from valence.data.collate import pad
from valence.data.dataset import Split
from valence.data.examples import Examples
from valence.distributed.device import pick_device
from valence.errors import DataError, ModelError, UnknownNameError
from valence.models.base import Progress
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.frozen import weights_key
from valence.models.inference import inferred
from valence.models.pooling import POOLINGS
from valence.storage import cache

KIND = "embeddings"
CHUNK = 4096  # texts whose vectors are written at once
POOLED = ("mean", "cls", "max", "pooler")
QUERY_CHARACTERS = 512  # of a text that are compared; published
BLOCK_SCORES = 1 << 21  # scores held at once, 8 MiB; measured best of 1 to 16
FAISS_ROWS = 200_000  # from here on its blocked kernels are worth the dependency
NONE = -1


class Embedder:
    """A frozen encoder that turns texts into vectors of length 1.

    Args:
        spec: Which encoder, and how many tokens it reads.
        pooling: One of :data:`POOLED`; ``pooler`` is the encoder's own pretrained one.
        device: As in ``train.device``.

    Raises:
        ModelError: if the encoder cannot be had, or has no pooler of its own.
        UnknownNameError: if the pooling is unknown.
    """

    def __init__(self, spec: EncoderSpec, pooling: str = "mean", *, device: str = "auto") -> None:
        if pooling not in POOLED:
            raise UnknownNameError("pooling of embeddings", pooling, POOLED)
        frozen = spec.model_copy(update={"adaptation": "frozen"})
        self.tokenizer = TextTokenizer(frozen)
        self.encoder = Encoder(frozen).eval()
        self.pooling = pooling
        self.device = pick_device(device)
        if pooling == "pooler" and self.encoder.pooler_weights is None:
            raise ModelError(f"Encoder {spec.name!r} has no pooler of its own; take mean")
        self.key = cache.content_key([weights_key(self.encoder), pooling])

    def __call__(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(N, H) float32 unit vectors of N texts; equal token ids are embedded once.

        Raises:
            RunError: if the cache cannot be written.
        """
        if not texts:
            return np.zeros((0, self.encoder.hidden_size), dtype=np.float32)
        encoded = self.tokenizer(texts).input_ids
        wanted = np.array([_name(ids) for ids in encoded], dtype="S32")
        names, vectors = self._kept()
        first = np.unique(wanted, return_index=True)[1]
        missing = first[~np.isin(wanted[first], names)]
        for start in range(0, len(missing), CHUNK):
            rows = missing[start : start + CHUNK]
            told = progress and partial(_told, progress, start, len(missing))
            self._write([encoded[i] for i in rows], wanted[rows], told)
        if len(missing):
            names, vectors = self._kept()
        found: np.ndarray = vectors[np.searchsorted(names, wanted)]
        return found

    def _kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted names of the texts at hand, and their vectors."""
        names = [np.zeros(0, dtype="S32")]
        vectors = [np.zeros((0, self.encoder.hidden_size), dtype=np.float32)]
        for folder in cache.folders(KIND, f"{self.key}-"):
            with np.load(folder / "vectors.npz") as kept:
                names.append(kept["names"])
                vectors.append(kept["vectors"])
        joined = np.concatenate(names)
        order = np.argsort(joined, kind="stable")
        return joined[order], np.concatenate(vectors)[order]

    def _write(self, rows: list[list[int]], names: np.ndarray, progress: Progress | None) -> None:
        key = f"{self.key}-{cache.content_key([names.tobytes().hex()])}"
        about = {"encoder": self.encoder.spec.name, "pooling": self.pooling, "texts": len(rows)}
        with cache.writing(KIND, key, about) as folder:
            np.savez(folder / "vectors.npz", names=names, vectors=self.vectors(rows, progress))

    def vectors(self, rows: list[list[int]], progress: Progress | None = None) -> np.ndarray:
        """(N, H) float32 unit vectors of N lists of token ids; nothing is kept."""
        found = np.zeros((len(rows), self.encoder.hidden_size), dtype=np.float32)
        self.encoder.to(self.device)

        def embed(batch: np.ndarray) -> int:
            padded = pad([rows[i] for i in batch], self.tokenizer.pad_id)
            moved = {name: tensor.to(self.device) for name, tensor in padded.items()}
            pooled = self._pool(self.encoder(**moved), moved["attention_mask"])
            unit = torch.nn.functional.normalize(pooled.float(), dim=1)
            found[batch] = unit.cpu().numpy()
            return len(batch)

        lengths = [len(ids) for ids in rows]
        batches = list(length_batches(lengths, token_budget=TOKEN_BUDGET[self.device]))
        done = 0
        for count in inferred(embed, batches, device=self.device):
            done += count
            if progress is not None:
                progress(done, len(rows))
        return found

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, H) from token states (B, T, H) and mask (B, T)."""
        if self.pooling == "pooler" and self.encoder.pooler_weights is not None:
            weight, bias = self.encoder.pooler_weights
            first = states[:, 0]
            return torch.tanh(first @ weight.to(first).T + bias.to(first))
        pooled: Tensor = POOLINGS[self.pooling](states.shape[-1], 0.0)(states, mask)
        return pooled


def _told(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def _name(ids: Sequence[int]) -> bytes:
    raw = np.asarray(ids, dtype="<i4").tobytes()
    return hashlib.blake2b(raw, digest_size=16).hexdigest().encode()


@dataclass(frozen=True)
class DemonstrationPool:
    """Vectors that can be found.

    Attributes:
        vectors: (N, H) float32.
        labels: (N,) class ids.
        groups: (N,) ids of their texts; exact duplicates have one id.
        class_count: C.
    """

    vectors: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    class_count: int


def nearest_by_label(
    queries: np.ndarray,
    groups: np.ndarray,
    pool: DemonstrationPool,
    *,
    count: int = 1,
    backend: Literal["auto", "blocks", "faiss"] = "auto",
) -> np.ndarray:
    """For every query and label the nearest rows of the pool that are no copy of the query.

    Args:
        queries: (Q, H) float32.
        groups: (Q,) ids of their texts, as in ``pool.groups``.
        pool: What is searched.
        count: K, how many of each label.
        backend: ``auto`` takes FAISS above :data:`FAISS_ROWS` rows where it is installed.

    Returns:
        (Q, C, K) int64 rows of the pool by falling inner product; −1 where there is none.
    """
    found = np.full((len(queries), pool.class_count, count), NONE, dtype=np.int64)
    order = np.argsort(pool.labels, kind="stable")
    bounds = np.searchsorted(pool.labels[order], np.arange(pool.class_count + 1))
    if backend == "faiss" or (backend == "auto" and len(order) > FAISS_ROWS and _has_faiss()):
        for label in range(pool.class_count):
            rows = order[bounds[label] : bounds[label + 1]]
            if len(rows):
                found[:, label] = _faiss(queries, groups, pool, rows, count)
        return found
    vectors, copies = pool.vectors[order].T, _Copies(pool.groups[order])
    size = max(1, BLOCK_SCORES // max(1, len(order)))
    room = np.empty((min(size, len(queries)), len(order)), dtype=np.float32)
    for start in range(0, len(queries), size):
        block = slice(start, start + size)
        scores = np.matmul(queries[block], vectors, out=room[: len(queries[block])])
        scores[copies.of(groups[block])] = -np.inf
        for label in range(pool.class_count):
            low, high = bounds[label], bounds[label + 1]
            if high > low:
                found[block, label] = _best(scores[:, low:high], count, order[low:high])
    return found


class _Copies:
    """Finds equal ids without comparing all with all.

    Args:
        ids: (N,) what is looked through.
    """

    def __init__(self, ids: np.ndarray) -> None:
        self.order = np.argsort(ids, kind="stable")
        self.ids = ids[self.order]

    def of(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every pair (place in ``wanted``, place in the ids) of equal ids."""
        first = np.searchsorted(self.ids, wanted, side="left")
        counts = np.searchsorted(self.ids, wanted, side="right") - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at = self.order[np.repeat(first, counts) + within]
        return np.repeat(np.arange(len(wanted)), counts), at


def _best(scores: np.ndarray, count: int, rows: np.ndarray) -> np.ndarray:
    """(B, K) of ``rows`` with the highest of scores (B, n); −1 where fewer can be had."""
    best = np.full((len(scores), count), NONE, dtype=np.int64)
    kept = min(count, scores.shape[1])
    if kept == 1:
        top = scores.argmax(axis=1)[:, None]
    else:
        top = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
        ranks = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
        top = np.take_along_axis(top, ranks, axis=1)
    usable = np.isfinite(np.take_along_axis(scores, top, axis=1))
    best[:, :kept] = np.where(usable, rows[top], NONE)
    return best


def _has_faiss() -> bool:
    from importlib.util import find_spec

    return find_spec("faiss") is not None


def _faiss(
    queries: np.ndarray, groups: np.ndarray, pool: DemonstrationPool, rows: np.ndarray, count: int
) -> np.ndarray:
    """As :func:`_best` for one label, by an exact FAISS index."""
    import faiss

    owners = pool.groups[rows]
    copies = int(np.unique(owners, return_counts=True)[1].max())
    index = faiss.IndexFlatIP(pool.vectors.shape[1])
    index.add(np.ascontiguousarray(pool.vectors[rows]))
    wanted = min(count + copies, len(rows))  # so many may have to be left out
    _, top = index.search(np.ascontiguousarray(queries), wanted)
    own = (owners[top] == groups[:, None]) | (top < 0)
    kept = np.argsort(own, axis=1, kind="stable")[:, :count]
    best = np.full((len(queries), count), NONE, dtype=np.int64)
    picked = np.take_along_axis(top, kept, axis=1)
    best[:, : kept.shape[1]] = np.where(np.take_along_axis(own, kept, axis=1), NONE, rows[picked])
    return best


class Retriever:
    """Finds demonstrations among training rows, and only there.

    Args:
        embedder: Makes the vectors.
        rows: Training rows. No test row may be among them.
        class_count: C.
        group: Column of languages or other groups: only rows of the query's own are searched.
        progress: Told (done, all) texts that had to be embedded.
    """

    def __init__(
        self,
        embedder: Embedder,
        rows: Split,
        class_count: int,
        *,
        group: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.embedder, self.rows, self.progress = embedder, rows, progress
        self.ids: dict[str, int] = {}
        groups = np.array([self._group(text) for text in rows.texts], dtype=np.int64)
        vectors = embedder(rows.texts, progress)
        self.pool = DemonstrationPool(vectors, rows.labels, groups, class_count)
        self.group = group
        self.languages = rows.examples(group).groups if group else None

    def _group(self, text: str) -> int:
        return self.ids.setdefault(text.strip(), len(self.ids))

    def find(self, queries: Examples, count: int = 1) -> np.ndarray:
        """(Q, C, K) training rows, the nearest other ones of every label; −1 for none.

        Args:
            queries: What the model is prompted about.
            count: K.

        Raises:
            DataError: if a language of the queries has no training rows.
        """
        starts = [text[:QUERY_CHARACTERS] for text in queries.texts]
        vectors = self.embedder(starts, self.progress)
        groups = np.array([self._group(text) for text in queries.texts], dtype=np.int64)
        languages = queries.groups if self.group else None
        if self.languages is None or languages is None:
            return nearest_by_label(vectors, groups, self.pool, count=count)
        found = np.full((len(queries), self.pool.class_count, count), NONE, dtype=np.int64)
        for language in dict.fromkeys(languages.tolist()):
            own = np.flatnonzero(self.languages == language)
            if not len(own):
                raise DataError(
                    f"Language {language!r} has no training rows to take demonstrations from; "
                    "leave it out, or search all languages with --pool all"
                )
            pool = DemonstrationPool(
                self.pool.vectors[own],
                self.pool.labels[own],
                self.pool.groups[own],
                self.pool.class_count,
            )
            at = np.flatnonzero(languages == language)
            near = nearest_by_label(vectors[at], groups[at], pool, count=count)
            found[at] = np.where(near == NONE, NONE, own[near])
        return found
