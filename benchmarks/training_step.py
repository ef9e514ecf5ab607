"""Two ratios of training with the built-in encoder, each measured side by side in one run.

1. A step of Hy-Mora (gated pooling and memory) against a step of plain LoRA.
2. An epoch padded to 128 tokens against padding to the longest of a batch, with texts of like
   length together.

Texts are those of the built-in corpus. Prints medians and ratios.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from tests.models import untrained
from valence.config.data import DataSpec
from valence.data.collate import pad
from valence.data.demo import demo_dataset
from valence.methods.registry import make_spec
from valence.models.torch_model import TorchModel

BATCH, REPEATS = 32, 7


def made(method: str) -> tuple[TorchModel, torch.optim.Optimizer]:
    data = demo_dataset().without_test()
    model = untrained(make_spec(method, DataSpec(), settings={"loss.memory_warmup_steps": 1}), data)
    trained = [p for p in model.classifier.parameters() if p.requires_grad]
    model.classifier.train()
    return model, torch.optim.AdamW(trained, lr=1e-3, fused=True)


def step(
    model: TorchModel,
    optimizer: torch.optim.Optimizer,
    rows: np.ndarray,
    *,
    width: int | None = None,
) -> float:
    data = demo_dataset().train
    ids = model.tokenizer([data.texts[i] for i in rows]).input_ids
    inputs = pad(ids, model.tokenizer.pad_id)
    if width is not None:
        missing = width - inputs["input_ids"].shape[1]
        inputs = {n: torch.nn.functional.pad(t, (0, missing)) for n, t in inputs.items()}
    labels = torch.from_numpy(data.labels[rows])
    start = time.perf_counter()
    loss = model.classifier(**inputs, labels=labels)["loss"]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(2)
    draw = np.random.default_rng(0)
    pair = {name: made(name) for name in ("lora", "hy-mora")}
    seconds: dict[str, list[float]] = {name: [] for name in pair}
    for i in range(REPEATS + 2):
        rows = draw.permutation(900)[:BATCH]
        for name, (model, optimizer) in pair.items():
            taken = step(model, optimizer, rows)
            if i > 1:  # the first steps warm the allocator and fill the memory
                seconds[name].append(taken)
    lora, ours = (statistics.median(seconds[name]) for name in ("lora", "hy-mora"))
    print(f"step: lora {lora * 1e3:.0f} ms, hy-mora {ours * 1e3:.0f} ms: {ours / lora:.2f} times")

    model, optimizer = pair["lora"]
    lengths = [len(ids) for ids in model.tokenizer(demo_dataset().train.texts).input_ids]
    grouped = np.argsort(lengths)[: 8 * (len(lengths) // 8)]
    batches = np.array_split(grouped, len(grouped) // BATCH)[::4]
    plain = [draw.permutation(900)[: len(rows)] for rows in batches]
    ours = sum(step(model, optimizer, rows) for rows in batches)
    dynamic = sum(step(model, optimizer, rows) for rows in plain)
    padded = sum(step(model, optimizer, rows, width=128) for rows in plain)
    print(
        f"padded to 128: {padded:.1f} s; to the longest: {dynamic:.1f} s; grouped by length: "
        f"{ours:.1f} s, {padded / ours:.1f} times faster than padding to 128"
    )


if __name__ == "__main__":
    main()
