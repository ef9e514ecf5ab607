"""One training in several processes, as torchrun and ``accelerate launch`` start them.

A launcher starts the same command several times and numbers the processes in the environment
(``LAUNCHERS``). Process 0 writes, prints and decides; the others take part in the training and
say nothing. Without a launcher there is one process, and everything here does nothing.

Once the processes have met, accelerate's ``PartialState`` coordinates them, as it does in the
training. It meets them when it is made, by a backend of its own choice, so that what must be
known before (who speaks, which command is refused) comes from the environment, and so does
the meeting, which takes tensors of both kinds and waits a day.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from valence.errors import RunError, SpecError

if TYPE_CHECKING:
    import numpy as np
    from accelerate import PartialState
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

T = TypeVar("T")

WAIT = timedelta(days=1)
"""Others wait while one writes a large cache; a process that ends is noticed at once."""
KNOCK = timedelta(seconds=5)
FAILED = "valence/failed"
GPU_BACKEND = "cuda:nccl"
LAUNCHERS = {
    "RANK": "WORLD_SIZE",
    "PMI_RANK": "PMI_SIZE",
    "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_RANK": "MV2_COMM_WORLD_SIZE",
}
"""How launchers number processes, and say how many there are: torchrun, then those of MPI."""


def world_size() -> int:
    """How many processes train together."""
    return max([1, *(_whole(size) for number, size in LAUNCHERS.items() if number in os.environ)])


def rank() -> int:
    """Which of them this is, from 0."""
    several = (n for n, size in LAUNCHERS.items() if n in os.environ and _whole(size) > 1)
    return _whole(next(several, ""))


def shards_weights() -> bool:
    """Whether each process holds a part of the weights (FSDP, as accelerate is configured)."""
    launched = world_size() > 1 or "LOCAL_RANK" in os.environ  # accelerate shards one process too
    return launched and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def launched_alone() -> bool:
    """Whether ``accelerate launch --cpu`` was to start several processes and started one."""
    alone = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and world_size() == 1
    return alone and "MASTER_ADDR" in os.environ


def is_main_process() -> bool:
    """Whether this process writes and prints."""
    return rank() == 0


def _whole(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 0


def per_process_batch_size(batch: int, setting: str) -> int:
    """The part of a batch that each process computes.

    Args:
        batch: Rows of a step in all processes together.
        setting: Where that number was set, for the message.

    Raises:
        SpecError: if it cannot be shared evenly.
    """
    several = world_size()
    if batch % several:
        nearest = -(-batch // several) * several
        raise SpecError(
            f"{setting} = {batch} cannot be divided evenly among {several} processes; use a "
            f"multiple, such as {nearest}"
        )
    return batch // several


def require_single_process(what: str, instead: str) -> None:
    """Refuse what several processes would only do several times.

    Raises:
        RunError: if there are several processes.
    """
    if world_size() > 1:
        raise RunError(f"{what} runs in one process, but {world_size()} were started; {instead}")


def init_process_group(device: str) -> None:
    """Meet the other processes; a second call does nothing.

    Args:
        device: ``cuda`` exchanges tensors of a GPU by NCCL; everything else goes by Gloo.

    Raises:
        RunError: if the others cannot be reached.
    """
    if world_size() == 1:
        return
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return
    backend = "gloo"
    if device == "cuda":
        torch.cuda.set_device(_whole("LOCAL_RANK"))
        backend = f"cpu:gloo,{GPU_BACKEND}"
    try:
        distributed.init_process_group(
            backend=backend, timeout=WAIT, rank=rank(), world_size=world_size()
        )
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"The {world_size()} processes cannot connect ({reason}); start them with torchrun or "
            "accelerate launch"
        ) from None


def destroy_process_group(*, failed: bool = False) -> bool:
    """Part from the other processes at the end of the work; whether there was a group.

    Args:
        failed: Whether the command line could not be read: process 0 says so, and must do so
            before a launcher ends it because another process has ended.
    """
    if failed:
        if not is_main_process():
            time.sleep(KNOCK.total_seconds())
        return False
    if world_size() > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()
            return True
    return False


def barrier() -> None:
    """Go on when all processes are here."""
    if world_size() > 1:
        _state().wait_for_everyone()


def main_process_first() -> AbstractContextManager[None]:
    """Let process 0 run the block, then the others, who find what it has written."""
    return _state().main_process_first() if world_size() > 1 else nullcontext()


def _state() -> PartialState:
    """The processes that have met, as accelerate knows them."""
    from accelerate import PartialState
    from torch import distributed

    return PartialState(cpu=GPU_BACKEND not in str(distributed.get_backend_config()))


def broadcast_object(value: T) -> T:
    """The value that process 0 gives, in every process."""
    if world_size() == 1:
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def run_on_main_process(make: Callable[[], T]) -> T:
    """What ``make`` returns in process 0, in every process; the others do not call it."""
    made = make() if is_main_process() else None
    return broadcast_object(made)  # type: ignore[return-value]


def assert_equal_across_ranks(value: str, what: str) -> None:
    """Make sure that all processes work on the same.

    Raises:
        RunError: if this process has another value than process 0.
    """
    if broadcast_object(value) != value:
        raise RunError(
            f"Process {rank()} has different {what} than process 0; use the same data, settings "
            "and versions on all machines"
        )


def all_reduce_sum(parts: np.ndarray) -> np.ndarray:
    """The sum over all processes of arrays of one shape, in every process."""
    if world_size() == 1:
        return parts
    import torch
    from torch import distributed

    total = torch.from_numpy(parts.copy())
    distributed.all_reduce(total)
    return total.numpy()


def silence_non_main() -> None:
    """Let processes other than the first say nothing; what fails in them is still printed."""
    if world_size() > 1:  # torch's remarks on its own work, which every process would make
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if not is_main_process():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def first_failure(code: int) -> tuple[bool, int]:
    """Whether this process is the first to fail, and the exit code of the first.

    When one process fails, the others soon do too, for it does not answer any more.

    Args:
        code: The exit code of this process's own failure.
    """
    if world_size() == 1:
        return True, code
    try:
        store = _store()
        mine = f"{rank()}:{code}"
        key = f"{FAILED}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        first = bytes(store.compare_set(key, "", mine)).decode()
        return first == mine, int(first.rpartition(":")[2])
    except Exception:  # there is nobody to ask: speak rather than fail in silence
        return is_main_process(), code


def _store() -> TCPStore:
    """Where all processes can leave a word, also one that has not met the others yet."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(
        os.environ["MASTER_ADDR"], _whole("MASTER_PORT"), is_master=False, timeout=KNOCK,
        wait_for_workers=False,
    )  # fmt: skip
