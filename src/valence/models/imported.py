"""Classifiers of transformers, whoever trained them: ``AutoModelForSequenceClassification``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from valence.config.sections import EncoderSpec, Section
from valence.data.examples import Examples
from valence.data.pretrained import load_network
from valence.data.quiet import quiet_transformers
from valence.errors import ModelError
from valence.evaluation.task import Task
from valence.models.base import Model, Outputs, Progress
from valence.models.config_file import read_config, valid_sections, write_config
from valence.models.encoder import TextTokenizer
from valence.models.pooling import masked_mean
from valence.models.scoring import torch_threads
from valence.models.text_model import ExportNetwork, Scoring, TextModel
from valence.models.transformers_folder import save_transformers
from valence.models.weights import broken_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LONGEST = 1 << 24
"""Tokens of a text, of any model."""


class ImportedSpec(Section):
    """What the config of transformers does not say of an imported model."""

    max_length: Annotated[int, Field(ge=1, le=LONGEST)]
    """Tokens of a text that are read."""


class ImportedNetwork(nn.Module):
    """A ``*ForSequenceClassification`` that also gives features.

    The features are the mean of the encoder's last token states over the real tokens, whatever
    the head reads.

    Args:
        model: The classifier of transformers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.output_size = int(model.config.num_labels)
        self.feature_size = int(model.config.get_text_config().hidden_size)
        self._states = local()
        self._watch = self._register()

    def _register(self) -> Any:
        """Keep the encoder's last output of every thread; the classifier does not give it."""
        states = self._states

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            states.last = output[0]

        return self.model.base_model.register_forward_hook(keep)

    def __deepcopy__(self, memo: Any) -> ImportedNetwork:
        self._watch.remove()
        try:
            return ImportedNetwork(copy.deepcopy(self.model, memo))
        finally:
            self._watch = self._register()

    def forward(self, attention_mask: Tensor, input_ids: Tensor) -> dict[str, Tensor]:
        """Logits (B, C) and features (B, H) of token ids and mask (B, T)."""
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return {"logits": logits, "features": masked_mean(self._states.last, attention_mask)}


