"""Members of ``kernel-ridge``: ridge regressions on two views of a text, and their selection.

A member is one mix of the two kernels with one strength. Its leave-one-out scores of the training
rows and its scores of the validation rows decide whether it is selected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from valence.evaluation.classification import joint_score
from valence.evaluation.task import softmax
from valence.training.ridge_path import (
    balanced_weights,
    dual_path,
    one_vs_rest,
    primal_path,
    sparse_ridge,
)

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
TEXT_STRENGTHS = (1.0, 3.0, 10.0)
"""Of the n-gram members above ``DUAL_ROWS``."""
MIXES = (0.15, 0.4, 0.7)
"""Fractions of the n-gram kernel in the mixed kernels."""
DUAL_ROWS = 3000
"""Training rows up to which kernels are decomposed, at a cost that grows with their cube."""
FOLDS = 5
SHARPNESS = 2.5
"""Logit of a score of one standard deviation; calibration refines it."""

Weights = tuple[np.ndarray | None, np.ndarray | None]
"""(D₁, C) weights of n-grams and (D₂, C) of encoder features; None for a view that is not read."""


@dataclass(frozen=True)
class Views:
    """The rows of a split under both views; a view that is not used is None.

    Attributes:
        text: (N, D₁) n-gram values of mean squared length 1.
        encoder: (N, D₂) standardized encoder features of mean squared length 1.
    """

    text: sparse.csr_matrix | None
    encoder: np.ndarray | None


@dataclass(frozen=True)
class RidgeProblem:
    """What members are fitted on.

    Attributes:
        train, validation: The rows.
        labels: (N,) ids of the training rows.
        held_labels: (M,) ids of the validation rows.
        shares: (C,) class shares for which members are selected.
        seed: Of the folds.
        row_weights: (N,) positive weights of the training rows; None where all count alike.
    """

    train: Views
    validation: Views
    labels: np.ndarray
    held_labels: np.ndarray
    shares: np.ndarray
    seed: int
    row_weights: np.ndarray | None = None

    @property
    def targets(self) -> np.ndarray:
        """(N, C)."""
        return one_vs_rest(self.labels, len(self.shares))

    @property
    def weights(self) -> np.ndarray:
        """(N,) row weights, by which all classes count alike, times those that were given."""
        weights = balanced_weights(self.labels, len(self.shares))
        return weights if self.row_weights is None else weights * self.row_weights


@dataclass(frozen=True)
class Recipe:
    """What a member is fitted by.

    Attributes:
        mix: Fraction of the n-grams.
        strengths: Of the ridge; of the encoder's and the n-grams' where a mix has both.
        of_kernels: Whether kernels are mixed, or else the logits of two regressions.
    """

    mix: float
    strengths: tuple[float, ...]
    of_kernels: bool

    @property
    def name(self) -> str:
        """For people."""
        strengths = " and ".join(f"{strength:g}" for strength in self.strengths)
        return f"{_mix_name(self.mix)}, λ={strengths}"


@dataclass(frozen=True)
class Member:
    """A fitted regression on one or both views, or a mean of several.

    Attributes:
        recipes: What it was fitted by.
        weights: Computes the weights of the views, which are large.
        bias: (C,).
        own: (N, C) logits of the training rows by models fitted without them.
        held_out: (M, C) logits of the validation rows.
    """

    recipes: tuple[Recipe, ...]
    weights: Callable[[], Weights]
    bias: np.ndarray
    own: np.ndarray
    held_out: np.ndarray

    @property
    def name(self) -> str:
        """For people."""
        return " · ".join(recipe.name for recipe in self.recipes)

    @classmethod
    def of_scores(
        cls, recipe: Recipe, weights: Callable[[], Weights], bias: np.ndarray, own: np.ndarray,
        held_out: np.ndarray,
    ) -> Member:  # fmt: skip
        """A member whose logits are its scores, divided by the spread of its own ones."""
        factor = SHARPNESS / max(1e-9, float(own.std()))
        return cls(
            (recipe,), lambda: weighted_sum([(factor, weights())]), bias * factor, own * factor,
            held_out * factor,
        )  # fmt: skip


def weighted_sum(parts: Sequence[tuple[float, Weights]]) -> Weights:
    """The sum of weights of views, each times a number."""

    def total(view: int) -> np.ndarray | None:
        given = [factor * values for factor, one in parts if (values := one[view]) is not None]
        return sum(given[1:], start=given[0]) if given else None

    return total(0), total(1)


def fit_members(problem: RidgeProblem, recipes: Collection[Recipe] = ()) -> list[Member]:
    """Fit members: from kernels up to ``DUAL_ROWS`` rows, from features above.

    Args:
        problem: What they are fitted on.
        recipes: Of the members to fit, all of one kind; every mix and strength when empty.
    """
    few = len(problem.labels) <= DUAL_ROWS
    if recipes:
        few = next(iter(recipes)).of_kernels
    return list(_kernel_members(problem, recipes) if few else _feature_members(problem, recipes))


def _kernel_members(problem: RidgeProblem, recipes: Collection[Recipe]) -> Iterator[Member]:
    """One eigendecomposition per kernel, which every strength shares."""
    text, encoder = (_products(problem, view) for view in ("text", "encoder"))
    for mix in _mixes(problem.train):
        tried = [Recipe(mix, (strength,), of_kernels=True) for strength in STRENGTHS]
        tried = [recipe for recipe in tried if not recipes or recipe in recipes]
        if not tried:
            continue
        pairs = [(mix, text), (1 - mix, encoder)]
        own, held = (_mixed_product(pairs, i) for i in range(2))
        strengths = [recipe.strengths[0] for recipe in tried]
        path = dual_path(own, problem.targets, problem.weights, strengths)
        for number, recipe in enumerate(tried):
            alpha, bias = path.weight[number], path.bias[number]
            yield Member.of_scores(
                recipe, _weights_of(problem.train, mix, alpha), bias, path.loo[number],
                held @ alpha + bias,
            )  # fmt: skip


def _products(problem: RidgeProblem, view: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Inner products of training rows with themselves, and of validation rows with them."""
    train: Any = getattr(problem.train, view)
    validation: Any = getattr(problem.validation, view)
    if train is None:
        return None
    own, held = train @ train.T, validation @ train.T
    if view == "text":
        own, held = own.toarray(), held.toarray()
    return own.astype(np.float64), held.astype(np.float64)


