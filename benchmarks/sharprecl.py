"""What SharpReCL's contrast costs, in two ratios measured side by side in one run.

1. A training step of SharpReCL against a step of supervised contrast with the same views.
2. The loss alone, forward and backward, against the same loss with a loop over the classes,
   at 23 classes and 128 texts in two views.

Texts are those of the built-in corpus. Prints medians and ratios of processor time on one thread,
so that other work on the machine matters less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.models import untrained
from valence.config.data import DataSpec
from valence.config.sections import LossSpec
from valence.data.collate import pad
from valence.data.demo import demo_dataset
from valence.losses.base import ClassInfo, ModelOutput
from valence.losses.sharprecl import SharpContrast
from valence.methods.registry import make_spec
from valence.models.torch_model import TorchModel

TEXTS, REPEATS = 64, 9
CLASSES, ROWS, SIZE = 23, 256, 384
SPEC = LossSpec(contrast="sharprecl", temperature=0.3, projection_dim=100, mixing="always")


class LoopedContrast(SharpContrast):
    """The same loss as one would write it first: class by class, anchor by anchor's class."""

    def synthesize(
        self, guides: Tensor, candidates: Tensor, owners: Tensor
    ) -> tuple[Tensor, Tensor]:
        made = []
        for c in range(len(guides)):
            similarity = candidates @ guides[c]
            parts = []
            for own, count in ((True, self.spec.positives), (False, self.spec.negatives)):
                side = candidates[(owners == c) == own]
                closeness = similarity[(owners == c) == own]
                hard = closeness.topk(min(self.spec.hard_count, len(side)), largest=not own)[1]
                for _ in range(count):
                    a, b = hard[torch.randint(len(hard), (2,))]
                    share = torch.distributions.Beta(0.5, 0.5).sample()
                    parts.append(
                        functional.normalize(share * side[a] + (1 - share) * side[b], dim=0)
                    )
            made.append(torch.stack(parts))
        synthetic = torch.stack(made)
        return synthetic, torch.ones(synthetic.shape[:2], dtype=torch.bool)

    def contrast(
        self, candidates: Tensor, owners: Tensor, synthetic: Tensor, there: Tensor
    ) -> Tensor:
        total, weights = torch.zeros(()), torch.zeros(())
        for i, owner in enumerate(owners):
            others = torch.cat([candidates[:i], candidates[i + 1 :], synthetic[owner]])
            same = torch.cat([owners[:i], owners[i + 1 :]]) == owner
            positive = torch.cat([same, torch.arange(synthetic.shape[1]) < self.spec.positives])
            shares = (others @ candidates[i] / self.spec.temperature).log_softmax(0)
            total = total - self.row_weight[owner] * shares[positive].mean()
            weights = weights + self.row_weight[owner]
        return total / weights


def made(method: str) -> tuple[TorchModel, torch.optim.Optimizer]:
    model = untrained(
        make_spec(method, DataSpec(), settings={"encoder.adaptation": "full"}),
        demo_dataset().without_test(),
    )
    model.classifier.train()
    return model, torch.optim.AdamW(model.classifier.parameters(), lr=1e-5, fused=True)


def step(model: TorchModel, optimizer: torch.optim.Optimizer, rows: np.ndarray) -> float:
    data = demo_dataset().train
    ids = model.tokenizer([data.texts[i] for i in rows]).input_ids
    inputs = pad(ids + ids, model.tokenizer.pad_id)
    labels = torch.from_numpy(np.concatenate([data.labels[rows]] * 2))
    start = time.process_time()
    model.classifier(**inputs, labels=labels)["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.process_time() - start


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def compare_steps() -> None:
    draw = np.random.default_rng(0)
    pair = {name: made(name) for name in ("supcon", "sharprecl")}
    seconds: dict[str, list[float]] = {name: [] for name in pair}
    for i in range(REPEATS + 1):
        rows = draw.permutation(900)[:TEXTS]
        for name, (model, optimizer) in pair.items():
            taken = step(model, optimizer, rows)
            if i:  # the first warms the allocator
                seconds[name].append(taken)
    plain, ours = (statistics.median(seconds[name]) for name in ("supcon", "sharprecl"))
    print(
        f"step of {TEXTS} texts in two views: supcon {plain * 1e3:.0f} ms, sharprecl "
        f"{ours * 1e3:.0f} ms: {ours / plain:.2f} times"
    )


def compare_losses() -> None:
    torch.manual_seed(0)
    info = ClassInfo(tuple(600 // (c + 1) for c in range(CLASSES)), (), SIZE)
    losses = {"looped": LoopedContrast(SPEC, info), "batched": SharpContrast(SPEC, info)}
    losses["looped"].load_state_dict(losses["batched"].state_dict())
    labels = torch.randint(CLASSES, (ROWS // 2,)).repeat(2)
    output = ModelOutput(
        torch.zeros(ROWS, CLASSES), torch.randn(ROWS, SIZE), class_rows=torch.randn(CLASSES, SIZE)
    )
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for i in range(REPEATS + 1):
        for name, loss in losses.items():
            taken = timed(lambda loss=loss: loss(output, labels).backward())
            if i:
                seconds[name].append(taken)
    slow, fast = (statistics.median(seconds[name]) for name in ("looped", "batched"))
    print(
        f"loss alone, {CLASSES} classes, {ROWS} rows: looped {slow * 1e3:.0f} ms, batched "
        f"{fast * 1e3:.1f} ms: {slow / fast:.0f} times faster"
    )


def main() -> None:
    torch.set_num_threads(1)
    compare_losses()
    compare_steps()


if __name__ == "__main__":
    main()
