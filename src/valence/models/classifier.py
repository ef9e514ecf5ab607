"""The classifier: encoder → head → loss, and how it is scored, saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from valence.config.spec import EncoderSpec, HeadSpec, LossSpec, RunSpec
from valence.data.collate import TOKEN_BUDGET, Collator, Encoded, length_batches
from valence.data.dataset import TrainingData
from valence.distributed import process_group
from valence.errors import ModelError
from valence.losses.base import ClassInfo
from valence.losses.gather import whole_loss
from valence.losses.table import build_loss
from valence.models.base import Progress, Scores
from valence.models.config_file import read_config, write_config
from valence.models.encoder import Encoder, TextTokenizer, without_peft_warnings
from valence.models.frozen import FrozenStates, PooledFeatures, pooling_key
from valence.models.heads import LinearHead, build_head
from valence.models.inference import inferred
from valence.storage import atomic


class Classifier(nn.Module):
    """Encoder, head and the loss it is trained with.

    Args:
        encoder: The pretrained encoder.
        head: Head and loss settings.
        loss: The loss; what it learns or remembers is saved with the model.
        info: Class sizes of the training rows.
    """

    accepts_loss_kwargs = False  # the Trainer must not pass item counts; it divides by itself

    def __init__(self, encoder: Encoder, head: HeadSpec, loss: LossSpec, info: ClassInfo) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = build_head(head, encoder.hidden_size, len(info.counts))
        self.head.take_pooler(encoder.pooler_weights, trained=encoder.spec.adaptation != "frozen")
        self.loss = build_loss(loss, replace(info, feature_size=self.head.feature_size))
        self.class_count = len(info.counts)
        self.views = 1  # how often a text is in a training batch

    def forward(
        self,
        attention_mask: Tensor,
        input_ids: Tensor | None = None,
        states: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits (B, C), features (B, F) and, where labels (B,) are given, the mean loss.

        Of several processes, the loss is that of the rows of all.

        Args:
            attention_mask: (B, T) 1 on real tokens.
            input_ids: (B, T) token ids.
            states: (B, T, H) what the encoder makes of them, if that is known already.
            labels: (B,) class ids.
        """
        if states is None:
            states = self.encoder(input_ids, attention_mask)
        output = self.head(states, attention_mask)
        result = {"logits": output.logits, "features": output.features}
        if labels is not None:
            loss = whole_loss(self.loss, output, labels, views=self.views)
            result = {"loss": loss, **result}
        return result

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Everything training changes: trained weights, and buffers of head and loss."""
        trained = {n for n, p in self.named_parameters() if p.requires_grad}
        state = self.state_dict()
        return {
            name: value
            for name, value in state.items()
            if name in trained or not name.startswith("encoder.")
        }

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`trainable_state_dict` gave."""
        self.load_state_dict(state, strict=False)

    def trainable_parameters(self) -> int:
        """Numbers that the training sets."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


@dataclass
class TorchModel:
    """A classifier with its tokenizer and label names; a :class:`TextModel`."""

    classifier: Classifier
    tokenizer: TextTokenizer
    classes: tuple[str, ...]
    spec: RunSpec
    info: ClassInfo
    logit_shift: tuple[float, ...] | None = None
    frozen: FrozenStates | None = None
    pooled: PooledFeatures | None = None
    token_budget: int | None = None
    """Most tokens of a batch that is scored; what suits the device when None."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format in which texts are scored."""

    @property
    def trainable_parameters(self) -> int:
        """Numbers that the training set."""
        return self.classifier.trainable_parameters()

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Scores of ``texts``, in their order."""
        encoded = self.encode(texts)
        if self.pooled is not None:
            scores = self._score_pooled(encoded, self.pooled, progress)
        else:
            device = next(self.classifier.parameters()).device.type
            with torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                scores = score_encoded(
                    self.classifier, encoded, self.tokenizer.pad_id, progress,
                    token_budget=self.token_budget,
                )  # fmt: skip
        if self.logit_shift is None:
            return scores
        return replace(scores, logits=scores.logits + np.asarray(self.logit_shift, np.float32))

    @torch.inference_mode()
    def _score_pooled(
        self, encoded: Encoded, pooled: PooledFeatures, progress: Progress | None
    ) -> Scores:
        features = pooled.of(encoded, progress)
        logits = self.classifier.head.get_submodule("linear")(torch.from_numpy(features))
        return Scores(logits.numpy(), features, encoded.truncated)

    def enable_feature_cache(self) -> None:
        """From now on, keep the pooled features of a frozen encoder on disk and read them again.

        Nothing is kept where the features are not all that the logits are made of.
        """
        frozen = self.spec.encoder.adaptation == "frozen" and self.spec.train.cache == "auto"
        if not frozen or type(self.classifier.head) is not LinearHead:
            return
        classifier, pad_id = self.classifier, self.tokenizer.pad_id

        def compute(encoded: Encoded, progress: Progress | None) -> np.ndarray:
            return score_encoded(classifier, encoded, pad_id, progress).features

        key = pooling_key(
            classifier.encoder, classifier.head.get_submodule("pooling"), self.spec.head.pooling
        )
        self.pooled = PooledFeatures(key, compute, self.spec.encoder.name)

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Every text in pieces within the length limit; see ``valence.models.windows``."""
        return self.tokenizer.windows(texts)

    def enable_hidden_state_cache(self) -> None:
        """From now on, keep the token states of a frozen encoder on disk and read them again."""
        if self.spec.encoder.adaptation == "frozen" and self.spec.train.cache == "auto":
            self.frozen = FrozenStates(self.classifier.encoder, self.tokenizer.pad_id)

    def encode(
        self, texts: Sequence[str], *, device: str = "cpu", progress: Progress | None = None
    ) -> Encoded:
        """Token ids of texts, with their token states where these are kept.

        Args:
            texts: N texts.
            device: Where states that are missing are computed.
            progress: Told (done, all) texts whose states had to be computed.
        """
        encoded = self.tokenizer(texts)
        if self.frozen is None or not len(encoded):
            return encoded
        return self.frozen.attach(encoded, device=device, progress=progress)

    def save(self, folder: Path) -> None:
        """Write ``config.json``, the head, and the adapter or the whole encoder.

        A model with a frozen or adapted encoder needs the base encoder when it is loaded;
        a wholly trained one carries its encoder and tokenizer.
        """
        folder.mkdir(parents=True, exist_ok=True)
        encoder = self.classifier.encoder
        if encoder.spec.adaptation in ("lora", "dora"):
            encoder.model.peft_config["default"].base_model_name_or_path = encoder.spec.name
            with atomic.new_folder(folder / "adapter") as path:
                encoder.model.save_pretrained(str(path), save_embedding_layers=False)
        elif encoder.spec.adaptation == "full":
            with atomic.new_folder(folder / "encoder") as path:
                encoder.model.save_pretrained(path)
                self.tokenizer.save(path)
        state = self.classifier.state_dict()
        rest = {n: v.contiguous() for n, v in state.items() if not n.startswith("encoder.")}
        with atomic.new_file(folder / "head.safetensors") as path:
            save_file(rest, path, metadata={"format": "pt"})
        write_config(
            folder, kind="torch", spec=self.spec, classes=self.classes,
            counts=self.info.counts, tail=self.info.tail, logit_shift=self.logit_shift,
        )  # fmt: skip


