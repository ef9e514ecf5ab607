"""Every pooling and head: right shapes, padding never read, gradients everywhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from valence.config.sections import HeadSpec
from valence.errors import ModelError, SpecError, UnknownNameError
from valence.models.heads import HEADS, GatedHead, build_head, head_reads
from valence.models.pooling import POOLINGS

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
    assert output.features.shape == (3, head.feature_size)
    assert output.class_rows.shape == (C, head.feature_size)
    output.logits.square().sum().backward()
    assert states.grad.abs().sum() > 0
    silent = [n for n, p in head.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    # A softmax over tokens does not change with a bias that all its scores share.
    shared = ("attention.2.bias", "attention.key.bias")
    assert [n for n in silent if not n.endswith(shared)] == []


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(HEADS)),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(0, 6),
    st.sampled_from(["lstm", "gru"]),
)
def test_head_gives_a_text_the_same_logits_in_any_batch(
    name: str, lengths: list[int], more: int, cell: str
) -> None:
    torch.manual_seed(len(lengths))
    head = build_head(
        HeadSpec(name=name, pooling="cls", cell=cell, layers=2, hidden_size=8), H, C
    ).eval()
    longest = max(lengths) + more
    states = torch.randn(len(lengths), longest, H)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    states[mask == 0] = 1e3
    together = head(states, mask).logits
    for row, length in enumerate(lengths):
        alone = head(states[[row], :length], mask[[row], :length]).logits[0]
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_head_is_finite_without_any_token(name: str) -> None:
    head = build_head(HeadSpec(name=name, pooling="cls"), H, C).eval()
    found = head(torch.randn(2, 5, H), torch.zeros(2, 5, dtype=torch.long))
    assert torch.isfinite(found.logits).all()


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match=r"head\.attention_heads = 3 does not divide the 512"):
        build_head(HeadSpec(name="lstm", attention_heads=3), H, C)


def test_pooler_starts_from_the_encoder_and_is_asked_for_where_there_is_none() -> None:
    head = build_head(HeadSpec(name="lstm", pooler=True), H, C)
    weights = (torch.randn(H, H), torch.randn(H))
    head.init_pooler(weights, trained=False)
    assert torch.equal(head.pooler.weight, weights[0])
    assert not head.pooler.weight.requires_grad
    with pytest.raises(ModelError, match="no pretrained pooler"):
        head.init_pooler(None, trained=True)


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


class Watched:
    """A HeadSpec that remembers which of its fields were looked at."""

    def __init__(self, spec: HeadSpec) -> None:
        self.spec, self.seen = spec, set[str]()

    def __getattr__(self, name: str) -> object:
        self.seen.add(name)
        return getattr(self.spec, name)


@pytest.mark.parametrize("name", HEADS)
def test_head_reads_what_it_says_it_reads(name: str) -> None:
    spec = Watched(HeadSpec(name=name, pooling="cls", hidden_size=4))
    head = build_head(spec, H, C)  # type: ignore[arg-type]
    head(torch.randn(2, 3, H), torch.ones(2, 3, dtype=torch.long))
    assert spec.seen - {"name"} == head_reads(name)


def test_unknown_head_has_no_fields() -> None:
    with pytest.raises(UnknownNameError):
        head_reads("lstn")
