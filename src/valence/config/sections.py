"""The parts that the configs of methods are made of: encoder, head, loss, view, training.

Every default of Valence is set once, in this package. A section is frozen and refuses unknown
fields; :attr:`Section.speed_only` names the fields that change the speed of a run and not its
result.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

BUILT_IN_ENCODER = "all-MiniLM-L6-v2"
MULTILINGUAL_ENCODER = "multilingual-e5-small"
AUTO_ENCODER = "auto"

Compat = Literal["reference"] | None
"""``reference``: what a paper's published code does, where it departs from the paper; see the
faults in published code. For comparison with its figures, not for use."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a config: frozen, without unknown fields, infinities and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    speed_only: ClassVar[frozenset[str]] = frozenset()
    """Fields that change the speed of a run and not its result."""


class EncoderSpec(Section):
    """The pretrained text encoder and how it is adapted."""

    name: str = BUILT_IN_ENCODER
    """A built-in encoder, a hub name, a folder, or ``auto``: the built-in one for the texts."""
    adaptation: Literal["frozen", "full", "lora", "dora"] = "lora"
    max_length: Annotated[int, Field(ge=4)] = 128
    """Tokens; longer texts are truncated and counted. 128 is the published Hy-Mora setup."""
    prompt: str | None = None
    """In front of every text; None: the one that the encoder's folder names as its default,
    "": none."""
    lora_rank: Count = 16
    lora_alpha: Positive = 32
    lora_dropout: Fraction = 0.1
    lora_targets: tuple[str, ...] = ()
    """Layers that get adapters, by the last part of their names; empty: query, key and value of
    the attention, whatever the architecture calls them."""


class HeadSpec(Section):
    """From token states to logits."""

    name: str = "linear"
    """A name of ``HEADS``."""
    pooling: str = "auto"
    """A name of ``POOLINGS``; ``auto``: that of the encoder's folder, else ``last`` where a token
    sees only those before it, else ``cls``."""
    dropout: Fraction = 0.1
    fusion_init: float = 0.0
    """Start value of the learned gate scalar of the ``gated`` head."""
    cell: Literal["lstm", "gru"] = "lstm"
    """Of the recurrent heads."""
    hidden_size: Count = 256
    """Per direction, of the recurrent heads; the published value."""
    layers: Count = 1
    """Recurrent layers; published: 2 for ``lstm``, 1 for ``han``."""
    attention_heads: Count = 4
    """Of the self-attention of ``lstm``; the published value."""
    norm: bool = True
    """LayerNorm between the parts of the recurrent heads."""
    residual: bool = True
    """Whether ``lstm`` adds the recurrent states to the attention output."""
    pooler: bool = False
    """Whether ``lstm`` reads the encoder's pretrained pooler beside its own maximum."""
    compat: Compat = None
    """``reference``: recurrent layers run over the padding, and the attention of ``ahsp`` is
    flattened, as in the published code."""


class LossSpec(Section):
    """The supervised loss and the contrastive one beside it."""

    name: str = "cross-entropy"
    """A name of ``LOSSES``."""
    class_weights: Literal["none", "balanced", "effective"] = "none"
    """``balanced``: N / (C · n_c); ``effective``: by the effective number of rows."""
    beta: Fraction = 0.9999
    """Of the effective number (1 − β^n) / (1 − β)."""
    weight_clamp: Positive | None = 10.0
    """Upper limit of a class weight; without one, a class of a few rows dominates the loss."""
    smoothing: Fraction = 0.0
    gamma: Annotated[float, Field(ge=0)] = 2.0
    """Focusing exponent of the focal loss."""
    margin: Positive = 0.5
    """Largest margin of LDAM."""
    scale: Positive = 30.0
    """Logit scale of LDAM."""
    deferred_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Fraction of the training after which LDAM gives way to weighted cross-entropy."""
    tau: Annotated[float, Field(ge=0)] = 1.0
    """Strength of logit adjustment."""
    contrast: str = "none"
    """A name of ``CONTRASTS``."""
    weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrastive loss."""
    temperature: Positive = 0.2
    memory_size: Count = 1200
    """Stored vectors, all classes together."""
    memory_warmup_steps: Count = 20
    """Steps before vectors are stored."""
    projection_dim: Count = 128
    """Size of the projected vectors that are contrasted."""
    tail_weight: Positive = 2.0
    """Factor on the memory loss of tail rows."""
    min_samples: Count = 5
    """Stored vectors a class needs before it takes part."""
    positives: Annotated[int, Field(ge=0)] = 20
    """Synthetic positives per class of SharpReCL; 20 and 60 are the paper's."""
    negatives: Annotated[int, Field(ge=0)] = 60
    """Synthetic negatives per class."""
    hard_count: Count = 20
    """Hard positives and hard negatives per class that mixup draws from."""
    mixing: Literal["growing", "half", "always", "never"] = "growing"
    """Fraction of the synthetic samples that is mixed from hard ones: from a half to all over
    the training, a half, all, or none (sampled uniformly instead)."""
    prototypes: Literal["classifier", "none"] = "classifier"
    """Whether projected classifier rows join the batch; without them, class means guide."""
    anchor_weights: Literal["effective", "constant"] = "effective"
    """``constant``: class 0's weight for every anchor, as the published code does."""
    compat: Compat = None
    """``reference``: the focal loss takes p from the weighted loss, LDAM never re-weights, the
    memory has one positive, and anchors have class 0's weight, as in the published code."""


