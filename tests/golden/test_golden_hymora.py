"""Hy-Mora's published pooling, memory and losses, from recorded inputs and outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from valence.losses.base import ClassInfo, ModelOutput
from valence.losses.contrastive import PrototypeMemory
from valence.losses.supervised import (
    LDAM,
    CrossEntropy,
    Focal,
    LogitAdjustment,
    class_weights,
)
from valence.models.pooling import AdaptiveHierarchicalPooling
from valence.spec import LossSpec


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
        memory_dim=settings["feature_dim"],
        tail_weight=settings["tail_weight"],
        min_samples=settings["min_samples"],
    )
    counts = (1,) * settings["num_classes"]
    info = ClassInfo(counts, tuple(settings["tail_classes"]), settings["feature_dim"])
    return PrototypeMemory(spec, info, compat=compat)


def play(memory: PrototypeMemory, tensors: dict[str, torch.Tensor], steps: int) -> list[float]:
    losses = []
    for i in range(steps):
        features, labels = tensors[f"step{i:02d}.features"], tensors[f"step{i:02d}.labels"]
        unit = torch.nn.functional.normalize(features, dim=1)
        losses.append(float(memory.charge_and_store(unit, labels)))
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


def test_golden_imbalance_losses(golden: Path) -> None:
    record = json.loads((golden / "imbalance_losses.json").read_text())
    counts = tuple(record["class_counts"])
    info = ClassInfo(counts, (), 1)
    logits, labels = torch.tensor(record["logits"]), torch.tensor(record["labels"])
    output = ModelOutput(logits, logits)
    recorded_weights = torch.tensor(record["class_weights"])

    def value(loss: torch.nn.Module) -> float:
        if "weight" in dict(loss.named_buffers()):
            loss.weight.copy_(recorded_weights if loss.weight.std() > 0 else loss.weight)
        return float(loss(output, labels))

    balanced = LossSpec(class_weights="balanced", weight_clamp=None)
    plain = LossSpec()
    found = {
        "focal_gamma2_weighted": value(Focal(balanced, info, compat="reference")),
        "focal_gamma2": value(Focal(plain, info)),
        "ldam_max_m0.5_s30": value(LDAM(plain, info)),
        "logit_adjustment_tau1": value(LogitAdjustment(plain, info)),
        "weighted_ce_smoothing0.1": value(
            CrossEntropy(balanced.model_copy(update={"smoothing": 0.1}), info)
        ),
    }
    expected = {name: record[name] for name in found}
    assert found == pytest.approx(expected, abs=1e-4)
    assert abs(value(Focal(balanced, info)) - record["focal_gamma2_weighted"]) > 1e-3


def test_golden_class_weights_follow_the_formula_where_classes_are_few(golden: Path) -> None:
    record = json.loads((golden / "imbalance_losses.json").read_text())
    weights = class_weights(record["class_counts"], None)
    total, classes = sum(record["class_counts"]), len(record["class_counts"])
    expected = [total / (classes * n) for n in record["class_counts"]]
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)
