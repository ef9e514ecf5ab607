"""``kernel-ridge``: ridge regressions on n-grams and on all layers of a frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from valence.config.sections import RidgeSpec, Section
from valence.config.spec import MethodConfig
from valence.errors import SpecError
from valence.methods.base import Capabilities, FitContext, FitResult, Method, Sizes
from valence.methods.baselines import FrozenEncoderSpec

if TYPE_CHECKING:
    from scipy import sparse

    from valence.data.dataset import Split
    from valence.models.layer_features import LayerFeatures
    from valence.models.linear_views import LinearViewsModel
    from valence.models.ngrams import Ngrams
    from valence.training.ridge_members import Member, RidgeProblem

MAX_TERMS = 100_000
"""Of each of the two analyzers."""
SHIFT_LIMIT = 0.2
"""Distance of the class shares of training and validation rows that is worth a note."""
ENCODING_PART = 0.8
"""Fraction of the progress that is encoding."""


class RidgeTrainSpec(Section):
    """How features are computed; nothing here changes the result."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"device", "cache"})

    cache: Literal["auto", "off"] = "auto"
    """Whether encoder features are cached on disk."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class KernelRidgeConfig(MethodConfig):
    """Settings of ``kernel-ridge``."""

    encoder: FrozenEncoderSpec = FrozenEncoderSpec()
    ridge: RidgeSpec = RidgeSpec()
    train: RidgeTrainSpec = RidgeTrainSpec()


@dataclass
class _EncoderView:
    """Encoder features of training and validation rows, standardized on the former.

    Attributes:
        layers: Computes them.
        rows: (N, D) and (M, D), of mean squared length 1 on the training rows.
        mean, scale: (D,) what they were standardized by.
        start: The first column of a text's features that is read.
    """

    layers: LayerFeatures
    rows: tuple[np.ndarray, np.ndarray]
    mean: np.ndarray
    scale: np.ndarray
    start: int


@dataclass
class _TextView:
    """N-gram values of training and validation rows, divided by one number."""

    ngrams: Ngrams
    rows: tuple[sparse.csr_matrix, sparse.csr_matrix]
    scale: float


class KernelRidge(Method[KernelRidgeConfig]):
    """Mean of the best ridge regressions, with nothing trained in the encoder.

    Every row counts N / (C · n_c). Mixes of the kernels and strengths are selected by exact
    leave-one-out scores of the training rows and by the validation rows; see
    ``valence.training.ridge_members``.
    """

    Config = KernelRidgeConfig
    family = "kernel"
    capabilities = Capabilities(weighs_rows=True)

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Fit all members and average the best; the probabilities are calibrated."""
        from valence.training.ridge_members import (
            RidgeProblem,
            Views,
            fit_members,
            mean_member,
            select_members,
        )

        config = self.config(context.spec)
        reads = config.ridge.views
        shares = _shares(config.ridge, validation, context)
        encoder = _encode(config, train, validation, context) if reads != "text" else None
        text = _count_terms(train, validation) if reads != "encoder" else None
        context.report_progress(ENCODING_PART, "ridge regressions")
        own, held = (
            Views(None if text is None else text.rows[i], None if encoder is None
                  else encoder.rows[i]) for i in range(2)
        )  # fmt: skip
        problem = RidgeProblem(
            own, held, train.labels, validation.labels, shares, context.spec.seed,
            context.row_weights,
        )  # fmt: skip
        best = select_members(fit_members(problem), problem, count=config.ridge.members)
        mean = mean_member(best)
        temperature = _temperature(mean, problem)
        model = _model(mean, temperature, text, encoder, context)
        notes = (f"members: {mean.name}", f"temperature {temperature:.2g}")
        shift = _shift_note(config.ridge, train, validation, len(shares))
        prompt = "" if encoder is None else encoder.layers.note
        return FitResult(
            model, notes=(*notes, *(note for note in (shift, prompt) if note)),
            out_of_fold=(mean.own / temperature).astype(np.float32),
        )  # fmt: skip

    def cost(self, config: KernelRidgeConfig, sizes: Sizes) -> float:
        """Every text is scored once."""
        return 0.0 if config.ridge.views == "text" else float(sum(sizes))

    def device(self, config: KernelRidgeConfig) -> str:
        """The device of the encoder; the processor where only n-grams are read."""
        named = super().device(config)
        return "cpu" if config.ridge.views == "text" and named == "auto" else named

    def encoder_name(self, config: KernelRidgeConfig) -> str | None:
        """The encoder; None where only n-grams are read."""
        return None if config.ridge.views == "text" else config.encoder.name

    def reads(self, config: KernelRidgeConfig) -> frozenset[str]:
        """Without the encoder where only n-grams are read."""
        names = super().reads(config)
        if config.ridge.views != "text":
            return names
        return frozenset(name for name in names if not name.startswith("encoder."))

    def content(self, config: KernelRidgeConfig) -> tuple[str, ...]:
        """The encoder's files."""
        if config.ridge.views == "text":
            return ()
        from valence.models.built_in import encoder_content
        from valence.models.reading import folder_choices

        encoder = config.encoder
        return (encoder_content(encoder.name), *folder_choices(encoder.name, encoder.prompt))


