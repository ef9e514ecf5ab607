"""A multimodal model with its text encoder and loss: built, scored, saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save_file

from valence.config.sections import EncoderSpec, FusionSpec, LossSpec
from valence.data.collate import Batch
from valence.data.dataset import Split
from valence.data.examples import Examples
from valence.data.features.archive import FEATURE_CARDS, FeatureView, read_manifest
from valence.data.features.extractor import ClipFeatures, Extractor, ExtractorSettings
from valence.data.fusion_rows import FusionRows
from valence.distributed.device import Hardware, pick_device
from valence.errors import ModelError, SpecError
from valence.evaluation.task import Task
from valence.losses.base import ClassInfo
from valence.losses.table import build_loss, losses_of
from valence.models.base import ClipReader, Model, Outputs, Progress, Variant
from valence.models.base_encoder import base_location
from valence.models.config_file import read_config, valid_sections, write_config
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.frozen import FrozenStates
from valence.models.fusion import set_feature_statistics
from valence.models.fusion_net import FusionConfig, FusionNet
from valence.models.multimodal import ALMT_SETUPS, MODALITIES, FusionSettings, Stack
from valence.models.perturbation import perturbations
from valence.models.scoring import Change, score_inputs, torch_threads
from valence.models.weights import fits, load_encoder, load_weights, save_encoder
from valence.storage import atomic

READ = ("audio", "vision")
FILE = "fusion.safetensors"
WHAT = {"classes": "classes", "intensity": "an intensity"}


@dataclass
class FusionModel(Model):
    """A multimodal model with its tokenizer; predicts texts without clips too."""

    net: FusionNet
    tokenizer: TextTokenizer
    task: Task
    config: FusionConfig
    provenance: Mapping[str, Any]
    sizes: FusionSettings
    extractor: dict[str, Any] | None = None
    frozen: FrozenStates | None = None
    threads: int | None = None
    seed: int = 0
    """Of the steps that are dropped where the model is scored under perturbations."""
    notes: tuple[str, ...] = ()
    """Lines for the user about what was taken from the encoder's folder."""

    inputs: ClassVar[tuple[str, ...]] = MODALITIES

    @property
    def trainable_parameters(self) -> int:  # type: ignore[override]
        """Number of trainable parameters."""
        return self.net.trainable_parameters()

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text that are read."""
        return self.sizes.text_length

    def prepare(self, hardware: Hardware) -> None:
        """Move to a device; scores are computed in float32.

        Raises:
            SpecError: if the device is not available.
            ModelError: if another number format is requested.
        """
        if hardware.precision == "bf16":
            raise ModelError("A multimodal model computes in float32; remove --precision bf16")
        self.net.to(pick_device(hardware.device))
        self.threads = hardware.threads

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Outputs of rows with their audio and vision where they have some, in their order."""
        return self.predict_rows(self.rows(examples.texts, examples.features), progress)

    def predict_rows(
        self, rows: FusionRows, progress: Progress | None = None, *, change: Change | None = None
    ) -> Outputs:
        """Outputs of encoded rows, in their order.

        Args:
            rows: N rows.
            progress: Called with (done, total) rows after every batch.
            change: Applied to every batch, for example to drop steps.
        """
        with torch_threads(self.threads):
            return score_inputs(self.net, rows, progress, change=change)

    def clip_reader(self, clip: Path) -> ClipReader:
        """As :meth:`Model.clip_reader`.

        Raises:
            SpecError: if the model was trained on features that cannot be extracted here.
            DataError: if the file cannot be read.
            ModelError: if its features do not fit the model.
        """
        if self.extractor is None:
            return super().clip_reader(clip)
        settings = ExtractorSettings.model_validate(self.extractor)
        features = Extractor(settings, local_only=True)(clip)
        self._check_widths({"audio": features.audio.shape[1], "vision": features.vision.shape[1]})

        def predict(texts: Sequence[str], without: str | None) -> Outputs:
            return self._predict_features(features, texts, without)

        return predict

    def _predict_features(
        self, clip: ClipFeatures, texts: Sequence[str], without: str | None
    ) -> Outputs:
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

        return self.predict_rows(self.rows(texts, None), change=filled)

    def _check_widths(self, widths: Mapping[str, int]) -> None:
        for name, width in widths.items():
            if width != self.sizes.width(name):
                raise ModelError(
                    f"The model reads {name} of {self.sizes.width(name)} numbers a step and these "
                    f"rows have {width}; extract features as for its training rows"
                )

    def rows(
        self, texts: Sequence[str], features: FeatureView | None, *, device: str = "cpu",
        progress: Progress | None = None,
    ) -> FusionRows:  # fmt: skip
        """The rows as inputs of the network.

        Args:
            texts: N texts.
            features: Audio and vision of them, or None.
            device: Where missing token states are computed.
            progress: Called with (done, total) texts whose states had to be computed.

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
        """Cache the token states of a frozen encoder on disk from now on."""
        # The published code reads the states at padding too, which are not cached.
        if self.config.encoder.adaptation == "frozen" and not self.net.reads_padding:
            self.frozen = FrozenStates(self.net.encoder, self.tokenizer.pad_id)

    def variants(self) -> Iterator[Variant]:
        """Steps that are missing or noisy, of every modality that is read."""
        encoded: list[tuple[Examples, FusionRows]] = []  # of the latest rows

        def rows_of(examples: Examples) -> FusionRows:
            if not encoded or encoded[0][0] is not examples:
                encoded[:] = [(examples, self.rows(examples.texts, examples.features))]
            return encoded[0][1]

        for about, change in perturbations(self.net.fusion, self.config.fusion.name, self.seed):

            def predict(examples: Examples, change: Change = change) -> Outputs:
                return self.predict_rows(rows_of(examples), change=change)

            yield Variant(about, predict)

    def save(self, folder: Path) -> None:
        """Write ``config.json``, the fusion, and the adapter or the whole encoder if trained.

        A frozen encoder is named, not copied.
        """
        folder.mkdir(parents=True, exist_ok=True)
        save_encoder(self.net.encoder, self.tokenizer, folder)
        whole = self.net.state_dict().items()
        state = {n: v.contiguous() for n, v in whole if not n.startswith("encoder.")}
        with atomic.new_file(folder / FILE) as path:
            save_file(state, path, metadata={"format": "pt"})
        scale = getattr(self.task, "scale", "mosi")
        write_config(
            folder, loader="fusion", task=self.task, provenance=self.provenance,
            network={name: getattr(self.config, name) for name in FusionConfig.model_fields},
            fusion={"sizes": self.sizes.model_dump(), "scale": scale, "extractor": self.extractor},
        )  # fmt: skip


def build_fusion_model(
    config: FusionConfig, task: Task, train: Split, provenance: Mapping[str, Any]
) -> FusionModel:
    """A new, untrained model; features are scaled by the training rows.

    Args:
        config: Encoder, fusion and loss.
        task: What it predicts.
        train: The training rows.
        provenance: The spec it is trained by, as plain values.

    Raises:
        SpecError: if the method cannot be used on these rows, or a setting does not fit.
    """
    method, data = str(provenance.get("method", "")), provenance.get("data") or {}
    source = str(data.get("name", "")) if isinstance(data, Mapping) else ""
    check_fusion(config, task, train, method=method, source=source)
    features = train.features
    encoder = Encoder(config.encoder)
    sizes = _sizes(config, task, train, source).model_copy(update={"text_dim": encoder.hidden_size})
    tokenizer = TextTokenizer(config.encoder.model_copy(update={"max_length": sizes.text_length}))
    resolved = config.encoder.model_copy(update={"prompt": tokenizer.prompt})
    config = config.model_copy(update={"encoder": resolved})
    net = FusionNet(encoder, config.fusion, sizes, build_loss(config.loss, _info(task, sizes)))
    extractor = None
    if features is not None:
        statistics = {name: features.statistics(name) for name in READ}
        set_feature_statistics(
            net.fusion,
            {n: (torch.from_numpy(m), torch.from_numpy(d)) for n, (m, d) in statistics.items()},
        )
        extractor = read_manifest(features.split.folder).extractor
    seed = int(provenance.get("seed", 0))
    return FusionModel(
        net, tokenizer, task, config, provenance, sizes, extractor, seed=seed,
        notes=tuple(filter(None, [tokenizer.prompt_note])),
    )  # fmt: skip


def check_fusion(
    config: FusionConfig, task: Task, train: Split, *, method: str, source: str
) -> None:
    """Refuse what a fusion cannot be trained on.

    Raises:
        SpecError: saying what it needs.
    """
    if train.features is None and config.fusion.name != "text-only":
        raise SpecError(
            f"Method {method!r} needs audio and vision, which {source or 'the data'} does not "
            "have; set their file with --set data.features=FILE, or use --method text-only"
        )
    if config.loss.name not in losses_of(task.target) or config.loss.contrast != "none":
        advice = {
            "classes": "--set loss.name=cross-entropy --set train.metric=macro_f1",
            "intensity": "loss.name=mse and no contrast",
        }
        raise SpecError(
            f"Loss {config.loss.name!r} with contrast {config.loss.contrast!r} is not for "
            f"{WHAT[task.target]}; use {advice[task.target]}"
        )


def _info(task: Task, sizes: FusionSettings) -> ClassInfo:
    return ClassInfo(task.counts, task.tail, sizes.dim)


def _sizes(config: FusionConfig, task: Task, train: Split, source: str) -> FusionSettings:
    requested = config.fusion
    name = Path(source).stem.replace("_", "-")
    known = name if name in FEATURE_CARDS else "mosi"
    base = ALMT_SETUPS[known if requested.setup == "auto" else requested.setup]
    changes: dict[str, Any] = {
        name: getattr(requested, name) for name in ("dim", "dropout", "standardize")
    }
    changes["outputs"] = task.output_size
    text = requested.text_length or base.text_length
    changes["text_length"] = min(text, config.encoder.max_length)
    if requested.depth is not None:
        changes["fusion"] = Stack(depth=requested.depth)
    for modality in READ:
        given = getattr(requested, f"{modality}_length")
        lengths = None if train.features is None else train.features.lengths(modality)
        longest = 1 if lengths is None else int(lengths.max(initial=1))
        least = max(1, min(longest, base.length(modality)))
        if requested.compat == "reference":  # padded to the published length, whatever the rows
            least = base.length(modality)
        changes[f"{modality}_length"] = given or least
        changes[f"{modality}_dim"] = 1 if train.features is None else train.features.width(modality)
    return base.model_copy(update=changes)


def load_fusion_model(folder: Path) -> FusionModel:
    """The model that :meth:`FusionModel.save` wrote.

    Raises:
        ModelError: if a file is missing, truncated or does not fit.
    """
    saved = read_config(folder)
    fusion = saved.fusion or {}
    try:
        sizes = FusionSettings.model_validate(fusion["sizes"])
    except (KeyError, ValueError):
        where = folder / "config.json"
        raise ModelError(f"{where} lacks the sizes of the fusion; save it again") from None
    with valid_sections(folder):
        encoder = saved.section("encoder", EncoderSpec)
        if "encoder" not in saved.network:  # format 1 names an adaptation that was not used
            encoder = encoder.model_copy(update={"adaptation": "frozen"})
        parts = {
            "encoder": encoder,
            "fusion": saved.section("fusion", FusionSpec),
            "loss": saved.section("loss", LossSpec),
        }
        config = FusionConfig.model_validate(parts)
    own = folder / "encoder" if encoder.adaptation == "full" else None
    base = None if own is not None else base_location(folder, saved)
    text_encoder = load_encoder(folder, encoder, own, base)
    with fits(folder / FILE):
        net = FusionNet(
            text_encoder, config.fusion, sizes,
            build_loss(config.loss, _info(saved.task, sizes)),
        )  # fmt: skip
    load_weights(net, folder / FILE)
    net.eval()
    limit = {"max_length": sizes.text_length}
    tokenizer = TextTokenizer(config.encoder.model_copy(update=limit), own or base)
    return FusionModel(
        net, tokenizer, saved.task, config, saved.spec, sizes, fusion.get("extractor"),
        seed=saved.seed,
    )  # fmt: skip