class ViewSpec(Section):
    """A second view of every training text, for losses that contrast two."""

    name: str = "none"
    """A name of ``VIEWS``, ``auto`` (a column of second views where the data has one, else
    substitution where the encoder has a language model, else edits), or ``none``."""
    column: str = "aug_text"
    """The column that holds second views."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction of the words that is changed."""


class FusionSpec(Section):
    """How text, audio and vision are joined; sizes not given follow ``setup``."""

    name: str = "almt"
    """A name of ``FUSIONS``."""
    setup: Literal["auto", "mosi", "mosei", "ch-sims"] = "auto"
    """Published sizes; ``auto``: those of the corpus of that name, else of MOSI."""
    text_length: Count | None = None
    """Most tokens of a text, at most ``encoder.max_length``."""
    audio_length: Count | None = None
    """Most steps; when not given that of ``setup``, or the longest training row if that is less."""
    vision_length: Count | None = None
    dim: Count = 128
    """Width of the model; the published value."""
    depth: Count | None = None
    """Layers of ALMT's cross-transformer."""
    dropout: Fraction = 0.0
    """Of ALMT; none in the published code."""
    modality_dropout: Fraction = 0.0
    """Probability that a training row loses a modality, independently; never all three."""
    standardize: bool = True
    """Whether audio and vision are scaled by mean and deviation of the training rows; the
    published ALMT reads them as they are."""
    compat: Compat = None
    """``reference``: ALMT reads padding as data, in rows of full length, as in the published
    code."""


class RidgeSpec(Section):
    """How ``kernel-ridge`` is fitted."""

    views: Literal["both", "text", "encoder"] = "both"
    """N-grams and encoder features, or one of them."""
    layers: Literal["all", "upper"] = "all"
    """Layers of the encoder that are read. Lower layers know the words of a language: without
    them, less is learned of the language trained on, and more carries over to others."""
    members: Count = 5
    """Regressions whose logits are averaged, the best of all mixes and strengths."""
    target_prior: dict[str, Fraction] | None = None
    """Class shares expected in use, for which members are selected; those of the validation rows
    when not given."""


class RefitSpec(Section):
    """Whether a model is fitted again on training and validation rows, once all was chosen."""

    when: Literal["never", "auto", "always"] = "never"
    """``auto``: unless the out-of-fold macro-F1 of the validation rows loses more than its
    standard error."""


class PortfolioSpec(Section):
    """What ``auto`` tries, and what joins its mean."""

    fine_tuned: tuple[str, ...] = ("ldam", "lora-balanced")
    """Methods that train the encoder, tried after those that do not, in this order."""
    epochs: Count = 6
    """Of the methods that train the encoder."""
    min_gain: Fraction = 0.0
    """Macro-F1 that such a model must add to join, beside a log loss that falls by more than its
    standard error."""
    budget_seconds: Positive | None = None
    """Methods that would take longer than what is left of it are not tried."""


class TrainSpec(Section):
    """How a model is trained."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"device", "cache", "precision"})
    """The precision in effect is a part of the run's key of its own."""

    epochs: Count = 20
    batch_size: Count = 64
    accumulation: Count = 1
    learning_rate: Positive = 3e-4
    """3e-4 for adapters; methods set 2e-5 for full fine-tuning."""
    lr_scale: Positive = 1.0
    """Of adapters; a method takes 10 on the built-in encoder where no rate is given."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_share: Fraction = 0.1
    schedule: Literal["linear", "cosine"] = "linear"
    """How the learning rate decays after the warmup."""
    max_grad_norm: Positive = 1.0
    encoder_lr_factor: Positive = 1.0
    """Of the learning rate, for the encoder's own weights; 0.1 is published for the
    recurrent heads."""
    cache: Literal["auto", "off"] = "auto"
    """Whether token states of a frozen encoder are cached on disk. The result is the same."""
    eval_steps: Count | None = None
    """Optimizer steps between evaluations; once an epoch when not given."""
    patience: Count = 8
    """Evaluations without improvement before the training stops."""
    metric: str = "macro_f1"
    """The validation metric that selects the best weights."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
