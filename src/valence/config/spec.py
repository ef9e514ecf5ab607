"""What is trained and compared, as a value: :class:`RunSpec` and its parts.

Every default of Valence stands here once. A spec is frozen, refuses unknown fields,
reads and writes YAML, takes dotted overrides (``train.epochs=6``) and has a canonical
hash that names its run folder.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from valence.config.database_url import is_sql_url, refuse_password
from valence.config.llm import LlmSpec
from valence.errors import SpecError, UnknownNameError

BUILT_IN_ENCODER = "all-MiniLM-L6-v2"

Model = TypeVar("Model", bound=BaseModel)

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSpec(_Part):
    """Which rows are used, and how they are thinned.

    At most one of ``train_counts``, ``train_total`` and ``imbalance_ratio`` cuts the
    training rows; ``train_total`` and ``imbalance_ratio`` may stand together.
    """

    name: str = "demo"
    """A card of ``DATASETS``, a file, a folder of split files, a hub id, or the URL of a
    database, its password written as ``${NAME}``."""
    target: Literal["classes", "intensity"] = "classes"
    """What is predicted: a class, or a number (the label column holds numbers then)."""
    features: str | None = None
    """Audio and vision of the rows: a feature archive, an MMSA pickle, or ``none``. When not
    given, looked for in the corpus's own folder."""
    text_column: str | None = None
    label_column: str | None = None
    query: str | None = None
    """A SELECT whose rows are used, of a database."""
    table: str | None = None
    """The table that is read, of a database; its only one when not given."""
    encoding: str | None = None
    """The encoding of CSV, TSV and JSONL files, as Python names it; UTF-8 when not given, with
    or without a byte order mark."""
    group: str | None = None
    """The column whose values (languages, domains) are scored one by one; ``language`` when not
    given, if there is such a column or one folder per language."""
    groups: tuple[str, ...] | None = None
    """The groups whose rows are used; all when not given."""
    train_groups: tuple[str, ...] | None = None
    """The groups of the training and validation rows, where the test rows have others."""
    sample: Count | None = None
    """Training rows drawn at random, by the seed of the cut, before any other cut; the source
    is not loaded whole. Where splits are made here, they are made of the drawn rows."""
    classes: tuple[str, ...] | None = None
    """The order of the classes; the card's order, else sorted, when not given."""
    tail: tuple[str, ...] | None = None
    """The tail classes; the third with the fewest training rows when not given."""
    train_counts: dict[str, Annotated[int, Field(ge=0)]] | None = None
    train_total: Count | None = None
    imbalance_ratio: Annotated[float, Field(ge=1)] | None = None
    """Size of the largest class over the smallest."""
    head_count: Count | None = None
    """Rows of the largest class under ``imbalance_ratio``; a class with fewer rows than its
    place in the profile asks for keeps what it has. Without it the profile is scaled so that
    every class fills its place."""
    profile: Literal["exponential", "step"] = "exponential"
    noise_share: Share = 0.0
    """Part of the training labels that is replaced by wrong ones, after the cut."""
    noise: Literal["symmetric", "confusable"] = "symmetric"
    """Wrong labels are drawn from all other classes, or from those with like texts."""
    validation_per_class: Count | None = None
    """Balanced validation rows; all validation rows when not given."""
    test_per_class: Count | None = None
    """Balanced test rows, as for costly language models; all test rows when not given."""
    validation_share: Share = 0.1
    """Part of the training rows used for validation where no split is given."""
    test_share: Share = 0.2
    """Part of all rows used as test where no split is given."""
    cut_seed: int | None = None
    """Seed of splits and cuts; the run's seed when not given, so that the spread over
    seeds covers the draw of a handful of tail rows, which matters more than the
    initial weights."""

    @field_validator("name")
    @classmethod
    def _no_password(cls, name: str) -> str:
        refuse_password(name)
        return name

    @field_validator("encoding")
    @classmethod
    def _one_name_per_encoding(cls, encoding: str | None) -> str | None:
        if encoding is None:
            return None
        try:
            "".encode(encoding)  # codecs that are no text encoding refuse here
            name = codecs.lookup(encoding).name
        except (LookupError, ValueError):
            raise SpecError(
                f"Encoding {encoding!r} is unknown; write for example latin-1, cp1252 or utf-16"
            ) from None
        return None if name in ("utf-8", "utf-8-sig") else name

    @model_validator(mode="after")
    def _one_query(self) -> DataSpec:
        if self.query and self.table:
            raise SpecError("Give a query or a table of the database, not both")
        if self.encoding and is_sql_url(self.name):
            raise SpecError("The setting encoding is for files; a database has its own, leave it")
        if (self.query or self.table) and not is_sql_url(self.name):
            option = "query" if self.query else "table"
            raise SpecError(
                f"The setting {option} is for databases, and {self.name!r} is none; "
                "give a URL such as sqlite:///tweets.db"
            )
        return self

    @model_validator(mode="after")
    def _one_cut(self) -> DataSpec:
        if self.train_counts is not None and (self.train_total or self.imbalance_ratio):
            raise ValueError("give train_counts, or train_total and imbalance_ratio, not both")
        if self.head_count is not None and (self.train_total or self.imbalance_ratio is None):
            raise ValueError("head_count needs imbalance_ratio, and goes without train_total")
        return self


