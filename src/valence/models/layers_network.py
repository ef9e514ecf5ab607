"""All layers of a frozen encoder and a linear layer on them, as a network for other runtimes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from valence.data.examples import Examples
from valence.errors import ModelError
from valence.models.base import Model, Outputs, Progress
from valence.models.layer_features import LayerFeatures, pool_layers
from valence.models.ngrams import NgramLogits
from valence.models.text_model import ExportNetwork, Scoring, TextModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LayersNetwork(ExportNetwork):
    """An encoder, the pooled states of all its layers, and a linear layer."""

    def __init__(self, encoder: nn.Module, linear: nn.Linear, last: slice) -> None:
        super().__init__()
        self.encoder, self.linear, self.last = encoder, linear, last

    def outputs(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) before they are scaled, and the means of the last layer (B, H)."""
        states = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        )
        features = pool_layers(states.hidden_states, attention_mask)
        return self.linear(features), features[:, self.last]


@dataclass
class LayersTextModel(TextModel):
    """A linear model on two views, of which the encoder's is a network.

    Attributes:
        model: The model.
        layers: Its encoder.
        weights: (D, C) of the encoder's features.
        bias: (C,).
        other_view: Its n-grams, which are added outside of the network; None without them.
    """

    model: Model
    layers: LayerFeatures
    weights: np.ndarray
    bias: np.ndarray
    other_view: NgramLogits | None
    scoring: Scoring = field(default_factory=Scoring)
    logit_shift: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self.task, self.provenance = self.model.task, self.model.provenance
        self.tokenizer = self.layers.tokenizer

    @property
    def ngram_logits(self) -> NgramLogits | None:
        """Logits of the n-grams."""
        return self.other_view

    @property
    def network(self) -> nn.Module:
        """The encoder."""
        return self.layers.encoder

    @property
    def title(self) -> str:
        """What it is made of, for messages."""
        return f"A linear model on all layers of {self.layers.spec.name!r}"

    @property
    def feature_size(self) -> int:
        """H of the features."""
        return self.layers.encoder.layer_widths[-1]

    @property
    def head_modules(self) -> tuple[str, ...]:
        """Names of the modules of :meth:`export_network` that are above the encoder."""
        return ("linear",)

    def encoder_config(self) -> Any:
        """The config of transformers of its encoder."""
        return self.layers.encoder.model.config

    def export_network(self) -> LayersNetwork:
        """A copy on the CPU for other runtimes."""
        encoder: Any = copy.deepcopy(self.layers.encoder.model).cpu()
        encoder.set_attn_implementation("eager")  # the fused one hides attention from optimizers
        return LayersNetwork(encoder, self._linear(), self.layers.last)

    def _linear(self) -> nn.Linear:
        linear = nn.Linear(*self.weights.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(self.weights.T)))
            linear.bias.copy_(torch.from_numpy(np.asarray(self.bias, np.float32)))
        return linear

    def input_embeddings(self) -> nn.Module:
        """The layer that makes token embeddings of token ids."""
        layer: nn.Module = self.layers.encoder.model.get_input_embeddings()
        return layer

    def logits_of_embeddings(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, C) of the encoder's view of token embeddings (B, T, E), with gradients."""
        states = self.layers.encoder.model(
            inputs_embeds=embeddings, attention_mask=mask, output_hidden_states=True
        )
        linear = self._linear().to(embeddings.device)
        logits: Tensor = linear(pool_layers(states.hidden_states, mask))
        return logits

    def stock_classifier(self, temperature: float, offset: np.ndarray) -> PreTrainedModel:
        """None of transformers reads all layers.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"{self.title} cannot be a transformers classifier, which uses one layer; export it "
            "with --format onnx or openvino"
        )

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Outputs of both views."""
        return self.model.predict(examples, progress)

    def save(self, folder: Path) -> None:
        """Write the whole model."""
        self.model.save(folder)
