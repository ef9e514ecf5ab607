"""How processes are counted and batches shared out; the rest is held to by the contracts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from torch.utils.data import SequentialSampler

from valence.config.data import DataSpec
from valence.distributed import process_group
from valence.errors import RunError, SpecError
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.training.distributed_sampler import DistributedBatchSampler


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch):
    """Be process ``rank`` of ``count``, as a launcher would say."""

    def start(rank: int, count: int, names: tuple[str, str] = ("RANK", "WORLD_SIZE")) -> None:
        for name, value in zip(names, (rank, count), strict=True):
            monkeypatch.setenv(name, str(value))

    for name in chain(*process_group.LAUNCHERS.items()):
        monkeypatch.delenv(name, raising=False)
    return start


def test_without_a_launcher_there_is_one_process(started: object) -> None:
    assert (process_group.world_size(), process_group.rank(), process_group.is_main_process()) == (
        1,
        0,
        True,
    )
    assert process_group.per_process_batch_size(15, "train.batch_size") == 15
    assert process_group.run_on_main_process(lambda: 3) == 3
    process_group.require_single_process("This", "that")
    assert process_group.first_failure(70) == (True, 70)


@pytest.mark.parametrize("names", process_group.LAUNCHERS.items())
def test_launchers_number_processes(names: tuple[str, str], started) -> None:
    started(2, 3, names)
    assert (process_group.world_size(), process_group.rank(), process_group.is_main_process()) == (
        3,
        2,
        False,
    )


def test_a_batch_that_cannot_be_shared_names_one_that_can(started) -> None:
    started(0, 3)
    assert process_group.per_process_batch_size(18, "train.batch_size") == 6
    with pytest.raises(SpecError, match=r"train\.batch_size = 16 .* 3 processes.* such as 18"):
        process_group.per_process_batch_size(16, "train.batch_size")
    with pytest.raises(RunError, match="This runs in one process, but 3 were started; that"):
        process_group.require_single_process("This", "that")


def test_a_method_that_is_fitted_in_one_go_is_refused(started) -> None:
    started(1, 2)
    spec = make_spec("tfidf-lr", DataSpec(name="reviews.csv"))
    with pytest.raises(RunError, match="Method 'tfidf-lr' runs in one process, but 2 were"):
        run(spec)


@pytest.mark.parametrize("rows", [1, 4, 9, 10, 17])
def test_shares_make_up_the_batches_of_one_process(
    rows: int, started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "run_on_main_process", lambda make: make())
    shares = []
    for rank in range(3):
        started(rank, 3)
        batches = DistributedBatchSampler(SequentialSampler(range(rows)), 4)
        shares.append(list(batches))
        assert len(shares[-1]) == len(batches) == -(-rows // 4)
    for number, parts in enumerate(zip(*shares, strict=True)):
        real = [row for part in parts for row in part if row >= 0]
        assert real == list(range(rows))[4 * number : 4 * number + 4]
        assert all(len(part) >= 1 for part in parts)


TOGETHER = """
import sys, time
from pathlib import Path
from valence.distributed import process_group

process_group.init_process_group("cpu")
path = Path(sys.argv[1])
with process_group.main_process_first():
    if process_group.is_main_process():
        time.sleep(0.5)
        path.write_text("there")
    seen = path.exists()
process_group.barrier()
print(process_group.rank(), process_group.world_size(), seen,
      process_group.broadcast_object(process_group.rank()))
process_group.destroy_process_group()
"""


FIRST, *OTHERS = process_group.LAUNCHERS.items()


@pytest.mark.parametrize(
    "names", [FIRST, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)]
)
def test_processes_of_every_launcher_coordinate(
    names: tuple[str, str], tmp_path: Path, started: object
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, names[1]: "2"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(tmp_path / "written")], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**common, names[0]: str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    ends = [process.communicate(timeout=100) for process in both]
    assert [out for out, _ in ends] == ["0 2 True 0\n", "1 2 True 0\n"], ends
