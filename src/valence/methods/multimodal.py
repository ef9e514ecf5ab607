"""Fusion of text, audio and vision: fine-tuning with another input adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from valence.config.callbacks import part_of
from valence.config.ranges import Range
from valence.config.sections import EncoderSpec, FusionSpec, LossSpec, TrainSpec
from valence.config.spec import MethodConfig
from valence.methods.base import Capabilities, FitContext, FitResult, Method, OwnBest, Sizes
from valence.methods.finetune import ADAPTED
from valence.methods.search_space import rate_space
from valence.methods.work import (
    HEAD_WORK,
    TRAINING_WORK,
    encoding_part,
    encoding_progress,
    evaluation_work,
)

if TYPE_CHECKING:
    from valence.data.dataset import Split
    from valence.models.fusion_model import FusionModel
    from valence.training.trainer import TrainingLog

CHECKPOINTS = 20  # over a training; its epochs are short and there are many
SPACE = {
    "train.weight_decay": Range(0.0, 0.1),
    "fusion.modality_dropout": Range(0.0, 0.5),
    "fusion.dropout": Range(0.0, 0.5),
}
SIMPLE = frozenset({"fusion.dropout", "fusion.depth", "fusion.compat"})
UNUSED = {
    "almt": frozenset[str](),
    "early": SIMPLE,
    "late": SIMPLE,
    "text-only": SIMPLE | {"fusion.modality_dropout", "fusion.standardize"},
}
"""Fields a fusion does not use; one modality has none to leave out either."""
UNUSED_BY_ONE = SIMPLE | {"fusion.modality_dropout"}


class FusionEncoderSpec(EncoderSpec):
    """The text encoder, frozen unless it is trained with the rest."""

    adaptation: Literal["frozen", "full", "lora", "dora"] = "frozen"


class MultimodalConfig(MethodConfig):
    """Settings of a fusion."""

    encoder: FusionEncoderSpec = FusionEncoderSpec()
    fusion: FusionSpec = FusionSpec()
    loss: LossSpec = LossSpec()
    train: TrainSpec = TrainSpec()


class Multimodal(Method[MultimodalConfig]):
    """A text encoder, frozen or trained, and a network that fuses three modalities."""

    Config = MultimodalConfig
    family = "multimodal"
    capabilities = Capabilities(
        targets=("intensity", "classes"), inputs=("text", "audio", "vision"), streams_epochs=True
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The modalities that the fusion reads."""
        name = str(self.settings.get("fusion.name", "almt"))
        alone = name.endswith("-only")
        return (name.removesuffix("-only"),) if alone else self.capabilities.inputs

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Train the fusion; it ends with the weights that did best on validation."""
        from transformers.trainer_utils import set_seed

        from valence.data.fusion_rows import with_dropout
        from valence.distributed.device import pick_device
        from valence.models.fusion_model import build_fusion_model
        from valence.models.fusion_net import FusionConfig
        from valence.training.trainer import EncodedTrainer, TrainingRows, train_network
        from valence.training.training_args import training_arguments

        config, seed = self.config(context.spec), context.spec.seed
        set_seed(seed)
        network = FusionConfig(encoder=config.encoder, fusion=config.fusion, loss=config.loss)
        model = build_fusion_model(network, context.task, train, context.provenance)
        args = training_arguments(
            config.train, learning_rate=config.train.learning_rate, seed=seed,
            checkpoint=context.checkpoint,
        )  # fmt: skip
        if context.checkpoint is not None:
            per_epoch = -(-len(train) // (config.train.batch_size * config.train.accumulation))
            args.set_save("steps", per_epoch * max(1, config.train.epochs // CHECKPOINTS), 1)
        if config.train.cache == "auto":
            model.enable_hidden_state_cache()

        encoding = encoding_part(self, config, train, validation)
        middle = encoding * len(train) / (len(train) + len(validation))
        device = pick_device(config.train.device)
        inputs, held_out = (
            model.rows(
                split.texts, split.features, device=device,
                progress=encoding_progress(part_of(context.progress, *ends)),
            )
            for split, ends in ((train, (0.0, middle)), (validation, (middle, encoding)))
        )  # fmt: skip
        set_seed(seed)
        rows = TrainingRows(
            context.task, with_dropout(inputs, config.fusion.modality_dropout), held_out,
            train.labels, validation.labels, grouped=False,
        )  # fmt: skip
        trainer = EncodedTrainer(
            model.net, args, rows=rows, spec=config.train, keep_own_best=True,
            on_evaluate=context.on_evaluate,
        )  # fmt: skip
        log = train_network(
            trainer, checkpoint=context.checkpoint,
            progress=part_of(context.progress, encoding, 1.0),
        )  # fmt: skip
        notes = [f"weights of step {log.best_step} of {log.steps}", *model.notes]
        if inputs.truncated:
            notes.append(f"{inputs.truncated} of {len(train)} training texts were truncated")
        shortened = inputs.shortened().items()
        notes += [f"{n} training rows of {m} were truncated" for m, n in shortened if n]
        return FitResult(model, log.history, tuple(notes), _own_best(model, log))

    def reads(self, config: MultimodalConfig) -> frozenset[str]:
        """Without fields that the fusion and the loss do not use."""
        from valence.losses.table import reads

        loss = {f"loss.{name}" for name in reads(config.loss) | {"name"}}
        unused = UNUSED.get(config.fusion.name, UNUSED_BY_ONE) | {"train.lr_scale"}
        paths = type(config).paths()
        if config.encoder.adaptation not in ADAPTED:
            unused |= {path for path in paths if path.startswith("encoder.lora_")}
        if config.encoder.adaptation == "frozen":
            unused |= {"train.encoder_lr_factor"}
        return frozenset(
            path for path in paths
            if path not in unused and (not path.startswith("loss.") or path in loss)
        )  # fmt: skip

    def search_space(self, config: MultimodalConfig) -> dict[str, Range]:
        """Rates around the method's default, and the ranges that its fusion uses."""
        used = self.reads(config)
        own = {path: one for path, one in SPACE.items() if path in used}
        return dict(self.space) or {**rate_space(config.train), **own}

    def cost(self, config: MultimodalConfig, sizes: Sizes) -> float:
        """Texts are encoded once and the fusion is trained alone, unless the encoder is too."""
        learned = TRAINING_WORK * config.train.epochs * sizes.train
        if config.encoder.adaptation == "frozen":
            learned = sizes.train + HEAD_WORK * learned
        return learned + evaluation_work(config.train, sizes)

    def content(self, config: MultimodalConfig) -> tuple[str, ...]:
        """The encoder's files."""
        from valence.models.built_in import encoder_content
        from valence.models.reading import folder_choices

        encoder = config.encoder
        return (encoder_content(encoder.name), *folder_choices(encoder.name, encoder.prompt))

    def precision(self, config: MultimodalConfig) -> str:
        """The number format of the training."""
        from valence.distributed.device import precision_in_effect

        return precision_in_effect(config.train.precision, config.train.device)


