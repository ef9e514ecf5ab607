"""Features of all layers of a frozen encoder: their means, and the maximum of the last one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from valence.config.sections import EncoderSpec
from valence.data.batches import TOKEN_BUDGET, Encoded, length_batches, rows_done
from valence.data.collate import pad
from valence.distributed.device import pick_device
from valence.models.base import Progress
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.frozen import OutputCache, cached_vectors
from valence.models.inference import run_batches
from valence.models.output_keys import output_key, precision_in_effect, weights_key
from valence.models.pooling import masked_max, masked_mean
from valence.storage import cache

NAME = "means of all layers, maximum of the last"
EVERY = slice(None)


class LayerVectors:
    """The vectors of tokenized texts under a frozen encoder; see :class:`LayerFeatures`.

    Args:
        encoder: A frozen encoder.
        pad_id: Id of the padding token.
        cached: Whether vectors are cached on disk.
    """

    def __init__(self, encoder: Encoder, pad_id: int, *, cached: bool) -> None:
        self.encoder = encoder
        self.pad_id = pad_id
        self.cached = cached
        self._weights = weights_key(encoder) if cached else ""

    def of(
        self, encoded: Encoded, progress: Progress | None = None, columns: slice = EVERY
    ) -> np.ndarray:
        """(N, D) float32 vectors of N texts, or some columns of them.

        Args:
            encoded: N tokenized texts.
            progress: Called with (done, total) texts that have to be computed.
            columns: Of a vector; no others are read from the disk.

        Raises:
            RunError: if the disk refuses.
        """
        if not self.cached:
            return self._compute(encoded, progress)[:, columns]
        return cached_vectors(
            self._outputs, self._compute, encoded, progress, columns=columns,
            row_bytes=4 * self.size,
        )  # fmt: skip

    def are_stored(self, encoded: Encoded) -> bool:
        """Whether the vectors of all texts are in the cache."""
        return not len(encoded) or self._outputs.stored(encoded.input_ids)

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        widths = self.encoder.layer_widths
        return sum(widths) + widths[-1]

    @property
    def last(self) -> slice:
        """The columns that hold the mean of the last layer."""
        width = self.encoder.layer_widths[-1]
        return slice(-2 * width, -width)

    @property
    def _device(self) -> str:
        return next(self.encoder.parameters()).device.type

    @property
    def _outputs(self) -> OutputCache:
        key = output_key(self._weights, precision_in_effect(self.encoder, self._device), NAME)
        about = {"encoder": self.encoder.spec.name, "features": NAME}
        return OutputCache(cache.POOLED, key, about)

    def _compute(self, encoded: Encoded, progress: Progress | None) -> np.ndarray:
        device = self._device
        lengths = [len(ids) for ids in encoded.input_ids]
        batches = list(length_batches(lengths, token_budget=TOKEN_BUDGET[device]))
        parts = run_batches(partial(self._pooled, encoded), batches, device=device)
        vectors = None
        for done, (rows, part) in enumerate(zip(batches, parts, strict=True), start=1):
            if vectors is None:
                vectors = np.empty((len(encoded), part.shape[1]), dtype=np.float32)
            vectors[rows] = part.numpy()
            if progress is not None:
                progress(rows_done(done, len(batches), len(encoded)), len(encoded))
        return np.zeros((0, 1), dtype=np.float32) if vectors is None else vectors

    def _pooled(self, encoded: Encoded, rows: np.ndarray) -> Tensor:
        padded = pad([encoded.input_ids[row] for row in rows], self.pad_id)
        ids, mask = (padded[name].to(self._device) for name in ("input_ids", "attention_mask"))
        return pool_layers(self.encoder.layers(ids, mask), mask).float().cpu()


class LastLayerMeans:
    """Means over tokens of the last layer, from the vectors of all layers.

    Methods that read the last layer and methods that read all of them share one pass of the
    encoder and one cache.

    Args:
        encoder: A frozen encoder.
        pad_id: Id of the padding token.
    """

    def __init__(self, encoder: Encoder, pad_id: int) -> None:
        self.vectors = LayerVectors(encoder, pad_id, cached=True)

    def of(self, encoded: Encoded, progress: Progress | None = None) -> np.ndarray:
        """(N, H) float32 means, in the order of the texts; as :meth:`LayerVectors.of`."""
        return self.vectors.of(encoded, progress, self.vectors.last)


class LayerFeatures:
    """Turns texts into vectors with a frozen encoder.

    A text's vector holds the mean over its tokens of every layer's states, the embeddings first,
    and the maximum over its tokens of the last layer's.

    Args:
        spec: The encoder, its length limit and prompt.
        cached: Whether vectors are cached on disk.
        location: Where the encoder is, if not where its name says.
    """

    def __init__(self, spec: EncoderSpec, *, cached: bool, location: str | None = None) -> None:
        frozen = spec.model_copy(update={"adaptation": "frozen"})
        encoder, tokenizer = Encoder(frozen, location).eval(), TextTokenizer(spec, location)
        self._init(spec, encoder, tokenizer, cached=cached)

    def _init(
        self, spec: EncoderSpec, encoder: Encoder, tokenizer: TextTokenizer, *, cached: bool
    ) -> None:
        self.spec = spec
        self.encoder = encoder
        self.tokenizer = tokenizer
        self._vectors = LayerVectors(encoder, tokenizer.pad_id, cached=cached)
        self.note = tokenizer.prompt_note

    @classmethod
    def around(cls, encoder: Encoder, tokenizer: TextTokenizer, *, cached: bool) -> LayerFeatures:
        """The features of an encoder that is loaded already.

        Args:
            encoder: A frozen encoder.
            tokenizer: Its tokenizer.
            cached: Whether vectors are cached on disk.
        """
        features = cls.__new__(cls)
        features._init(encoder.spec, encoder, tokenizer, cached=cached)
        return features

    def equals(self, other: LayerFeatures) -> bool:
        """Whether the other gives the same vector to every text: same files, limit and prompt."""
        return self._source == other._source

    @property
    def _source(self) -> tuple[str, int, str]:
        return self.encoder.where, self.tokenizer.max_length, self.tokenizer.prompt

    @property
    def resolved_spec(self) -> EncoderSpec:
        """The encoder with the prompt in effect, for a model folder."""
        return self.spec.model_copy(
            update={"adaptation": "frozen", "prompt": self.tokenizer.prompt}
        )

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return self._vectors.size

    def start_of(self, layers: Literal["all", "upper"]) -> int:
        """The first column of all layers, or of the upper half of them."""
        widths = self.encoder.layer_widths
        first = min((len(widths) + 1) // 2, len(widths) - 1) if layers == "upper" else 0
        return sum(widths[:first])

    def uncached(self) -> LayerFeatures:
        """The same without the cache on disk; the encoder is shared."""
        plain = copy(self)
        plain._vectors = LayerVectors(self.encoder, self.tokenizer.pad_id, cached=False)
        return plain

    def to(self, device: str) -> None:
        """Move the encoder to a device: ``auto``, ``cpu``, ``cuda`` or ``mps``."""
        self.encoder.to(pick_device(device))

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Every text in windows within the length limit; see ``valence.models.windows``."""
        return self.tokenizer.windows(texts)

    @property
    def last(self) -> slice:
        """The columns that hold the mean of the last layer."""
        return self._vectors.last

    def chunks(
        self, texts: Sequence[str], size: int, progress: Progress | None = None
    ) -> Iterator[tuple[slice, np.ndarray, int]]:
        """The vectors of texts part by part.

        Args:
            texts: N texts.
            size: Texts of a part.
            progress: Called with (done, total) texts.

        Yields:
            The rows of a part, their vectors (rows, D) and how many texts were truncated.
        """
        for start in range(0, len(texts), size):
            rows = slice(start, min(start + size, len(texts)))
            shifted = progress and partial(_with_offset, progress, start, len(texts))
            vectors, truncated = self.vectors(texts[rows], shifted)
            yield rows, vectors, truncated

    def vectors(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[np.ndarray, int]:
        """(N, D) float32 vectors of N texts, and how many of them were truncated.

        Args:
            texts: N texts.
            progress: Called with (done, total) texts that have to be computed.

        Raises:
            RunError: if the disk refuses.
        """
        encoded = self.tokenizer(texts)
        return self._vectors.of(encoded, progress), encoded.truncated

    def are_stored(self, texts: Sequence[str]) -> bool:
        """Whether the vectors of all texts are in the cache."""
        return not texts or self._vectors.are_stored(self.tokenizer(texts))


def pool_layers(layers: Sequence[Tensor], mask: Tensor) -> Tensor:
    """(B, D) vectors of the states (B, T, H) of all layers and the mask (B, T)."""
    views = [*(masked_mean(states, mask) for states in layers), masked_max(layers[-1], mask)]
    return torch.cat(views, dim=1)


def _with_offset(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)