class EncoderSpec(_Part):
    """The pretrained text encoder and how it is adapted."""

    name: str = BUILT_IN_ENCODER
    """The built-in encoder, a hub name, or a local folder."""
    adaptation: Literal["frozen", "full", "lora", "dora"] = "lora"
    max_length: Annotated[int, Field(ge=4)] = 128
    """Tokens; longer texts are cut and counted. 128 is the published Hy-Mora set-up."""
    lora_rank: Count = 16
    lora_alpha: Positive = 32
    lora_dropout: Share = 0.1
    lora_targets: tuple[str, ...] = ("query", "key", "value")


class HeadSpec(_Part):
    """From token states to logits."""

    name: str = "linear"
    """A name of ``HEADS``."""
    pooling: str = "cls"
    """A name of ``POOLINGS``."""
    dropout: Share = 0.1
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
    """Whether ``lstm`` adds the recurrent states to what attention makes of them."""
    pooler: bool = False
    """Whether ``lstm`` reads the encoder's pretrained pooler beside its own maximum."""


class LossSpec(_Part):
    """The supervised loss and the contrastive one beside it."""

    name: str = "cross-entropy"
    """A name of ``LOSSES``."""
    class_weights: Literal["none", "balanced", "effective"] = "none"
    """``balanced``: N / (C · n_c); ``effective``: by the effective number of rows."""
    beta: Share = 0.9999
    """Of the effective number (1 − β^n) / (1 − β)."""
    weight_clamp: Positive | None = 10.0
    """Upper limit of a class weight; without one, a class of a few rows rules the loss."""
    smoothing: Share = 0.0
    gamma: Annotated[float, Field(ge=0)] = 2.0
    """Focusing exponent of the focal loss."""
    margin: Positive = 0.5
    """Largest margin of LDAM."""
    scale: Positive = 30.0
    """Logit scale of LDAM."""
    deferred_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the training after which LDAM gives way to weighted cross-entropy."""
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
    """Hard samples per class and side that mixup draws from."""
    mixing: Literal["growing", "always", "never"] = "growing"
    """Share of the synthetic samples that is mixed from hard ones: from a half to all over
    the training, all, or none (drawn evenly instead)."""
    prototypes: Literal["classifier", "none"] = "classifier"
    """Whether projected classifier rows join the batch; without them, class means guide."""
    anchor_weights: Literal["effective", "constant"] = "effective"
    """``constant``: class 0's weight for every anchor, as the published code does."""


class ViewSpec(_Part):
    """A second view of every training text, for losses that contrast two."""

    name: str = "none"
    """A name of ``VIEWS``, ``auto`` (a column of second views where the data has one, else
    substitution where the encoder has a language model, else edits), or ``none``."""
    column: str = "aug_text"
    """The column that holds second views."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Part of the words that is changed."""


class FusionSpec(_Part):
    """How text, audio and vision are joined; sizes not given follow the set-up."""

    name: str = "almt"
    """A name of ``FUSIONS``."""
    setup: Literal["auto", "mosi", "mosei", "ch-sims"] = "auto"
    """Published sizes; ``auto``: those of the corpus of that name, else of MOSI."""
    text_length: Count | None = None
    """Most tokens of a text, at most ``encoder.max_length``."""
    audio_length: Count | None = None
    """Most steps; when not given the set-up's, or the longest training row if that is less."""
    vision_length: Count | None = None
    dim: Count = 128
    """Width of the model; the published value."""
    depth: Count | None = None
    """Layers of ALMT's cross-transformer."""
    dropout: Share = 0.0
    """Of ALMT; none in the published code."""
    modality_dropout: Share = 0.0
    """Chance that a training row loses a modality, each by itself; never all three."""


