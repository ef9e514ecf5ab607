"""A multimodal model with its text encoder, loss and names: built, scored, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from valence.config.spec import RunSpec
from valence.data.dataset import Scale, Split, TrainingData
from valence.data.features.archive import FEATURE_CARDS, FeatureView, read_manifest
from valence.data.features.extractor import ClipFeatures, Extractor, ExtractorSettings
from valence.data.fusion_rows import Batch, FusionRows
from valence.errors import ModelError, SpecError
from valence.losses.base import ClassInfo
from valence.losses.table import INTENSITY_LOSSES, LOSSES, build_loss
from valence.models.base import Progress, Scores
from valence.models.config_file import read_config, write_config
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.frozen import FrozenStates
from valence.models.fusion import build_fusion, set_feature_statistics
from valence.models.multimodal import ALMT_SETUPS, FusionSettings, Stack
from valence.storage import atomic

READ = ("audio", "vision")
SCORED_ROWS = 64
FILE = "fusion.safetensors"

Change = Callable[[Batch, np.ndarray], Batch]
"""What is done to a batch, given its row numbers, before it is scored."""


class FusionNet(nn.Module):
    """Frozen text encoder, fusion and loss.

    Args:
        encoder: The text encoder; its weights stay as they are.
        fusion: One of ``FUSIONS``.
        loss: What it is trained with.
    """

    accepts_loss_kwargs = False

    def __init__(self, encoder: Encoder, fusion: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.encoder, self.fusion, self.loss = encoder, fusion, loss

    def forward(  # noqa: PLR0913  the Trainer hands over a batch by name
        self,
        attention_mask: Tensor,
        text_mask: Tensor,
        audio: Tensor,
        audio_mask: Tensor,
        vision: Tensor,
        vision_mask: Tensor,
        input_ids: Tensor | None = None,
        states: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Logits (B, C), features (B, D) and, where labels (B,) are given, the mean loss.

        Args:
            attention_mask: (B, T) 1 on the tokens of the text.
            text_mask: (B, T) true on those of them that fusion may read.
            audio: (B, L_a, d_a) steps.
            audio_mask: (B, L_a) true on real steps.
            vision: (B, L_v, d_v) steps.
            vision_mask: (B, L_v) true on real steps.
            input_ids: (B, T) token ids.
            states: (B, T, H) what the encoder makes of them, if that is known already.
            labels: (B,) class ids or intensities.
        """
        if states is None:
            states = self.encoder(input_ids, attention_mask)
        output = self.fusion(
            states, audio, vision,
            text_mask=text_mask, audio_mask=audio_mask, vision_mask=vision_mask,
        )  # fmt: skip
        result = {"logits": output.logits, "features": output.features}
        if labels is not None:
            result = {"loss": self.loss(output, labels), **result}
        return result

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Everything but the encoder."""
        return {n: v for n, v in self.state_dict().items() if not n.startswith("encoder.")}

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`trainable_state_dict` gave."""
        self.load_state_dict(state, strict=False)