def build_model(spec: RunSpec, data: TrainingData) -> TorchModel:
    """A new, untrained model for the classes of ``data``."""
    encoder = Encoder(spec.encoder)
    counts = tuple(int(n) for n in data.train_counts)
    info = ClassInfo(counts, data.tail, encoder.hidden_size)
    classifier = Classifier(encoder, spec.head, spec.loss, info)
    return TorchModel(classifier, TextTokenizer(spec.encoder), data.classes, spec, info)


def load_torch_model(folder: Path) -> TorchModel:
    """The model that :meth:`TorchModel.save` wrote.

    Raises:
        ModelError: if a file is missing, truncated or does not fit.
    """
    config = read_config(folder)
    spec = config.spec
    own = folder / "encoder" if spec.encoder.adaptation == "full" else None
    encoder = _load_encoder(folder, spec.encoder, own)
    info = ClassInfo(config.train_counts, config.tail, encoder.hidden_size)
    classifier = Classifier(encoder, spec.head, spec.loss, info)
    try:
        state = load_file(folder / "head.safetensors")
        missing, unexpected = classifier.load_state_dict(state, strict=False)
    except Exception as error:  # safetensors and torch raise errors of their own kinds
        raise ModelError(_broken(folder / "head.safetensors", error)) from None
    lost = [name for name in missing if not name.startswith("encoder.")] + list(unexpected)
    if lost:
        raise ModelError(f"{folder / 'head.safetensors'} does not fit its config: {lost[0]}")
    classifier.eval()
    tokenizer = TextTokenizer(spec.encoder, own)
    return TorchModel(classifier, tokenizer, config.classes, spec, info, config.logit_shift)


