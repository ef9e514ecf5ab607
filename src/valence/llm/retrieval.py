"""Retrieval of demonstrations: for every text the most similar training text of each label.

Texts are embedded once, in batches of similar length, and cached by content; the search is exact:
one matrix product per block of queries, and the best of every label selected from it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from valence.config.sections import EncoderSpec
from valence.data.batches import TOKEN_BUDGET, Encoded, length_batches, rows_done
from valence.data.collate import pad
from valence.data.dataset import Split
from valence.data.examples import Examples
from valence.distributed.device import pick_device
from valence.errors import DataError, ModelError, UnknownNameError
from valence.models.base import Progress
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.frozen import OutputCache, cached_vectors
from valence.models.inference import run_batches
from valence.models.output_keys import output_key, precision_in_effect, tensors_digest, weights_key
from valence.models.pooling import POOLINGS
from valence.models.reading import check_pooling
from valence.storage import cache

POOLED = ("mean", "cls", "last", "max", "pooler")
QUERY_CHARACTERS = 512  # of a text that are embedded; as published
BLOCK_SCORES = 1 << 21  # scores in memory at once, 8 MiB; measured best of 1 to 16
FAISS_ROWS = 200_000  # from here on its blocked kernels are worth the dependency
NONE = -1


class Embedder:
    """A frozen encoder that embeds texts as unit vectors.

    Args:
        spec: Which encoder, and how many tokens it reads.
        pooling: One of :data:`POOLED`; ``pooler`` is the encoder's own pretrained one.
        device: As in ``train.device``.

    Raises:
        ModelError: if the encoder cannot be loaded, has no pooler of its own, or the pooling makes
            no sense on it.
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
            raise ModelError(f"Encoder {spec.name!r} has no pooler; use mean")
        check_pooling(pooling, self.encoder)
        own = tensors_digest(self._pooler().items())
        self._weights = output_key(weights_key(self.encoder), pooling, own)

    @property
    def key(self) -> str:
        """Prefix of the names of its entries in the cache."""
        return output_key(self._weights, precision_in_effect(self.encoder, self.device))

    def __call__(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(N, H) float32 unit vectors of N texts; equal token ids are embedded once.

        Raises:
            RunError: if the cache cannot be written.
        """
        about = {"encoder": self.encoder.spec.name, "pooling": self.pooling}
        outputs = OutputCache(cache.EMBEDDINGS, self.key, about)
        return cached_vectors(outputs, self._compute, self.tokenizer(texts), progress)

    def _compute(self, encoded: Encoded, progress: Progress | None) -> np.ndarray:
        return self.vectors(encoded.input_ids, progress)

    def vectors(self, rows: list[list[int]], progress: Progress | None = None) -> np.ndarray:
        """(N, H) float32 unit vectors of N lists of token ids; nothing is cached."""
        vectors = np.zeros((len(rows), self.encoder.hidden_size), dtype=np.float32)
        self.encoder.to(self.device)

        def embed(batch: np.ndarray) -> None:
            padded = pad([rows[i] for i in batch], self.tokenizer.pad_id)
            moved = {name: tensor.to(self.device) for name, tensor in padded.items()}
            pooled = self._pool(self.encoder(**moved), moved["attention_mask"])
            unit = torch.nn.functional.normalize(pooled.float(), dim=1)
            vectors[batch] = unit.cpu().numpy()

        lengths = [len(ids) for ids in rows]
        batches = list(length_batches(lengths, token_budget=TOKEN_BUDGET[self.device]))
        for done, _ in enumerate(run_batches(embed, batches, device=self.device), start=1):
            if progress is not None:
                progress(rows_done(done, len(batches), len(rows)), len(rows))
        return vectors

    def _pooler(self) -> dict[str, Tensor]:
        """The weights of the encoder's own pooler, if it is used."""
        if self.pooling != "pooler" or self.encoder.pooler_weights is None:
            return {}
        weight, bias = self.encoder.pooler_weights
        return {"weight": weight, "bias": bias}

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, H) from token states (B, T, H) and mask (B, T)."""
        if self.pooling == "pooler" and self.encoder.pooler_weights is not None:
            weight, bias = self.encoder.pooler_weights
            first = states[:, 0]
            return torch.tanh(first @ weight.to(first).T + bias.to(first))
        pooled: Tensor = POOLINGS[self.pooling](states.shape[-1], 0.0)(states, mask)
        return pooled


@dataclass(frozen=True)
class DemonstrationPool:
    """Embedded texts that demonstrations are retrieved from.

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
    """For every query and label the nearest rows of the pool that are no duplicate of the query.

    Args:
        queries: (Q, H) float32.
        groups: (Q,) ids of their texts, as in ``pool.groups``.
        pool: The rows that are searched.
        count: K, how many of each label.
        backend: ``auto`` takes FAISS above :data:`FAISS_ROWS` rows where it is installed.

    Returns:
        (Q, C, K) int64 rows of the pool by decreasing inner product; −1 where there is none.
    """
    nearest = np.full((len(queries), pool.class_count, count), NONE, dtype=np.int64)
    order = np.argsort(pool.labels, kind="stable")
    bounds = np.searchsorted(pool.labels[order], np.arange(pool.class_count + 1))
    if backend == "faiss" or (backend == "auto" and len(order) > FAISS_ROWS and _has_faiss()):
        for label in range(pool.class_count):
            rows = order[bounds[label] : bounds[label + 1]]
            if len(rows):
                nearest[:, label] = _faiss(queries, groups, pool, rows, count)
        return nearest
    vectors, duplicates = pool.vectors[order].T, _DuplicateIndex(pool.groups[order])
    size = max(1, BLOCK_SCORES // max(1, len(order)))
    buffer = np.empty((min(size, len(queries)), len(order)), dtype=np.float32)
    for start in range(0, len(queries), size):
        block = slice(start, start + size)
        scores = np.matmul(queries[block], vectors, out=buffer[: len(queries[block])])
        scores[duplicates.pairs(groups[block])] = -np.inf
        for label in range(pool.class_count):
            low, high = bounds[label], bounds[label + 1]
            if high > low:
                nearest[block, label] = _best(scores[:, low:high], count, order[low:high])
    return nearest


class _DuplicateIndex:
    """Finds equal ids without comparing all with all.

    Args:
        ids: (N,) the ids that are searched.
    """

    def __init__(self, ids: np.ndarray) -> None:
        self.order = np.argsort(ids, kind="stable")
        self.ids = ids[self.order]

    def pairs(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every pair (index in ``queries``, index in the ids) of equal ids."""
        first = np.searchsorted(self.ids, queries, side="left")
        counts = np.searchsorted(self.ids, queries, side="right") - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        matches = self.order[np.repeat(first, counts) + within]
        return np.repeat(np.arange(len(queries)), counts), matches


def _best(scores: np.ndarray, count: int, rows: np.ndarray) -> np.ndarray:
    """(B, K) of ``rows`` with the highest of scores (B, n); −1 where there are fewer."""
    best = np.full((len(scores), count), NONE, dtype=np.int64)
    size = min(count, scores.shape[1])
    if size == 1:
        top = scores.argmax(axis=1)[:, None]
    else:
        top = np.argpartition(-scores, size - 1, axis=1)[:, :size]
        ranks = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
        top = np.take_along_axis(top, ranks, axis=1)
    usable = np.isfinite(np.take_along_axis(scores, top, axis=1))
    best[:, :size] = np.where(usable, rows[top], NONE)
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
    duplicates = int(np.unique(owners, return_counts=True)[1].max())
    index = faiss.IndexFlatIP(pool.vectors.shape[1])
    index.add(np.ascontiguousarray(pool.vectors[rows]))
    depth = min(count + duplicates, len(rows))  # duplicates of the query are left out
    _, top = index.search(np.ascontiguousarray(queries), depth)
    excluded = (owners[top] == groups[:, None]) | (top < 0)
    order = np.argsort(excluded, axis=1, kind="stable")[:, :count]
    best = np.full((len(queries), count), NONE, dtype=np.int64)
    selected = rows[np.take_along_axis(top, order, axis=1)]
    missing = np.take_along_axis(excluded, order, axis=1)
    best[:, : order.shape[1]] = np.where(missing, NONE, selected)
    return best


class Retriever:
    """Retrieves demonstrations from training rows.

    Args:
        embedder: Computes the vectors.
        rows: Training rows. No test row may be among them.
        class_count: C.
        group: Column of languages or other groups: only rows of the query's own are searched.
        progress: Called with (done, total) texts that had to be embedded.
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
            queries: The texts that the model is prompted with.
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
        nearest = np.full((len(queries), self.pool.class_count, count), NONE, dtype=np.int64)
        for language in dict.fromkeys(languages.tolist()):
            own = np.flatnonzero(self.languages == language)
            if not len(own):
                raise DataError(
                    f"Language {language!r} has no training rows for demonstrations; exclude it, "
                    "or search all languages with --pool all"
                )
            pool = DemonstrationPool(
                self.pool.vectors[own],
                self.pool.labels[own],
                self.pool.groups[own],
                self.pool.class_count,
            )
            rows = np.flatnonzero(languages == language)
            in_pool = nearest_by_label(vectors[rows], groups[rows], pool, count=count)
            nearest[rows] = np.where(in_pool == NONE, NONE, own[in_pool])
        return nearest
