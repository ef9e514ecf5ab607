"""Fitting a :class:`Calibration` on rows that the training has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from valence.data.sampling import stratified_split
from valence.errors import DataError, SpecError
from valence.evaluation.calibration import calibration_scores, fit_scale
from valence.evaluation.classification import (
    ClassCounts,
    classification_scores,
    confusion,
    mean_defined,
)
from valence.inference.calibration import Calibration, log_prior, no_calibration, probabilities
from valence.models.config_file import ModelConfig

Adjust = Literal["none", "prior", "classes"]
ADJUSTMENTS = ("none", "prior", "classes")
MIN_ROWS = 20  # of a class: with fewer, what is fitted for it is chance
FEWEST_ROWS = 10  # in all: a single temperature cannot be told from chance below
STRENGTHS = np.linspace(0, 2, 21)  # of the adjustment by the log prior, as in training
SHIFTS = np.linspace(-2, 2, 33)
ROUNDS = 3
SEED = 45


@dataclass(frozen=True)
class CalibrationFit:
    """What was fitted, and what it changes on rows it was not fitted on.

    Attributes:
        calibration: Fitted on all rows.
        before, after: Scores without it, and with it fitted on the other half of the rows.
        probs_before, probs_after: (N, C) the probabilities behind these scores.
        answered: Fraction of the rows that get a label where the model may abstain; else None.
        answered_error: Fraction of these whose label is wrong.
    """

    calibration: Calibration
    before: dict[str, float | None]
    after: dict[str, float | None]
    probs_before: np.ndarray
    probs_after: np.ndarray
    answered: float | None = None
    answered_error: float | None = None


def fit(
    logits: np.ndarray,
    labels: np.ndarray,
    config: ModelConfig,
    *,
    adjust: Adjust = "none",
    abstain: float | None = None,
    min_rows: int = MIN_ROWS,
) -> CalibrationFit:
    """Fit temperature and class biases, a shift of decisions, and limits for abstaining.

    Args:
        logits: (N, C) of rows the model was not trained on.
        labels: (N,) their ids.
        config: Of the model.
        adjust: ``none`` leaves probabilities calibrated; ``prior`` subtracts τ times the log
            of the training priors (Menon et al. 2021, eq. 9); ``classes`` gives every class
            a threshold. Both are chosen for macro-F1 and move the probabilities.
        abstain: Largest fraction of a class's rows that may get a wrong label.
        min_rows: Rows of a class below which nothing is fitted for classes.

    Raises:
        DataError: if there are fewer than 10 rows (or ``min_rows``), all are of one class, or the
            limits would leave every text without a label.
        SpecError: if a setting cannot be.
    """
    if adjust not in ADJUSTMENTS:
        raise SpecError(f"Adjustment {adjust!r} is unknown; use {', '.join(ADJUSTMENTS)}")
    if abstain is not None and not 0 < abstain < 1:
        raise SpecError(f"--abstain {abstain:g} is not a fraction; write 0.1 for 10% of a class")
    _refuse_few(labels, config.classes, min_rows)
    logits = logits.astype(np.float64)
    calibration = _fit_all(logits, labels, config, adjust, min_rows)
    halves = _halves(labels)
    plain = no_calibration(config)
    before = probabilities(plain, logits)
    after = before.copy()
    for own, other in (halves, halves[::-1]):
        part = _fit_all(logits[own], labels[own], config, adjust, min_rows // 2)
        after[other] = probabilities(part, logits[other])
    answered = error = None
    if abstain is not None:
        calibration, answered, error = _with_limits(calibration, logits, labels, abstain, halves)
    return CalibrationFit(
        calibration, _scores(config, labels, before), _scores(config, labels, after), before, after,
        answered, error,
    )  # fmt: skip


def _refuse_few(labels: np.ndarray, classes: Sequence[str], min_rows: int) -> None:
    """Refuse rows that nothing can be learned from, before anything is written."""
    if not len(labels):
        raise DataError("There are no rows to calibrate on; add some with --data")
    needed = min(min_rows, FEWEST_ROWS)
    if len(labels) < needed:
        raise DataError(
            f"{len(labels)} rows are too few to calibrate on ({needed} are needed); add "
            "more with --data, or accept fewer with --min-rows"
        )
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(
            f"All {len(labels)} rows to calibrate on have the class {classes[present[0]]!r}; give "
            "rows of every class"
        )


def _scores(config: ModelConfig, labels: np.ndarray, probs: np.ndarray) -> dict[str, float | None]:
    scores = classification_scores(
        labels, np.log(np.maximum(probs, 1e-300)), classes=config.classes,
        train_counts=config.train_counts, tail=config.tail,
    )  # fmt: skip
    shown = ("macro_f1", "tail_f1", "worst_f1", "accuracy")
    return {name: scores[name] for name in shown} | calibration_scores(labels, probs)


def _halves(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    one, two = stratified_split(labels, 0.5, seed=SEED)
    return np.asarray(one), np.asarray(two)


def _fit_all(
    logits: np.ndarray, labels: np.ndarray, config: ModelConfig, adjust: Adjust, min_rows: int
) -> Calibration:
    counts = np.bincount(labels, minlength=len(config.classes))
    plain = no_calibration(config)
    notes = []
    thin = [config.classes[c] for c in np.flatnonzero(counts < min_rows)]
    if thin:
        notes.append(
            f"{', '.join(map(repr, thin[:5]))} have fewer than {min_rows} rows: one temperature "
            "for all classes, no bias or threshold per class"
        )
    temperature, bias = fit_scale(logits, labels, with_bias=not thin)
    base = logits / temperature + bias
    shift = np.zeros(len(counts))
    if adjust != "none" and not thin:
        shift = (
            _prior_shift(base, labels, config) if adjust == "prior" else _class_shift(base, labels)
        )
        if not shift.any():
            notes.append("decisions were not shifted: no shift improves held-out rows")
    prior = counts / counts.sum()
    return plain.model_copy(
        update={"temperature": temperature, "bias": _floats(bias), "shift": _floats(shift),
                "prior": _floats(prior), "rows": len(labels), "notes": tuple(notes)}
    )  # fmt: skip


def _macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    counts = confusion(labels, logits.argmax(axis=1), logits.shape[1])
    return float(mean_defined(ClassCounts.of(counts).f1))


def _prior_shift(base: np.ndarray, labels: np.ndarray, config: ModelConfig) -> np.ndarray:
    prior = log_prior(config.train_counts)
    # Of equal strengths the first, which changes least.
    best = max(STRENGTHS, key=lambda tau: _macro_f1(base - tau * prior, labels))
    shift: np.ndarray = -best * (prior - prior.mean())
    return shift


def _class_shift(base: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Shifts of most macro-F1; none where those of one half do not help the other half."""
    halves = _halves(labels)
    gain = 0.0
    for own, other in (halves, halves[::-1]):
        moved = base[other] + _coordinate_ascent(base[own], labels[own])
        gain += _macro_f1(moved, labels[other]) - _macro_f1(base[other], labels[other])
    return _coordinate_ascent(base, labels) if gain > 0 else np.zeros(base.shape[1])


