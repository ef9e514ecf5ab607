"""Language models: throughput, number formats, fine-tuning, deferred weights, lack of memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gpu_check.checks import (
    Check,
    Clock,
    Fault,
    PeakMemory,
    Place,
    Result,
    Skip,
    free_memory,
    need_gpu,
    need_packages,
)
from benchmarks.gpu_check.models import (
    QWEN_7B,
    SMALL_CAUSAL,
    byte_tokenizer,
    causal_config,
    causal_folder,
    texts,
)
from valence.data.demo import demo_dataset
from valence.llm.language_model import LanguageModel
from valence.llm.local import load_language_model, load_weights
from valence.llm.prompts import Demo, PromptRenderer, Question, make_renderer

SHALLOW_LAYERS = 4
NF4_NEAR = 0.5  # of a probability of a random model, whose weights are no trained ones
MEDIUM = {"vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 2816,
          "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 4,
          "max_position_embeddings": 4096, "tie_word_embeddings": False}  # fmt: skip


def checks() -> dict[str, Check]:
    """The checks of this module by name."""
    return {
        "language model: label scores and generation in bf16": throughput,
        "language model: GPU against CPU in fp32": against_cpu,
        "language model: NF4 against bf16": nf4,
        "language model: LoRA fine-tuning in bf16": lora,
        "language model: QLoRA fine-tuning on NF4": qlora,
        "deferred weights: meta device, then loading": deferred,
        "out of memory: batches are halved": out_of_memory,
    }


def questions(count: int) -> tuple[PromptRenderer, list[Question]]:
    """Questions of the demo's texts with a demonstration of each label."""
    data = demo_dataset()
    renderer = make_renderer("self-alignment", data.classes)
    first = [int(np.flatnonzero(data.train.labels == c)[0]) for c in range(len(data.classes))]
    demos = tuple(Demo(data.train.texts[i], c) for c, i in enumerate(first))
    return renderer, [Question(text, demos) for text in texts(count)]