class ImportedPlain(ExportNetwork):
    """The same with a pair as output."""

    def __init__(self, network: ImportedNetwork) -> None:
        super().__init__()
        self.network = network

    def outputs(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) before they are scaled, and features (B, H)."""
        output = self.network(attention_mask, input_ids)
        return output["logits"], output["features"]


@dataclass
class ImportedModel(TextModel):
    """A classifier of transformers with its tokenizer; it is not trained further here."""

    classifier: ImportedNetwork
    tokenizer: TextTokenizer
    task: Task
    spec: ImportedSpec
    provenance: Mapping[str, Any]
    logit_shift: tuple[float, ...] | None = None
    scoring: Scoring = field(default_factory=Scoring)

    @property
    def network(self) -> nn.Module:
        """The classifier."""
        return self.classifier

    @property
    def feature_size(self) -> int:
        """H of the features."""
        return self.classifier.feature_size

    @property
    def trainable_parameters(self) -> int:  # type: ignore[override]
        """Number of parameters: all were trained, elsewhere."""
        return sum(p.numel() for p in self.classifier.parameters())

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Outputs of N texts, in their order."""
        with torch_threads(self.scoring.threads):
            return self.shift_logits(self.score(self.tokenizer(examples.texts), progress))

    def input_embeddings(self) -> nn.Module:
        """The layer that makes token embeddings of token ids."""
        layer: nn.Module = self.classifier.model.get_input_embeddings()
        return layer

    def logits_of_embeddings(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, C) of token embeddings (B, T, E), with gradients."""
        with quiet_transformers():  # it warns about padding, of which there is none
            output = self.classifier.model(inputs_embeds=embeddings, attention_mask=mask)
        logits: Tensor = output.logits
        return logits

    @property
    def title(self) -> str:
        """What it is made of, for messages."""
        return type(self.classifier.model).__name__

    def encoder_config(self) -> Any:
        """The config of transformers of its encoder."""
        return self.classifier.model.config

    @property
    def head_modules(self) -> tuple[str, ...]:
        """Names of the modules of :meth:`export_network` that are above the encoder."""
        model = self.classifier.model
        above = [n for n, module in model.named_children() if module is not model.base_model]
        return tuple(f"network.model.{name}" for name in above)

    def stock_classifier(self, temperature: float, offset: np.ndarray) -> PreTrainedModel:
        """The classifier, with its last layer scaled.

        Raises:
            ModelError: if that layer has no bias to take the offset.
        """
        if self.logit_shift is not None:
            offset = offset + np.asarray(self.logit_shift) / temperature
        model: Any = copy.deepcopy(self.classifier).model.cpu()
        if temperature == 1.0 and not offset.any():
            return cast("PreTrainedModel", model)
        linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
        last = [layer for layer in linear if layer.out_features == len(self.classes)][-1]
        with torch.no_grad():
            last.weight /= temperature
            if last.bias is not None:
                last.bias.copy_(last.bias / temperature + torch.from_numpy(offset.astype("f4")))
            elif offset.any():
                raise ModelError(
                    f"{self.title} cannot store the calibration, since its last layer has no bias; "
                    "use --format onnx"
                )
        return cast("PreTrainedModel", model)

    def export_network(self) -> ImportedPlain:
        """A copy on the CPU for other runtimes."""
        network = copy.deepcopy(self.classifier).cpu()
        network.model.set_attn_implementation("eager")
        return ImportedPlain(network)

    def save(self, folder: Path) -> None:
        """Write a model folder of transformers that has our config in it."""
        folder.mkdir(parents=True, exist_ok=True)
        base = save_transformers(self.classifier.model, self.tokenizer, folder)
        write_config(
            folder, loader="transformers", task=self.task, provenance=self.provenance,
            network={"imported": self.spec}, logit_shift=self.logit_shift, base=base,
        )  # fmt: skip


def load_imported_model(folder: Path) -> Model:
    """The model that ``valence import-model`` or ``valence export`` wrote.

    Raises:
        ModelError: if a file is missing or broken.
    """
    saved = read_config(folder)
    with valid_sections(folder):
        spec = saved.section("imported", ImportedSpec)
    classifier = ImportedNetwork(load_classifier(folder)).eval()
    if classifier.output_size != len(saved.classes):
        raise ModelError(
            f"{folder} has {classifier.output_size} outputs but config.json has "
            f"{len(saved.classes)} classes; save or copy the model folder again"
        )
    tokenizer = tokenizer_of(folder, spec.max_length)
    return ImportedModel(classifier, tokenizer, saved.task, spec, saved.spec, saved.logit_shift)


def tokenizer_of(folder: Path, max_length: int) -> TextTokenizer:
    """The tokenizer of a model folder of transformers.

    Raises:
        ModelError: if it cannot be loaded.
    """
    spec = EncoderSpec(name=str(folder), max_length=max_length, prompt="")
    return TextTokenizer(spec, folder)


def load_classifier(folder: Path) -> Any:
    """The classifier in a model folder of transformers, in float32 and without foreign code.

    Raises:
        ModelError: if it is none, has no safetensors, or a weight is missing.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        model, about = load_network(
            AutoModelForSequenceClassification, folder, local_only=True,
            options={"dtype": torch.float32, "output_loading_info": True},
        )  # fmt: skip
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors and json raise errors of their own kinds
        raise ModelError(broken_file(folder, error)) from None
    lost = sorted(about["missing_keys"])
    if lost:
        raise ModelError(
            f"{folder} has no weights for {lost[0]}; use a folder that was saved as a sequence "
            "classifier"
        )
    for name, values in model.named_parameters():
        if not bool(torch.isfinite(values).all()):
            raise ModelError(
                f"{folder}: {name} contains numbers that are not finite; copy it again"
            )
    return model
