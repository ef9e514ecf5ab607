"""The network of a text model as an ONNX file: :func:`write_onnx`."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from valence.errors import ModelError
from valence.inference.export.onnx_gru import translations

if TYPE_CHECKING:
    from valence.inference.calibration import Calibration
    from valence.models.text_model import ExportNetwork, TextModel

OPSET = 20
"""The first with Gelu as one node, which ONNX Runtime does not put together by itself here."""
EXAMPLE = (2, 8)
"""Batch and length of the example that is traced; both are left open."""


def write_onnx(model: TextModel, path: Path, calibration: Calibration | None = None) -> None:
    """Write a model: token ids and mask in, logits and features out.

    The softmax of the logits is what the model gives: adapters are merged, and the shift of the
    logits and the calibration are in the graph.

    Args:
        model: Stays as it is.
        path: The new file.
        calibration: None changes nothing.

    Raises:
        ModelError: if a part of the network has no counterpart in ONNX.
    """
    import torch

    network = _calibrated(model, calibration).eval()
    tokenizer = model.tokenizer
    shape = EXAMPLE[0], min(EXAMPLE[1], tokenizer.max_length)
    ids = torch.full(shape, tokenizer.pad_id + 1, dtype=torch.int64)
    sizes = {
        0: torch.export.Dim("batch", min=1, max=1 << 20),
        1: torch.export.Dim("length", min=2, max=tokenizer.max_length),
    }
    try:
        with quiet_exporters():
            program = torch.onnx.export(
                network, (ids, torch.ones_like(ids)), dynamo=True, opset_version=OPSET,
                input_names=["input_ids", "attention_mask"], output_names=["logits", "features"],
                dynamic_shapes={"input_ids": sizes, "attention_mask": sizes}, verbose=False,
                custom_translation_table=translations(),
            )  # fmt: skip
        assert program is not None
        for given in program.model.graph.inputs:
            if given.shape is None or not given.shape.is_dynamic(1):
                raise ValueError("a part of it supports texts of one length only")
    except Exception as error:  # torch raises errors of its own kinds
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
        raise ModelError(
            f"{model.title} cannot be exported ({reason}); use the PyTorch model"
        ) from None
    # Shapes that the trace took for fixed stay as remarks; runtimes find their own.
    for node in program.model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    program.save(path)


def _calibrated(model: TextModel, calibration: Calibration | None) -> ExportNetwork:
    import torch

    network = model.export_network()
    shift = np.zeros(len(model.classes)) if model.logit_shift is None else model.logit_shift
    offset = np.asarray(shift, dtype=np.float64)
    if calibration is not None:
        network.temperature = calibration.temperature
        offset = offset / calibration.temperature + calibration.offset
    if offset.any():
        network.offset = torch.from_numpy(offset.astype(np.float32))
    return network


def head_names(plain: Path, modules: Sequence[str]) -> set[str]:
    """What nodes of the head may be called, which stays in float32: it is small, and decides.

    OpenVINO calls some nodes by what they give.

    Args:
        plain: What :func:`write_onnx` wrote.
        modules: Names of the modules of the head.
    """
    import onnx

    names: set[str] = set()
    for node in onnx.load(plain, load_external_data=False).graph.node:
        about = {one.key: one.value for one in node.metadata_props}
        within = {part.partition(":")[0] for part in about.get("namespace", "").split("/")}
        if within & set(modules):
            own = [node.name, *node.output]
            names |= {f"{name}{part}" for name in own for part in ("", "/WithoutBiases")}
    return names


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence the libraries' remarks to developers."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
