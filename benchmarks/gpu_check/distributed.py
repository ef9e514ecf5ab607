"""Collective calls of one process by NCCL, and a fine-tuning with sharded weights (FSDP)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu_check.checks import Check, Fault, Place, Result, need_gpu, need_packages
from benchmarks.gpu_check.models import SMALL_CAUSAL, causal_folder

SECONDS = 150
FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Qwen2DecoderLayer",
}  # fmt: skip


def checks() -> dict[str, Check]:
    """The checks of this module by name."""
    return {"NCCL: one process": nccl, "FSDP: fine-tuning in one process": fsdp}


def nccl(place: Place) -> Result:
    """The collective calls that training makes, by the backends it chooses."""
    need_gpu(place)
    answer = _child("collectives", place, {})
    if answer["sum"] != 6.0 or answer["object"] != "same":
        raise Fault(f"collective calls gave {answer}")
    return "pass", f"backends {answer['backend']}: all_reduce, broadcast, barrier", {}


def fsdp(place: Place) -> Result:
    """Fine-tuning whose weights are sharded over one process, saved whole."""
    need_gpu(place)
    need_packages("trl", "datasets")
    causal_folder(place, SMALL_CAUSAL, "causal-small")
    answer = _child("fine_tuning", place, FSDP)
    if not answer["sharded"]:
        raise Fault("the weights were not sharded")
    text = f"loss {answer['losses'][0]:.2f} to {answer['losses'][-1]:.2f}, adapter saved whole"
    return "pass", text, {"mib": float(answer["mib"])}


def _child(what: str, place: Place, extra: dict[str, str]) -> dict[str, object]:
    """The answer of a process that runs a function of ``group_of_one`` as a launcher would."""
    answer = place.scratch / f"{what}.json"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", **extra,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    if not place.is_gpu:
        environment["ACCELERATE_USE_CPU"] = "true"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check.group_of_one", what, place.device,
         str(place.scratch), str(answer)],
        env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if done.returncode or not answer.exists():
        lines = [line for line in done.stderr.split("\n") if line.strip()] or ["no message"]
        raise Fault(f"the process ended with {done.returncode}: {lines[-1][:200]}")
    values: dict[str, object] = json.loads(Path(answer).read_text(encoding="utf-8"))
    return values
