"""Hy-Mora's published pooling, memory and losses, from recorded inputs and outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from valence.config.sections import LossSpec
from valence.losses.base import ClassInfo, Loss, ModelOutput
from valence.losses.contrastive import PrototypeMemory
from valence.losses.supervised import (
    LDAM,
    CrossEntropy,
    Focal,
    LogitAdjustment,
    class_weights,
)
from valence.models.pooling import AdaptiveHierarchicalPooling


def test_golden_pooling(golden: Path) -> None:
    tensors = load_file(golden / "hymora_pooling.safetensors")
    size = tensors["hidden"].shape[-1]
    names = {"weights.attn.": "attention.", "weights.fusion.": "fusion."}
    state = {
        ours + name.removeprefix(theirs): tensor
        for name, tensor in tensors.items()
        for theirs, ours in names.items()
        if name.startswith(theirs)
    }
    published = AdaptiveHierarchicalPooling(size, 0.1, compat="reference").eval()
    right = AdaptiveHierarchicalPooling(size, 0.1).eval()
    for pooling in (published, right):
        pooling.load_state_dict(state)
    with torch.no_grad():
        outputs = [p(tensors["hidden"], tensors["mask"]) for p in (published, right)]
    torch.testing.assert_close(outputs[0], tensors["output"], atol=1e-5, rtol=0)
    assert (outputs[1] - tensors["output"]).abs().max() > 1e-4, "the fault changes the output"


@pytest.fixture
def recording(golden: Path) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    settings = json.loads((golden / "hymora_memory.json").read_text())
    return settings, load_file(golden / "hymora_memory.safetensors")


def make_memory(settings: dict, compat: str | None) -> PrototypeMemory:
    spec = LossSpec(
        contrast="memory",
        temperature=settings["temperature"],
        memory_size=settings["memory_size"],
        memory_warmup_steps=settings["warmup_steps"],
        projection_dim=settings["feature_dim"],
        tail_weight=settings["tail_weight"],
        min_samples=settings["min_samples"],
        compat=compat,
    )
    counts = (1,) * settings["num_classes"]
    info = ClassInfo(counts, tuple(settings["tail_classes"]), settings["feature_dim"])
    return PrototypeMemory(spec, info)


def play(memory: PrototypeMemory, tensors: dict[str, torch.Tensor], steps: int) -> list[float]:
    losses = []
    for i in range(steps):
        features, labels = tensors[f"step{i:02d}.features"], tensors[f"step{i:02d}.labels"]
        unit = torch.nn.functional.normalize(features, dim=1)
        losses.append(float(memory.contrast_and_store(unit, labels)))
    return losses


def test_golden_memory_losses_and_bank(recording: tuple) -> None:
    settings, tensors = recording
    expected = settings["loss_per_step"]
    memory = make_memory(settings, "reference")
    assert play(memory, tensors, len(expected)) == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(memory.sizes, tensors["bank.sizes"])
    torch.testing.assert_close(memory.pointers, tensors["bank.ptrs"])
    for c in range(settings["num_classes"]):
        ring = memory.bank[c, : memory.capacity]
        torch.testing.assert_close(ring, tensors[f"bank.{c}"], atol=1e-5, rtol=0)


def test_golden_memory_right_loss_differs_where_the_published_one_errs(recording: tuple) -> None:
    settings, tensors = recording
    published = settings["loss_per_step"]
    ours = play(make_memory(settings, None), tensors, len(published))
    assert [loss > 0 for loss in ours] == [loss > 0 for loss in published]
    assert max(abs(a - b) for a, b in zip(ours, published, strict=True)) > 1e-2


def recorded(record: dict[str, object], pattern: str) -> tuple[float, list[float]]:
    """A recorded loss and the settings that its name carries."""
    for name, value in record.items():
        if found := re.fullmatch(pattern, name):
            return float(str(value)), [float(setting) for setting in found.groups()]
    raise AssertionError(f"nothing is recorded under {pattern}")


def weighing(loss: Loss, weights: list[float]) -> Loss:
    """The recorded class weights are given numbers, not N / (C · n_c)."""
    loss.get_buffer("weight").copy_(torch.tensor(weights))
    return loss


def test_golden_imbalance_losses(golden: Path) -> None:
    record = json.loads((golden / "imbalance_losses.json").read_text())
    info, weights = ClassInfo(tuple(record["class_counts"]), (), 1), record["class_weights"]
    logits, labels = torch.tensor(record["logits"]), torch.tensor(record["labels"])
    output = ModelOutput(logits, logits)

    weighted, (gamma,) = recorded(record, r"focal_gamma([\d.]+)_weighted")
    plain, _ = recorded(record, r"focal_gamma([\d.]+)")
    spec = LossSpec(gamma=gamma)
    published = weighing(Focal(spec.model_copy(update={"compat": "reference"}), info), weights)
    assert float(published(output, labels)) == pytest.approx(weighted, abs=1e-4)
    assert float(Focal(spec, info)(output, labels)) == pytest.approx(plain, abs=1e-4)
    right = weighing(Focal(spec, info), weights)
    assert abs(float(right(output, labels)) - weighted) > 1e-3, "the fault changes the loss"

    expected, (margin, scale) = recorded(record, r"ldam_max_m([\d.]+)_s([\d.]+)")
    ldam = LDAM(LossSpec(margin=margin, scale=scale), info)
    assert float(ldam(output, labels)) == pytest.approx(expected, abs=1e-4)

    expected, (tau,) = recorded(record, r"logit_adjustment_tau([\d.]+)")
    adjusted = LogitAdjustment(LossSpec(tau=tau), info)
    assert float(adjusted(output, labels)) == pytest.approx(expected, abs=1e-4)

    expected, (smoothing,) = recorded(record, r"weighted_ce_smoothing([\d.]+)")
    smoothed = weighing(CrossEntropy(LossSpec(smoothing=smoothing), info), weights)
    assert float(smoothed(output, labels)) == pytest.approx(expected, abs=1e-4)


def test_golden_class_weights_follow_the_formula_where_classes_are_few(golden: Path) -> None:
    record = json.loads((golden / "imbalance_losses.json").read_text())
    weights = class_weights(record["class_counts"], None)
    total, classes = sum(record["class_counts"]), len(record["class_counts"])
    expected = [total / (classes * n) for n in record["class_counts"]]
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)
