"""One loop for all networks: encoded rows in, logits and features out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from valence.data.batches import rows_done
from valence.data.collate import Batch, EncodedInputs
from valence.distributed import process_group
from valence.models.base import Outputs, Progress
from valence.models.inference import run_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from valence.losses.base import Loss

Change = Callable[[Batch, np.ndarray], Batch]
"""A transform of a batch, given its row numbers, before it is scored."""


class Network(Protocol):
    """A module whose forward takes a batch by name and gives ``logits`` and ``features``."""

    loss: Loss
    views: int

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Everything that training changes."""
        ...

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`trainable_state_dict` returned."""
        ...


def score_inputs(
    network: nn.Module,
    inputs: EncodedInputs,
    progress: Progress | None = None,
    *,
    token_budget: int | None = None,
    distributed: bool = False,
    change: Change | None = None,
) -> Outputs:
    """Logits and features of encoded rows, in their order; restores the training mode.

    Args:
        network: On any device.
        inputs: N rows.
        progress: Called with (done, total) rows after every batch.
        token_budget: Most tokens of a batch; the default of the device when None.
        distributed: Whether all processes call this with the same rows: each computes a part of
            the batches, and all get the whole.
        change: Applied to every batch, for example to drop steps.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    batches = list(inputs.batches(device.type, token_budget))
    if distributed:
        batches = list(islice(batches, process_group.rank(), None, process_group.world_size()))

    def score(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        batch = inputs.batch(rows)
        if change is not None:
            batch = change(batch, rows)
        output = network(**{name: tensor.to(device) for name, tensor in batch.items()})
        return output["logits"].float(), output["features"].float()

    parts: list[tuple[Tensor, Tensor]] = []
    for part in run_batches(score, batches, device=device.type):
        parts.append(part)
        if progress is not None:
            progress(rows_done(len(parts), len(batches), len(inputs)), len(inputs))
    network.train(was_training)
    logits, features = (_in_order(network, inputs, batches, parts, i) for i in range(2))
    if distributed:
        logits = process_group.all_reduce_sum(logits)
        features = process_group.all_reduce_sum(features)
    return Outputs(logits, features, inputs.truncated)


def _in_order(
    network: nn.Module, inputs: EncodedInputs, batches: list[np.ndarray],
    parts: list[tuple[Tensor, Tensor]], which: int,
) -> np.ndarray:  # fmt: skip
    width = (network.output_size, network.feature_size)[which]
    values = np.zeros((len(inputs), int(width)), dtype=np.float32)  # type: ignore[arg-type]
    if parts:
        values[np.concatenate(batches)] = torch.cat([part[which] for part in parts]).cpu().numpy()
    return values


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Set the number of threads of PyTorch while the block runs; unchanged when None."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
