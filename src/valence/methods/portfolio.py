"""The search of ``auto``: candidates, how they are judged, and which of them are averaged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from valence.config.sections import AUTO_ENCODER, PortfolioSpec, RefitSpec
from valence.config.spec import MethodConfig, RunSpec
from valence.errors import SpecError
from valence.evaluation.classification import expected_macro_f1
from valence.evaluation.task import softmax
from valence.methods.base import FitContext, FitResult
from valence.methods.baselines import FrozenEncoderSpec
from valence.methods.kernel_ridge import RidgeTrainSpec

if TYPE_CHECKING:
    import pandas as pd

    from valence.data.dataset import Split
    from valence.models.base import Model

PORTFOLIO_FILE = "portfolio.csv"


class AutoEncoderSpec(FrozenEncoderSpec):
    """The encoder; ``auto`` tries the built-in ones that can read the texts."""

    name: str = AUTO_ENCODER
    """An encoder, or ``auto``: the built-in ones that can read the texts."""


class AutoRefitSpec(RefitSpec):
    """Whether members without training in the encoder are fitted on validation rows too."""

    when: Literal["never", "auto", "always"] = "auto"
    """``auto``: unless the out-of-fold macro-F1 of the validation rows loses more than its
    standard error."""


class AutoConfig(MethodConfig):
    """Settings of ``auto``."""

    encoder: AutoEncoderSpec = AutoEncoderSpec()
    portfolio: PortfolioSpec = PortfolioSpec()
    refit: AutoRefitSpec = AutoRefitSpec()
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
class PortfolioSearch:
    """The state of one fit of ``auto``: what was tried, and what the mean is made of.

    Attributes:
        train, validation: The rows.
        context: What the fit was given.
        config: Settings of ``auto``.
        began: When it began, in seconds of a monotonic clock.
        tried: Every candidate so far.
        members: What the mean is made of.
        planned: Names of all that is to be tried.
        notes: Lines for the user.
    """

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
        held_out = model.predict(self.validation.examples(self.context.group)).logits
        return FitResult(
            model, notes=notes, tables={PORTFOLIO_FILE: self.table()}, held_out=held_out
        )

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
