"""Class weights, priors and the supervised losses against formulas written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from valence.config.sections import LossSpec
from valence.losses.base import ClassInfo, Loss, ModelOutput
from valence.losses.supervised import (
    LDAM,
    CrossEntropy,
    Focal,
    LogitAdjustment,
    class_weights,
    log_prior,
)

COUNTS = (60, 30, 10)
INFO = ClassInfo(COUNTS, (2,), 4)
BALANCED = LossSpec(class_weights="balanced", weight_clamp=None)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 0, 1, 2, 2, 1, 0])


def value(loss: Loss, logits: Tensor, labels: Tensor) -> float:
    return float(loss(ModelOutput(logits, logits), labels))


def by_hand(logits: Tensor, labels: Tensor) -> list[tuple[int, float]]:
    """(label, −log p of the label) of every row, without PyTorch's losses."""
    rows = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = math.log(sum(math.exp(x) for x in row))
        rows.append((label, total - row[label]))
    return rows


def test_class_weights_are_total_over_classes_times_count() -> None:
    weights = class_weights(COUNTS)
    assert weights.tolist() == pytest.approx([100 / 180, 100 / 90, 100 / 30])


def test_class_weights_are_clamped_from_above_only() -> None:
    weights = class_weights((900, 99, 1), clamp=2.0)
    assert weights.tolist() == pytest.approx([1000 / 2700, 2.0, 2.0])


def test_a_class_without_rows_has_weight_zero_and_a_finite_prior() -> None:
    assert class_weights((5, 0, 5)).tolist() == pytest.approx([2 / 3, 0, 2 / 3])
    prior = log_prior((5, 0, 5))
    assert torch.isfinite(prior).all()
    assert prior.argmin() == 1


def test_log_prior_is_the_log_of_the_shares() -> None:
    assert log_prior(COUNTS).tolist() == pytest.approx([math.log(s) for s in (0.6, 0.3, 0.1)])


def test_cross_entropy_is_the_mean_where_nothing_is_weighted(
    logits: Tensor, labels: Tensor
) -> None:
    rows = by_hand(logits, labels)
    expected = sum(loss for _, loss in rows) / len(rows)
    assert value(CrossEntropy(LossSpec(), INFO), logits, labels) == pytest.approx(expected)


def test_cross_entropy_divides_by_the_weights_of_the_rows(logits: Tensor, labels: Tensor) -> None:
    weight = class_weights(COUNTS).tolist()
    rows = by_hand(logits, labels)
    expected = sum(weight[c] * loss for c, loss in rows) / sum(weight[c] for c, _ in rows)
    assert value(CrossEntropy(BALANCED, INFO), logits, labels) == pytest.approx(expected)


def test_the_clamp_reaches_the_loss(logits: Tensor, labels: Tensor) -> None:
    clamped = BALANCED.model_copy(update={"weight_clamp": 1.0})
    free = value(CrossEntropy(BALANCED, INFO), logits, labels)
    assert value(CrossEntropy(clamped, INFO), logits, labels) != pytest.approx(free)