def _load_encoder(folder: Path, spec: EncoderSpec, own: Path | None) -> Encoder:
    if own is not None and not (own / "model.safetensors").exists():
        raise ModelError(f"{own / 'model.safetensors'} is missing; the model folder is not whole")
    if spec.adaptation not in ("lora", "dora"):
        try:
            return Encoder(spec, own)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(_broken(own or folder, error)) from None
    encoder = Encoder(spec.model_copy(update={"adaptation": "frozen"}))
    try:
        with without_peft_warnings():
            adapted = PeftModel.from_pretrained(encoder.model, str(folder / "adapter"))
    except Exception as error:  # peft, safetensors and json raise errors of their own kinds
        raise ModelError(_broken(folder / "adapter", error)) from None
    encoder.spec = spec
    encoder.model = adapted
    return encoder


def _broken(path: Path, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return f"{path} is missing or broken ({reason}); save or copy the model folder again"


def score_encoded(
    classifier: Classifier, encoded: Encoded, pad_id: int, progress: Progress | None = None,
    *, token_budget: int | None = None, shared: bool = False,
) -> Scores:  # fmt: skip
    """Logits and features of tokenised texts, in their order; leaves the mode as it was.

    Args:
        classifier: On any device.
        encoded: N tokenised texts.
        pad_id: Id of the padding token.
        progress: Told (done, all) after every batch.
        token_budget: Most tokens of a batch; what suits the device when None.
        shared: Whether all processes call this with the same texts: each computes a part of
            the batches, and all get the whole.
    """
    device = next(classifier.parameters()).device
    was_training = classifier.training
    classifier.eval()
    lengths = [len(ids) for ids in encoded.input_ids]
    budget = token_budget or TOKEN_BUDGET.get(device.type, 1024)
    batches = _dealt(length_batches(lengths, token_budget=budget), shared=shared)
    collator = Collator(pad_id)

    def score(batch: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs = collator.pad([encoded.row(int(i)) for i in batch])
        output = classifier(**{name: tensor.to(device) for name, tensor in inputs.items()})
        return output["logits"].float(), output["features"].float()

    parts: list[tuple[Tensor, Tensor]] = []
    done = 0
    for batch, part in zip(batches, inferred(score, batches, device=device.type), strict=True):
        parts.append(part)
        done += len(batch)
        if progress is not None:
            progress(done, len(encoded))
    classifier.train(was_training)
    logits = np.zeros((len(encoded), classifier.class_count), dtype=np.float32)
    features = np.zeros((len(encoded), classifier.head.feature_size), dtype=np.float32)
    if parts:
        rows = np.concatenate(batches)
        logits[rows] = torch.cat([part[0] for part in parts]).cpu().numpy()
        features[rows] = torch.cat([part[1] for part in parts]).cpu().numpy()
    if shared:
        logits, features = (
            process_group.all_reduce_sum(logits),
            process_group.all_reduce_sum(features),
        )
    return Scores(logits, features, encoded.truncated)


def _dealt(batches: Iterator[np.ndarray], *, shared: bool) -> list[np.ndarray]:
    """Those batches that this process computes."""
    if not shared:
        return list(batches)
    return list(islice(batches, process_group.rank(), None, process_group.world_size()))
