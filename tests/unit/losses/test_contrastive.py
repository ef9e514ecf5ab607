"""The prototype memory against queues and loops that are plainly right."""

from __future__ import annotations

import math
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from valence.config.sections import LossSpec
from valence.losses.base import ClassInfo, ModelOutput
from valence.losses.contrastive import PrototypeMemory

SIZE = 6


def make(classes: int, **fields: object) -> PrototypeMemory:
    values = {
        "contrast": "memory", "projection_dim": SIZE, "memory_warmup_steps": 1, "min_samples": 1,
        "temperature": 0.3, "memory_size": 4 * classes, "tail_weight": 2.5,
    }  # fmt: skip
    spec = LossSpec.model_validate(values | fields)
    info = ClassInfo((10,) * classes, tuple(range(0, classes, 2)), SIZE)
    return PrototypeMemory(spec, info)


def unit(rows: int, generator: torch.Generator) -> Tensor:
    return functional.normalize(torch.randn(rows, SIZE, generator=generator), dim=1)


class PlainMemory:
    """SYSTEMS §1 word by word: one queue per class, one row after the other."""

    def __init__(self, spec: PrototypeMemory, *, classes: int, warmup: int, least: int) -> None:
        self.queues = [deque[Tensor](maxlen=spec.capacity) for _ in range(classes)]
        self.temperature, self.warmup, self.step_number = spec.temperature, warmup, 0
        self.least = min(least, spec.capacity)

    def step(self, features: Tensor, labels: list[int]) -> Tensor:
        self.step_number += 1
        losses = [
            loss
            for feature, label in zip(features, labels, strict=True)
            if (loss := self.charge(feature, label)) is not None
        ]
        if self.step_number >= self.warmup:
            for feature, label in zip(features, labels, strict=True):
                self.queues[label].append(feature.detach())
        return sum(losses) / len(losses) if losses else features.sum() * 0

    def charge(self, feature: Tensor, label: int) -> Tensor | None:
        ready = [c for c, queue in enumerate(self.queues) if len(queue) >= self.least]
        if self.step_number <= self.warmup or label not in ready or ready == [label]:
            return None
        powers = {
            c: [torch.exp(feature @ v / self.temperature) for v in self.queues[c]] for c in ready
        }
        total = sum(p for c in ready for p in powers[c])
        terms = [-torch.log(p / total) for p in powers[label]]
        weight = 2.5 if label % 2 == 0 else 1.0
        return weight * sum(terms) / len(terms)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 5),
    capacity=st.integers(1, 6),
    spare=st.integers(0, 4),
    warmup=st.integers(1, 4),
    least=st.integers(1, 8),
    batches=st.lists(st.integers(1, 20), min_size=6, max_size=10),
)
def test_memory_equals_plain_queues(
    seed: int,
    classes: int,
    capacity: int,
    spare: int,
    warmup: int,
    least: int,
    batches: list[int],
) -> None:
    memory = make(
        classes,
        memory_size=classes * capacity + min(spare, classes - 1),
        memory_warmup_steps=warmup,
        min_samples=least,
    )
    plain = PlainMemory(memory, classes=classes, warmup=warmup, least=least)
    generator = torch.Generator().manual_seed(seed)
    for rows in batches:
        features = unit(rows, generator)
        labels = torch.randint(classes, (rows,), generator=generator)
        ours, theirs = (features.clone().requires_grad_() for _ in range(2))
        loss, expected = (
            memory.contrast_and_store(ours, labels),
            plain.step(theirs, labels.tolist()),
        )
        loss.backward()
        expected.backward()
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)
    for c, queue in enumerate(plain.queues):
        assert_ring_holds(memory, c, list(queue))


def assert_ring_holds(memory: PrototypeMemory, c: int, oldest_first: list[Tensor]) -> None:
    size, pointer = int(memory.sizes[c]), int(memory.pointers[c])
    assert size == len(oldest_first)
    slots = [(pointer - size + i) % memory.capacity for i in range(size)]
    for slot, vector in zip(slots, oldest_first, strict=True):
        torch.testing.assert_close(memory.bank[c, slot], vector)


def test_capacity_is_the_size_shared_by_the_classes() -> None:
    assert make(6, memory_size=1200).capacity == 200
    assert make(5, memory_size=23).capacity == 4


def test_of_a_batch_larger_than_the_ring_only_the_last_rows_remain() -> None:
    memory = make(2, memory_size=6)
    features = unit(10, torch.Generator().manual_seed(0))
    memory.contrast_and_store(features, torch.tensor([0] * 9 + [1]))
    assert memory.sizes.tolist() == [3, 1]
    assert_ring_holds(memory, 0, list(features[6:9]))
    assert_ring_holds(memory, 1, [features[9]])


