"""``kernel-ridge``: ridge regressions on n-grams and on all layers of a frozen encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from valence.config.sections import RefitSpec, RidgeSpec, Section
from valence.config.spec import MethodConfig
from valence.errors import SpecError
from valence.methods.base import Capabilities, FitContext, FitResult, Method, Sizes
from valence.methods.baselines import FrozenEncoderSpec
from valence.methods.refit import choose_refit

if TYPE_CHECKING:
    from scipy import sparse

    from valence.data.dataset import Split
    from valence.models.layer_features import LayerFeatures
    from valence.models.linear_views import LinearViewsModel
    from valence.models.ngrams import Ngrams
    from valence.training.ridge_members import Member, Recipe, RidgeProblem

MAX_TERMS = 100_000
"""Of each of the two analyzers."""
SHIFT_LIMIT = 0.2
"""Distance of the class shares of training and validation rows that is worth a note."""
CHUNK_ROWS = 4096
"""Rows of features that are copied at once."""
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
    refit: RefitSpec = RefitSpec()
    train: RidgeTrainSpec = RidgeTrainSpec()


@dataclass(frozen=True)
class _EncoderView:
    """Encoder features of training and validation rows, standardized on the former.

    Attributes:
        layers: Computes them.
        rows: (N + M, D), of mean squared length 1 on the training rows.
        mean, scale: (D,) what they were standardized by.
        start: The first column of a text's features that is read.
    """

    layers: LayerFeatures
    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    start: int


@dataclass(frozen=True)
class _TextView:
    """N-gram values of training and validation rows, divided by one number."""

    ngrams: Ngrams
    rows: sparse.csr_matrix
    scale: float


@dataclass(frozen=True)
class _Solution:
    """The mean of the best members, fitted on the first rows of the views.

    Attributes:
        mean: The mean.
        temperature: Of its logits.
        text, encoder: What it reads.
    """

    mean: Member
    temperature: float
    text: _TextView | None
    encoder: _EncoderView | None

    @property
    def own(self) -> np.ndarray:
        """(N, C) logits of the rows it was fitted on, by models fitted without them."""
        return (self.mean.own / self.temperature).astype(np.float32)

    @property
    def held_out(self) -> np.ndarray:
        """(M, C) logits of the other rows."""
        return (self.mean.held_out / self.temperature).astype(np.float32)


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
        config = self.config(context.spec)
        fitting = _Fitting(config, train, validation, context)
        encoder = _encode(config, train, validation, context) if fitting.reads_encoder else None
        context.report_progress(ENCODING_PART, "fitting ridge regressions")
        first = fitting.solve(encoder)
        notes = [f"members: {first.mean.name}", f"temperature {first.temperature:.2g}"]
        shift = _shift_note(config.ridge, train, validation, len(fitting.shares))
        prompt = "" if encoder is None else encoder.layers.note
        notes += [note for note in (shift, prompt) if note]
        chosen, own, held_out = first, first.own, None
        if config.refit.when != "never":
            second = fitting.solve(encoder, again=first.mean.recipes)
            after = second.own[len(train) :]
            choice = choose_refit(
                config.refit, first.held_out, after, validation.labels, fitting.shares
            )
            notes.append(choice.note)
            if choice.is_taken:
                chosen, own, held_out = second, second.own[: len(train)], after
        return FitResult(
            _model(chosen, context), notes=tuple(notes), out_of_fold=own, held_out=held_out
        )

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


@dataclass(frozen=True)
class _Fitting:
    """One fit: settings and rows."""

    config: KernelRidgeConfig
    train: Split
    validation: Split
    context: FitContext

    @property
    def reads_encoder(self) -> bool:
        return self.config.ridge.views != "text"

    @cached_property
    def shares(self) -> np.ndarray:
        return _shares(self.config.ridge, self.validation, self.context)

    def solve(self, encoder: _EncoderView | None, again: Sequence[Recipe] = ()) -> _Solution:
        """Fit members on the training rows and average the best.

        Args:
            encoder: Features of all rows.
            again: Recipes of the members to average, fitted on training and validation rows.
        """
        from valence.training.ridge_members import fit_members, mean_member, select_members

        count = len(self.train) + (len(self.validation) if again else 0)
        text = None
        if self.config.ridge.views != "encoder":
            text = _count_terms([*self.train.texts, *self.validation.texts], count)
        problem = self._problem(text, encoder, count)
        if again:
            by_recipe = {one.recipes: one for one in fit_members(problem, again)}
            best = [by_recipe[(recipe,)] for recipe in again]
        else:
            members = fit_members(problem)
            best = select_members(members, problem, count=self.config.ridge.members)
        mean = mean_member(best)
        return _Solution(mean, _temperature(mean, problem), text, encoder)

    def _problem(
        self, text: _TextView | None, encoder: _EncoderView | None, count: int
    ) -> RidgeProblem:
        """Members are fitted on the first rows of all and judged on the others too."""
        from valence.training.ridge_members import RidgeProblem, Views

        own, held = (
            Views(None if text is None else text.rows[part],
                  None if encoder is None else encoder.rows[part])
            for part in (slice(count), slice(count, None))
        )  # fmt: skip
        labels = np.concatenate([self.train.labels, self.validation.labels])
        weights = self.context.row_weights
        if weights is not None:
            weights = np.concatenate([weights, np.ones(len(self.validation))])[:count]
        return RidgeProblem(
            own, held, labels[:count], labels[count:], self.shares, self.context.spec.seed, weights
        )


def _encode(
    config: KernelRidgeConfig, train: Split, validation: Split, context: FitContext
) -> _EncoderView:
    from valence.models.layer_features import LayerFeatures

    layers = LayerFeatures(config.encoder.frozen(), cached=config.train.cache == "auto")
    layers.to(config.train.device)

    def progress(done: int, total: int) -> None:
        context.report_progress(ENCODING_PART * done / total, f"encoding {done} of {total} texts")

    whole, _ = layers.vectors([*train.texts, *validation.texts], progress)
    start = layers.start_of(config.ridge.layers)
    features = whole[:, start:] if start else whole
    own = features[: len(train)]
    mean = own.mean(axis=0)
    deviation = _deviation(own, mean) + 1e-6
    features -= mean
    features /= deviation
    length = float(np.sqrt(np.einsum("nd,nd->n", own, own).mean()))
    features /= max(length, 1e-9)
    return _EncoderView(layers, features, mean, deviation * max(length, 1e-9), start)


def _deviation(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(D,) float32 standard deviations of rows (N, D), a few rows at a time."""
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), CHUNK_ROWS):
        total += ((rows[start : start + CHUNK_ROWS] - mean) ** 2).sum(axis=0, dtype=np.float64)
    return np.sqrt(total / len(rows)).astype(np.float32)