class TrainSpec(_Part):
    """How the training goes."""

    epochs: Count = 20
    batch_size: Count = 64
    accumulation: Count = 1
    learning_rate: Positive = 3e-4
    """3e-4 for adapters; methods set 2e-5 for full fine-tuning."""
    lr_scale: Positive = 1.0
    """Of adapters; a method takes 10 on the built-in encoder where no rate is given."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_share: Share = 0.1
    schedule: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls after the warm-up."""
    max_grad_norm: Positive = 1.0
    encoder_lr_factor: Positive = 1.0
    """Of the learning rate, for the encoder's own weights; 0.1 is published for the
    recurrent heads."""
    cache: Literal["auto", "off"] = "auto"
    """Whether token states of a frozen encoder are kept on disk and read again. The result
    is the same."""
    eval_steps: Count | None = None
    """Optimiser steps between evaluations; once an epoch when not given."""
    patience: Count = 8
    """Evaluations without gain before the training stops."""
    metric: str = "macro_f1"
    """The validation score that chooses the kept weights."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class RunSpec(_Part):
    """One run: a method on a data set with a seed."""

    method: str = "lora"
    kind: Literal["torch", "sklearn", "posthoc", "llm", "fusion"] = "torch"
    data: DataSpec = DataSpec()
    encoder: EncoderSpec = EncoderSpec()
    head: HeadSpec = HeadSpec()
    loss: LossSpec = LossSpec()
    view: ViewSpec = ViewSpec()
    fusion: FusionSpec = FusionSpec()
    train: TrainSpec = TrainSpec()
    llm: LlmSpec = LlmSpec()
    seed: int = 45
    start: str | None = None
    """Content hash of the model folder that the training goes on from; a new model without."""

    def hash(self, fingerprint: str = "") -> str:
        """Ten hex digits that name this spec on data with this fingerprint.

        Fields at their default do not enter, so that a field added later leaves old
        run folders valid; neither do device and cache, which decide speed and not result.
        """
        values = self.model_dump(mode="json", exclude_defaults=True)
        for without_effect in ("device", "cache"):
            values.get("train", {}).pop(without_effect, None)
        for without_effect in ("concurrency", "per_minute"):
            values.get("llm", {}).pop(without_effect, None)
        values = {name: value for name, value in values.items() if value != {}}
        text = json.dumps([values, fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def override(self, settings: Mapping[str, Any]) -> RunSpec:
        """A copy with dotted settings changed, for example ``{"train.epochs": 6}``.

        Raises:
            UnknownNameError: if a setting does not exist.
            SpecError: if a value does not fit.
        """
        values = self.model_dump()
        for path, value in settings.items():
            check_path(path)
            *parents, last = path.split(".")
            target = values
            for parent in parents:
                target = target[parent]
            target[last] = value
        return build(RunSpec, values)

    def to_yaml(self) -> str:
        """The spec as YAML, every field named."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> RunSpec:
        """The spec that :meth:`to_yaml` wrote.

        Raises:
            SpecError: if the text is no YAML or a field does not fit.
        """
        return build(cls, parse_yaml(text, where="spec"))


def build(model: type[Model], values: Any) -> Model:
    """Validate ``values`` as ``model``.

    Raises:
        SpecError: with the first wrong field and what it must be, in one line.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or model.__name__
        if first["type"] == "extra_forbidden":
            known = setting_paths() if model is RunSpec else model.model_fields
            raise UnknownNameError("setting", field, known) from None
        reason = first["msg"].removeprefix("Value error, ")
        raise SpecError(f"Setting {field} = {first['input']!r}: {reason}") from None


def parse_yaml(text: str, *, where: str) -> Any:
    """Read YAML.

    Raises:
        SpecError: naming ``where`` and the line that is wrong.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SpecError(f"{where}{line}: not valid YAML; check indentation and colons") from None


def setting_paths() -> list[str]:
    """Every dotted name that :meth:`RunSpec.override` takes."""
    paths = []
    for name, field in RunSpec.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            paths += [f"{name}.{inner}" for inner in part.model_fields]
        else:
            paths.append(name)
    return paths


def check_path(path: str) -> None:
    """Raise an UnknownNameError if there is no such dotted setting."""
    known = setting_paths()
    if path not in known:
        raise UnknownNameError("setting", path, known)
