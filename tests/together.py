"""What two processes and one do alike: run by torchrun as ``-m tests.together``, and by tests.

``loss_steps`` and ``trainings`` are called in one process by a test and in two by the script
below, on the same rows; the test compares what they leave.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from valence.config.data import DataSpec
from valence.config.sections import LossSpec
from valence.data.collate import IGNORE_INDEX
from valence.distributed import process_group
from valence.losses.base import ClassInfo, ModelOutput
from valence.losses.gather import full_batch_loss
from valence.losses.table import CONTRASTS, INTENSITY_LOSSES, LOSSES, build_loss
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunStore

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
WIDTH, SIZE, CLASSES = 5, 8, 3
COMBINATIONS = [*product(LOSSES, ["none", *CONTRASTS]), *((n, "none") for n in INTENSITY_LOSSES)]
VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "weighted": {"class_weights": "balanced", "weight_clamp": 3.0, "smoothing": 0.1},
    "views": {},
    "no prototypes": {"prototypes": "none", "anchor_weights": "constant"},
}
BATCHES = [[0, 0, 1, 2, 0, 1, 2], [0, 1, 0, 1, 2, 0, 0, 1], [2], [1, 1, 1], [0, 2, 1, 0, 1]]
"""Labels of the batches: uneven, of one row, of one class."""
METHODS: dict[str, dict[str, object]] = {
    "lora-balanced": {"train.accumulation": 2},
    "hy-mora": {},
    "sharprecl": {},
    "supcon": {"view.name": "edits"},
    "cross-entropy": {"encoder.adaptation": "frozen", "train.learning_rate": 5e-2},
    "full": {"train.batch_size": 22},
}


def launched(*words: object, where: Path) -> subprocess.CompletedProcess[str]:
    """A command in two processes that meet at a free port, with a cache of their own."""
    return _started([*TORCHRUN, *map(str, words)], where)


def alone(*words: object, where: Path) -> subprocess.CompletedProcess[str]:
    """The same in one process."""
    return _started([sys.executable, *map(str, words)], where)


def _started(words: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=where, env=os.environ | surroundings(where), text=True, capture_output=True,
        timeout=200, check=False,
    )  # fmt: skip


def surroundings(where: Path) -> dict[str, str]:
    """Environment of a command: this source, and a cache of its own."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "VALENCE_CACHE": str(where / "cache")}


class Net(nn.Module):
    """A layer before the features, one after, and a loss."""

    def __init__(self, name: str, contrast: str, fields: dict[str, object], views: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(WIDTH, SIZE)
        self.head = nn.Linear(SIZE, 1 if name in INTENSITY_LOSSES else CLASSES)
        values = {"name": name, "contrast": contrast, "memory_warmup_steps": 1, "memory_size": 24}
        spec = LossSpec(**{**values, "projection_dim": 6, "min_samples": 1, **fields})
        self.loss = build_loss(spec, ClassInfo((9, 5, 2), (2,), SIZE))
        self.views = views

    def forward(self, rows: Tensor, labels: Tensor) -> Tensor:
        features = torch.tanh(self.body(rows))
        output = ModelOutput(self.head(features), features, class_rows=self.head.weight)
        return full_batch_loss(self.loss, output, labels, views=self.views)


def loss_steps(name: str, contrast: str, variant: str) -> dict[str, Tensor]:
    """Losses, gradients and memory of a few steps; of several processes, those of this one."""
    views = 2 if variant == "views" else 1
    net = Net(name, contrast, VARIANTS[variant], views)
    several = process_group.world_size() > 1
    wrapped = DistributedDataParallel(net, find_unused_parameters=True) if several else net
    draw = torch.Generator().manual_seed(3)
    torch.manual_seed(7 + process_group.rank())
    found: dict[str, Tensor] = {}
    for number, labels in enumerate(BATCHES):
        net.loss.set_progress(number / len(BATCHES))
        rows = torch.randn(views, len(labels), WIDTH, generator=draw)
        truth = torch.tensor(labels)
        net.zero_grad()
        value = wrapped(*part(rows, truth if name in LOSSES else truth.float() - 1))
        value.backward()
        found[f"{number} loss"] = value.detach()
        for parameter, tensor in net.named_parameters():
            if tensor.grad is not None:
                found[f"{number} {parameter}"] = tensor.grad.clone()
    return found | {f"kept {n}": v.clone() for n, v in net.state_dict().items()}


def part(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """This process's part of a batch (views, B, F), its views one after the other."""
    numbers = torch.arange(len(labels)).tensor_split(process_group.world_size())[
        process_group.rank()
    ]
    if len(numbers):
        return rows[:, numbers].flatten(0, 1), labels[numbers].repeat(len(rows))
    if labels.is_floating_point():
        return rows[:, :0].flatten(0, 1), labels[:0]
    return rows[:, :1].flatten(0, 1), torch.full((len(rows),), IGNORE_INDEX)


def trainings(folder: Path, encoder: str, data: str, method: str) -> str:
    """Train a method; the key of its run."""
    settings: dict[str, Any] = {
        "encoder.name": encoder, "encoder.lora_dropout": 0, "head.dropout": 0,
        "train.epochs": 2, "train.batch_size": 16, "train.learning_rate": 5e-3,
        "train.device": "cpu", "loss.memory_warmup_steps": 1, "loss.min_samples": 1,
        **METHODS[method],
    }  # fmt: skip
    spec = make_spec(method, DataSpec(name=data), seed=45, settings=settings)
    return run(spec, store=RunStore(folder), keep_model=True).key


def main() -> None:
    """Do it all in this one of several processes: ``folder encoder data``."""
    folder = Path(sys.argv[1])
    process_group.silence_non_main()
    process_group.init_process_group("cpu")
    for name, contrast in COMBINATIONS:
        for variant in VARIANTS:
            found = loss_steps(name, contrast, variant)
            torch.save(found, folder / f"{name}-{contrast}-{variant}-{process_group.rank()}.pt")
    for method in METHODS:
        # As on a machine with a disk of its own, so that what process 1 writes is seen.
        trainings(
            folder / ("runs", "runs-1")[process_group.rank()], sys.argv[2], sys.argv[3], method
        )
    distributed.barrier()
    process_group.destroy_process_group()


if __name__ == "__main__":
    main()