def _mixed_product(
    pairs: Sequence[tuple[float, tuple[np.ndarray, np.ndarray] | None]], which: int
) -> np.ndarray:
    total: np.ndarray = np.sum([f * pair[which] for f, pair in pairs if pair and f], axis=0)
    return total


def _weights_of(train: Views, mix: float, alpha: np.ndarray) -> Callable[[], Weights]:
    """The weights of the views that coefficients of the training rows (N, C) amount to."""

    def weights() -> Weights:
        text = None if train.text is None or mix == 0 else mix * (train.text.T @ alpha)
        encoder = None
        if train.encoder is not None and mix < 1:
            encoder = (1 - mix) * (train.encoder.T @ alpha.astype(np.float32))
        return text, encoder

    return weights


def _feature_members(problem: RidgeProblem, recipes: Collection[Recipe]) -> Iterator[Member]:
    """Encoder members with exact leave-one-out, n-gram members with folds, mixes of the best.

    The cost grows linearly with the rows.
    """
    encoder = {one.recipes[0].strengths[0]: one for one in _encoder_members(problem, recipes)}
    text = {one.recipes[0].strengths[0]: one for one in _text_members(problem, recipes)}
    if recipes:
        yield from (_by_recipe(recipe, encoder, text) for recipe in recipes)
        return
    yield from (*encoder.values(), *text.values())
    if encoder and text:
        (one,), (other,) = (
            select_members(list(part.values()), problem, count=1) for part in (encoder, text)
        )
        yield from (_mixed(one, other, mix) for mix in MIXES)


