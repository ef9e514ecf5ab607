"""Every multimodal model: shapes, padding never read, missing modalities, gradients, saving."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from valence.errors import ModelError, UnknownNameError
from valence.losses.base import ModelOutput
from valence.models.fusion import FUSIONS, build_fusion, set_feature_statistics
from valence.models.multimodal import ALMT, ALMT_SETUPS, MODALITIES, FusionSettings, Stack

LENGTHS = {"text": 6, "audio": 9, "vision": 7}
WIDTHS = {"text": 12, "audio": 5, "vision": 4}
SMALL = FusionSettings(
    text_dim=12, audio_dim=5, vision_dim=4, text_length=6, audio_length=9, vision_length=7,
    outputs=3, dim=16, tokens=2, hyper_heads=2, hyper_head_dim=4,
    projection=Stack(depth=2, heads=2, head_dim=4, mlp_dim=8),
    language=Stack(depth=2, heads=2, head_dim=4, mlp_dim=8),
    fusion=Stack(depth=2, heads=2, head_dim=4, mlp_dim=8),
)  # fmt: skip


def model_named(name: str, sizes: FusionSettings = SMALL) -> nn.Module:
    torch.manual_seed(0)
    return build_fusion(name, sizes).eval()


def inputs(rows: int, *, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for name in MODALITIES:
        length = LENGTHS[name]
        found[name] = torch.randn(rows, length, WIDTHS[name], generator=draw)
        real = torch.randint(1, length + 1, (rows, 1), generator=draw)
        real[0] = length
        found[f"{name}_mask"] = (torch.arange(length) < real).long()
    return found


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("outputs", [1, 3])
def test_shapes(name: str, outputs: int) -> None:
    model = model_named(name, SMALL.model_copy(update={"outputs": outputs}))
    output: ModelOutput = model(**inputs(4))
    assert output.logits.shape == (4, outputs)
    assert output.features.shape == (4, SMALL.dim)
    if output.class_rows is not None:
        assert output.class_rows.shape == (outputs, SMALL.dim)


@pytest.mark.parametrize("name", FUSIONS)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    extra=st.integers(0, 5),
    garbage=st.sampled_from([0.0, 1e30, float("nan"), float("inf"), -float("inf")]),
    modality=st.sampled_from(MODALITIES),
)
def test_padding_changes_nothing(
    name: str, seed: int, extra: int, garbage: float, modality: str
) -> None:
    model, batch = model_named(name), inputs(3, seed=seed)
    expected = model(**batch)
    mask = torch.nn.functional.pad(batch[f"{modality}_mask"], (0, extra))
    steps = torch.nn.functional.pad(batch[modality], (0, 0, 0, extra))
    soiled = steps.masked_fill(mask.unsqueeze(-1) == 0, garbage)
    found = model(**{**batch, modality: soiled, f"{modality}_mask": mask})
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.features, expected.features, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    model, batch = model_named(name), inputs(4)
    together = model(**batch).logits
    for i in range(4):
        alone: dict[str, Tensor] = {}
        for modality in MODALITIES:
            length = int(batch[f"{modality}_mask"][i].sum())
            alone[modality] = batch[modality][i : i + 1, :length]
        torch.testing.assert_close(model(**alone).logits[0], together[i], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FUSIONS)
def test_every_parameter_has_a_gradient(name: str) -> None:
    model = model_named(name).train()
    # Tokens that start at zero are the same, so some norms pass nothing on yet.
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model(**inputs(5)).logits.square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("missing", [*MODALITIES, "all"])
def test_a_missing_modality_is_finite_forward_and_backward(name: str, missing: str) -> None:
    model, batch = model_named(name), inputs(3)
    gone = MODALITIES if missing == "all" else (missing,)
    for modality in gone:
        batch[f"{modality}_mask"] = torch.zeros_like(batch[f"{modality}_mask"])
        batch[modality] = torch.full_like(batch[modality], float("nan"))
    output = model(**batch)
    assert torch.isfinite(output.logits).all()
    output.logits.sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("name", FUSIONS)
def test_it_reads_the_modalities_it_names(name: str) -> None:
    model, batch = model_named(name), inputs(3)
    read = {n.removesuffix("-only") for n in [name] if n.endswith("-only")} or set(MODALITIES)
    before = model(**batch).logits
    for modality in MODALITIES:
        after = model(**{**batch, modality: batch[modality] + 1.0}).logits
        changed = bool((after - before).abs().max() > 1e-6)
        assert changed == (modality in read), modality


@pytest.mark.parametrize("name", FUSIONS)
def test_scaling_is_what_the_statistics_say(name: str) -> None:
    batch = inputs(3)
    statistics = {
        m: (torch.randn(WIDTHS[m]), torch.rand(WIDTHS[m]) + 0.5) for m in ("audio", "vision")
    }
    scaled = dict(batch)
    for modality, (mean, deviation) in statistics.items():
        scaled[modality] = (batch[modality] - mean) / deviation
    model = model_named(name)
    expected = model(**scaled).logits
    set_feature_statistics(model, statistics)
    torch.testing.assert_close(model(**batch).logits, expected, atol=1e-5, rtol=1e-4)
    fresh = model_named(name)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(**batch).logits, model(**batch).logits)


def test_a_constant_feature_becomes_zero() -> None:
    model = model_named("audio-only")
    statistics: dict[str, Any] = {
        m: (torch.full((WIDTHS[m],), 7.0), torch.zeros(WIDTHS[m])) for m in ("audio", "vision")
    }
    set_feature_statistics(model, statistics)
    batch = inputs(2)
    flat = model(**{**batch, "audio": torch.full_like(batch["audio"], 7.0)}).logits
    assert torch.isfinite(flat).all()
    torch.testing.assert_close(flat[0], flat[1])


@pytest.mark.parametrize("name", FUSIONS)
def test_falls_in_a_few_steps(name: str) -> None:
    model = model_named(name, SMALL.model_copy(update={"outputs": 1})).train()
    batch, labels = inputs(8), torch.linspace(-1, 1, 8)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.mse_loss(model(**batch).logits[:, 0], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_almt_reference_depends_on_padding_and_the_default_does_not() -> None:
    torch.manual_seed(0)
    published = ALMT(SMALL, compat="reference").eval()
    batch = inputs(3)
    soiled = {
        **batch,
        "audio": batch["audio"].masked_fill(batch["audio_mask"][..., None] == 0, 9.0),
    }
    difference = (published(**soiled).logits - published(**batch).logits).abs().amax(1)
    assert difference.max() > 1e-4


def test_almt_refuses_more_steps_than_it_has_positions() -> None:
    model, batch = model_named("almt"), inputs(2)
    longer = torch.zeros(2, 11, WIDTHS["audio"])
    with pytest.raises(ModelError, match="audio has 11 steps but the model reads 9"):
        model(**{**batch, "audio": longer, "audio_mask": torch.ones(2, 11)})


def test_published_sizes() -> None:
    assert set(ALMT_SETUPS) == {"mosi", "mosei", "ch-sims"}
    assert [s.fusion.depth for s in ALMT_SETUPS.values()] == [2, 4, 4]
    sims = ALMT_SETUPS["ch-sims"]
    assert (sims.length("text"), sims.length("audio"), sims.length("vision")) == (39, 400, 55)
    assert (sims.width("audio"), sims.width("vision")) == (33, 709)


def test_unknown_fusion_names_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="'almt'"):
        build_fusion("allmt", SMALL)
    assert {build_fusion(name, SMALL).__class__ for name in FUSIONS}
