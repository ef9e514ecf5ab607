"""Every method that can be trained and compared, as a table.

A method is a value: what it sets in a ``RunSpec`` beyond the defaults. Adding one is
adding one entry; the command line, the tests and the documents follow from the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from valence.config.spec import BUILT_IN_ENCODER, DataSpec, RunSpec
from valence.errors import SpecError, UnknownNameError
from valence.methods.search_space import (
    ATTENTION,
    CLASS_WEIGHTS,
    PROBED,
    Range,
    fusion_space,
    shared_space,
)
from valence.methods.search_space import RECURRENT as RECURRENT_SPACE


@dataclass(frozen=True)
class Method:
    """One entry of :data:`METHODS`.

    Attributes:
        title: One line for tables and help.
        settings: Dotted settings that make the method.
        kind: How it is fitted.
        of: The trained method whose logits a ``posthoc`` method corrects.
        paper: Where it comes from.
        space: What a tuner chooses, by dotted setting; a trained method that names none has
            the shared ranges.
    """

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["torch", "sklearn", "posthoc", "llm", "fusion"] = "torch"
    of: str | None = None
    paper: str = ""
    space: Mapping[str, Range] = field(default_factory=dict)


# In six epochs of SST-5-1150 adapters of the built-in encoder reached a validation macro-F1 of
# 0.16 at the published rate and of 0.40 at ten times it.
STAND_IN_SCALE = 10.0
RATES = {"train.learning_rate", "train.lr_scale"}
LORA = {"encoder.adaptation": "lora"}
BALANCED = {"loss.class_weights": "balanced"}
SHARP = {
    "head.name": "unit",
    "loss.name": "logit-adjustment",
    "loss.contrast": "sharprecl",
    "loss.weight": 1.0,
    "loss.temperature": 0.3,
    "loss.projection_dim": 100,
    "view.name": "auto",
}
# Only new layers are trained, so the rate is theirs; the published search stays below 5e-5.
RECURRENT = {
    "encoder.adaptation": "frozen",
    "train.learning_rate": 1e-3,
    "train.encoder_lr_factor": 0.1,
    "train.accumulation": 2,
}
# As published; the weights kept are those of the best validation MAE.
FUSION = {
    "data.target": "intensity",
    "encoder.adaptation": "frozen",
    "loss.name": "mse",
    "train.metric": "mae",
    "train.epochs": 200,
    "train.learning_rate": 1e-4,
    "train.weight_decay": 1e-4,
    "train.schedule": "cosine",
    "train.patience": 40,
}
AHSP = {"head.name": "gated", "head.pooling": "ahsp"}
MEMORY = {"loss.contrast": "memory"}
HY_MORA = "Hy-Mora, Zhang 2025"
LSTM_HAN = "LSTM- and HAN-RoBERTa with Optuna; Yang et al. 2016, N16-1174"
SHARPRECL = "SharpReCL, arXiv 2405.11524"

METHODS: dict[str, Method] = {
    "majority": Method("always the most frequent class", kind="sklearn"),
    "tfidf-lr": Method(
        "word and letter n-grams, logistic regression", kind="sklearn", space=CLASS_WEIGHTS
    ),
    "linear-probe": Method(
        "logistic regression on the frozen encoder's mean features",
        {"encoder.adaptation": "frozen", "head.pooling": "mean", **BALANCED},
        kind="sklearn",
        paper="Alain & Bengio 2016, arXiv 1610.01644",
        space=PROBED,
    ),
    "full": Method(
        "full fine-tuning, class weights",
        {
            "encoder.adaptation": "full",
            "head.name": "dense",
            "train.learning_rate": 2e-5,
            **BALANCED,
        },
        paper="Devlin et al. 2019, arXiv 1810.04805",
    ),
    "cross-entropy": Method("plain cross-entropy; adapted as encoder.adaptation says"),
    "lora": Method("LoRA, plain cross-entropy", LORA, paper="Hu et al. 2022, arXiv 2106.09685"),
    "lora-balanced": Method("LoRA, class weights", {**LORA, **BALANCED}, paper="Hu et al. 2022"),
    "lora-posthoc": Method(
        "LoRA's saved logits minus τ·log prior, τ chosen on validation; trains nothing",
        kind="posthoc",
        of="lora",
        paper="Menon et al. 2021, arXiv 2007.07314",
    ),
    "dora-balanced": Method(
        "DoRA, class weights",
        {"encoder.adaptation": "dora", **BALANCED},
        paper="Liu et al. 2024, arXiv 2402.09353",
    ),
    "focal": Method(
        "focal loss, class weights",
        {"loss.name": "focal", **BALANCED},
        paper="Lin et al. 2017, arXiv 1708.02002",
    ),
    "ldam": Method(
        "LDAM with deferred re-weighting",
        {"loss.name": "ldam", **BALANCED},
        paper="Cao et al. 2019, arXiv 1906.07413",
    ),
    "logit-adjust": Method(
        "logit adjustment in training",
        {"loss.name": "logit-adjustment"},
        paper="Menon et al. 2021, arXiv 2007.07314",
    ),
    "balanced-softmax": Method(
        "balanced softmax: logit adjustment at τ = 1, under its other name",
        {"loss.name": "logit-adjustment", "loss.tau": 1.0},
        paper="Ren et al. 2020, arXiv 2007.10740",
    ),
    "class-balanced": Method(
        "class weights by the effective number of rows",
        {"loss.class_weights": "effective"},
        paper="Cui et al. 2019, arXiv 1901.05555",
    ),
    "supcon": Method(
        "cross-entropy and supervised contrast over two views",
        {
            "loss.contrast": "supcon",
            "loss.weight": 1.0,
            "loss.temperature": 0.3,
            "loss.projection_dim": 100,
            "view.name": "auto",
        },
        paper="Khosla et al. 2020, arXiv 2004.11362",
    ),
    "sharprecl": Method(
        "rebalanced contrast: prototypes, hard mixup, simple sampling", SHARP, paper=SHARPRECL
    ),
    "sharprecl-no-simple": Method(
        "SharpReCL, mixup only", {**SHARP, "loss.mixing": "always"}, paper=SHARPRECL
    ),
    "sharprecl-no-mixup": Method(
        "SharpReCL, simple sampling only", {**SHARP, "loss.mixing": "never"}, paper=SHARPRECL
    ),
    "sharprecl-no-prototypes": Method(
        "SharpReCL, class means for prototypes",
        {**SHARP, "loss.prototypes": "none"},
        paper=SHARPRECL,
    ),
    "sharprecl-no-compensation": Method(
        "SharpReCL, plain cross-entropy", {**SHARP, "loss.name": "cross-entropy"}, paper=SHARPRECL
    ),
    "lstm-roberta": Method(
        "frozen encoder, BiLSTM with self-attention",
        {
            **RECURRENT,
            "head.name": "lstm",
            "head.layers": 2,
            "head.dropout": 0.3,
            "loss.smoothing": 0.1,
        },
        paper=LSTM_HAN,
        space={**RECURRENT_SPACE, **ATTENTION},
    ),
    "han-roberta": Method(
        "frozen encoder, BiGRU with context-vector attention",
        {**RECURRENT, "head.name": "han", "head.cell": "gru", "head.dropout": 0.3},
        paper=LSTM_HAN,
        space=RECURRENT_SPACE,
    ),
    "almt": Method(
        "text, audio and vision: language-guided fusion",
        FUSION,
        kind="fusion",
        paper="Zhang et al. 2023, arXiv 2310.05804",
    ),
    "text-only": Method(
        "intensity from the text's mean state alone",
        {**FUSION, "fusion.name": "text-only"},
        kind="fusion",
    ),
    "audio-only": Method(
        "intensity from the audio alone", {**FUSION, "fusion.name": "audio-only"}, kind="fusion"
    ),
    "vision-only": Method(
        "intensity from the vision alone", {**FUSION, "fusion.name": "vision-only"}, kind="fusion"
    ),
    "early-fusion": Method(
        "the means of three modalities joined before one perceptron",
        {**FUSION, "fusion.name": "early"},
        kind="fusion",
    ),
    "late-fusion": Method(
        "a model per modality, outputs averaged", {**FUSION, "fusion.name": "late"}, kind="fusion"
    ),
    "hy-mora": Method(
        "LoRA, gated hierarchical pooling and prototype memory",
        {**AHSP, **MEMORY, **BALANCED},
        paper=HY_MORA,
    ),
    "hy-mora-no-memory": Method("Hy-Mora without the memory", {**AHSP, **BALANCED}, paper=HY_MORA),
    "hy-mora-no-pooling": Method(
        "Hy-Mora without the pooling", {**MEMORY, **BALANCED}, paper=HY_MORA
    ),
}

LLM_METHODS: dict[str, Method] = {
    "llm-zero-shot": Method(
        "a language model, asked without demonstrations", {"llm.shots": "zero"}, kind="llm"
    ),
    "llm-fixed": Method(
        "a language model, asked with the same demonstrations for all texts",
        {"llm.shots": "fixed"},
        kind="llm",
        paper="Brown et al. 2020, arXiv 2005.14165",
    ),
    "llm-retrieved": Method(
        "a language model, asked with the likest training text of each label",
        {"llm.shots": "retrieved"},
        kind="llm",
        paper="Liu et al. 2022, arXiv 2101.06804",
    ),
}
"""Models that are asked, not trained; ``name@model`` names the model too."""

SKLEARN_READS = ("loss.class_weights", "train.metric", "train.device", "train.cache")
"""Settings of training and loss that ``linear-probe`` and ``tfidf-lr`` read."""
ASKED_READS = ("encoder.name", "encoder.max_length", "train.device", "seed")
"""Settings beside those of data and model that language models read; ``encoder`` is the one
that finds demonstrations."""


def find_method(name: str) -> Method:
    """The entry of ``name``.

    Raises:
        UnknownNameError: with the closest known name.
    """
    plain, _, model = name.partition("@")
    known = LLM_METHODS if model else METHODS | LLM_METHODS
    if plain not in known:
        raise UnknownNameError("method", plain, known)
    return known[plain]


def make_spec(
    name: str,
    data: DataSpec,
    *,
    seed: int = 45,
    common: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RunSpec:
    """The spec of a method on data.

    Args:
        name: A name of :data:`METHODS`.
        data: Which rows.
        seed: Seed of everything random.
        common: Settings of all methods of a comparison; what makes the method wins.
        settings: Settings of this method; they win over everything.

    Raises:
        UnknownNameError: if the method or a setting is unknown.
        SpecError: if a value does not fit.
    """
    method = find_method(name)
    of = find_method(method.of).settings if method.of else {}
    base = RunSpec(method=name, kind=method.kind, data=data, seed=seed)
    wanted = {**(common or {}), **of, **method.settings, **(settings or {})}
    if method.kind == "llm":
        return _asked(base, wanted)
    checked = base.override(wanted)
    if method.kind != "sklearn":
        return checked.override(_for_stand_in(checked, wanted))
    # What it does not read stays at its default, or the same fit would count as another run.
    return base.override({path: v for path, v in wanted.items() if _is_read(path)})


def _for_stand_in(spec: RunSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the built-in encoder needs where the rate is the published one, of larger encoders."""
    is_adapted = spec.kind in ("torch", "posthoc") and spec.encoder.adaptation in ("lora", "dora")
    if not is_adapted or spec.encoder.name != BUILT_IN_ENCODER or RATES & given.keys():
        return {}
    return {"train.lr_scale": STAND_IN_SCALE}


