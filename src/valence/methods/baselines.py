"""Baselines without epochs: the largest class, n-grams, and a linear probe of an encoder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from valence.config.sections import (
    BUILT_IN_ENCODER,
    EncoderSpec,
    HeadSpec,
    LossSpec,
    RefitSpec,
    Section,
)
from valence.config.spec import MethodConfig
from valence.methods.base import Capabilities, FitContext, FitResult, Method, Sizes
from valence.methods.refit import choose_refit
from valence.methods.search_space import CLASS_WEIGHTS, PROBED

if TYPE_CHECKING:
    from scipy import sparse

    from valence.data.dataset import Split
    from valence.evaluation.task import Task

# Inverse regularization strengths tried on validation. Standardized features of an encoder need
# far stronger regularization than n-grams: C ≈ 0.003 does best on SST-5.
TEXT_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
FEATURE_STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
MAX_TERMS = 50_000  # of an analyzer


class FrozenEncoderSpec(Section):
    """A pretrained encoder that is not trained."""

    name: str = BUILT_IN_ENCODER
    """A built-in encoder, a hub name, a folder, or ``auto``: the built-in one for the texts."""
    max_length: Annotated[int, Field(ge=4)] = 128
    """Tokens; longer texts are truncated and counted."""
    prompt: str | None = None
    """In front of every text; None: the default of the encoder's folder, "": none."""

    def frozen(self) -> EncoderSpec:
        """The section as an :class:`EncoderSpec`."""
        return EncoderSpec(
            name=self.name, max_length=self.max_length, prompt=self.prompt, adaptation="frozen"
        )


class PoolingSpec(Section):
    """How token states become one vector."""

    pooling: str = "auto"
    """A name of ``POOLINGS``; ``auto``: that of the encoder's folder, else ``last`` where a token
    sees only those before it, else ``mean``."""


class RegressionLossSpec(Section):
    """The loss of a logistic regression."""

    class_weights: Literal["none", "balanced"] = "none"
    """``balanced``: N / (C · n_c)."""


class SelectionSpec(Section):
    """How the regularization strength is selected."""

    metric: str = "macro_f1"
    """The validation score that is maximized."""


class ProbeSelectionSpec(SelectionSpec):
    """How the regularization strength of a probe is selected."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"device", "cache"})

    cache: Literal["auto", "off"] = "auto"
    """Whether pooled features are cached on disk. The result is the same."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class MajorityConfig(MethodConfig):
    """The majority baseline has no setting."""


class TfidfConfig(MethodConfig):
    """Settings of the regression on n-grams."""

    loss: RegressionLossSpec = RegressionLossSpec()
    train: SelectionSpec = SelectionSpec()


class ProbeConfig(MethodConfig):
    """Settings of the regression on an encoder's features."""

    encoder: FrozenEncoderSpec = FrozenEncoderSpec()
    head: PoolingSpec = PoolingSpec()
    loss: RegressionLossSpec = RegressionLossSpec()
    train: ProbeSelectionSpec = ProbeSelectionSpec()
    refit: RefitSpec = RefitSpec()


class Majority(Method[MajorityConfig]):
    """Always the most frequent class."""

    Config = MajorityConfig
    family = "baseline"

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Count the classes."""
        from valence.models.baselines import MajorityModel

        return FitResult(MajorityModel(context.task, context.provenance))


class TfidfRegression(Method[TfidfConfig]):
    """Logistic regression on TF-IDF of word and letter n-grams."""

    Config = TfidfConfig
    family = "baseline"
    capabilities = Capabilities(weighs_rows=True)

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Fit the regression; its strength is selected on validation."""
        from valence.models.baselines import TfidfModel
        from valence.models.ngrams import Ngrams

        config = self.config(context.spec)
        ngrams = Ngrams.fit(train.texts, max_terms=MAX_TERMS)
        rows = [ngrams.transform(split.texts) for split in (train, validation)]
        chosen = _regression(
            (rows[0], rows[1]), (train.labels, validation.labels), context.task,
            strengths=TEXT_STRENGTHS, class_weights=config.loss.class_weights,
            metric=config.train.metric, row_weights=context.row_weights,
        )  # fmt: skip
        model = TfidfModel(context.task, context.provenance, ngrams, chosen.weight, chosen.bias)
        return FitResult(model, notes=(chosen.note,))