def encoded(
    model: LanguageModel, renderer: PromptRenderer, asked: list[Question]
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of questions and of the labels."""
    prompts = model.encode([model.format_prompt(renderer, q.text, q.demos) for q in asked])
    return prompts, model.answer_ids(model.format_prompt(renderer, ""), renderer.answers)


def throughput(place: Place) -> Result:
    """A model as wide as one of 7B with a few of its layers, of random weights."""
    need_gpu(place)
    sizes = QWEN_7B if place.is_gpu else SMALL_CAUSAL
    layers = SHALLOW_LAYERS if place.is_gpu else 2
    model = _random_model(place, {**sizes, "num_hidden_layers": layers})
    weights_mib = PeakMemory(place).mib()
    renderer, asked = questions(512 if place.is_gpu else 8)
    prompts, answers = encoded(model, renderer, asked)
    model.likelihoods(prompts[:8], answers)
    peak, clock = PeakMemory(place), Clock(place)
    scores = model.likelihoods(prompts, answers)
    scored, mib = clock.seconds(), peak.mib()
    if not np.isfinite(scores).all():
        raise Fault("some label scores are no numbers")
    some = prompts[:64]
    peak, clock = PeakMemory(place), Clock(place)
    model.generate(some, 5)
    written, generate_mib = clock.seconds(), peak.mib()
    tokens = sum(map(len, prompts))
    values = {
        "questions_per_s": len(prompts) / scored, "prompt_tokens_per_s": tokens / scored,
        "generated_answers_per_s": len(some) / written, "weights_mib": weights_mib,
        "score_mib": mib, "generate_mib": generate_mib,
    }  # fmt: skip
    text = (
        f"{layers} of {QWEN_7B['num_hidden_layers']} layers of a 7B model ({weights_mib:,.0f} MiB "
        f"of weights): scores {values['questions_per_s']:,.0f} questions/s of "
        f"{tokens / len(prompts):.0f} tokens at {mib:,.0f} MiB, generates 5 tokens for "
        f"{values['generated_answers_per_s']:,.0f} questions/s at {generate_mib:,.0f} MiB"
    )
    return "figure", text, values


def _random_model(place: Place, sizes: dict[str, Any]) -> LanguageModel:
    """A model of random weights, made on the device: none goes through main memory."""
    import torch
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if place.is_gpu else torch.float32)
    try:
        with torch.device(place.device):
            network = Qwen2ForCausalLM(causal_config(sizes))
    finally:
        torch.set_default_dtype(before)
    return LanguageModel(network, byte_tokenizer(), device=place.device)


def against_cpu(place: Place) -> Result:
    """Label scores with and without shared prefixes, on two devices in float32."""
    need_gpu(place)
    folder = causal_folder(place, SMALL_CAUSAL, "causal-small")
    renderer, asked = questions(12)
    rows = {}
    for device in ("cpu", place.device):
        model = load_language_model(
            str(folder), quantization="none", device=device, precision="fp32"
        )
        prompts, answers = encoded(model, renderer, asked)
        rows[device] = model.likelihoods(prompts, answers)
    plain = np.stack([model.likelihoods_plain(prompt, answers) for prompt in prompts])
    gap = float(np.abs(rows["cpu"] - rows[place.device]).max())
    shared = float(np.abs(plain - rows[place.device]).max())
    text = f"log-likelihoods differ by {gap:.1e}; by {shared:.1e} from those without the shortcut"
    if not (gap <= 1e-2 and shared <= 1e-2):
        raise Fault(text)
    return "pass", text, {"gap": gap, "shared_gap": shared}


def nf4(place: Place) -> Result:
    """Label probabilities and memory of 4-bit weights beside bfloat16."""
    if not place.is_gpu:
        raise Skip("NF4 needs a CUDA GPU")
    need_packages("bitsandbytes")
    folder = causal_folder(place, MEDIUM, "causal-medium")
    renderer, asked = questions(16)
    probs, mib = {}, {}
    for quantization in ("none", "nf4"):
        free_memory()
        peak = PeakMemory(place)
        model = load_language_model(str(folder), quantization=quantization, device=place.device)
        mib[quantization] = peak.mib()
        scores = model.likelihoods(*encoded(model, renderer, asked))
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        probs[quantization] = weights / weights.sum(axis=1, keepdims=True)
        del model
    gap = float(np.abs(probs["none"] - probs["nf4"]).max())
    text = (
        f"loading takes {mib['nf4']:,.0f} MiB instead of {mib['none']:,.0f}; label probabilities "
        f"differ by {gap:.3f} (random weights)"
    )
    if not np.isfinite(gap) or mib["nf4"] >= mib["none"]:
        raise Fault(text)
    return "pass", text, {"gap": gap, **{f"{name} MiB": value for name, value in mib.items()}}


def lora(place: Place) -> Result:
    """Steps of fine-tuning with LoRA through the command's own function."""
    need_gpu(place)
    return _fine_tuned(place, "none")


def qlora(place: Place) -> Result:
    """The same on 4-bit weights."""
    if not place.is_gpu:
        raise Skip("NF4 needs a CUDA GPU")
    need_packages("bitsandbytes")
    return _fine_tuned(place, "nf4")


def _fine_tuned(place: Place, quantization: str) -> Result:
    need_packages("trl", "datasets")
    from valence.llm.finetune import finetune
    from valence.llm.finetune_spec import FinetuneSpec
    from valence.llm.records import Example
    from valence.llm.sft_data import SFTData

    sizes, name = (MEDIUM, "medium") if place.is_gpu else (SMALL_CAUSAL, "small")
    folder = causal_folder(place, sizes, f"causal-{name}")
    renderer, asked = questions(40)
    examples = [Example(q, i % len(renderer.classes)) for i, q in enumerate(asked)]
    data = SFTData("demo", "self-alignment", renderer, examples[:24], examples[24:])
    steps = 16 if place.is_gpu else 2
    spec = FinetuneSpec(
        model=str(folder), max_steps=steps, epochs=50, device=place.device, learning_rate=2e-3,
        quantization=quantization, batch_size=4, accumulation=1, save_steps=4,
    )  # fmt: skip
    peak, clock = PeakMemory(place), Clock(place)
    out = place.scratch / f"adapter-{quantization}"
    result = finetune(spec, data, out)
    seconds, mib = clock.seconds(), peak.mib()
    losses = _losses(out)
    values = {"first_loss": losses[0], "last_loss": losses[-1], "mib": mib, "seconds": seconds}
    text = (
        f"{result.steps} steps of {spec.batch_size} questions, loss {losses[0]:.2f} to "
        f"{losses[-1]:.2f}, {seconds:.1f} s with loading and evaluation, {mib:,.0f} MiB"
    )
    if not np.isfinite(losses).all() or (place.is_gpu and losses[-1] >= losses[0]):
        raise Fault(text)
    return "pass", text, values


def _losses(folder: Any) -> list[float]:
    import json

    lines = (folder / "history.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return [row["loss"] for row in rows if "loss" in row]


def deferred(place: Place) -> Result:
    """A model's shape without weights, and the memory that loading them takes."""
    import torch

    from valence.llm.cost_estimate import model_shape

    sizes, name = (MEDIUM, "medium") if place.is_gpu else (SMALL_CAUSAL, "small")
    folder = causal_folder(place, sizes, f"causal-{name}")
    peak = PeakMemory(place)
    shape = model_shape(str(folder))
    if any(p.device.type != "meta" for p in shape.parameters()) or peak.mib() > 0:
        before = torch.cuda.memory_allocated() / 2**20 if place.is_gpu else 0.0
        if peak.mib() > before:
            raise Fault(f"{peak.mib():,.0f} MiB were taken for a model without weights")
    numbers = sum(p.numel() for p in shape.parameters())
    model = load_weights(str(folder), device=place.device)
    loaded = sum(p.numel() for p in model.parameters())
    size = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    text = f"{numbers:,} numbers on the meta device; loaded, {size:,.0f} MiB"
    if loaded != numbers:
        raise Fault(f"{text}, but {loaded:,} numbers were loaded")
    if not place.is_gpu:
        return "pass", text, {"weights_mib": size}
    text += f", at a peak of {peak.mib():,.0f} MiB"
    if peak.mib() > 1.5 * size:
        raise Fault(text)
    return "pass", text, {"weights_mib": size, "peak_mib": peak.mib()}


def out_of_memory(place: Place) -> Result:
    """Label scores under a memory limit that their batches do not fit in."""
    need_gpu(place)
    import torch

    sizes, name = (MEDIUM, "medium") if place.is_gpu else (SMALL_CAUSAL, "small")
    folder = causal_folder(place, sizes, f"causal-{name}")
    # In float32, so that only other shapes of the batches are between the two.
    model = load_language_model(
        str(folder), quantization="none", precision="fp32", device=place.device
    )
    renderer, asked = questions(128 if place.is_gpu else 8)
    prompts, answers = encoded(model, renderer, asked)
    whole = model.likelihoods(prompts, answers)
    if not place.is_gpu:
        small = model.likelihoods(prompts, answers, budget_bytes=1)
        gap = float(np.abs(whole - small).max())
        if gap > 1e-3:
            raise Fault(f"a budget of one byte changes scores by {gap:.1e}")
        return "pass", f"a budget of one byte changes scores by {gap:.1e}", {"gap": gap}
    free_memory()
    held = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    limit = held + 400 * 2**20
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        tight = model.likelihoods(prompts, answers, budget_bytes=1 << 40)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    gap = float(np.abs(whole - tight).max())
    spread = float(np.ptp(whole, axis=0).max())
    halvings = model.halved.halvings
    text = f"{halvings} halvings within 400 MiB; log-likelihoods differ by {gap:.1e}, "
    text += f"and by {spread:.1f} between texts"
    if not halvings or not gap <= 1e-3:
        raise Fault(text)
    return "pass", text, {"halvings": float(halvings), "gap": gap}