def _is_read(path: str) -> bool:
    """Whether the methods of scikit-learn read a setting."""
    return path.startswith(("data.", "encoder.", "head.")) or path in SKLEARN_READS


def _asked(base: RunSpec, wanted: Mapping[str, Any]) -> RunSpec:
    """The spec of a language model; its method is named ``<method>@<model>`` in tables."""
    plain, _, model = base.method.partition("@")
    if model:
        wanted = {**wanted, "llm.model": model}
    base.override(wanted)  # an unknown setting is refused even where it would not be read
    read = {
        path: value for path, value in wanted.items()
        if path.startswith(("data.", "llm.")) or path in ASKED_READS
    }  # fmt: skip
    spec = base.override(read)
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", spec.llm.model.rstrip("/").rpartition("/")[2])
    return spec.model_copy(update={"method": f"{plain}@{short}" if short else plain})


def trained_part(spec: RunSpec) -> RunSpec:
    """The spec whose logits a ``posthoc`` spec corrects.

    Raises:
        UnknownNameError: if the method is unknown.
    """
    of = find_method(spec.method).of or spec.method
    return spec.model_copy(update={"method": of, "kind": find_method(of).kind})


def search_space(spec: RunSpec) -> dict[str, Range]:
    """What a tuner chooses in a spec, by dotted setting; a ``posthoc`` one has its base's.

    Raises:
        SpecError: if the method has nothing to tune.
    """
    base = trained_part(spec)
    own = find_method(base.method).space
    if own:
        return dict(own)
    if base.kind == "fusion":
        return fusion_space(base)
    if base.kind != "torch":
        raise SpecError(f"Method {spec.method!r} has nothing to tune; train it as it is")
    return shared_space(base)