class LinearProbe(Method[ProbeConfig]):
    """Logistic regression on the pooled features of a frozen encoder (Alain & Bengio 2016)."""

    Config = ProbeConfig
    family = "baseline"
    capabilities = Capabilities(weighs_rows=True)

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Fit the regression on standardized features; its strength is selected on validation."""
        import torch

        from valence.data.examples import Examples
        from valence.distributed.device import Hardware
        from valence.models.build import build_model
        from valence.models.classifier import NetworkConfig

        config = self.config(context.spec)
        network = NetworkConfig(
            encoder=config.encoder.frozen(),
            head=HeadSpec(pooling=config.head.pooling),
            loss=LossSpec(class_weights=config.loss.class_weights),
        )
        model = build_model(network, context.task, context.provenance, default_pooling="mean")
        if config.train.cache == "auto":
            model.enable_feature_cache()
        model.prepare(Hardware(device=config.train.device))
        features, held_out = (
            model.predict(Examples(split.texts)).features for split in (train, validation)
        )
        mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
        rows = _ProbeRows(
            np.concatenate([(part - mean) / deviation for part in (features, held_out)]),
            np.concatenate([train.labels, validation.labels]), len(train), context,
            config.loss.class_weights,
        )  # fmt: skip
        chosen = _regression(
            (rows.own, rows.held_out), (train.labels, validation.labels), context.task,
            strengths=FEATURE_STRENGTHS, class_weights=config.loss.class_weights,
            metric=config.train.metric, row_weights=context.row_weights,
        )  # fmt: skip
        fitted = _probe(rows, chosen, config.refit)
        linear = model.classifier.head.get_submodule("linear")
        assert isinstance(linear, torch.nn.Linear)
        weight = fitted.weight / deviation
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(fitted.bias - weight @ mean))
        model.classifier.eval()
        return FitResult(
            model, notes=(*fitted.notes, *model.notes), out_of_fold=fitted.own,
            held_out=fitted.held_out,
        )  # fmt: skip

    def cost(self, config: ProbeConfig, sizes: Sizes) -> float:
        """Every text is scored once."""
        return float(sum(sizes))

    def content(self, config: ProbeConfig) -> tuple[str, ...]:
        """The encoder's files."""
        from valence.models.built_in import encoder_content
        from valence.models.reading import folder_choices

        name, prompt, pooling = config.encoder.name, config.encoder.prompt, config.head.pooling
        return (encoder_content(name), *folder_choices(name, prompt, pooling, default="mean"))


@dataclass(frozen=True)
class _Regression:
    """A regression with the strength that did best on validation."""

    weight: np.ndarray
    bias: np.ndarray
    strength: float

    @property
    def note(self) -> str:
        return f"regularization strength C={self.strength:g} chosen on validation"


def _regression(
    rows: tuple[np.ndarray | sparse.csr_matrix, np.ndarray | sparse.csr_matrix],
    labels: tuple[np.ndarray, np.ndarray],
    task: Task,
    *,
    strengths: Sequence[float],
    class_weights: str,
    metric: str,
    row_weights: np.ndarray | None,
) -> _Regression:
    """Weight (C, D) and bias (C,) of the strength that does best on validation."""
    best: tuple[float, _Regression] | None = None
    for strength in strengths:
        weight, bias = _fit(
            rows[0], labels[0], len(task.classes), strength, class_weights, row_weights=row_weights
        )
        scores = task.scores(rows[1] @ weight.T + bias, labels[1])
        value = task.chosen_score(scores, metric)
        if best is None or value > best[0]:
            best = (value, _Regression(weight, bias, strength))
    assert best is not None
    return best[1]


