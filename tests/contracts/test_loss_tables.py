"""Promises of the tables of losses as wholes: nothing left out, nothing read in silence."""

from __future__ import annotations

import gc
import importlib
import pkgutil
from itertools import product

import pytest
import torch
from safetensors import torch as safetensors
from torch import Tensor

from valence import losses
from valence.config.sections import LossSpec
from valence.losses import table
from valence.losses.base import ClassInfo, Loss, ModelOutput
from valence.losses.table import CONTRASTS, INTENSITY_LOSSES, LOSSES, build_loss, reads

SIZE = 8
COMBINATIONS = list(product(LOSSES, ["none", *CONTRASTS]))


def make(counts: tuple[int, ...], **fields: object) -> Loss:
    """A loss of small memory that charges from the second step on, without dropout."""
    torch.manual_seed(0)
    small = {"memory_warmup_steps": 1, "memory_size": 8 * len(counts), "projection_dim": 6}
    spec = LossSpec.model_validate({**small, "min_samples": 2, **fields})
    loss = build_loss(spec, ClassInfo(counts, (len(counts) - 1,), SIZE))
    for module in loss.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return loss


def drawn(loss: Loss, output: ModelOutput, labels: Tensor) -> float:
    """The loss with the same random draws each time."""
    torch.manual_seed(7)
    return float(loss(output, labels).item())


def batch(labels: list[int], classes: int, seed: int = 0) -> tuple[ModelOutput, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(len(labels), SIZE, generator=draw, requires_grad=True)
    rows = torch.randn(classes, SIZE, generator=draw)
    return ModelOutput(features @ rows.T, features, class_rows=rows), torch.tensor(labels)


def history(**fields: object) -> list[float]:
    """Losses of sixteen steps: LDAM's margins act early, its weights and the memory late."""
    loss, values = make((60, 5, 2), **fields), []
    for step in range(16):
        loss.set_progress(step / 16)
        values.append(round(drawn(loss, *batch([0, 0, 1, 1, 2, 2], 3, step)), 5))
    return values


def unlisted() -> set[type[Loss]]:
    """Losses written in the package that no table names."""
    gc.collect()
    for module in pkgutil.walk_packages(losses.__path__, "valence.losses."):
        importlib.import_module(module.name)
    found: set[type[Loss]] = set()
    waiting: list[type[Loss]] = [Loss]
    while waiting:
        children = waiting.pop().__subclasses__()
        waiting += children
        found |= {cls for cls in children if cls.__module__.startswith("valence.")}
    named = LOSSES | INTENSITY_LOSSES | CONTRASTS
    return found - {table.CombinedLoss, *named.values()}


def test_every_loss_of_the_package_is_in_a_table() -> None:
    assert unlisted() == set()


@pytest.mark.parametrize(("entries", "name"), [(LOSSES, "focal"), (CONTRASTS, "memory")])
def test_a_loss_left_out_of_the_tables_is_noticed(
    entries: dict[str, type[Loss]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out = entries[name]
    monkeypatch.delitem(entries, name)
    assert unlisted() == {left_out}


@pytest.mark.parametrize("cls", [*LOSSES.values(), *CONTRASTS.values()])
def test_fields_read_exist(cls: type[Loss]) -> None:
    assert cls.reads
    assert cls.reads <= set(LossSpec.model_fields)


@pytest.mark.parametrize(("name", "contrast"), COMBINATIONS)
def test_a_field_is_read_if_and_only_if_it_changes_a_training(name: str, contrast: str) -> None:
    fields = {"name": name, "contrast": contrast, "class_weights": "balanced"}
    plain, read = history(**fields), reads(LossSpec.model_validate(fields))
    others = {
        "class_weights": "none", "weight_clamp": 0.5, "smoothing": 0.3, "gamma": 0.5,
        "margin": 0.1, "scale": 3.0, "deferred_share": 0.0, "tau": 0.3, "weight": 3.0,
        "temperature": 0.9, "memory_size": 9, "memory_warmup_steps": 5, "projection_dim": 4,
        "tail_weight": 9.0, "min_samples": 5, "contrast": "none", "beta": 0.5, "positives": 3,
        "negatives": 5, "hard_count": 1, "mixing": "never", "prototypes": "none",
        "anchor_weights": "constant", "compat": "reference",
    }  # fmt: skip
    assert set(others) | {"name"} >= read, "a new field needs a value here"
    if contrast == "none":  # "none" is no change
        others.pop("contrast")
    changing = {
        field for field, other in others.items() if history(**{**fields, field: other}) != plain
    }
    assert changing == read


@pytest.mark.parametrize(("name", "contrast"), COMBINATIONS)
@pytest.mark.parametrize(("labels", "classes"), [([0], 2), ([1] * 40, 2), (list(range(52)), 52)])
def test_weights_smoothing_and_absent_classes_keep_it_finite(
    name: str, contrast: str, labels: list[int], classes: int
) -> None:
    counts = tuple(max(0, 300 // (c + 1) - 20) for c in range(classes))
    loss = make(counts, name=name, contrast=contrast, class_weights="balanced", smoothing=0.1)
    for step in range(4):
        loss.set_progress(step / 3)
        output, y = batch(labels, classes, step)
        value = loss(output, y)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(output.features.grad).all()
        assert output.features.grad.abs().sum() > 0


@pytest.mark.parametrize(("name", "contrast"), COMBINATIONS)
def test_rows_of_a_class_without_training_rows_do_not_explode(name: str, contrast: str) -> None:
    loss = make((9, 5, 0), name=name, contrast=contrast, class_weights="balanced", smoothing=0.1)
    for progress in (0.0, 1.0):
        loss.set_progress(progress)
        for labels in ([2, 2], [0, 2, 1]):
            output, y = batch(labels, 3)
            value = loss(output, y)
            value.backward()
            assert value.item() < 1e3
            assert torch.isfinite(output.features.grad).all()


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("classes", [2, 52])
def test_the_contrast_alone_reaches_every_row(contrast: str, classes: int) -> None:
    loss = make((9,) * classes, contrast=contrast)
    assert isinstance(loss, table.CombinedLoss)
    for step in range(4):
        output, labels = batch([0, 0, 0, 1, 1, 1], classes, step)
        value = loss.contrast(output, labels)
        value.backward()
    assert value.item() > 0
    assert (output.features.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("name", "contrast"), COMBINATIONS)
def test_a_training_goes_on_from_saved_tensors(name: str, contrast: str) -> None:
    ours, other = (make((9, 5, 2), name=name, contrast=contrast) for _ in range(2))
    for step in range(5):
        ours(*batch([0, 0, 1, 1, 2, 2], 3, step))
    ours.set_progress(0.75)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    other.load_state_dict(safetensors.load(safetensors.save(ours.state_dict())))
    for step in range(5, 8):
        again = batch([0, 1, 2, 2], 3, step)
        assert drawn(ours, *again) == drawn(other, *again)
    fresh = make((9, 5, 2), name=name, contrast=contrast)
    stateless = (name, contrast) in [
        ("cross-entropy", "none"),
        ("focal", "none"),
        ("logit-adjustment", "none"),
    ]
    assert (drawn(fresh, *again) == drawn(other, *again)) == stateless