def _own_best(model: FusionModel, log: TrainingLog) -> tuple[OwnBest, ...]:
    """The weights of every metric's own best epoch, by which many papers report."""
    own = {name: value.clone() for name, value in model.net.trainable_state_dict().items()}

    def at(state: dict[str, Any]) -> Any:
        @contextmanager
        def weights() -> Iterator[FusionModel]:
            model.net.load_trainable_state_dict(state)
            try:
                yield model
            finally:
                model.net.load_trainable_state_dict(own)

        return weights

    steps = sorted(log.states)
    metrics = {step: tuple(n for n, s in log.own_best.items() if s == step) for step in steps}
    return tuple(OwnBest(step, metrics[step], at(log.states[step])) for step in steps)


# As published; the weights are those of the best validation MAE.
FUSION = {
    "data.target": "intensity",
    "loss.name": "mse",
    "train.metric": "mae",
    "train.epochs": 200,
    "train.learning_rate": 1e-4,
    "train.weight_decay": 1e-4,
    "train.schedule": "cosine",
    "train.patience": 40,
}

ENTRIES: dict[str, Method[MultimodalConfig]] = {
    "almt": Multimodal(
        "text, audio and vision: language-guided fusion",
        FUSION,
        paper="Zhang et al. 2023, arXiv 2310.05804",
    ),
    "text-only": Multimodal("text only", {**FUSION, "fusion.name": "text-only"}),
    "audio-only": Multimodal("audio only", {**FUSION, "fusion.name": "audio-only"}),
    "vision-only": Multimodal("vision only", {**FUSION, "fusion.name": "vision-only"}),
    "early-fusion": Multimodal(
        "text, audio and vision concatenated before one classifier",
        {**FUSION, "fusion.name": "early"},
    ),
    "late-fusion": Multimodal(
        "a model per modality, outputs averaged", {**FUSION, "fusion.name": "late"}
    ),
}
