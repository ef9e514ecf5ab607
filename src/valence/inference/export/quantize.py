"""8-bit weights and activations of exported networks, calibrated on training texts.

Ranges of activations are fixed when a model is exported. Ranges taken anew from every batch would
make the answer to a text depend on the texts beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np


def quantize(network: Any, token_ids: Sequence[Sequence[int]], ignored: set[str]) -> Any:
    """A network of ONNX or OpenVINO whose matrix products run in 8 bits (by nncf).

    Args:
        network: As ``onnx.load`` or ``openvino.Core.read_model`` give it.
        token_ids: Texts that show which values occur.
        ignored: Names of nodes that stay in float32; those that do not exist are left out.

    Raises:
        ImportError: if nncf is missing.
    """
    import nncf

    items = [
        {
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, len(ids)), dtype=np.int64),
        }
        for ids in token_ids
    ]
    return nncf.quantize(
        network, nncf.Dataset(items), model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(items),
        ignored_scope=nncf.IgnoredScope(names=sorted(ignored), validate=False),
    )  # fmt: skip


def products_of_activations(network: Any) -> set[str]:
    """Names of the matrix products of an ONNX network without weights: those of attention.

    ONNX Runtime gains nothing from 8 bits there.
    """
    weights = {one.name for one in network.graph.initializer}
    return {
        node.name
        for node in network.graph.node
        if node.op_type == "MatMul" and not weights & set(node.input)
    }


def part_quantizers(network: Any) -> None:
    """Give every user of an 8-bit value in an ONNX network a quantizer of its own, in place.

    ONNX Runtime multiplies in 8 bits only where nothing else reads what it is given.
    """
    graph = network.graph
    made = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            users.setdefault(name, []).append((node, place))
    nodes = []
    for node in list(graph.node):
        nodes.append(node)
        source = made.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is None or source.op_type != "QuantizeLinear":
            continue
        for i, (user, place) in enumerate(users.get(node.output[0], [])[1:], start=1):
            pair = [copy.deepcopy(source), copy.deepcopy(node)]
            for one in pair:
                one.name, one.output[0] = f"{one.name}_{i}", f"{one.output[0]}_{i}"
            pair[1].input[0] = pair[0].output[0]
            user.input[place] = pair[1].output[0]
            nodes += pair
    del graph.node[:]
    graph.node.extend(nodes)


def look_up_first(network: Any) -> None:
    """Make floats of those rows of 8-bit tables that a text needs, not of all rows, in place."""
    from onnx import TensorProto, helper, numpy_helper

    graph = network.graph
    weights = {one.name: one for one in graph.initializer}
    tables = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    last = "valence_last_axis"
    nodes, changed = [], False
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not set(table.input) <= set(weights):
            nodes.append(node)
            continue
        values, scales, *zeros = table.input
        axis = {one.name: one.i for one in table.attribute}.get("axis", 1)
        plain = not any(numpy_helper.to_array(weights[name]).any() for name in zeros)
        if not plain or axis != 0 or len(weights[scales].dims) != 1:
            nodes.append(node)
            continue
        changed = True
        row, size, wide = (f"{node.name}_{part}" for part in ("row", "scale", "wide"))
        nodes += [
            helper.make_node("Gather", [values, node.input[1]], [f"{row}_8"], name=row),
            helper.make_node("Cast", [f"{row}_8"], [f"{row}_32"], f"{row}_cast",
                             to=TensorProto.FLOAT),
            helper.make_node("Gather", [scales, node.input[1]], [f"{size}_1"], name=size),
            helper.make_node("Unsqueeze", [f"{size}_1", last], [f"{wide}_1"], name=wide),
            helper.make_node("Mul", [f"{row}_32", f"{wide}_1"], list(node.output), node.name),
        ]  # fmt: skip
    if changed:
        graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), last))
    read = {name for node in nodes for name in node.input}
    del graph.node[:]
    graph.node.extend(
        node for node in nodes if node.op_type != "DequantizeLinear" or node.output[0] in read
    )
    read = {name for node in graph.node for name in node.input}
    initializers = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
