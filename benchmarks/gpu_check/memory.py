"""The memory plan of a 7B model by arithmetic, and the same arithmetic against a measurement."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu_check.checks import Check, Fault, PeakMemory, Place, Result, free_memory
from benchmarks.gpu_check.models import QWEN_7B, SMALL_CAUSAL, causal_config, causal_folder
from valence.llm.memory_plan import MemoryPlan, WeightFormat, plan_memory

GIB = 2**30
RANK, TOKENS, BATCH = 8, 1024, 1
WITHIN = 1.35  # of the measured peak: allocators round, and kernels take room of their own
MEASURED = {"vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 2816,
            "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 4,
            "max_position_embeddings": 4096, "tie_word_embeddings": False}  # fmt: skip


def checks() -> dict[str, Check]:
    """The checks of this module by name."""
    return {"memory plan: a 7B model": planned, "memory plan: against a measured step": measured}


def planned(place: Place) -> Result:
    """The plan of fine-tuning a model of the shape of Qwen2.5-7B."""
    model = _on_meta(QWEN_7B)
    parts, values = [], {}
    for weight_format in ("nf4", "bf16"):
        plan = _plan(model, weight_format, BATCH, TOKENS)  # type: ignore[arg-type]
        values[f"{weight_format} GiB"] = plan.total / GIB
        parts.append(
            f"{weight_format} {plan.total / GIB:.1f} GiB (weights {plan.weights / GIB:.1f}, "
            f"adapter {plan.adapter / 2**20:.0f} MiB, gradients {plan.gradients / 2**20:.0f} MiB, "
            f"AdamW {plan.optimizer / 2**20:.0f} MiB, activations {plan.activations / GIB:.1f})"
        )
    numbers = sum(p.numel() for p in model.parameters())
    if numbers != 7_615_616_512:  # as published for Qwen2.5-7B
        raise Fault(f"the shape has {numbers:,} numbers, and the published model 7,615,616,512")
    text = f"{numbers:,} numbers, LoRA of rank {RANK}, {TOKENS} tokens: " + "; ".join(parts)
    return "figure", text, values


def measured(place: Place) -> Result:
    """Bytes after a step of LoRA, and on a GPU the peak during it, against the plan."""
    sizes, name = (MEASURED, "medium") if place.is_gpu else (SMALL_CAUSAL, "small")
    tokens = 1024 if place.is_gpu else 128
    weight_format: WeightFormat = "bf16" if place.is_gpu else "fp32"
    folder = causal_folder(place, sizes, f"causal-{name}")
    plan = _plan(_on_meta(sizes), weight_format, 4, tokens)
    free_memory()
    held = _allocated(place)
    peak = PeakMemory(place)
    fixed = _step(place, str(folder), sizes["vocab_size"], 4, tokens)
    text = f"held after a step {fixed / 2**20:,.1f} MiB, planned {plan.fixed / 2**20:,.1f}"
    values = {"fixed_mib": fixed / 2**20, "planned_fixed_mib": plan.fixed / 2**20}
    if not 0.98 <= plan.fixed / fixed <= 1.02:
        raise Fault(text)
    if not place.is_gpu:
        return "pass", f"{text} (a CPU's peak is not measured)", values
    most = peak.mib() - held / 2**20
    values |= {"peak_mib": most, "planned_mib": plan.total / 2**20}
    text += f"; peak {most:,.0f} MiB, planned {plan.total / 2**20:,.0f}"
    if not 1 / WITHIN <= plan.total / 2**20 / most <= WITHIN:
        raise Fault(text)
    return "pass", text, values


def _step(place: Place, folder: str, vocabulary: int, batch: int, tokens: int) -> int:
    """One step as fine-tuning makes it; bytes of weights, gradients and averages after it."""
    import torch

    from valence.llm.finetune import load_with_adapter
    from valence.llm.finetune_spec import FinetuneSpec

    spec = FinetuneSpec(model=folder, quantization="none", lora_rank=RANK, device=place.device)
    model: Any = load_with_adapter(spec, None, place.device)
    if place.is_gpu:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    ids = torch.randint(2, vocabulary, (batch, tokens), device=place.device)
    with torch.autocast(place.device, dtype=torch.bfloat16, enabled=place.is_gpu):
        model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    averages = [t for row in optimizer.state.values() for t in row.values() if t.dim()]
    gradients = [p.grad for p in trained if p.grad is not None]
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *averages, *gradients])


def _allocated(place: Place) -> int:
    import torch

    return torch.cuda.memory_allocated() if place.is_gpu else 0


def _on_meta(sizes: dict[str, Any]) -> Any:
    import torch
    from transformers import Qwen2ForCausalLM

    with torch.device("meta"):
        return Qwen2ForCausalLM(causal_config(sizes))


def _plan(model: Any, weight_format: WeightFormat, batch: int, tokens: int) -> MemoryPlan:
    return plan_memory(
        model, weight_format=weight_format, lora_rank=RANK, batch_size=batch, tokens=tokens
    )