def _coordinate_ascent(base: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Coordinate ascent: one class's shift at a time, from none, the smallest change first."""
    shift = np.zeros(base.shape[1])
    values = sorted(SHIFTS, key=abs)
    for _ in range(ROUNDS):
        for c in range(base.shape[1]):
            tried = [_macro_f1(base + _with(shift, c, v), labels) for v in (shift[c], *values)]
            best = int(np.argmax(tried))
            shift[c] = (shift[c], *values)[best]
    return shift


def _with(shift: np.ndarray, place: int, value: float) -> np.ndarray:
    changed = shift.copy()
    changed[place] = value
    return changed


def _with_limits(
    calibration: Calibration, logits: np.ndarray, labels: np.ndarray, level: float,
    halves: tuple[np.ndarray, np.ndarray],
) -> tuple[Calibration, float, float]:  # fmt: skip
    """Limits per class, the fraction of the rows that get a label, and of these that are wrong.

    Temperature and biases are fitted anew on one half, so that the limits are set on rows
    which they have not seen, as the guarantee requires.
    """
    counts = np.bincount(labels[halves[0]], minlength=len(calibration.classes))
    scale, bias = calibration.temperature, np.asarray(calibration.bias)
    if scale != 1.0 or bias.any():
        with_bias = bool(bias.any()) and bool((counts > 0).all())
        scale, bias = fit_scale(logits[halves[0]], labels[halves[0]], with_bias=with_bias)
    own = calibration.model_copy(update={"temperature": scale, "bias": _floats(bias)})
    plain = own.model_copy(update={"shift": (0.0,) * len(own.classes), "target": None})
    held = halves[1]
    probs = probabilities(plain, logits[held])
    limits = [
        conformal_limit(1 - probs[labels[held] == c, c], level) for c in range(len(own.classes))
    ]
    free = [own.classes[c] for c, limit in enumerate(limits) if limit is None]
    notes = own.notes
    if free:
        required = int(np.ceil(1 / level)) - 1
        names = ", ".join(map(repr, free[:5]))
        notes = (
            *notes,
            f"{names}: fewer than {required} rows in the half that sets the limits, so it is "
            "never ruled out and few texts get a label",
        )
    done = own.model_copy(update={"level": level, "limits": tuple(limits), "notes": notes})
    given = np.array(done.labels(probabilities(done, logits)))
    answered = float((given != "").mean())
    if len(free) > 1 or not answered:  # two that are never ruled out are always two answers
        rows = int(np.ceil(1 / level)) - 1
        raise DataError(
            f"With these {len(labels)} rows, --abstain {level:g} would leave every text without a "
            f"label; use about {2 * rows} rows per class, or a larger fraction"
        )
    wrong = given != np.array(own.classes)[labels]
    return done, answered, float(wrong[given != ""].mean())


def conformal_limit(scores: np.ndarray, level: float) -> float | None:
    """The ⌈(n + 1)(1 − level)⌉-th smallest of n scores; None where n is too small for one.

    Args:
        scores: (n,) 1 − probability of the true class, of rows of one class.
        level: Fraction of new rows whose score may be larger.
    """
    place = int(np.ceil((len(scores) + 1) * (1 - level) - 1e-9))
    return None if place > len(scores) else float(np.sort(scores)[place - 1])


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(x) for x in values)
