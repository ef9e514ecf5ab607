"""The base class of models that are a PyTorch network over the tokens of one text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from valence.data.batches import Encoded
from valence.data.collate import TextInputs
from valence.distributed.device import Hardware, pick_device, use_bf16
from valence.models.attribution import Attribution
from valence.models.base import Model, Outputs, Progress
from valence.models.cpu import usable_cores
from valence.models.encoder import TextTokenizer
from valence.models.scoring import score_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from valence.models.ngrams import NgramLogits


@dataclass(frozen=True)
class Scoring:
    """How texts are scored.

    Attributes:
        token_budget: Most tokens of a batch; the default of the device when None.
        precision: Number format.
        threads: Processor threads; those of the process when None.
    """

    token_budget: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int | None = None


class TextModel(Model):
    """A network over the tokens of a text, with its tokenizer.

    Attributes:
        tokenizer: Of the encoder.
        logit_shift: Added to the logits of every text.
        scoring: How texts are scored; :meth:`prepare` sets it.
    """

    tokenizer: TextTokenizer
    logit_shift: tuple[float, ...] | None
    scoring: Scoring

    @property
    def precision(self) -> Literal["fp32", "bf16"]:  # type: ignore[override]
        """Number format it computes in."""
        return self.scoring.precision

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """Takes ``input_ids`` and ``attention_mask`` and gives ``logits`` and ``features``."""

    @abstractmethod
    def input_embeddings(self) -> nn.Module:
        """The layer that makes token embeddings of token ids."""

    @abstractmethod
    def logits_of_embeddings(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, C) of token embeddings (B, T, E), with gradients."""

    @abstractmethod
    def export_network(self) -> ExportNetwork:
        """A copy on the CPU for other runtimes, adapters merged."""

    @abstractmethod
    def encoder_config(self) -> Any:
        """The config of transformers of its encoder."""

    @property
    @abstractmethod
    def head_modules(self) -> tuple[str, ...]:
        """Names of the modules of :meth:`export_network` that are above the encoder."""

    @abstractmethod
    def stock_classifier(self, temperature: float, offset: np.ndarray) -> PreTrainedModel:
        """A ``*ForSequenceClassification`` that gives the logits / temperature + offset.

        Raises:
            ModelError: if transformers has none that gives them.
        """

    @property
    def pooling(self) -> str | None:
        """The pooling that makes the features, which a linear layer reads; None for others."""
        return None

    @property
    def ngram_logits(self) -> NgramLogits | None:
        """Logits that are added to those of the network, outside of it; None for most."""
        return None

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is made of, for messages."""

    @property
    @abstractmethod
    def feature_size(self) -> int:
        """H of the features."""

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text that are read."""
        return self.tokenizer.max_length

    def prepare(self, hardware: Hardware) -> None:
        """Move to a device and take its number format, batches and threads.

        Raises:
            SpecError: if the device is not available.
        """
        device = pick_device(hardware.device)
        self.network.to(device)
        self.scoring = Scoring(
            hardware.batch_tokens, "bf16" if use_bf16(hardware.precision, device) else "fp32",
            hardware.threads or min(torch.get_num_threads(), usable_cores()),
        )  # fmt: skip

    def score(self, encoded: Encoded, progress: Progress | None = None) -> Outputs:
        """Outputs of the network for encoded texts."""
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return score_inputs(
                self.network, self.inputs_of(encoded), progress,
                token_budget=self.scoring.token_budget,
            )  # fmt: skip

    def shift_logits(self, outputs: Outputs) -> Outputs:
        """The same with :attr:`logit_shift` added."""
        if self.logit_shift is None:
            return outputs
        return replace(outputs, logits=outputs.logits + np.asarray(self.logit_shift, np.float32))

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Every text in windows within the length limit; see ``valence.models.windows``."""
        return self.tokenizer.windows(texts)

    def inputs_of(self, encoded: Encoded) -> TextInputs:
        """Encoded texts as the network reads them."""
        return TextInputs(encoded, self.tokenizer.pad_id)

    def attribute(self, text: str, target: int, steps: int = 32) -> Attribution:
        """Integrated gradients over the token embeddings, summed over each word."""
        from valence.models.attribution import integrated_gradients

        return integrated_gradients(self, text, target, steps)

    def text_model(self) -> TextModel:
        """The model itself."""
        return self


class ExportNetwork(nn.Module):
    """A network as other runtimes get it: ids and mask in, logits and features out.

    Attributes:
        temperature: What logits are divided by.
        offset: (C,) what is added to them then.
    """

    temperature: float = 1.0
    offset: Tensor | None = None

    def outputs(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) before they are scaled, and features (B, H)."""
        raise NotImplementedError

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and features (B, H) of token ids and mask (B, T)."""
        logits, features = self.outputs(input_ids, attention_mask)
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if self.offset is not None:
            logits = logits + self.offset
        return logits, features


class PlainNetwork(ExportNetwork):
    """Encoder and head of ours."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def outputs(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) before they are scaled, and features (B, H)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        output = self.head(states.last_hidden_state, attention_mask)
        return output.logits, output.features
