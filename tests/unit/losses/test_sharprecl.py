"""SharpReCL's contrast: hard sets, mixtures, absent classes, speed of shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from valence.config.sections import LossSpec
from valence.losses.base import ClassInfo, ModelOutput
from valence.losses.contrastive import SupervisedContrast, supcon_losses
from valence.losses.sharprecl import SharpContrast, hardest
from valence.losses.supervised import class_weights, effective_weights

SIZE = 12


def made(counts: tuple[int, ...], **fields: object) -> SharpContrast:
    torch.manual_seed(0)
    small = {"projection_dim": 6, "positives": 8, "negatives": 10, "hard_count": 4}
    return SharpContrast(LossSpec.model_validate({**small, **fields}), ClassInfo(counts, (), SIZE))


def unit(rows: int, seed: int = 0, size: int = 6) -> torch.Tensor:
    return functional.normalize(
        torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)), dim=1
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 152),
    st.lists(st.integers(0, 151), min_size=1, max_size=24),
    st.sampled_from(["growing", "half", "always", "never"]),
    st.sampled_from(["classifier", "none"]),
    st.floats(0, 1),
)
def test_any_batch_and_any_number_of_classes_gives_a_number_and_a_gradient(
    classes: int, labels: list[int], mixing: str, prototypes: str, progress: float
) -> None:
    counts = tuple(max(0, 300 // (c + 1) - 3) for c in range(classes))
    loss = made(counts, mixing=mixing, prototypes=prototypes)
    loss.set_progress(progress)
    features = torch.randn(len(labels), SIZE, requires_grad=True)
    rows = torch.randn(classes, SIZE, requires_grad=True)
    y = torch.tensor(labels) % classes
    value = loss(ModelOutput(torch.zeros(len(labels), classes), features, class_rows=rows), y)
    value.backward()
    assert torch.isfinite(value)
    assert value >= 0
    assert torch.isfinite(features.grad).all()
    assert all(torch.isfinite(torch.tensor(v)).all() for v in loss.diagnostics().values())


def test_synthetic_samples_come_from_the_right_side() -> None:
    # Own classes point along axes: a mixture stays in the plane of what it was mixed from.
    owners = torch.tensor([0, 0, 0, 1, 1, 2, 0, 1, 2])
    rows = torch.eye(6)[owners]
    loss = made((3, 2, 1), mixing="always")
    synthetic, there = loss.synthesize(torch.eye(6)[:3], rows, owners)
    assert there.all()
    assert synthetic.norm(dim=2).allclose(torch.ones(3, 18))
    for c in range(3):
        positives, negatives = synthetic[c, :8], synthetic[c, 8:]
        assert positives[:, c].allclose(torch.ones(8))
        assert negatives[:, c].abs().max() < 1e-6


def test_simple_sampling_is_even_over_all_members() -> None:
    owners = torch.tensor([0] * 5 + [1] * 3)
    rows = unit(8)
    loss = made((5, 3), mixing="never", positives=6000, negatives=6000)
    torch.manual_seed(1)
    synthetic, _ = loss.synthesize(unit(2, 9), rows, owners)
    for c, side, members in ((0, slice(0, 6000), range(5)), (0, slice(6000, None), range(5, 8))):
        chosen = (synthetic[c, side] @ rows.T).argmax(1)
        shares = torch.bincount(chosen, minlength=8) / 6000
        assert shares.sum().item() == pytest.approx(1)
        for member in members:
            assert shares[member].item() == pytest.approx(1 / len(members), abs=0.03)


def test_mixtures_are_drawn_from_the_hard_ones_alone() -> None:
    owners = torch.zeros(6, dtype=torch.long)
    owners[5] = 1
    rows = torch.eye(6)
    guide = functional.normalize(torch.tensor([[5.0, 4, 3, 2, 1, 0], [0, 0, 0, 0, 0, 1.0]]), dim=1)
    loss = made((5, 1), mixing="always", hard_count=2)
    positives = loss.synthesize(guide, rows, owners)[0][0, :8]
    assert positives[:, [0, 1, 2, 5]].abs().max() == 0
    own = owners == torch.arange(2)[:, None]
    assert hardest(-(guide @ rows.T), own, 2)[0].tolist() == [4, 3]


def test_share_of_mixtures_grows_from_a_half_to_all() -> None:
    loss = made((3, 2))
    shares = []
    for progress in (0.0, 0.5, 1.0):
        loss.set_progress(progress)
        shares.append(loss.mixed_fraction())
    assert shares == [0.5, 0.75, 1.0]


def test_mixing_shares_follow_the_arcsine_law() -> None:
    owners, rows = torch.tensor([0, 1]), torch.eye(6)[:2]
    loss = made((1, 1), mixing="always", positives=1, negatives=0)
    draws = torch.sin(torch.rand(20000, generator=torch.Generator().manual_seed(0)) * 1.5708) ** 2
    expected = torch.distributions.Beta(0.5, 0.5).sample((20000,))
    assert draws.mean().item() == pytest.approx(expected.mean().item(), abs=0.02)
    assert draws.std().item() == pytest.approx(expected.std().item(), abs=0.02)
    assert loss.synthesize(rows, rows, owners)[0].shape == (2, 1, 6)


def test_the_same_seed_gives_the_same_loss_and_another_another() -> None:
    values = []
    for seed in (3, 3, 4):
        loss = made((9, 5, 2))
        torch.manual_seed(seed)
        output = ModelOutput(torch.zeros(6, 3), unit(6, 1, SIZE), class_rows=unit(3, 2, SIZE))
        values.append(loss(output, torch.tensor([0, 0, 1, 1, 2, 2])).item())
    assert values[0] == values[1] != values[2]


def test_anchor_weights_lift_the_tail() -> None:
    rows, owners = unit(8), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    right, flat = made((600, 3)), made((600, 3), anchor_weights="constant")
    synthetic, there = right.synthesize(unit(2, 5), rows, owners)
    scaled, positive = right.similarities(rows, owners, synthetic, there)
    losses = supcon_losses(scaled / right.spec.temperature, positive)
    weights = right.row_weight[owners]
    expected = (losses * weights).sum() / weights.sum()
    assert right.contrast(rows, owners, synthetic, there).item() == pytest.approx(expected.item())
    assert right.row_weight[1] > 50 * right.row_weight[0]
    even = flat.contrast(rows, owners, synthetic, there) / flat.row_weight[0]
    assert even.item() == pytest.approx(losses.mean().item(), rel=1e-5)


def test_diagnostics_see_prototypes_that_leave_their_class() -> None:
    loss = made((9, 5, 2)).eval()
    loss.prototypes.load_state_dict(loss.features.state_dict())
    rows = torch.randn(3, SIZE)
    labels = torch.tensor([0, 1, 0, 1])
    loss(ModelOutput(torch.zeros(4, 3), rows[labels], class_rows=rows), labels)
    seen = loss.diagnostics()
    assert seen["prototype_cosine"][:2] == pytest.approx([1, 1], abs=1e-3)
    assert seen["prototype_cosine"][2] == -2.0
    loss(ModelOutput(torch.zeros(4, 3), rows[1 - labels], class_rows=rows), labels)
    assert max(loss.diagnostics()["prototype_cosine"][:2]) < 0.999
    assert loss.diagnostics()["diversity"] == [0.0]


def test_supervised_contrast_equals_its_definition() -> None:
    loss = SupervisedContrast(LossSpec(temperature=0.5, projection_dim=6), ClassInfo((9, 5), (), 4))
    features, labels = torch.randn(5, 4), torch.tensor([0, 0, 1, 0, 1])
    z = functional.normalize(loss.projector(features), dim=1)
    total = []
    for i in range(5):
        others = [j for j in range(5) if j != i]
        log = torch.logsumexp(torch.stack([z[i] @ z[j] / 0.5 for j in others]), 0)
        own = [z[i] @ z[j] / 0.5 - log for j in others if labels[j] == labels[i]]
        total.append(-torch.stack(own).mean())
    found = loss(ModelOutput(torch.zeros(5, 2), features), labels)
    assert found.item() == pytest.approx(torch.stack(total).mean().item(), abs=1e-5)


def test_supervised_contrast_without_any_positive_is_zero() -> None:
    loss = SupervisedContrast(LossSpec(), ClassInfo((9, 5, 2), (), 4))
    features = torch.randn(3, 4, requires_grad=True)
    value = loss(ModelOutput(torch.zeros(3, 3), features), torch.arange(3))
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(features.grad).all()


def test_effective_weights_lie_between_none_and_balanced() -> None:
    counts = (900, 90, 9)
    assert effective_weights(counts, 0.0).tolist() == [1, 1, 1]
    nearly = effective_weights(counts, 1 - 1e-9)
    balanced = class_weights(counts)
    torch.testing.assert_close(nearly, balanced / balanced.mean(), rtol=1e-3, atol=1e-4)
    assert effective_weights((5, 0), 0.9)[1] == 0


@pytest.mark.parametrize(
    ("mixing", "shares"),
    [
        ("growing", (0.5, 0.75, 1.0)), ("half", (0.5,) * 3), ("always", (1.0,) * 3),
        ("never", (0.0,) * 3),
    ],
)  # fmt: skip
def test_schedules_of_mixup(mixing: str, shares: tuple[float, ...]) -> None:
    loss = made((3, 2), mixing=mixing)
    for progress, share in zip((0.0, 0.5, 1.0), shares, strict=True):
        loss.set_progress(progress)
        assert loss.mixed_fraction() == share
