"""Refitting on training and validation rows, once everything was chosen on the latter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valence.config.sections import RefitSpec
from valence.evaluation.classification import expected_macro_f1
from valence.evaluation.gains import gain_error


@dataclass(frozen=True)
class RefitChoice:
    """Whether a refit model is taken, and why.

    Attributes:
        is_taken: Whether it is.
        note: A line for the user.
    """

    is_taken: bool
    note: str


def choose_refit(
    refit: RefitSpec, before: np.ndarray, after: np.ndarray, labels: np.ndarray, shares: np.ndarray
) -> RefitChoice:
    """Compare a model of the training rows with one of training and validation rows.

    More rows help more often than not, and what was chosen on the validation rows flatters the
    model that has not seen them: the other one is taken unless it is clearly worse.

    Args:
        refit: What was set; ``never`` reads as ``auto``.
        before: (M, C) logits of the validation rows by the model of the training rows.
        after: (M, C) out-of-fold logits of the same rows by the model of all of them.
        labels: (M,) their labels.
        shares: (C,) class shares for which models are selected.
    """
    ours, theirs = (expected_macro_f1(logits, labels, shares) for logits in (after, before))
    error = gain_error(before, after, labels, shares)
    is_taken = refit.when == "always" or ours >= theirs - error
    done = "refit on training and validation rows" if is_taken else "not refit"
    return RefitChoice(
        is_taken,
        f"{done}: macro-F1 of the validation rows is {ours:.3f} out of fold with them and "
        f"{theirs:.3f} without (standard error of the difference {error:.3f})",
    )
