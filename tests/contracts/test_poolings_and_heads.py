"""Every pooling and head: right shapes, padding never read, gradients everywhere."""

from __future__ import annotations

import pytest
import torch

from valence.errors import UnknownNameError
from valence.models.heads import HEADS, GatedHead, build_head
from valence.models.pooling import POOLINGS
from valence.spec import HeadSpec

H, C = 12, 4


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_never_reads_padding(name: str) -> None:
    torch.manual_seed(0)
    pooling = POOLINGS[name](H, 0.0).eval()
    states, mask = torch.randn(3, 7, H), torch.ones(3, 7, dtype=torch.long)
    mask[0, 4:] = 0
    mask[1, 1:] = 0
    changed = states.clone()
    changed[mask == 0] = 1e4
    pooled = pooling(states, mask)
    assert pooled.shape == (3, H)
    torch.testing.assert_close(pooling(changed, mask), pooled)
    torch.testing.assert_close(pooling(states[:1, :4], mask[:1, :4]), pooled[:1])


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_is_finite_without_any_token(name: str) -> None:
    pooling = POOLINGS[name](H, 0.0).eval()
    assert torch.isfinite(pooling(torch.randn(2, 5, H), torch.zeros(2, 5, dtype=torch.long))).all()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_head_shapes_and_gradients(name: str, pooling: str) -> None:
    torch.manual_seed(0)
    head = build_head(HeadSpec(name=name, pooling=pooling), H, C)
    if isinstance(head, GatedHead):
        torch.nn.init.normal_(head.extra.weight)  # at zero nothing flows into the pooling yet
    states = torch.randn(3, 5, H, requires_grad=True)
    output = head(states, torch.ones(3, 5, dtype=torch.long))
    assert output.logits.shape == (3, C)
    assert output.features.shape == (3, H)
    assert output.class_rows.shape == (C, H)
    output.logits.square().sum().backward()
    assert states.grad.abs().sum() > 0
    silent = [n for n, p in head.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    # The softmax over tokens does not change with the bias of its scores.
    assert [n for n in silent if not n.endswith("attention.2.bias")] == []


def test_gated_head_starts_as_the_plain_classifier() -> None:
    head = build_head(HeadSpec(name="gated", pooling="ahsp", fusion_init=0.3), H, C).eval()
    states, mask = torch.randn(2, 5, H), torch.ones(2, 5, dtype=torch.long)
    torch.testing.assert_close(head(states, mask).logits, head.base(states[:, 0]))
    assert float(head.gate.detach()) == pytest.approx(0.3)


def test_unknown_names_answer_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="'gated'"):
        build_head(HeadSpec(name="gatd"), H, C)
    with pytest.raises(UnknownNameError, match="'ahsp'"):
        build_head(HeadSpec(pooling="ahs"), H, C)
