"""The search of ``auto``: candidates, how they are judged, and which of them are averaged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from valence.config.duration import duration
from valence.config.sections import AUTO_ENCODER, PortfolioSpec, RefitSpec
from valence.config.spec import MethodConfig, RunSpec
from valence.errors import SpecError
from valence.evaluation.classification import expected_macro_f1
from valence.evaluation.gains import log_loss_gain
from valence.evaluation.logit_pool import pool_shares, pool_weights
from valence.methods.base import FitContext, FitResult
from valence.methods.baselines import FrozenEncoderSpec
from valence.methods.kernel_ridge import RidgeTrainSpec

if TYPE_CHECKING:
    import pandas as pd

    from valence.data.dataset import Split
    from valence.models.base import Model

PORTFOLIO_FILE = "portfolio.csv"
MIN_SHARE = 0.1
"""Of the mean; a model that contributes less is left out, as it costs more than it adds."""


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
        encoder: The encoder; empty for n-grams alone.
        model: The model.
        own: (N, C) out-of-fold logits of the training rows; None where the method has none.
        held_out: (M, C) logits of the validation rows.
        origin: The run it was taken from; empty where it was fitted here.
        seconds: What fitting it took.
    """

    name: str
    encoder: str
    model: Model
    own: np.ndarray | None
    held_out: np.ndarray
    origin: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class LogitPool:
    """Candidates whose logits are added.

    Attributes:
        members: The candidates, the largest share first.
        weights: (K,) of their logits.
        shares: (K,) what each contributes to the spread of the sum.
    """

    members: tuple[Candidate, ...]
    weights: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, members: Sequence[Candidate], weights: np.ndarray) -> LogitPool:
        """The pool of members with weights."""
        shares = pool_shares(weights, [member.held_out for member in members])
        order = np.argsort(-shares, kind="stable")
        return cls(
            tuple(members[i] for i in order), tuple(float(weights[i]) for i in order),
            tuple(float(shares[i]) for i in order),
        )  # fmt: skip

    @property
    def held_out(self) -> np.ndarray:
        """(M, C) sum of the logits of the validation rows."""
        return _sum(self.weights, [member.held_out for member in self.members])

    @property
    def name(self) -> str:
        """For people."""
        if len(self.members) == 1:
            return self.members[0].name
        parts = zip(self.members, self.shares, strict=True)
        return " + ".join(f"{share:.0%} {member.name}" for member, share in parts)


@dataclass(frozen=True)
class Joining:
    """What a model adds to a mean, on rows that neither has seen.

    Attributes:
        weights: Of the logits of the mean and of the model, with the least log loss.
        share: What the model contributes to the spread of the sum.
        gain: How much lower the log loss is with the model.
        error: The standard error of it.
        added: How much higher macro-F1 is.
    """

    weights: tuple[float, float]
    share: float
    gain: float
    error: float
    added: float

    def helps(self, min_gain: float) -> bool:
        """Whether the model contributes enough to be worth its time, and makes the mean better.

        The log loss falls by more than its error, and macro-F1 rises by a minimum.
        """
        return self.share >= MIN_SHARE and self.gain > self.error and self.added >= min_gain


def joining(
    before: np.ndarray, candidate: np.ndarray, labels: np.ndarray, row_weights: np.ndarray,
    shares: np.ndarray,
) -> Joining:  # fmt: skip
    """What a model adds to a mean.

    Args:
        before: (M, C) logits of the mean.
        candidate: (M, C) logits of the model.
        labels: (M,) true ids.
        row_weights: (M,) what each row counts in the log loss.
        shares: (C,) class shares for macro-F1.
    """
    (scale,) = pool_weights([before], labels, row_weights)
    weights = pool_weights([before, candidate], labels, row_weights)
    old, new = (float(w) for w in weights)
    after = old * before + new * candidate
    share = float(pool_shares(weights, [before, candidate])[1])
    gain, error = log_loss_gain(scale * before, after, labels, row_weights)
    low, high = (expected_macro_f1(one, labels, shares) for one in (before, after))
    return Joining((old, new), share, gain, error, high - low)