def _count_terms(texts: Sequence[str], count: int) -> _TextView:
    """N-grams of the first ``count`` texts, counted in all."""
    from valence.models.ngrams import SPACED_LONG, Ngrams

    ngrams = Ngrams.fit(texts[:count], SPACED_LONG, max_terms=MAX_TERMS)
    rows = ngrams.transform(texts)
    own = rows[:count]
    scale = max(1e-9, float(np.sqrt(own.multiply(own).sum() / count)))
    rows.data /= scale
    return _TextView(ngrams, rows, scale)


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
            f"ridge.target_prior must have a fraction for every class ({', '.join(classes)}), with "
            "a sum of 1"
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


def _model(solution: _Solution, context: FitContext) -> LinearViewsModel:
    """The mean as one model on features as they are: scales and temperature go into weights."""
    from valence.models.linear_views import LinearViewsModel

    text, encoder, temperature = solution.text, solution.encoder, solution.temperature
    bias = solution.mean.bias / temperature
    terms, features = solution.mean.weights()
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
        f"class frequencies of training and validation rows differ by {distance:.0%}; members were "
        "selected for those of validation; set the ones you expect in use with ridge.target_prior"
    )


ENTRIES: dict[str, Method[KernelRidgeConfig]] = {
    "kernel-ridge": KernelRidge(
        "average of ridge regressions on n-grams and all layers of a frozen encoder"
    ),
    "kernel-ridge-encoder": KernelRidge(
        "kernel-ridge on the upper layers only, for unseen languages",
        {"ridge.views": "encoder", "ridge.layers": "upper"},
    ),
    "kernel-ridge-text": KernelRidge("kernel-ridge without an encoder", {"ridge.views": "text"}),
}
