"""The memory plan against bytes that are counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.causal import make_causal
from valence.llm.cost_estimate import model_shape
from valence.llm.finetune import load_with_adapter
from valence.llm.finetune_spec import FinetuneSpec
from valence.llm.memory_plan import plan_memory


@pytest.mark.parametrize("rank", [4, 8])
def test_fixed_bytes_are_those_after_a_step(tmp_path: Path, rank: int) -> None:
    folder = make_causal(tmp_path / "model")
    spec = FinetuneSpec(model=str(folder), lora_rank=rank, device="cpu")
    model = load_with_adapter(spec, None, "cpu")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    ids = torch.randint(2, 300, (2, 9))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    averages = [t for row in optimizer.state.values() for t in row.values() if t.dim()]
    held = [*model.parameters(), *averages, *(p.grad for p in trained)]
    plan = plan_memory(
        model_shape(str(folder)), weight_format="fp32", lora_rank=rank, batch_size=2, tokens=9
    )
    assert plan.fixed == sum(t.numel() * t.element_size() for t in held)


def test_four_bits_and_length() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=False))
    nf4, bf16 = (
        plan_memory(model, weight_format=name, lora_rank=8, batch_size=1, tokens=64)
        for name in ("nf4", "bf16")
    )
    inside = sum(m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear))
    outside = sum(p.numel() for p in model.parameters()) - inside
    assert nf4.weights == pytest.approx(0.516 * inside + 4 * outside, rel=1e-3)
    assert bf16.weights == 2 * (inside + outside)
    longer = plan_memory(model, weight_format="bf16", lora_rank=8, batch_size=2, tokens=64)
    assert longer.activations == pytest.approx(2 * bf16.activations, rel=1e-6)
    assert longer.fixed == bf16.fixed