def test_smoothing_keeps_a_sure_answer_from_costing_nothing() -> None:
    sure, label = torch.tensor([[40.0, 0.0, 0.0]]), torch.tensor([0])
    assert value(CrossEntropy(LossSpec(), INFO), sure, label) == pytest.approx(0.0, abs=1e-6)
    smoothed = value(CrossEntropy(LossSpec(smoothing=0.3), INFO), sure, label)
    assert smoothed == pytest.approx(0.1 * 40 * 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_rows_of_a_class_without_training_rows_weigh_nothing(
    logits: Tensor, smoothing: float
) -> None:
    spec = BALANCED.model_copy(update={"smoothing": smoothing})
    loss = CrossEntropy(spec, ClassInfo((50, 50, 0), (2,), 4))
    assert value(loss, logits, torch.full((7,), 2)) == 0.0
    mixed = torch.tensor([0, 1, 0, 1, 2, 2, 2])
    known = value(loss, logits[:4], mixed[:4])
    assert value(loss, logits, mixed) == pytest.approx(known)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_takes_p_from_the_unweighted_softmax(
    logits: Tensor, labels: Tensor, gamma: float
) -> None:
    weight = class_weights(COUNTS).tolist()
    rows = by_hand(logits, labels)
    terms = [weight[c] * (1 - math.exp(-loss)) ** gamma * loss for c, loss in rows]
    spec = BALANCED.model_copy(update={"gamma": gamma})
    assert value(Focal(spec, INFO), logits, labels) == pytest.approx(sum(terms) / len(terms))


def test_focal_reference_takes_p_from_the_weighted_loss(logits: Tensor, labels: Tensor) -> None:
    weight = class_weights(COUNTS).tolist()
    weighted = [weight[c] * loss for c, loss in by_hand(logits, labels)]
    expected = sum((1 - math.exp(-w)) ** 2 * w for w in weighted) / len(weighted)
    published = value(
        Focal(BALANCED.model_copy(update={"compat": "reference"}), INFO), logits, labels
    )
    assert published == pytest.approx(expected)
    assert value(Focal(BALANCED, INFO), logits, labels) != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_gradient_where_the_answer_is_certain(gamma: float) -> None:
    certain = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    loss = Focal(LossSpec(gamma=gamma), INFO)(ModelOutput(certain, certain), torch.tensor([0, 0]))
    loss.backward()
    assert certain.grad is not None
    assert torch.isfinite(certain.grad).all()


def test_ldam_takes_the_margin_off_the_true_logit(logits: Tensor, labels: Tensor) -> None:
    raw = [n**-0.25 for n in COUNTS]
    margins = torch.tensor([0.4 * m / max(raw) for m in raw])
    shifted = logits.clone()
    shifted[torch.arange(7), labels] -= margins[labels]
    expected = float(functional.cross_entropy(20 * shifted, labels))
    loss = LDAM(LossSpec(margin=0.4, scale=20), INFO)
    assert value(loss, logits, labels) == pytest.approx(expected)


def test_ldam_margins_do_not_shrink_because_a_class_is_absent() -> None:
    whole = LDAM(LossSpec(), ClassInfo((60, 30, 10), (), 4)).margins
    absent = LDAM(LossSpec(), ClassInfo((60, 30, 10, 0), (), 4)).margins
    torch.testing.assert_close(absent[:3], whole)
    assert absent[3] == whole.max() == 0.5


def test_ldam_gives_way_to_weighted_cross_entropy(logits: Tensor, labels: Tensor) -> None:
    spec = LossSpec(deferred_share=0.6, weight_clamp=None)
    loss = LDAM(spec, INFO)
    weighted = value(CrossEntropy(BALANCED, INFO), logits, labels)
    start = value(loss, logits, labels)
    seen = {}
    for progress in (0.3, 0.59, 0.61, 1.0):
        loss.set_progress(progress)
        seen[progress] = value(loss, logits, labels)
    assert seen[0.3] == seen[0.59] == start
    assert seen[0.61] == seen[1.0] == pytest.approx(weighted)
    assert start != pytest.approx(weighted, rel=0.1)


def test_ldam_switch_moves_the_gradient_too(logits: Tensor, labels: Tensor) -> None:
    loss, gradients = LDAM(LossSpec(), INFO), []
    for progress in (0.0, 0.9):
        loss.set_progress(progress)
        leaf = logits.clone().requires_grad_()
        loss(ModelOutput(leaf, leaf), labels).backward()
        gradients.append(leaf.grad)
    late = logits.clone().requires_grad_()
    CrossEntropy(LossSpec(class_weights="balanced"), INFO)(
        ModelOutput(late, late), labels
    ).backward()
    torch.testing.assert_close(gradients[1], late.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 0.1


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_logit_adjustment_adds_the_log_prior(logits: Tensor, labels: Tensor, tau: float) -> None:
    shifted = logits + tau * torch.log(torch.tensor([0.6, 0.3, 0.1]))
    expected = sum(loss for _, loss in by_hand(shifted, labels)) / 7
    assert value(LogitAdjustment(LossSpec(tau=tau), INFO), logits, labels) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("loss_class", [CrossEntropy, Focal, LDAM, LogitAdjustment])
def test_half_precision_logits_are_charged_in_single(loss_class: type, labels: Tensor) -> None:
    logits = 8 * torch.randn(7, 3, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    loss = loss_class(BALANCED, INFO)
    half = loss(ModelOutput(logits, logits), labels)
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(value(loss, logits.float(), labels))
