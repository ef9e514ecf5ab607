"""The command line with a fault in process 1 alone: run by torchrun as ``-m tests.failing``."""

from __future__ import annotations

import os

os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # before torch is there, as the command line does

import torch

from valence import cli
from valence.errors import RunError
from valence.losses.supervised import CrossEntropy
from valence.losses.table import LOSSES


class Failing(CrossEntropy):
    """Ends at its third batch, as a machine does whose memory is full."""

    calls = 0

    def forward(self, output: object, labels: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 3:
            raise RunError("Memory of machine 1 is full; give it less to do")
        return super().forward(output, labels)  # type: ignore[arg-type]


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        LOSSES["cross-entropy"] = Failing
    cli.main()