def test_storing_begins_with_the_warmup_step_and_charging_with_the_next() -> None:
    memory, generator = make(2, memory_warmup_steps=3), torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1])
    losses, sizes = [], []
    for _ in range(4):
        losses.append(float(memory.contrast_and_store(unit(2, generator), labels)))
        sizes.append(memory.sizes.tolist())
    assert sizes == [[0, 0], [0, 0], [1, 1], [2, 2]]
    assert losses[:3] == [0, 0, 0]
    assert losses[3] > 0


def test_a_row_alone_against_one_vector_of_each_class() -> None:
    memory = make(2, temperature=0.5)
    axes = torch.eye(SIZE)
    memory.contrast_and_store(axes[:2], torch.tensor([0, 1]))
    # Class 1 is no tail class: −log of e² over e² + e⁰.
    loss = memory.contrast_and_store(axes[1:2], torch.tensor([1]))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)


def test_reference_counts_slot_zero_alone_as_positive() -> None:
    right, published = make(2), make(2, compat="reference")
    generator = torch.Generator().manual_seed(0)
    stored, labels = unit(4, generator), torch.tensor([1, 1, 1, 0])
    row = unit(1, generator)
    for memory in (right, published):
        memory.contrast_and_store(stored, labels)
    scores = (row @ stored.T / 0.3)[0]
    total = torch.logsumexp(scores, 0)
    label = torch.tensor([1])
    assert float(published.contrast(row, label)) == pytest.approx(
        float(total - scores[0]), rel=1e-5
    )
    assert float(right.contrast(row, label)) == pytest.approx(
        float(total - scores[:3].mean()), rel=1e-5
    )


def test_evaluation_charges_nothing_and_stores_nothing() -> None:
    memory, generator = make(2), torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1])
    for _ in range(3):
        memory(ModelOutput(torch.zeros(2, 2), unit(2, generator)), labels)
    before = {name: tensor.clone() for name, tensor in memory.state_dict().items()}
    loss = memory.eval()(ModelOutput(torch.zeros(2, 2), unit(2, generator)), labels)
    assert float(loss) == 0.0
    for name, tensor in memory.state_dict().items():
        torch.testing.assert_close(tensor, before[name], msg=name)
    charged = memory.train()(ModelOutput(torch.zeros(2, 2), unit(2, generator)), labels)
    assert float(charged.detach()) > 0


def test_a_batch_without_a_charged_row_costs_a_connected_zero() -> None:
    memory = make(3)
    features = unit(4, torch.Generator().manual_seed(0)).requires_grad_()
    loss = memory(ModelOutput(torch.zeros(4, 3), features), torch.tensor([0, 0, 0, 0]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert features.grad is not None
    assert features.grad.abs().max() == 0


def test_what_is_stored_carries_no_gradient() -> None:
    memory = make(2)
    features = unit(2, torch.Generator().manual_seed(0)).requires_grad_()
    memory.contrast_and_store(features, torch.tensor([0, 1]))
    assert not memory.bank.requires_grad


def test_the_projector_learns() -> None:
    memory, generator = make(2), torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1])
    memory(ModelOutput(torch.zeros(2, 2), unit(2, generator)), labels)
    memory(ModelOutput(torch.zeros(2, 2), unit(2, generator)), labels).backward()
    gradients = [p.grad for p in memory.projector.parameters()]
    assert all(g is not None and g.abs().max() > 0 for g in gradients)


def test_it_computes_in_single_precision_under_autocast() -> None:
    states = torch.randn(2, 8, SIZE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 2
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        memory = make(2)
        memory.projector[2].p = 0.0
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            for features in states:
                loss = memory(ModelOutput(torch.zeros(8, 2), features), labels)
        assert loss.dtype == memory.bank.dtype == torch.float32
        found.append(float(loss.detach()))
    assert found[0] == found[1] > 0


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def operations(classes: int, rows: int, capacity: int) -> list[str]:
    memory, generator = make(classes, memory_size=classes * capacity), torch.Generator()
    labels = torch.randint(classes, (rows,), generator=generator)
    memory.contrast_and_store(unit(rows, generator), labels)
    features = unit(rows, generator)
    with _Operations() as seen:
        memory.contrast_and_store(features, labels)
    return seen.names


def test_the_number_of_operations_depends_on_nothing() -> None:
    few, many = operations(2, 3, 2), operations(52, 64, 20)
    assert len(few) == len(many) < 90
    assert not [name for name in few if "_local_scalar_dense" in name or "nonzero" in name]


def test_shapes_do_not_depend_on_values() -> None:
    # Tensors on the meta device have no values: reading one back, as .item() does, raises.
    memory = make(5).to("meta")
    features = torch.empty(7, SIZE, device="meta", requires_grad=True)
    labels = torch.empty(7, dtype=torch.long, device="meta")
    memory.contrast_and_store(memory.projector(features), labels).backward()
    assert features.grad is not None
    assert features.grad.shape == (7, SIZE)