def _by_recipe(recipe: Recipe, encoder: dict[float, Member], text: dict[float, Member]) -> Member:
    """The member of a recipe, from the regressions on each view by strength."""
    first, last = recipe.strengths[0], recipe.strengths[-1]
    if recipe.mix in (0.0, 1.0):
        return encoder[first] if recipe.mix == 0.0 else text[first]
    return _mixed(encoder[first], text[last], recipe.mix)


def _encoder_members(problem: RidgeProblem, recipes: Collection[Recipe]) -> Iterator[Member]:
    train, validation = problem.train.encoder, problem.validation.encoder
    if train is None or validation is None:
        return
    strengths = {recipe.strengths[0] for recipe in recipes if recipe.mix < 1}
    tried = sorted(strengths) if recipes else STRENGTHS
    if not tried:
        return
    path = primal_path(train, problem.targets, problem.weights, tried)
    for number, strength in enumerate(tried):
        weight, bias = path.weight[number], path.bias[number]
        yield Member.of_scores(
            Recipe(0.0, (strength,), of_kernels=False), _constant((None, weight)), bias,
            path.loo[number], validation @ weight + bias,
        )  # fmt: skip


def _text_members(problem: RidgeProblem, recipes: Collection[Recipe]) -> Iterator[Member]:
    rows, validation = problem.train.text, problem.validation.text
    if rows is None or validation is None:
        return
    targets, weights = problem.targets, problem.weights
    parts = stratified_folds(problem.labels, problem.seed)
    strengths = {recipe.strengths[-1] for recipe in recipes if recipe.mix > 0}
    for strength in sorted(strengths) if recipes else TEXT_STRENGTHS:
        own = np.empty_like(targets)
        for number in range(FOLDS):
            left = parts != number
            weight, bias = sparse_ridge(rows[left], targets[left], weights[left], strength)
            own[~left] = rows[~left] @ weight + bias
        weight, bias = sparse_ridge(rows, targets, weights, strength)
        yield Member.of_scores(
            Recipe(1.0, (strength,), of_kernels=False), _constant((weight, None)), bias, own,
            validation @ weight + bias,
        )  # fmt: skip


def _constant(weights: Weights) -> Callable[[], Weights]:
    return lambda: weights


def stratified_folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """(N,) number of the fold of every row; the rows of a class are spread evenly."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds


def _mixed(encoder: Member, text: Member, mix: float) -> Member:
    """(1 − mix) of the logits of one member and mix of those of another."""
    rest = 1 - mix
    strengths = tuple(one.recipes[0].strengths[0] for one in (encoder, text))
    return Member.of_scores(
        Recipe(mix, strengths, of_kernels=False),
        lambda: weighted_sum([(rest, encoder.weights()), (mix, text.weights())]),
        rest * encoder.bias + mix * text.bias, rest * encoder.own + mix * text.own,
        rest * encoder.held_out + mix * text.held_out,
    )  # fmt: skip


def _mixes(train: Views) -> tuple[float, ...]:
    if train.text is None:
        return (0.0,)
    return (1.0,) if train.encoder is None else (0.0, *MIXES, 1.0)


def _mix_name(mix: float) -> str:
    return {0.0: "encoder", 1.0: "n-grams"}.get(mix, f"encoder + {mix:.0%} n-grams")


def select_members(members: Sequence[Member], problem: RidgeProblem, *, count: int) -> list[Member]:
    """The members with the highest :func:`joint_score` on both splits, the best first."""
    labels = np.concatenate([problem.labels, problem.held_labels])

    def score(member: Member) -> float:
        logits = np.concatenate([member.own, member.held_out])
        return joint_score(softmax(logits), labels, problem.shares)

    return sorted(members, key=score, reverse=True)[:count]


def mean_member(members: Sequence[Member]) -> Member:
    """The mean of the logits of members, which is one linear model."""
    share = 1 / len(members)
    return Member(
        tuple(recipe for member in members for recipe in member.recipes),
        lambda: weighted_sum([(share, member.weights()) for member in members]),
        np.mean([m.bias for m in members], axis=0), np.mean([m.own for m in members], axis=0),
        np.mean([m.held_out for m in members], axis=0),
    )  # fmt: skip
