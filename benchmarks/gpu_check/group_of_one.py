"""What :mod:`distributed` runs in a process of its own, as a group of one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.checks import PeakMemory, Place
from benchmarks.gpu_check.models import SMALL_CAUSAL, causal_folder


def collectives(place: Place) -> dict[str, Any]:
    """A sum, an object and a barrier."""
    import torch
    from torch import distributed

    from valence.distributed.process_group import GPU_BACKEND

    backend = f"cpu:gloo,{GPU_BACKEND}" if place.is_gpu else "gloo"
    distributed.init_process_group(backend=backend, rank=0, world_size=1)
    try:
        numbers = torch.arange(4.0, device=place.device)
        distributed.all_reduce(numbers)
        box = ["same"]
        distributed.broadcast_object_list(box, src=0)
        parts = [torch.empty_like(numbers)]
        distributed.all_gather(parts, numbers)
        distributed.barrier()
        return {"sum": float(parts[0].sum()), "object": box[0], "backend": backend}
    finally:
        distributed.destroy_process_group()


def fine_tuning(place: Place) -> dict[str, Any]:
    """Two steps with sharded weights."""
    from safetensors.torch import load_file

    from benchmarks.gpu_check.language_models import questions
    from valence.distributed import process_group
    from valence.llm.finetune import finetune
    from valence.llm.finetune_spec import FinetuneSpec
    from valence.llm.records import Example
    from valence.llm.sft_data import SFTData
    from valence.llm.sft_session import HISTORY

    folder = causal_folder(place, SMALL_CAUSAL, "causal-small")
    renderer, asked = questions(16)
    examples = [Example(q, i % len(renderer.classes)) for i, q in enumerate(asked)]
    data = SFTData("demo", "self-alignment", renderer, examples[:8], examples[8:])
    spec = FinetuneSpec(model=str(folder), max_steps=2, device=place.device, quantization="none",
                        accumulation=2, learning_rate=1e-3)  # fmt: skip
    out = place.scratch / "adapter-fsdp"
    peak = PeakMemory(place)
    finetune(spec, data, out)
    rows = [json.loads(line) for line in (out / HISTORY).read_text().split("\n") if line]
    shapes = [tuple(t.shape) for t in load_file(out / "adapter_model.safetensors").values()]
    if not shapes or any(0 in shape for shape in shapes):
        raise RuntimeError(f"the saved adapter has parts without numbers: {shapes[:3]}")
    return {"sharded": process_group.shards_weights(), "mib": peak.mib(),
            "losses": [row["loss"] for row in rows if "loss" in row]}  # fmt: skip


def main() -> None:
    what, device, scratch, answer = sys.argv[1:5]
    place = Place(device, rehearsal=device == "cpu", scratch=Path(scratch))
    values = {"collectives": collectives, "fine_tuning": fine_tuning}[what](place)
    Path(answer).write_text(json.dumps(values), encoding="utf-8")


if __name__ == "__main__":
    main()