def best_first(
    mean: np.ndarray, candidates: Sequence[np.ndarray], labels: np.ndarray,
    row_weights: np.ndarray, shares: np.ndarray, min_gain: float,
) -> list[tuple[int, Joining]]:  # fmt: skip
    """Which models join a mean, and how: the one that lowers the log loss most first.

    Args:
        mean: (M, C) logits of the mean.
        candidates: (M, C) logits of each model.
        labels: (M,) true ids.
        row_weights: (M,) what each row counts in the log loss.
        shares: (C,) class shares for macro-F1.
        min_gain: Least rise of macro-F1.

    Returns:
        Places of the models that join, in their order.
    """
    waiting, steps = list(range(len(candidates))), []
    while waiting:
        options = {i: joining(mean, candidates[i], labels, row_weights, shares) for i in waiting}
        helpful = [i for i in waiting if options[i].helps(min_gain)]
        if not helpful:
            break
        best = max(helpful, key=lambda i: options[i].gain)
        steps.append((best, options[best]))
        old, new = options[best].weights
        mean = old * mean + new * candidates[best]
        waiting.remove(best)
    return steps


@dataclass
class PortfolioSearch:
    """The state of one fit of ``auto``: what was tried, and what the mean is made of.

    Attributes:
        train, validation: The rows.
        context: What the fit was given.
        config: Settings of ``auto``.
        began: When it began, in seconds of a monotonic clock.
        tried: Every candidate so far.
        frozen: The mean of the candidates with out-of-fold scores; None before :meth:`start`.
        pool: What the mean is made of; None before the first candidate.
        planned: Names of all that is to be tried.
        step: Which of these is tried now, and how it is shown.
        notes: Lines for the user.
    """

    train: Split
    validation: Split
    context: FitContext
    config: AutoConfig
    began: float = field(default_factory=time.monotonic)
    tried: list[Candidate] = field(default_factory=list)
    frozen: LogitPool | None = None
    pool: LogitPool | None = None
    planned: list[str] = field(default_factory=list)
    step: tuple[int, str] = (0, "")
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

    def begin(self, planned: str, shown: str = "") -> None:
        """Say what is tried next.

        Args:
            planned: Its name in ``planned``; what was planned before it counts as done.
            shown: How it is shown; by default the same.
        """
        self.step = self.planned.index(planned), shown or planned
        self._show(0.0, "")

    def _show(self, done: float, message: str) -> None:
        number, name = self.step
        count = len(self.planned)
        words = f"step {number + 1} of {count}, {name}"
        shown = ": ".join(filter(None, (words, message)))
        self.context.report_progress((number + done) / count, shown)

    def try_method(self, name: str, encoder: str, settings: dict[str, Any]) -> Candidate:
        """Fit a method of the portfolio, on an encoder unless its name is empty.

        Raises:
            ValenceError: as the method does.
        """
        chosen = {"encoder.name": encoder} if encoder else {}
        spec = self._spec(name, {**chosen, **settings})
        began = time.monotonic()
        assert self.context.fit_base is not None
        fitted = self.context.fit_base(spec, self._show)
        held = fitted.model.predict(self.validation.examples(self.context.group)).logits
        own = fitted.out_of_fold
        candidate = Candidate(
            f"{name} ({encoder})" if encoder else name, encoder, fitted.model, own, held,
            fitted.origin.removeprefix("run "),
            time.monotonic() - began if fitted.train_seconds is None else fitted.train_seconds,
        )  # fmt: skip
        self.tried.append(candidate)
        return candidate

    def table(self) -> pd.DataFrame:
        """One row per candidate: its share of the mean, its score, its run, seconds."""
        import pandas as pd

        shares: dict[str, float] = {}
        if self.pool is not None:
            names = (member.name for member in self.pool.members)
            shares = dict(zip(names, self.pool.shares, strict=True))
        return pd.DataFrame([
            {
                "model": one.name, "share": round(shares.get(one.name, 0.0), 4),
                "expected_macro_f1": self.score(one), "out_of_fold": one.own is not None,
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

    def score(self, candidate: Candidate) -> float:
        """Macro-F1 to be expected, on validation rows and out-of-fold training rows."""
        parts, labels = [candidate.held_out], [self.validation.labels]
        if candidate.own is not None:
            parts.append(candidate.own)
            labels.append(self.train.labels)
        return expected_macro_f1(np.concatenate(parts), np.concatenate(labels), self.shares)

    def start(self) -> None:
        """Make the mean of all candidates with out-of-fold scores, less what contributes little."""
        members = [one for one in self.tried if one.own is not None]
        while members:
            weights = self._weights(members)
            shares = pool_shares(weights, [one.held_out for one in members])
            weak = int(shares.argmin())
            if len(members) == 1 or shares[weak] >= MIN_SHARE:
                self.frozen = self.pool = LogitPool.of(members, weights)
                return
            del members[weak]

    def _weights(self, members: Sequence[Candidate]) -> np.ndarray:
        """(K,) weights of least log loss on all rows, each class at its share."""
        labels = np.concatenate([self.train.labels, self.validation.labels])
        logits = [np.concatenate([one.own, one.held_out]) for one in members if one.own is not None]
        return pool_weights(logits, labels, self._row_weights(labels))

    def _row_weights(self, labels: np.ndarray) -> np.ndarray:
        """(N,) what rows count, so that every class has its share."""
        counts = np.bincount(labels, minlength=len(self.shares))
        weights: np.ndarray = (self.shares / np.maximum(counts, 1))[labels]
        return weights

    def join(self) -> None:
        """Take candidates without out-of-fold scores into the mean, as long as one helps.

        The one that lowers the log loss most comes first, in whatever order they were trained. The
        mean so far counts as one model; the weights of both, and what they gain, are those of the
        validation rows. The log loss must fall by more than its standard error, and macro-F1 rise
        by ``portfolio.min_gain``.
        """
        assert self.frozen is not None
        self.pool = self.frozen
        waiting = [one for one in self.tried if one.own is None]
        labels = self.validation.labels
        steps = best_first(
            self.frozen.held_out, [one.held_out for one in waiting], labels,
            self._row_weights(labels), self.shares, self.config.portfolio.min_gain,
        )  # fmt: skip
        for place, joined in steps:
            old, new = joined.weights
            weights = np.array([*(old * w for w in self.pool.weights), new])
            self.pool = LogitPool.of([*self.pool.members, waiting[place]], weights)

    @property
    def result(self) -> FitResult:
        """The mean of the members."""
        from valence.models.ensemble import average

        if self.pool is None:
            self.start()
        assert self.pool is not None
        members = [one.model for one in self.pool.members]
        model = average(self.context.task, self.context.provenance, members, self.pool.weights)
        notes = (f"mean of {self.pool.name}, of {len(self.tried)} tried", *self.notes)
        return FitResult(
            model, notes=notes, train_seconds=sum(one.seconds for one in self.tried),
            tables={PORTFOLIO_FILE: self.table()}, held_out=self.pool.held_out,
        )  # fmt: skip

    def note_skipped(self, name: str, expected: float) -> None:
        """Say what was not tried because it takes longer than the budget has left."""
        left = duration(max(0.0, self.seconds_left))
        were = "were" if " and " in name else "was"
        self.notes.append(
            f"{name} {were} not tried: it takes about {duration(expected)}, but {left} of the "
            "budget is left"
        )

    def note_stop(self) -> None:
        """Say what an interrupt left untried."""
        done = {name for one in self.tried for name in (one.name, one.name.partition(" ")[0])}
        skipped = [name for name in self.planned if name not in done]
        names = " and ".join(skipped) or "nothing"
        were = "were" if len(skipped) > 1 else "was"
        self.notes.append(
            f"stopped: {names} {were} not tried; run the same command again to resume"
        )


def _sum(weights: Sequence[float], logits: Sequence[np.ndarray]) -> np.ndarray:
    total: np.ndarray = np.tensordot(np.asarray(weights), np.stack(logits), 1)
    return total
