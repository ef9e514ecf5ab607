"""The prototype memory's step against plain loops over samples and classes, in one run.

Batch 64, 1,200 stored vectors, 6 classes, 128 dimensions, one CPU thread: loss, gradient and
entry of the batch. All give equal values and gradients, which is checked first; then they
take turns. Prints median times and ratios.

Run it with ``python benchmarks/memory_loss.py``.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from valence.config.sections import LossSpec
from valence.losses.base import ClassInfo
from valence.losses.contrastive import PrototypeMemory

CLASSES, BATCH, STORED, SIZE = 6, 64, 1200, 128
CAPACITY, REPEATS, TARGET = STORED // CLASSES, 15, 20
SPEC = LossSpec(contrast="memory", memory_size=STORED, projection_dim=SIZE, memory_warmup_steps=1)
TAIL = (0, 1)

Step = Callable[[Tensor, Tensor], Tensor]


class Queues:
    """The loss as one would first write it: queues of vectors, a loop over samples."""

    def __init__(self) -> None:
        self.queues = [deque[Tensor](maxlen=CAPACITY) for _ in range(CLASSES)]

    def _scores(self, feature: Tensor, c: int) -> Tensor:
        return torch.stack(list(self.queues[c])) @ feature / SPEC.temperature

    def _size(self, c: int) -> int:
        return len(self.queues[c])

    def _insert(self, feature: Tensor, c: int) -> None:
        self.queues[c].append(feature)

    def step(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss of unit vectors (B, D), which then enter the queues."""
        losses = []
        for feature, label in zip(features, labels.tolist(), strict=True):
            ready = [c for c in range(CLASSES) if self._size(c) >= SPEC.min_samples]
            if label not in ready or len(ready) < 2:
                continue
            scores = {c: self._scores(feature, c) for c in ready}
            loss = torch.logsumexp(torch.cat(list(scores.values())), 0) - scores[label].mean()
            losses.append(loss * (SPEC.tail_weight if label in TAIL else 1.0))
        for feature, label in zip(features.detach(), labels.tolist(), strict=True):
            self._insert(feature, label)
        return torch.stack(losses).mean() if losses else features.sum() * 0.0


class Rings(Queues):
    """The same loop with each queue kept as one tensor: nothing is stacked again."""

    def __init__(self) -> None:
        self.rings = [torch.zeros(CAPACITY, SIZE) for _ in range(CLASSES)]
        self.sizes, self.pointers = [0] * CLASSES, [0] * CLASSES

    def _scores(self, feature: Tensor, c: int) -> Tensor:
        return self.rings[c][: self.sizes[c]].clone() @ feature / SPEC.temperature

    def _size(self, c: int) -> int:
        return self.sizes[c]

    def _insert(self, feature: Tensor, c: int) -> None:
        self.rings[c][self.pointers[c]] = feature
        self.pointers[c] = (self.pointers[c] + 1) % CAPACITY
        self.sizes[c] = min(self.sizes[c] + 1, CAPACITY)


def draw() -> tuple[Tensor, Tensor]:
    features = functional.normalize(torch.randn(BATCH, SIZE), dim=1)
    return features, torch.randint(CLASSES, (BATCH,))


def timed(step: Step, features: Tensor, labels: Tensor) -> tuple[float, Tensor, Tensor]:
    """Seconds of a step with its gradient, the loss, and the gradient."""
    leaf = features.clone().requires_grad_()
    start = time.perf_counter()
    loss = step(leaf, labels)
    loss.backward()
    seconds = time.perf_counter() - start
    assert leaf.grad is not None
    return seconds, loss.detach(), leaf.grad


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # beside other work, two threads wait for each other
    memory = PrototypeMemory(SPEC, ClassInfo((1,) * CLASSES, TAIL, SIZE))
    steps: dict[str, Step] = {
        "batched": memory.contrast_and_store,
        "loop": Queues().step,
        "loop over kept tensors": Rings().step,
    }
    while memory.sizes.sum() < STORED:
        features, labels = draw()
        found = [timed(step, features, labels)[1:] for step in steps.values()]
        for loss, gradient in found[1:]:
            torch.testing.assert_close(loss, found[0][0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(gradient, found[0][1], atol=1e-5, rtol=1e-5)
    print(f"equal values and gradients until all {STORED} places were filled")

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        features, labels = draw()
        for name, step in steps.items():
            seconds[name].append(timed(step, features, labels)[0])
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:24} {median * 1e3:8.2f} ms {median / medians['batched']:6.1f} ×")
    ratio = medians["loop"] / medians["batched"]
    print(f"the batched step is {ratio:.0f} times as fast as the loop (target: {TARGET})")


if __name__ == "__main__":
    main()
