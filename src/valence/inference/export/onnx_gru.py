"""The GRU of PyTorch in ONNX, which torch's exporter would unroll for the length of its example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def translations() -> dict[Any, Callable[..., Any]]:
    """What ``torch.onnx.export`` takes as ``custom_translation_table``."""
    import torch

    return {torch.ops.aten.gru.input: gru}


def gru(  # noqa: PLR0913 - the signature of the operator
    states: Any, start: Any, weights: Sequence[Any], has_biases: bool, layers: int,
    dropout: float, training: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """One layer in one direction over (B, T, H), as ``valence.models.sequence`` uses it.

    ONNX has the gates in the order update, reset, new and PyTorch in the order reset, update,
    new; ``linear_before_reset`` is how PyTorch applies the reset gate.

    Raises:
        NotImplementedError: for another form of the operator.
    """
    from onnxscript import opset20

    op: Any = opset20

    if layers != 1 or bidirectional or not batch_first or not has_biases:
        raise NotImplementedError("a GRU of several layers or directions")
    size = int(weights[1].shape[1])

    def reordered(weight: Any) -> Any:
        reset, update, new = op.Split(weight, axis=0, num_outputs=3)
        return op.Concat(update, reset, new, axis=0)

    first = op.Constant(value_ints=[0])
    second = op.Constant(value_ints=[1])
    inputs, recurrent, input_bias, bias = (reordered(weight) for weight in weights)
    biases = op.Concat(input_bias, bias, axis=0)
    outputs, last = op.GRU(
        op.Transpose(states, perm=[1, 0, 2]), op.Unsqueeze(inputs, first),
        op.Unsqueeze(recurrent, first), op.Unsqueeze(biases, first), None, start,
        hidden_size=size, linear_before_reset=1,
    )  # fmt: skip
    return op.Transpose(op.Squeeze(outputs, second), perm=[1, 0, 2]), last