def _encode(
    config: KernelRidgeConfig, train: Split, validation: Split, context: FitContext
) -> _EncoderView:
    from valence.models.layer_features import LayerFeatures

    layers = LayerFeatures(config.encoder.frozen(), cached=config.train.cache == "auto")
    layers.to(config.train.device)

    def progress(done: int, total: int) -> None:
        context.report_progress(ENCODING_PART * done / total, f"encoding: {done} of {total} texts")

    whole, _ = layers.vectors([*train.texts, *validation.texts], progress)
    start = layers.start_of(config.ridge.layers)
    features = whole[:, start:] if start else whole
    own, held = features[: len(train)], features[len(train) :]
    mean, deviation = own.mean(axis=0), own.std(axis=0) + 1e-6
    for rows in (own, held):
        rows -= mean
        rows /= deviation
    length = float(np.sqrt(np.einsum("nd,nd->n", own, own).mean()))
    features /= max(length, 1e-9)
    return _EncoderView(layers, (own, held), mean, deviation * max(length, 1e-9), start)


def _count_terms(train: Split, validation: Split) -> _TextView:
    from valence.models.ngrams import SPACED_LONG, Ngrams

    ngrams = Ngrams.fit(train.texts, SPACED_LONG, max_terms=MAX_TERMS)
    own, held = (ngrams.transform(split.texts) for split in (train, validation))
    scale = max(1e-9, float(np.sqrt(own.multiply(own).sum() / own.shape[0])))
    for rows in (own, held):
        rows.data /= scale
    return _TextView(ngrams, (own, held), scale)


def _shares(ridge: RidgeSpec, validation: Split, context: FitContext) -> np.ndarray:
    """(C,) class shares for which members are selected.

    Raises:
        SpecError: if the given ones do not name every class once or do not sum to 1.
    """
    classes = context.task.classes
    if ridge.target_prior is None:
        counts = validation.counts(len(classes))
        shares: np.ndarray = counts / counts.sum()
        return shares
    if set(ridge.target_prior) != set(classes) or abs(sum(ridge.target_prior.values()) - 1) > 0.01:
        raise SpecError(
            f"ridge.target_prior must give every class ({', '.join(classes)}) a share, and the "
            "shares must sum to 1"
        )
    return np.array([ridge.target_prior[name] for name in classes])


def _temperature(mean: Member, problem: RidgeProblem) -> float:
    """The temperature of least log loss on both splits, each class at its share."""
    from valence.evaluation.calibration import fit_scale

    labels = np.concatenate([problem.labels, problem.held_labels])
    counts = np.bincount(labels, minlength=len(problem.shares))
    weights = (problem.shares / np.maximum(counts, 1))[labels]
    logits = np.concatenate([mean.own, mean.held_out])
    return fit_scale(logits, labels, with_bias=False, weights=weights)[0]


def _model(
    mean: Member, temperature: float, text: _TextView | None, encoder: _EncoderView | None,
    context: FitContext,
) -> LinearViewsModel:  # fmt: skip
    """The mean as one model on features as they are: scales and temperature go into weights."""
    from valence.models.linear_views import LinearViewsModel

    bias = mean.bias / temperature
    terms, features = mean.weights()
    if text is not None and terms is not None:
        terms = (terms / (temperature * text.scale)).astype(np.float32)
    if encoder is not None and features is not None:
        features = features / (temperature * encoder.scale[:, None])
        bias = bias - encoder.mean @ features
        unread = np.zeros((encoder.start, features.shape[1]))
        features = np.concatenate([unread, features]).astype(np.float32)
    return LinearViewsModel(
        context.task, context.provenance,
        None if text is None or terms is None else text.ngrams, terms,
        None if encoder is None or features is None else encoder.layers, features, bias,
    )  # fmt: skip


def _shift_note(ridge: RidgeSpec, train: Split, validation: Split, count: int) -> str:
    """Says so where training and validation rows have other class shares; else empty."""
    own, held = (rows.counts(count) / max(1, len(rows)) for rows in (train, validation))
    distance = float(np.abs(own - held).sum() / 2)
    if ridge.target_prior is not None or distance <= SHIFT_LIMIT:
        return ""
    return (
        f"class shares of training and validation rows differ by {distance:.0%}; members were "
        "selected for those of validation: give the ones expected in use with ridge.target_prior"
    )


ENTRIES: dict[str, Method[KernelRidgeConfig]] = {
    "kernel-ridge": KernelRidge(
        "ridge regressions on n-grams and all layers of a frozen encoder, the best averaged"
    ),
    "kernel-ridge-encoder": KernelRidge(
        "kernel-ridge on the upper layers alone, for languages it was not trained on",
        {"ridge.views": "encoder", "ridge.layers": "upper"},
    ),
    "kernel-ridge-text": KernelRidge("kernel-ridge without an encoder", {"ridge.views": "text"}),
}