@dataclass
class FusionModel:
    """A fusion with tokenizer and names; a ``TextModel`` that can read features too."""

    net: FusionNet
    tokenizer: TextTokenizer
    classes: tuple[str, ...]
    spec: RunSpec
    info: ClassInfo
    sizes: FusionSettings
    scale: Scale = "mosi"
    extractor: dict[str, Any] | None = None
    frozen: FrozenStates | None = None

    @property
    def trainable_parameters(self) -> int:
        """Numbers that the training set."""
        return sum(p.numel() for p in self.net.parameters() if p.requires_grad)

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Scores of texts without audio and vision, in their order."""
        return self.score_rows(self.rows(texts, None), progress)

    def score_split(self, split: Split, progress: Progress | None = None) -> Scores:
        """Scores of rows with their audio and vision, in their order."""
        return self.score_rows(self.rows(split.texts, split.features), progress)

    def read_clip(self, clip: Path) -> ClipFeatures:
        """Audio and vision of a sound or video file, read as the clips of the training were.

        Raises:
            DataError: if the file cannot be read.
            ModelError: if its features do not fit the model.
        """
        found = Extractor(ExtractorSettings.model_validate(self.extractor))(clip)
        self._check_widths({"audio": found.audio.shape[1], "vision": found.vision.shape[1]})
        return found

    def score_clip(
        self, clip: ClipFeatures, texts: Sequence[str], *, without: str | None = None
    ) -> Scores:
        """Scores (N, C) of one clip with each of N texts as what is said in it.

        Args:
            clip: What :meth:`read_clip` gave.
            texts: N texts; an empty one says that the words are not known.
            without: A modality that is taken away.
        """
        unknown = torch.tensor([without == "text" or not text.strip() for text in texts])

        def filled(batch: Batch, rows: np.ndarray) -> Batch:
            changed = dict(batch)
            for name, steps in (("audio", clip.audio), ("vision", clip.vision)):
                read = torch.from_numpy(steps[: self.sizes.length(name)])
                if len(read) and name != without:
                    changed[name] = read.expand(len(rows), -1, -1)
                    changed[f"{name}_mask"] = torch.ones(len(rows), len(read), dtype=torch.bool)
            changed["text_mask"] = batch["text_mask"] & ~unknown[rows.tolist(), None]
            return changed

        return self.score_rows(self.rows(texts, None), change=filled)

    def _check_widths(self, widths: Mapping[str, int]) -> None:
        for name, width in widths.items():
            if width != self.sizes.width(name):
                raise ModelError(
                    f"The model reads {name} of {self.sizes.width(name)} numbers a step and these "
                    f"rows have {width}; make their features as those of its training rows"
                )

    def rows(
        self, texts: Sequence[str], features: FeatureView | None, *, device: str = "cpu",
        progress: Progress | None = None,
    ) -> FusionRows:  # fmt: skip
        """The rows as the model reads them.

        Args:
            texts: N texts.
            features: Audio and vision of them, or None.
            device: Where token states that are missing are computed.
            progress: Told (done, all) texts whose states had to be computed.

        Raises:
            ModelError: if the features have other widths than those of the training.
        """
        if features is not None:
            self._check_widths({name: features.width(name) for name in READ})
        encoded = self.tokenizer(texts)
        if self.frozen is not None and len(encoded):
            encoded = self.frozen.attach(encoded, device=device, progress=progress)
        widths = {name: self.sizes.width(name) for name in READ}
        limits = {name: self.sizes.length(name) for name in READ}
        return FusionRows(encoded, features, widths, limits, self.tokenizer.pad_id)

    def enable_hidden_state_cache(self) -> None:
        """From now on, keep the token states of the encoder on disk and read them again."""
        if self.spec.train.cache == "auto":
            self.frozen = FrozenStates(self.net.encoder, self.tokenizer.pad_id)

    @torch.inference_mode()
    def score_rows(
        self, rows: FusionRows, progress: Progress | None = None, *, change: Change | None = None
    ) -> Scores:
        """Scores of rows, in their order; leaves the mode as it was.

        Args:
            rows: N rows.
            progress: Told (done, all) after every batch.
            change: Applied to every batch, for example to take steps away.
        """
        device = next(self.net.parameters()).device
        was_training = self.net.training
        self.net.eval()
        order = np.argsort(rows.sizes(), kind="stable")[::-1]
        width = max(1, len(self.classes))
        logits = np.zeros((len(rows), width), dtype=np.float32)
        features = np.zeros((len(rows), self.sizes.dim), dtype=np.float32)
        for start in range(0, len(rows), SCORED_ROWS):
            part = order[start : start + SCORED_ROWS]
            batch = rows.batch(part)
            if change is not None:
                batch = change(batch, part)
            output = self.net(**{name: tensor.to(device) for name, tensor in batch.items()})
            logits[part] = output["logits"].float().cpu().numpy()
            features[part] = output["features"].float().cpu().numpy()
            if progress is not None:
                progress(start + len(part), len(rows))
        self.net.train(was_training)
        return Scores(logits, features, rows.encoded.truncated)

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and the weights; the encoder is named, not copied."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {n: v.contiguous() for n, v in self.net.trainable_state_dict().items()}
        with atomic.new_file(folder / FILE) as path:
            save_file(state, path, metadata={"format": "pt"})
        write_config(
            folder, kind="fusion", spec=self.spec, classes=self.classes, counts=self.info.counts,
            tail=self.info.tail,
            fusion={
                "sizes": self.sizes.model_dump(), "scale": self.scale, "extractor": self.extractor,
            },
        )  # fmt: skip


def build_fusion_model(spec: RunSpec, data: TrainingData) -> FusionModel:
    """A new, untrained model; features are scaled by the training rows.

    Raises:
        SpecError: if the method cannot be used on these rows, or a setting does not fit.
    """
    check_fusion(spec, data)
    features = data.train.features
    encoder = Encoder(spec.encoder)
    sizes = _sizes(spec, data).model_copy(update={"text_dim": encoder.hidden_size})
    tokenizer = TextTokenizer(spec.encoder.model_copy(update={"max_length": sizes.text_length}))
    info = ClassInfo(tuple(int(n) for n in data.train_counts), data.tail, sizes.dim)
    fusion = build_fusion(spec.fusion.name, sizes)
    extractor = None
    if features is not None:
        found = {name: features.statistics(name) for name in READ}
        set_feature_statistics(
            fusion, {n: (torch.from_numpy(m), torch.from_numpy(d)) for n, (m, d) in found.items()}
        )
        extractor = read_manifest(features.split.folder).extractor
    net = FusionNet(encoder, fusion, build_loss(spec.loss, info))
    return FusionModel(net, tokenizer, data.classes, spec, info, sizes, data.scale, extractor)


def check_fusion(spec: RunSpec, data: TrainingData) -> None:
    """Refuse what a fusion cannot be trained on.

    Raises:
        SpecError: saying what it needs.
    """
    if data.train.features is None and spec.fusion.name != "text-only":
        raise SpecError(
            f"Method {spec.method!r} reads audio and vision and {spec.data.name} has none; name "
            "their file with --set data.features=FILE, or use --method text-only"
        )
    if spec.encoder.adaptation != "frozen":
        raise SpecError(
            f"Method {spec.method!r} reads a frozen text encoder; leave out encoder.adaptation="
            f"{spec.encoder.adaptation}"
        )
    table = LOSSES if data.classes else INTENSITY_LOSSES
    if spec.loss.name not in table or spec.loss.contrast != "none":
        told = "classes" if data.classes else "an intensity"
        advice = "loss.name=cross-entropy --set train.metric=macro_f1"
        raise SpecError(
            f"Loss {spec.loss.name!r} with contrast {spec.loss.contrast!r} is not for {told}; use "
            + (f"--set {advice}" if data.classes else "loss.name=mse and no contrast")
        )


def _sizes(spec: RunSpec, data: TrainingData) -> FusionSettings:
    wanted = spec.fusion
    name = Path(spec.data.name).stem.replace("_", "-")
    known = name if name in FEATURE_CARDS else "mosi"
    base = ALMT_SETUPS[known if wanted.setup == "auto" else wanted.setup]
    changes: dict[str, Any] = {"dim": wanted.dim, "dropout": wanted.dropout}
    changes["outputs"] = max(1, len(data.classes))
    text = wanted.text_length or base.text_length
    changes["text_length"] = min(text, spec.encoder.max_length)
    if wanted.depth is not None:
        changes["fusion"] = Stack(depth=wanted.depth)
    features = data.train.features
    for modality in READ:
        given = getattr(wanted, f"{modality}_length")
        longest = 1 if features is None else int(features.lengths(modality).max(initial=1))
        least = max(1, min(longest, base.length(modality)))
        changes[f"{modality}_length"] = given or least
        changes[f"{modality}_dim"] = 1 if features is None else features.width(modality)
    return base.model_copy(update=changes)


def load_fusion_model(folder: Path) -> FusionModel:
    """The model that :meth:`FusionModel.save` wrote.

    Raises:
        ModelError: if a file is missing, truncated or does not fit.
    """
    config = read_config(folder)
    try:
        told = config.fusion or {}
        sizes = FusionSettings.model_validate(told["sizes"])
        scale: Scale = "ch-sims" if told["scale"] == "ch-sims" else "mosi"
    except (KeyError, ValueError):
        where = folder / "config.json"
        raise ModelError(f"{where} lacks the sizes of the fusion; save it again") from None
    spec = config.spec
    info = ClassInfo(config.train_counts, config.tail, sizes.dim)
    net = FusionNet(
        Encoder(spec.encoder), build_fusion(spec.fusion.name, sizes), build_loss(spec.loss, info)
    )
    try:
        missing, unexpected = net.load_state_dict(load_file(folder / FILE), strict=False)
    except Exception as error:  # safetensors and torch raise errors of their own kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(
            f"{folder / FILE} is missing or broken ({reason}); save or copy the model folder again"
        ) from None
    lost = [name for name in missing if not name.startswith("encoder.")] + list(unexpected)
    if lost:
        raise ModelError(f"{folder / FILE} does not fit its config: {lost[0]}")
    net.eval()
    limit = {"max_length": sizes.text_length}
    tokenizer = TextTokenizer(spec.encoder.model_copy(update=limit))
    return FusionModel(
        net, tokenizer, config.classes, spec, info, sizes, scale, told.get("extractor")
    )


def text_limit(model: Any, spec: RunSpec) -> int:
    """Most tokens of a text that a model reads."""
    return model.sizes.text_length if isinstance(model, FusionModel) else spec.encoder.max_length


def score_split(model: Any, split: Split, progress: Progress | None = None) -> Scores:
    """Scores of rows by any model; their audio and vision are read where the model can."""
    if isinstance(model, FusionModel):
        return model.score_split(split, progress)
    found: Scores = model.score(split.texts, progress)
    return found
