"""A linear model on two views of a text: n-grams, and all layers of a frozen encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from valence.config.sections import EncoderSpec
from valence.data.examples import Examples
from valence.distributed.device import Hardware
from valence.errors import ModelError
from valence.evaluation.task import Task
from valence.models.base import Model, Outputs, Progress, no_features
from valence.models.base_encoder import base_location
from valence.models.config_file import read_config, valid_sections, write_config
from valence.models.ngrams import CHUNK, NgramLogits, Ngrams
from valence.models.tensors import broken_parts, check_shapes, read_tensors
from valence.storage import atomic

if TYPE_CHECKING:
    from valence.models.layer_features import LayerFeatures
    from valence.models.text_model import TextModel

WEIGHTS_FILE = "weights.safetensors"


@dataclass
class LinearViewsModel(Model):
    """Sums the logits of two linear models, one per view; either view may be missing.

    Attributes:
        ngrams: Makes the first view; None without it.
        text: (D₁, C) weights.
        layers: Makes the second view; None without it.
        encoder: (D₂, C) weights of the features as they are, not standardized.
        bias: (C,).
    """

    task: Task
    provenance: Mapping[str, Any]
    ngrams: Ngrams | None
    text: np.ndarray | None
    layers: LayerFeatures | None
    encoder: np.ndarray | None
    bias: np.ndarray

    @property
    def trainable_parameters(self) -> int:  # type: ignore[override]
        """Weights of both views and biases."""
        parts = (self.text, self.encoder, self.bias)
        return int(sum(part.size for part in parts if part is not None))

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a text that the encoder reads; the n-grams read all."""
        return None if self.layers is None else self.layers.tokenizer.max_length

    def prepare(self, hardware: Hardware) -> None:
        """Move the encoder to a device.

        Raises:
            SpecError: if the device is not available.
        """
        super().prepare(hardware)
        if self.layers is not None:
            self.layers.to(hardware.device)

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Logits (N, C); the features are the means of the encoder's last layer."""
        texts = list(examples.texts)
        logits = np.tile(self.bias.astype(np.float32), (len(texts), 1))
        if self.ngram_logits is not None:
            logits += self.ngram_logits.of(texts)
        if self.layers is None or self.encoder is None:
            return Outputs(logits, no_features(len(texts)))
        truncated, features = 0, []
        for rows, vectors, cut in self.layers.chunks(texts, CHUNK, progress):
            logits[rows] += vectors @ self.encoder
            features.append(vectors[:, self.layers.last])
            truncated += cut
        width = self.layers.encoder.hidden_size
        empty = np.zeros((0, width), dtype=np.float32)
        return Outputs(logits, np.concatenate(features) if features else empty, truncated)

    @property
    def ngram_logits(self) -> NgramLogits | None:
        """The part that reads n-grams; None without it."""
        if self.ngrams is None or self.text is None:
            return None
        return NgramLogits(self.ngrams, self.text)

    def text_model(self) -> TextModel:
        """The encoder's part as a network; the n-grams are added beside it.

        Raises:
            ModelError: if n-grams alone are read.
        """
        if self.layers is None or self.encoder is None:
            raise ModelError(
                f"{self.name} uses only n-grams, so there is no network to export; it already runs "
                "without PyTorch"
            )
        from valence.models.layers_network import LayersTextModel

        return LayersTextModel(self, self.layers, self.encoder, self.bias, self.ngram_logits)

    def uncached(self) -> Model:
        """Without cached features."""
        return self if self.layers is None else replace(self, layers=self.layers.uncached())

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Every text in windows within the encoder's limit; whole without an encoder."""
        return super().windows(texts) if self.layers is None else self.layers.windows(texts)

    def shifted(self, shift: Sequence[float], provenance: Mapping[str, Any]) -> Model:
        """The same model with (C,) numbers added to the logits of every text."""
        return replace(self, bias=self.bias + np.asarray(shift), provenance=provenance)

    def linear_views(self) -> LinearViewsModel:
        """Itself."""
        return self

    def times(self, weight: float) -> LinearViewsModel:
        """The same model with its logits multiplied by a number."""
        text = None if self.text is None else self.text * weight
        encoder = None if self.encoder is None else self.encoder * weight
        return replace(self, text=text, encoder=encoder, bias=self.bias * weight)

    def plus(self, other: LinearViewsModel) -> LinearViewsModel | None:
        """The model whose logits are the sum of both.

        Args:
            other: A model of the same classes.

        Returns:
            None if they read other encoders or none, or both read n-grams.
        """
        if self.ngrams is not None and other.ngrams is not None:
            return None
        if self.layers is None or other.layers is None or not self.layers.equals(other.layers):
            return None
        assert self.encoder is not None
        assert other.encoder is not None
        views = self if other.ngrams is None else other
        return replace(
            self, ngrams=views.ngrams, text=views.text, encoder=self.encoder + other.encoder,
            bias=self.bias + other.bias,
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write terms as JSON and numbers as safetensors; the encoder is not copied."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"bias": self.bias}
        network = {}
        if self.ngrams is not None and self.text is not None:
            tensors |= {"text": self.text, **self.ngrams.save(folder)}
        if self.layers is not None and self.encoder is not None:
            tensors["encoder"] = self.encoder
            network["encoder"] = self.layers.resolved_spec
        tensors = {name: np.ascontiguousarray(v, np.float32) for name, v in tensors.items()}
        with atomic.new_file(folder / WEIGHTS_FILE) as path:
            save_file(tensors, path)
        write_config(
            folder, loader="linear-views", task=self.task, provenance=self.provenance,
            network=network,
        )  # fmt: skip


def last_layer_model(
    model: Model, layers: LayerFeatures, weights: np.ndarray, bias: np.ndarray
) -> LinearViewsModel:
    """A model that is linear in the mean of an encoder's last layer, on the features of all.

    Args:
        model: Names the task and the spec.
        layers: The features of its encoder.
        weights: (C, H).
        bias: (C,).
    """
    every = np.zeros((layers.size, len(weights)), dtype=np.float32)
    every[layers.last] = weights.T
    return LinearViewsModel(model.task, model.provenance, None, None, layers, every, bias)


def add_linear(
    members: Sequence[Model], weights: Sequence[float]
) -> tuple[list[Model], list[float]]:
    """Members and weights with the same sum of logits, in which linear models are added up.

    Linear models that read the same frozen encoder become one, which reads each text once. All
    others stay as they are.

    Args:
        members: K models of the same classes.
        weights: Of the logits of each.
    """
    models, factors = list(members), list(weights)
    linear = [member.linear_views() for member in members]
    place = 0
    while place < len(models):
        for later in range(len(models) - 1, place, -1):
            first, second = linear[place], linear[later]
            if first is None or second is None:
                continue
            total = first.times(factors[place]).plus(second.times(factors[later]))
            if total is not None:
                models[place] = linear[place] = total
                factors[place] = 1.0
                del models[later], linear[later], factors[later]
        place += 1
    return models, factors


def load_linear_views_model(folder: Path) -> LinearViewsModel:
    """The model that :meth:`LinearViewsModel.save` wrote.

    Raises:
        ModelError: if a file is missing or broken, or the encoder is not at hand.
    """
    config = read_config(folder)
    layers = None
    tensors = read_tensors(folder / WEIGHTS_FILE)
    text, encoder, bias = tensors.get("text"), tensors.get("encoder"), tensors.get("bias")
    with valid_sections(folder):
        spec = None if encoder is None else config.section("encoder", EncoderSpec)
    with broken_parts(folder):
        ngrams = None if text is None else Ngrams.load(folder, tensors)
    count, terms = len(config.task.classes), {} if ngrams is None else ngrams.shapes()
    expected = {"bias": (count,), **terms}
    if ngrams is not None:
        expected["text"] = (ngrams.size, count)
    if encoder is not None:
        expected["encoder"] = (len(encoder), count)
    check_shapes(tensors, expected, folder / WEIGHTS_FILE)
    assert bias is not None
    if spec is not None:
        from valence.models.layer_features import LayerFeatures

        layers = LayerFeatures(spec, cached=False, location=base_location(folder, config))
        if encoder is not None and len(encoder) != layers.size:
            raise ModelError(
                f"{folder} has weights for {len(encoder)} features and encoder {spec.name!r} gives "
                f"{layers.size}; use the encoder it was trained with"
            )
    return LinearViewsModel(config.task, config.spec, ngrams, text, layers, encoder, bias)
