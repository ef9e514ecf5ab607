"""Exports that run without PyTorch: in ONNX Runtime or OpenVINO.

An ONNX folder is laid out as Optimum, text-embeddings-inference and transformers.js read it:
``onnx/model.onnx`` (``model_quantized.onnx`` in 8 bits) beside the config and tokenizer of
transformers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from valence.data.dataset import Dataset, Split
from valence.errors import ModelError
from valence.inference.export.job import ExportJob
from valence.inference.export.onnx_network import head_names, quiet_exporters, write_onnx
from valence.inference.export.quantize import (
    look_up_first,
    part_quantizers,
    products_of_activations,
    quantize,
)
from valence.models.config_file import read_fields, write_fields
from valence.models.exported import TOKENIZER_FILE, ExportSettings

if TYPE_CHECKING:
    from valence.models.text_model import TextModel

CALIBRATION_ROWS = 300
ONNX_FILE = "onnx/model.onnx"
INT8_FILE = "onnx/model_quantized.onnx"
TokenIds = list[list[int]]


def write_runtime(job: ExportJob, folder: Path, data: Dataset) -> ExportSettings:
    """Write the graph of a model with its tokenizer and configs.

    Args:
        job: Of ``onnx`` or ``openvino``.
        folder: The new folder.
        data: Its training rows show which values occur, for 8 bits.

    Raises:
        ModelError: if the model cannot be exported, or an extra is missing.
    """
    model, options = job.model, job.options
    _write_tokenizer(model, folder)
    plain = folder / "plain.onnx"
    with _needs(options.format):
        write_onnx(model, plain, job.calibration)
    with _needs(options.format), quiet_exporters():
        seen = None
        if options.int8:
            seen = model.tokenizer(subsample(data.train, CALIBRATION_ROWS).texts).input_ids
        write = _to_openvino if options.format == "openvino" else _to_onnx
        name = write(plain, folder, model.head_modules, seen)
    plain.unlink(missing_ok=True)
    if model.ngram_logits is not None:
        model.ngram_logits.divided(job.calibration.temperature).save(folder)
    # The shift of the logits is in the graph.
    fields = {**read_fields(job.source), "kind": options.format, "logit_shift": None}
    write_fields(folder, fields, _stock_config(model, name))
    return job.settings(name)


def _write_tokenizer(model: TextModel, folder: Path) -> None:
    from valence.models.transformers_folder import save_tokenizer

    save_tokenizer(model.tokenizer, folder)
    backend = model.tokenizer.backend.backend_tokenizer
    tokenizer = type(backend).from_str(backend.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / TOKENIZER_FILE))
    # Where text-embeddings-inference reads the limit.
    limit = {"max_seq_length": model.max_tokens, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limit), encoding="utf-8")


def _stock_config(model: TextModel, file: str) -> Mapping[str, Any]:
    """What other tools read in ``config.json``: that it classifies, and where the weights are."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    config: dict[str, Any] = json.loads(model.encoder_config().to_json_string())
    name = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(config["model_type"])
    if name is not None:
        config["architectures"] = [name]
    config["pad_token_id"] = model.tokenizer.pad_id
    if file == ONNX_FILE:
        config["transformers.js_config"] = {"use_external_data_format": {Path(file).name: 1}}
    return config


def _to_onnx(plain: Path, folder: Path, head: tuple[str, ...], seen: TokenIds | None) -> str:
    """Write the file for ONNX Runtime; in 8 bits where texts are given to calibrate on."""
    import onnx

    (folder / "onnx").mkdir()
    network = onnx.load(plain)
    if seen is None:
        # Beside the graph, weights are read where they lie: 84 MiB less at the start.
        onnx.save(
            network, folder / ONNX_FILE, save_as_external_data=True, location="model.onnx_data"
        )
        return ONNX_FILE
    with _quantizing():
        ignored = head_names(plain, head) | products_of_activations(network)
        network = quantize(network, seen, ignored)
        part_quantizers(network)
        look_up_first(network)
    onnx.save(network, folder / INT8_FILE)
    return INT8_FILE


def _to_openvino(plain: Path, folder: Path, head: tuple[str, ...], seen: TokenIds | None) -> str:
    """The same for OpenVINO."""
    import openvino

    name = "model.xml"
    network = openvino.Core().read_model(plain)
    if seen is not None:
        with _quantizing():
            network = quantize(network, seen, head_names(plain, head))
    openvino.save_model(network, folder / name, compress_to_fp16=False)
    return name


def subsample(rows: Split, count: int) -> Split:
    """At most ``count`` rows, drawn by a fixed seed."""
    if len(rows) <= count:
        return rows
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    return rows.take(np.sort(chosen))


@contextlib.contextmanager
def _quantizing() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # nncf raises errors of its own kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(
            f"The network cannot be quantized ({reason}); export it without --int8"
        ) from None


@contextlib.contextmanager
def _needs(runtime: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ModelError(
            f"Exporting to {runtime} needs an extra ({error.name} is missing): "
            f"pip install 'valence[{runtime}]'"
        ) from None
