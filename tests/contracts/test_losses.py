"""Every loss and every contrast of the tables keeps the same promises."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from valence.config.sections import LossSpec
from valence.losses.base import ClassInfo, Loss, ModelOutput
from valence.losses.table import CONTRASTS, LOSSES, build_loss

SIZE = 8
COMBINATIONS = list(product(LOSSES, ["none", *CONTRASTS]))


def make(name: str, contrast: str, counts: tuple[int, ...], **fields: object) -> Loss:
    torch.manual_seed(0)
    values = {"name": name, "contrast": contrast, "memory_warmup_steps": 1, "memory_size": 24}
    spec = LossSpec(**{**values, "projection_dim": 6, "min_samples": 2, **fields})
    loss = build_loss(spec, ClassInfo(counts, (len(counts) - 1,), SIZE))
    for module in loss.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return loss


def drawn(loss: Loss, output: ModelOutput, labels: torch.Tensor) -> float:
    """The loss with the same random draws each time."""
    torch.manual_seed(7)
    return float(loss(output, labels).item())


def batch(labels: list[int], classes: int, seed: int = 0) -> tuple[ModelOutput, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(len(labels), SIZE, generator=draw, requires_grad=True)
    rows = torch.randn(classes, SIZE, generator=draw)
    return ModelOutput(features @ rows.T, features, class_rows=rows), torch.tensor(labels)


@pytest.mark.parametrize(("name", "contrast"), COMBINATIONS)
@pytest.mark.parametrize(
    ("labels", "classes"),
    [([0], 2), ([1, 1, 1, 1], 3), ([0, 1, 2, 3], 52), ([2] * 9 + [0], 3), (list(range(52)), 52)],
)
def test_finite_and_gradient_reaches_the_features(
    name: str, contrast: str, labels: list[int], classes: int
) -> None:
    counts = tuple(max(0, 300 // (c + 1) - 20) for c in range(classes))
    loss = make(name, contrast, counts)
    for step in range(4):
        output, y = batch(labels, classes, step)
        value = loss(output, y)
        value.backward()
        assert value.shape == ()
        assert torch.isfinite(value)
        assert torch.isfinite(output.features.grad).all()
    assert output.features.grad.abs().sum() > 0 or counts[labels[0]] == 0 or len(set(labels)) == 1


@pytest.mark.parametrize(("name", "contrast"), COMBINATIONS)
def test_falls_in_ten_steps(name: str, contrast: str) -> None:
    loss = make(name, contrast, (40, 20, 10))
    labels = torch.arange(30) % 3
    torch.manual_seed(1)
    features = torch.nn.functional.one_hot(labels, SIZE).float() + 0.1 * torch.randn(30, SIZE)
    linear = torch.nn.Linear(SIZE, 3)
    optimiser = torch.optim.Adam([*linear.parameters(), *loss.parameters()], lr=0.05)
    values = []
    for _ in range(14):
        value = loss(ModelOutput(linear(features), features, class_rows=linear.weight), labels)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    assert values[-1] < values[3], "compared after the memory has begun to charge"


@pytest.mark.parametrize(("name", "contrast"), COMBINATIONS)
def test_survives_saving_and_loading(name: str, contrast: str) -> None:
    ours, other = make(name, contrast, (9, 5, 2)), make(name, contrast, (9, 5, 2))
    for step in range(5):
        ours(*batch([0, 0, 1, 1, 2, 2], 3, step))
    ours.set_progress(0.75)
    other.load_state_dict(ours.state_dict())
    again = batch([0, 1, 2], 3, 99)
    assert drawn(ours, *again) == drawn(other, *again)


@pytest.mark.parametrize(("name", "contrast"), COMBINATIONS)
def test_order_of_the_batch_does_not_matter(name: str, contrast: str) -> None:
    values = []
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]):
        # Without random draws, whose meaning depends on the order.
        loss = make(name, contrast, (9, 5, 2), positives=0, negatives=0)
        for step in range(3):
            loss(*batch([0, 0, 1, 1, 2, 2], 3, step))
        output, labels = batch([0, 1, 2, 0, 1, 2], 3, 7)
        rows = output.class_rows
        shuffled = ModelOutput(output.logits[order], output.features[order], class_rows=rows)
        values.append(loss(shuffled, labels[order]).item())
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_ldam_gives_way_to_weighted_cross_entropy() -> None:
    loss = make("ldam", "none", (60, 5, 2))
    output, labels = batch([0, 1, 2, 2], 3)
    early = loss(output, labels).item()
    loss.set_progress(0.49)
    assert loss(output, labels).item() == early
    loss.set_progress(0.5)
    late = loss(output, labels).item()
    expected = make("cross-entropy", "none", (60, 5, 2), class_weights="balanced")
    assert late == pytest.approx(expected(output, labels).item(), abs=1e-6)
    assert late != early


def test_memory_is_silent_in_evaluation() -> None:
    loss = make("cross-entropy", "memory", (9, 5, 2))
    loss.eval()
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss(*batch([0, 0, 1, 1], 3))
    assert all(torch.equal(before[k], v) for k, v in loss.state_dict().items())
