"""The memory that fine-tuning a causal model with LoRA takes, from its shape alone.

Everything that is counted follows from the architecture: the model is built on the meta device,
without weights. Activations are those of gradient checkpointing, as fine-tuning on a GPU uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

WeightFormat = Literal["fp32", "bf16", "nf4"]

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight: 4 bits, a byte of scale per 64 weights, and a float of scale per 256 scales."""
PLAIN_BYTES = {"fp32": 4, "bf16": 2, "nf4": 4}
"""Of a weight that is not quantized; beside NF4 weights peft trains with the rest in float32."""
ADAPTER_BYTES = 4
ADAM_BYTES = 8
"""Two averages in float32."""
LOGIT_BYTES = 10
"""Of a logit: in the model's format, in float32, and its gradient."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a fine-tuning.

    Attributes:
        weights: Of the base model.
        adapter: Of the weights of LoRA.
        gradients: Of the adapter.
        optimizer: AdamW's averages.
        activations: Inputs of all layers, one layer computed again, and the logits.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the length of the texts."""
        return self.weights + self.adapter + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All bytes."""
        return self.fixed + self.activations


def plan_memory(
    model: Any, *, weight_format: WeightFormat, lora_rank: int, batch_size: int, tokens: int
) -> MemoryPlan:
    """Count the bytes of a fine-tuning step.

    Args:
        model: A causal model of transformers, on any device, the meta device included.
        weight_format: Number format of the base.
        lora_rank: Rank of the adapters of all linear layers but the output layer.
        batch_size: Questions of a batch.
        tokens: Tokens of a question with its answer.
    """
    linear = _adapted_layers(model)
    inside = sum(layer.weight.numel() for layer in linear)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    quantized = NF4_BYTES if weight_format == "nf4" else PLAIN_BYTES[weight_format]
    weights = inside * quantized + (numbers - inside) * PLAIN_BYTES[weight_format]
    adapter = sum(lora_rank * (layer.in_features + layer.out_features) for layer in linear)
    return MemoryPlan(
        weights=round(weights), adapter=ADAPTER_BYTES * adapter, gradients=ADAPTER_BYTES * adapter,
        optimizer=ADAM_BYTES * adapter,
        activations=_activations(model, linear, weight_format, lora_rank, batch_size * tokens),
    )  # fmt: skip


def _adapted_layers(model: Any) -> list[nn.Linear]:
    """The linear layers that get adapters: all but the output layer, as peft's all-linear."""
    output = model.get_output_embeddings()
    return [m for m in model.modules() if isinstance(m, nn.Linear) and m is not output]


def _activations(
    model: Any, linear: list[nn.Linear], weight_format: WeightFormat, lora_rank: int, rows: int
) -> int:
    config = model.config.get_text_config()
    layers, width = config.num_hidden_layers, config.hidden_size
    size = 4 if weight_format == "fp32" else 2
    # An adapted layer keeps its input, the input in float32 and the narrow product for its
    # gradient, and gives an output; forward and backward each hold about one of them.
    per_layer = sum(m.in_features + 2 * m.out_features for m in linear) / layers
    narrow = lora_rank * len(linear) / layers
    inner = per_layer * (size + ADAPTER_BYTES) + narrow * ADAPTER_BYTES
    logits = LOGIT_BYTES * config.vocab_size
    return int(rows * (layers * width * size + max(inner, logits)))
