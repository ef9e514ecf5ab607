"""How a spec becomes a loss, and which settings it reads."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from valence.config.sections import LossSpec
from valence.errors import UnknownNameError
from valence.losses.base import ClassInfo, ModelOutput
from valence.losses.contrastive import PrototypeMemory
from valence.losses.supervised import LDAM, CrossEntropy
from valence.losses.table import CombinedLoss, build_loss, reads

INFO = ClassInfo((6, 4), (1,), 5)
MEMORY = LossSpec(
    contrast="memory", weight=0.3, memory_size=8, memory_warmup_steps=1, min_samples=1
)


def batch(seed: int) -> tuple[ModelOutput, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(4, 5, generator=generator)
    return ModelOutput(features[:, :2], features), torch.tensor([0, 1, 0, 1])


def test_without_a_contrast_it_is_the_supervised_loss_alone() -> None:
    assert type(build_loss(LossSpec(), INFO)) is CrossEntropy


def test_with_a_contrast_it_is_the_weighted_sum() -> None:
    torch.manual_seed(0)
    loss = build_loss(MEMORY, INFO)
    assert isinstance(loss, CombinedLoss)
    assert isinstance(loss.contrast, PrototypeMemory)
    loss.contrast.projector[2].p = 0.0
    output, labels = batch(0)
    first = loss(output, labels)
    torch.testing.assert_close(first, functional.cross_entropy(output.logits, labels))
    output, labels = batch(1)
    projected = functional.normalize(loss.contrast.projector(output.features), dim=1)
    contrast = loss.contrast.contrast(projected, labels)
    assert contrast.item() > 0.1
    expected = functional.cross_entropy(output.logits, labels) + 0.3 * contrast
    torch.testing.assert_close(loss(output, labels), expected)


def test_progress_reaches_both_parts() -> None:
    loss = build_loss(MEMORY.model_copy(update={"name": "ldam"}), INFO)
    assert isinstance(loss, CombinedLoss)
    assert isinstance(loss.supervised, LDAM)
    loss.set_progress(0.75)
    assert [float(part.progress) for part in (loss, loss.supervised, loss.contrast)] == [0.75] * 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (LossSpec(name="focl"), "Unknown loss 'focl'; did you mean 'focal'"),
        (LossSpec(contrast="memroy"), "Unknown contrast 'memroy'; did you mean 'memory'"),
    ],
)
def test_unknown_names_answer_with_the_closest(spec: LossSpec, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        build_loss(spec, INFO)
    with pytest.raises(UnknownNameError, match=message):
        reads(spec)


def test_reads_names_only_what_matters_for_the_spec() -> None:
    assert reads(LossSpec()) == {"class_weights", "smoothing"}
    assert reads(LossSpec(class_weights="effective")) >= {"weight_clamp", "beta"}
    assert {"margin", "deferred_share"} <= reads(LossSpec(name="ldam"))
    assert "temperature" not in reads(LossSpec())
    assert {"temperature", "weight", "contrast"} <= reads(MEMORY)


def test_a_combined_loss_reads_what_both_parts_read() -> None:
    assert reads(MEMORY) == CrossEntropy.reads | PrototypeMemory.reads | {"contrast", "weight"}
