"""Poolings against values written out by hand; no padding is read, whatever stands there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from valence.models.pooling import POOLINGS, AdaptiveHierarchicalPooling, masked_max, masked_mean

H = 6


@pytest.fixture
def states() -> Tensor:
    return torch.randn(3, 5, H, generator=torch.Generator().manual_seed(0)) - 2.0


@pytest.fixture
def mask() -> Tensor:
    return torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])


def test_cls_mean_and_max(states: Tensor, mask: Tensor) -> None:
    cls, mean, highest = (POOLINGS[n](H, 0.1)(states, mask) for n in ("cls", "mean", "max"))
    torch.testing.assert_close(cls, states[:, 0])
    torch.testing.assert_close(mean[1], states[1, :2].mean(0))
    torch.testing.assert_close(highest[1], states[1, :2].amax(0))
    torch.testing.assert_close(mean[2], states[2, 0])
    # All states lie below zero: a maximum that read zeroed padding would be 0.
    assert (highest < 0).all()


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_padding_is_not_read_forward_or_backward(
    name: str, garbage: float, states: Tensor, mask: Tensor
) -> None:
    torch.manual_seed(0)
    pooling = POOLINGS[name](H, 0.0)
    expected = pooling(states, mask)
    soiled = states.masked_fill(mask.unsqueeze(-1) == 0, garbage).requires_grad_()
    pooled = pooling(soiled, mask)
    torch.testing.assert_close(pooled, expected)
    pooled.sum().backward()
    assert torch.isfinite(soiled.grad[mask == 1]).all()
    assert (soiled.grad[mask == 0] == 0).all()
    assert all(torch.isfinite(p.grad).all() for p in pooling.parameters())


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_text_without_tokens_is_finite_forward_and_backward(
    name: str, dtype: torch.dtype, states: Tensor
) -> None:
    torch.manual_seed(0)
    pooling = POOLINGS[name](H, 0.0).to(dtype)
    leaf = states.to(dtype).requires_grad_()
    pooled = pooling(leaf, torch.tensor([[1] * 5, [0] * 5, [0] * 5]))
    assert pooled.dtype == dtype
    assert torch.isfinite(pooled).all()
    pooled.sum().backward()
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("kind", [torch.long, torch.bool, torch.float32])
@pytest.mark.parametrize("name", POOLINGS)
def test_any_kind_of_mask(name: str, kind: torch.dtype, states: Tensor, mask: Tensor) -> None:
    torch.manual_seed(0)
    pooling = POOLINGS[name](H, 0.0)
    torch.testing.assert_close(pooling(states, mask.to(kind)), pooling(states, mask))


def by_hand(pooling: AdaptiveHierarchicalPooling, tokens: Tensor, *, length: int) -> Tensor:
    """AHSP of one text (T, H) of which ``length`` tokens are real."""
    first, _, second = pooling.attention
    scores = torch.stack([second(torch.tanh(first(token)))[0] for token in tokens])
    if pooling.compat == "reference":
        scores = torch.exp(scores) / torch.exp(scores).sum()
    shares = torch.exp(scores[:length]) / torch.exp(scores[:length]).sum()
    real = tokens[:length]
    attentive = sum(share * token for share, token in zip(shares, real, strict=True))
    views = torch.cat([attentive, real.mean(0), real.amax(0)])
    wide, norm, _, _, narrow = pooling.fusion
    fused: Tensor = narrow(functional.gelu(norm(wide(views))))
    return fused


@pytest.mark.parametrize("compat", [None, "reference"])
def test_ahsp_follows_its_formula(compat: str | None, states: Tensor, mask: Tensor) -> None:
    torch.manual_seed(0)
    pooling = AdaptiveHierarchicalPooling(H, 0.1, compat=compat).eval()
    with torch.no_grad():
        pooling.attention[2].weight.mul_(8)  # attention far from even
        expected = [
            by_hand(pooling, s, length=int(m.sum())) for s, m in zip(states, mask, strict=True)
        ]
        torch.testing.assert_close(pooling(states, mask), torch.stack(expected))


def test_ahsp_reference_flattens_the_attention(states: Tensor, mask: Tensor) -> None:
    torch.manual_seed(0)
    right = AdaptiveHierarchicalPooling(H, 0.1).eval()
    published = AdaptiveHierarchicalPooling(H, 0.1, compat="reference").eval()
    published.load_state_dict(right.state_dict())
    difference = (right(states, mask) - published(states, mask)).abs().amax(1)
    assert (difference[:2] > 1e-4).all()
    assert difference[2] < 1e-6, "one token has all the attention either way"


def test_ahsp_drops_out_in_training_only(states: Tensor, mask: Tensor) -> None:
    pooling = AdaptiveHierarchicalPooling(H, 0.5)
    assert not torch.equal(pooling(states, mask), pooling(states, mask))
    pooling.eval()
    assert torch.equal(pooling(states, mask), pooling(states, mask))


def test_helpers_give_zero_where_no_token_is_real(states: Tensor) -> None:
    nothing = torch.zeros(3, 5, dtype=torch.long)
    assert masked_mean(states, nothing).abs().max() == 0
    assert masked_max(states, nothing).abs().max() == 0