@dataclass(frozen=True)
class _ProbeRows:
    """Standardized features of training rows, then validation rows.

    Attributes:
        whole: (N + M, D).
        labels: (N + M,).
        count: N.
        context: Of the fit.
        class_weights: The setting.
    """

    whole: np.ndarray
    labels: np.ndarray
    count: int
    context: FitContext
    class_weights: str

    @property
    def own(self) -> np.ndarray:
        return self.whole[: self.count]

    @property
    def held_out(self) -> np.ndarray:
        return self.whole[self.count :]

    def fit(self, strength: float, part: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight (C, D) and bias (C,) of a regression on some of the rows."""
        weights = self.context.row_weights
        if weights is not None:
            weights = np.concatenate([weights, np.ones(len(self.whole) - self.count)])[part]
        return _fit(
            self.whole[part], self.labels[part], len(self.context.task.classes), strength,
            self.class_weights, row_weights=weights,
        )  # fmt: skip

    def out_of_fold(self, strength: float, count: int) -> np.ndarray:
        """(count, C) logits of the first rows by regressions that were fitted without them."""
        from valence.training.ridge_members import FOLDS, stratified_folds

        folds = stratified_folds(self.labels[:count], self.context.spec.seed)
        logits = np.empty((count, len(self.context.task.classes)), dtype=np.float32)
        for number in range(FOLDS):
            left = np.flatnonzero(folds == number)
            weight, bias = self.fit(strength, np.flatnonzero(folds != number))
            logits[left] = self.whole[left] @ weight.T + bias
        return logits


@dataclass(frozen=True)
class _Probe:
    """A probe and its logits of rows by regressions fitted without them.

    Attributes:
        weight, bias: (C, D) and (C,).
        notes: Lines for the user.
        own: (N, C), of the training rows.
        held_out: (M, C), of the validation rows; None where it was not fitted with them.
    """

    weight: np.ndarray
    bias: np.ndarray
    notes: tuple[str, ...]
    own: np.ndarray
    held_out: np.ndarray | None = None


def _probe(rows: _ProbeRows, chosen: _Regression, refit: RefitSpec) -> _Probe:
    """The chosen regression, or the one on training and validation rows where that is taken."""
    weight, bias = chosen.weight, chosen.bias
    if refit.when == "never":
        own = rows.out_of_fold(chosen.strength, rows.count)
        return _Probe(weight, bias, (chosen.note,), own)
    whole = rows.out_of_fold(chosen.strength, len(rows.whole))
    labels = rows.labels[rows.count :]
    shares = np.bincount(labels, minlength=len(bias)) / max(1, len(labels))
    choice = choose_refit(
        refit, rows.held_out @ weight.T + bias, whole[rows.count :], labels, shares
    )
    notes = (chosen.note, choice.note)
    if not choice.is_taken:
        return _Probe(weight, bias, notes, rows.out_of_fold(chosen.strength, rows.count))
    weight, bias = rows.fit(chosen.strength, slice(None))
    return _Probe(weight, bias, notes, whole[: rows.count], whole[rows.count :])


def _fit(
    rows: np.ndarray | sparse.csr_matrix, labels: Sequence[int] | np.ndarray, class_count: int,
    strength: float, class_weights: str, *, row_weights: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weights = "balanced" if class_weights == "balanced" else None
    regression = LogisticRegression(C=strength, class_weight=weights, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="The number of unique classes")  # rare ones
        regression.fit(rows, labels, sample_weight=row_weights)
    weight = np.zeros((class_count, rows.shape[1]), dtype=np.float32)
    # A class without training rows gets a bias that no text overcomes.
    bias = np.full(class_count, -1e4, dtype=np.float32)
    if len(regression.classes_) == 2:  # scikit-learn has one row of coefficients for both classes
        weight[regression.classes_[1]] = regression.coef_[0]
        bias[regression.classes_] = (0.0, float(regression.intercept_[0]))
    else:
        weight[regression.classes_] = regression.coef_
        bias[regression.classes_] = regression.intercept_
    return weight, bias


ENTRIES: dict[str, Method[MajorityConfig] | Method[TfidfConfig] | Method[ProbeConfig]] = {
    "majority": Majority("always the most frequent class"),
    "tfidf-lr": TfidfRegression(
        "word and letter n-grams, logistic regression",
        {"loss.class_weights": "balanced"},
        space=CLASS_WEIGHTS,
    ),
    "linear-probe": LinearProbe(
        "logistic regression on frozen encoder features",
        {"loss.class_weights": "balanced"},
        paper="Alain & Bengio 2016, arXiv 1610.01644",
        space=PROBED,
    ),
}
