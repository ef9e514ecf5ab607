"""A classifier with its tokenizer as a model: how it predicts, is saved and loaded."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from valence.config.sections import EncoderSpec, HeadSpec, LossSpec
from valence.data.batches import Encoded
from valence.data.examples import Examples
from valence.evaluation.task import Task
from valence.losses.base import ClassInfo
from valence.losses.contrastive import PrototypeMemory
from valence.models.base import Memory, Model, Outputs, Progress, unit_rows
from valence.models.base_encoder import base_location
from valence.models.classifier import Classifier, NetworkConfig
from valence.models.config_file import read_config, valid_sections, write_config
from valence.models.encoder import TextTokenizer
from valence.models.frozen import FrozenStates, PooledFeatures
from valence.models.heads import LinearHead
from valence.models.layer_features import LastLayerMeans, LayerFeatures
from valence.models.linear_views import LinearViewsModel, last_layer_model
from valence.models.output_keys import pooling_key
from valence.models.scoring import score_inputs, torch_threads
from valence.models.sentence_folder import SentenceSpec
from valence.models.stock_head import stock_classifier, stock_refusal
from valence.models.text_model import PlainNetwork, Scoring, TextModel
from valence.models.transformers_folder import save_transformers
from valence.models.weights import fits, load_encoder, load_weights
from valence.storage import atomic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD_FILE = "head.safetensors"
ADAPTED = ("lora", "dora")


@dataclass
class TorchModel(TextModel):
    """A classifier with its tokenizer."""

    classifier: Classifier
    tokenizer: TextTokenizer
    task: Task
    config: NetworkConfig
    provenance: Mapping[str, Any]
    logit_shift: tuple[float, ...] | None = None
    frozen: FrozenStates | None = None
    pooled: PooledFeatures | LastLayerMeans | None = None
    scoring: Scoring = field(default_factory=Scoring)
    notes: tuple[str, ...] = ()
    """Lines for the user about what was taken from the encoder's folder."""

    @property
    def trainable_parameters(self) -> int:  # type: ignore[override]
        """Number of trainable parameters."""
        return self.classifier.trainable_parameters()

    @property
    def network(self) -> nn.Module:
        """Encoder and head."""
        return self.classifier

    @property
    def feature_size(self) -> int:
        """H of the features."""
        return self.classifier.feature_size

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Outputs of N texts, in their order."""
        with torch_threads(self.scoring.threads):
            encoded = self.encode(examples.texts)
            if self.pooled is not None:
                outputs = self._predict_pooled(encoded, self.pooled, progress)
            else:
                outputs = self.score(encoded, progress)
        return self.shift_logits(outputs)

    @torch.inference_mode()
    def _predict_pooled(
        self, encoded: Encoded, pooled: PooledFeatures | LastLayerMeans, progress: Progress | None
    ) -> Outputs:
        features = pooled.of(encoded, progress)
        linear = self.classifier.head.get_submodule("linear")
        device = next(linear.parameters()).device
        logits = linear(torch.from_numpy(features).to(device))
        return Outputs(logits.cpu().numpy(), features, encoded.truncated)

    def enable_feature_cache(self) -> None:
        """Cache the pooled features of a frozen encoder on disk from now on.

        Does nothing where the logits depend on more than these features.
        """
        name, classifier = self._feature_pooling, self.classifier
        if name == "mean":
            self.pooled = LastLayerMeans(classifier.encoder, self.tokenizer.pad_id)
        if name in (None, "mean"):
            return

        def compute(encoded: Encoded, progress: Progress | None) -> np.ndarray:
            return score_inputs(classifier, self.inputs_of(encoded), progress).features

        key = pooling_key(classifier.encoder, classifier.head.get_submodule("pooling"), name)
        self.pooled = PooledFeatures(key, compute, self.config.encoder.name)

    @property
    def _feature_pooling(self) -> str | None:
        """The pooling whose features decide the logits; None if they depend on more than these."""
        linear = type(self.classifier.head) is LinearHead
        frozen = self.config.encoder.adaptation == "frozen"
        return self.config.sentence.named(self.config.head.pooling) if linear and frozen else None

    def linear_views(self) -> LinearViewsModel | None:
        """The same on all layers, where one linear layer reads the mean of the last."""
        if self._feature_pooling != "mean":
            return None
        layers = LayerFeatures.around(
            self.classifier.encoder, self.tokenizer, cached=self.pooled is not None
        )
        linear = self.classifier.head.get_submodule("linear").state_dict()
        weight, bias = linear["weight"].cpu().numpy(), linear["bias"].cpu().numpy()
        return last_layer_model(self, layers, weight, bias + np.asarray(self.logit_shift or 0.0))

    def enable_hidden_state_cache(self) -> None:
        """Cache the token states of a frozen encoder on disk from now on."""
        if self.config.encoder.adaptation == "frozen":
            self.frozen = FrozenStates(self.classifier.encoder, self.tokenizer.pad_id)

    def uncached(self) -> Model:
        """Without cached features, which other padding rounds differently."""
        return replace(self, pooled=None)

    def encode(
        self, texts: Sequence[str], *, device: str = "cpu", progress: Progress | None = None
    ) -> Encoded:
        """Token ids of texts, with their token states where these are cached.

        Args:
            texts: N texts.
            device: Where missing states are computed.
            progress: Called with (done, total) texts whose states had to be computed.
        """
        encoded = self.tokenizer(texts)
        if self.frozen is None or not len(encoded):
            return encoded
        return self.frozen.attach(encoded, device=device, progress=progress)

    def input_embeddings(self) -> nn.Module:
        """The layer that makes token embeddings of token ids."""
        layer: nn.Module = self.classifier.encoder.model.get_input_embeddings()
        return layer

    def logits_of_embeddings(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, C) of token embeddings (B, T, E), with gradients."""
        # The encoder's own forward disables gradients where it is frozen.
        states = self.classifier.encoder.model(inputs_embeds=embeddings, attention_mask=mask)
        logits: Tensor = self.classifier.head(states.last_hidden_state, mask).logits
        return logits

    def merged_encoder(self) -> Any:
        """A copy of the encoder on the CPU, as transformers has it: adapters merged."""
        encoder: Any = copy.deepcopy(self.classifier.encoder.model).cpu()
        adapted = self.config.encoder.adaptation in ADAPTED
        return encoder.merge_and_unload() if adapted else encoder

    @property
    def pooling(self) -> str | None:
        """The pooling that makes the features, which a linear layer reads; None for others."""
        plain = type(self.classifier.head) is LinearHead and not self.config.sentence.dense
        return self.config.head.pooling if plain else None

    @property
    def title(self) -> str:
        """What it is made of, for messages."""
        return f"The head {self.config.head.name!r} on {self.config.encoder.name!r}"

    def encoder_config(self) -> Any:
        """The config of transformers of its encoder."""
        return self.classifier.encoder.model.config

    @property
    def head_modules(self) -> tuple[str, ...]:
        """Names of the modules of :meth:`export_network` that are above the encoder."""
        return ("head",)

    def stock_classifier(self, temperature: float, offset: np.ndarray) -> PreTrainedModel:
        """See :func:`valence.models.stock_head.stock_classifier`."""
        return stock_classifier(self, temperature=temperature, offset=offset)

    def export_network(self) -> PlainNetwork:
        """A copy on the CPU for other runtimes, adapters merged."""
        encoder = self.merged_encoder()
        encoder.set_attn_implementation("eager")  # the fused one hides attention from optimizers
        return PlainNetwork(encoder, copy.deepcopy(self.classifier.head).cpu())

    def unit_features(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(N, D) features of length 1: in the space of the contrastive loss, where there is one."""
        features = self.predict(Examples(texts), progress).features.astype(np.float32)
        memory = self._memory()
        if memory is not None and len(features):
            device = next(memory.projector.parameters()).device
            with torch.inference_mode():
                projected = memory.projector(torch.from_numpy(features).to(device))
            features = projected.float().cpu().numpy()
        return unit_rows(features)

    def memory(self) -> Memory | None:
        """The contents of the prototype memory of the loss."""
        memory = self._memory()
        if memory is None or not int(memory.sizes.sum()):
            return None
        sizes = memory.sizes.tolist()
        vectors = [memory.bank[i, :size].float().cpu().numpy() for i, size in enumerate(sizes)]
        return Memory(np.concatenate(vectors), np.repeat(np.arange(len(sizes)), sizes))

    def _memory(self) -> PrototypeMemory | None:
        modules = self.classifier.loss.modules()
        return next((m for m in modules if isinstance(m, PrototypeMemory)), None)

    def shifted(self, shift: Sequence[float], provenance: Mapping[str, Any]) -> Model:
        """The same model with (C,) numbers added to the logits of every text."""
        numbers = tuple(float(x) for x in shift)
        return replace(self, logit_shift=numbers, provenance=provenance)

    def save(self, folder: Path) -> None:
        """Write ``config.json``, the head, and the adapter or the whole encoder.

        A model with a frozen or adapted encoder needs the base encoder when it is loaded. A
        wholly trained one carries its encoder and tokenizer, and is at the same time a model
        folder of transformers where :mod:`valence.models.stock_head` can hold its head.
        """
        folder.mkdir(parents=True, exist_ok=True)
        encoder = self.classifier.encoder
        base = None
        if encoder.spec.adaptation in ADAPTED:
            encoder.model.peft_config["default"].base_model_name_or_path = encoder.spec.name
            with atomic.new_folder(folder / "adapter") as path:
                encoder.model.save_pretrained(str(path), save_embedding_layers=False)
        elif encoder.spec.adaptation == "full":
            base = self._save_whole(folder)
        self.save_head(folder, base)

    def save_head(self, folder: Path, base: Mapping[str, Any] | None = None) -> None:
        """Write ``config.json`` and the head alone.

        Args:
            folder: It exists.
            base: The config of transformers that the encoder in ``folder`` has.
        """
        state = self.classifier.state_dict()
        rest = {n: v.contiguous() for n, v in state.items() if not n.startswith("encoder.")}
        with atomic.new_file(folder / HEAD_FILE) as path:
            save_file(rest, path, metadata={"format": "pt"})
        write_config(
            folder, loader="torch", task=self.task, provenance=self.provenance,
            network={name: getattr(self.config, name) for name in NetworkConfig.model_fields},
            logit_shift=self.logit_shift, base=base,
        )  # fmt: skip

    def _save_whole(self, folder: Path) -> Mapping[str, Any] | None:
        """Write encoder and tokenizer; gives the config where it is a model of transformers."""
        if stock_refusal(self) is None:
            return save_transformers(stock_classifier(self), self.tokenizer, folder)
        with atomic.new_folder(folder / "encoder") as path:
            self.classifier.encoder.model.save_pretrained(path)
            self.tokenizer.save(path)
        return None


def load_torch_model(folder: Path) -> TorchModel:
    """The model that :meth:`TorchModel.save` wrote.

    Raises:
        ModelError: if a file is missing, truncated or does not fit.
    """
    saved = read_config(folder)
    with valid_sections(folder):
        parts = {
            "encoder": saved.section("encoder", EncoderSpec),
            "head": saved.section("head", HeadSpec),
            "loss": saved.section("loss", LossSpec),
            "sentence": saved.section("sentence", SentenceSpec),
        }
        config = NetworkConfig.model_validate(parts)
    own = None
    if saved.holds_encoder:
        own = folder
    elif config.encoder.adaptation == "full":
        own = folder / "encoder"
    base = base_location(folder, saved)
    encoder = load_encoder(folder, config.encoder, own, base)
    info = ClassInfo(saved.train_counts, saved.tail, encoder.hidden_size)
    with fits(folder / HEAD_FILE):
        classifier = Classifier(encoder, config.head, config.loss, info, config.sentence)
    load_weights(classifier, folder / HEAD_FILE)
    classifier.eval()
    tokenizer = TextTokenizer(config.encoder, own or base)
    return TorchModel(classifier, tokenizer, saved.task, config, saved.spec, saved.logit_shift)
