"""A training step of ALMT against the same model written plainly, measured in one run.

Plainly: every layer attends from all positions to all positions, and the cross-transformer
carries all of its targets, as the paper writes it. The weights are the same, and so must the
outputs be. Shapes are MOSEI's, batch 64, without the text encoder.

Prints medians, their ratio, the largest difference of the outputs, and peak memory.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from valence.models.multimodal import ALMT, ALMT_SETUPS, MODALITIES, Attention, Layer
from valence.runs.provenance import peak_memory_mib, reset_peak_memory

BATCH, REPEATS, WARM = 64, 5, 1
TARGET_RATIO, TARGET_MIB = 4.0, 1024.0
Forward = Callable[[ALMT, dict[str, Tensor]], Tensor]


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    shares = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (shares @ v).transpose(1, 2).flatten(2)


def read(part: Attention, target: Tensor, source: Tensor) -> Tensor:
    found = attend(
        part.query(part.norm_query(target)), part.key(part.norm_key(source)),
        part.value(part.norm_value(source)), part.heads,
    )  # fmt: skip
    return part.out(found)


def through(layer: Layer, target: Tensor, source: Tensor) -> Tensor:
    target = target + read(layer.attention, target, source)
    return target + layer.outer(functional.gelu(layer.inner(layer.norm(target))))


def plain(model: ALMT, batch: dict[str, Tensor]) -> Tensor:
    h = {}
    for name in MODALITIES:
        part = model.projections[name]
        tokens = part.tokens.expand(BATCH, -1, -1)
        states = torch.cat([tokens, part.linear(batch[name])], dim=1)
        states = states + part.positions[:, : states.shape[1]]
        for layer in part.layers:
            states = through(layer, states, states)
        h[name] = states[:, : tokens.shape[1]]
    scales = [h["text"] + model.language_positions]
    for layer in model.language:
        scales.append(through(layer, scales[-1], scales[-1]))
    hyper = model.hyper_start.expand(BATCH, -1, -1)
    for part, scale in zip(model.hyper, scales, strict=True):
        query = part.query(part.norm_text(scale))
        audio, vision = part.norm_audio(h["audio"]), part.norm_vision(h["vision"])
        heard = attend(query, part.key_audio(audio), part.value_audio(audio), part.heads)
        seen = attend(query, part.key_vision(vision), part.value_vision(vision), part.heads)
        hyper = part.norm_hyper(hyper) + part.out(heard + seen)
    part = model.fusion
    token = part.token.expand(BATCH, -1, -1)
    source = torch.cat([token, hyper], dim=1) + part.source_positions
    target = torch.cat([token, scales[-1]], dim=1) + part.target_positions
    for layer in part.layers:
        target = through(layer, target, source)
    return model.output(target[:, 0])


def ours(model: ALMT, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["text"], batch["audio"], batch["vision"]).logits


def step(forward: Forward, model: ALMT, batch: dict[str, Tensor], truth: Tensor) -> float:
    start = time.perf_counter()
    loss = functional.mse_loss(forward(model, batch)[:, 0], truth)
    loss.backward()
    model.zero_grad()
    return time.perf_counter() - start


def main() -> None:
    torch.manual_seed(0)
    settings = ALMT_SETUPS["mosei"]
    model = ALMT(settings)
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter)
    batch = {
        name: torch.randn(BATCH, settings.length(name), settings.width(name)) for name in MODALITIES
    }
    truth = torch.randn(BATCH)
    with torch.inference_mode():
        gap = float((ours(model, batch) - plain(model, batch)).abs().max())
    gc.collect()
    reset_peak_memory()
    forwards: dict[str, Forward] = {"ours": ours, "plain": plain}
    seconds: dict[str, list[float]] = {name: [] for name in forwards}
    peak = 0.0
    for i in range(REPEATS + WARM):
        for name, forward in forwards.items():
            taken = step(forward, model, batch, truth)
            if name == "ours" and i == 0:  # before the plain one has grown the process
                peak = peak_memory_mib("cpu")
            if i >= WARM:
                seconds[name].append(taken)
    fast, slow = (statistics.median(seconds[name]) for name in ("ours", "plain"))
    print(
        f"step: ours {fast * 1e3:.0f} ms, plain {slow * 1e3:.0f} ms: {slow / fast:.1f} times "
        f"faster (target {TARGET_RATIO:g})"
    )
    print(f"largest difference of the outputs: {gap:.1e} (target 1e-05)")
    print(f"peak memory of the process in our step: {peak:.0f} MiB (target {TARGET_MIB:g})")


if __name__ == "__main__":
    main()
