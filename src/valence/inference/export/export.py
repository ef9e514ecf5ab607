"""Exporting a trained model to ONNX or OpenVINO: :func:`export_model`.

What is written is a model folder like any other. It gets its name only after it was compared
with the PyTorch model on labeled rows.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from valence.data.dataset import Dataset, Split
from valence.data.sources import LabeledRows, load_split
from valence.errors import DataError, ModelError, RunError
from valence.inference.export.onnx_gru import translations
from valence.inference.export.parity import compare_scores
from valence.inference.export.quantize import (
    look_up_first,
    part_quantizers,
    products_of_activations,
    quantize,
)
from valence.inference.model_rows import OWN_ROWS, training_dataset
from valence.models.exported import (
    EXPORT_FILE,
    TOKENIZER_FILE,
    ExportedModel,
    ExportSettings,
    load_exported_model,
)
from valence.models.loader import load_model
from valence.storage import atomic

if TYPE_CHECKING:
    from torch import Tensor, nn

    from valence.config.data import DataSpec
    from valence.models.classifier import TorchModel
    from valence.models.config_file import ModelConfig

OPSET = 20
"""The first with Gelu as one node, which ONNX Runtime does not put together by itself here."""
CHECKED_ROWS = 4000
"""Labeled rows on which an export is checked at most; drawn by a fixed seed."""
CALIBRATION_ROWS = 300
FP32_TOLERANCE = 1e-4
"""How far probabilities of a float32 export may be from PyTorch's."""
MAX_DROP = 0.5
EXAMPLE = (2, 8)
"""Batch and length of the example that is traced; both are left open."""


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and what is accepted.

    Attributes:
        runtime: ``onnx`` or ``openvino``.
        int8: Whether weights and what passes between layers are 8-bit.
        max_drop: Points of macro-F1 and of the worst class's F1 that may be lost.
    """

    runtime: Literal["onnx", "openvino"] = "onnx"
    int8: bool = False
    max_drop: float = MAX_DROP

    @property
    def precision(self) -> Literal["fp32", "int8"]:
        """As it is written into ``export.json``."""
        return "int8" if self.int8 else "fp32"


def export_model(
    folder: str | Path, out: str | Path, data: Dataset, *, options: ExportOptions | None = None
) -> dict[str, Any]:
    """Write a trained model as a folder that is run without PyTorch.

    Args:
        folder: What ``valence train`` wrote, of a method that trains in PyTorch.
        out: The new folder; a model that is there is replaced at the end.
        data: Training rows calibrate, validation rows check.
        options: What is exported.

    Returns:
        The checks: rows, largest difference of a probability, changed labels, and F1 before
        and after (see ``valence.inference.export.parity``).

    Raises:
        ModelError: if the model cannot be exported, or loses more than ``max_drop``.
        DataError: if the rows do not fit the model.
        RunError: if the folder cannot be written.
    """
    options = options or ExportOptions()
    source, target = Path(folder), Path(out)
    model = _exportable(source)
    if data.classes != model.classes:
        raise DataError(
            f"{data.name} has the classes {', '.join(data.classes)} and the model "
            f"{', '.join(model.classes)}; give rows of the model's classes with --data"
        )
    _refuse_target(target)
    with atomic.new_folder(target) as scratch:
        settings = _write_files(model, scratch, data, options)
        _write_config(source, scratch, options.runtime)
        _write_settings(scratch, settings)
        checks = _checked(model, load_exported_model(scratch), data.validation, options)
        _write_settings(scratch, settings.model_copy(update={"checks": checks}))
    return checks


def rows_of(
    config: ModelConfig,
    spec: DataSpec | None,
    *,
    split: str = "validation",
    data_dir: str | Path | None = None,
) -> tuple[Dataset, LabeledRows]:
    """What an export is made on, and the rows on which it is checked.

    Args:
        config: Of the model.
        spec: Names labeled rows: all of a file, or of a source with several splits the one named,
            with ranges of 8-bit numbers from its training rows. The rows of the model's own
            training when None.
        split: Which split is checked on.
        data_dir: Folder of corpora.

    Raises:
        DataError: if they cannot be had, or have other labels.
    """
    if spec is None:
        own = training_dataset(config, data_dir=data_dir)
        return own, LabeledRows(own.validation, OWN_ROWS, "validation", group=own.group)
    checked = ranges = load_split(
        spec, config.classes, split=split, data_dir=data_dir, trained_on=config.data
    )
    if checked.split not in ("all", "train"):
        ranges = load_split(
            spec, config.classes, split="train", data_dir=data_dir, trained_on=config.data
        )
    none = checked.rows.take([])
    return Dataset(spec.name, config.classes, (), ranges.rows, checked.rows, none), checked


def _exportable(folder: Path) -> TorchModel:
    model = load_model(folder).torch_model()
    if not model.tokenizer.backend.is_fast:
        raise ModelError(f"The tokenizer of {folder} has no tokenizer.json; it cannot be exported")
    return model


def _refuse_target(target: Path) -> None:
    if target.exists() and not (target / EXPORT_FILE).exists() and any(target.iterdir()):
        raise RunError(f"{target} is no exported model and not empty; give another --out")


def _write_files(
    model: TorchModel, folder: Path, data: Dataset, options: ExportOptions
) -> ExportSettings:
    backend = model.tokenizer.backend.backend_tokenizer
    tokenizer = type(backend).from_str(backend.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / TOKENIZER_FILE))
    plain = folder / "plain.onnx"
    with _needs(options.runtime):
        write_onnx(model, plain)
    with _needs(options.runtime), _quiet():
        seen = None
        if options.int8:
            seen = model.tokenizer(_subsample(data.train, CALIBRATION_ROWS).texts).input_ids
        name = (_to_openvino if options.runtime == "openvino" else _to_runtime)(plain, folder, seen)
    plain.unlink(missing_ok=True)
    return ExportSettings(
        runtime=options.runtime, precision=options.precision, file=name,
        max_length=model.tokenizer.max_length, pad_id=model.tokenizer.pad_id,
        feature_size=model.classifier.head.feature_size, prompt=model.tokenizer.prompt,
    )  # fmt: skip


def write_onnx(model: TorchModel, path: Path) -> None:
    """The network of a model, adapters merged: ids and mask in, logits and features out.

    Raises:
        ModelError: if a part of the network has no counterpart in ONNX.
    """
    import torch

    network = _network(model).eval()
    shape = EXAMPLE[0], min(EXAMPLE[1], model.tokenizer.max_length)
    ids = torch.full(shape, model.tokenizer.pad_id + 1, dtype=torch.int64)
    sizes = {
        0: torch.export.Dim("batch", min=1, max=1 << 20),
        1: torch.export.Dim("length", min=2, max=model.tokenizer.max_length),
    }
    try:
        with _quiet():
            program = torch.onnx.export(
                network, (ids, torch.ones_like(ids)), dynamo=True, opset_version=OPSET,
                input_names=["input_ids", "attention_mask"], output_names=["logits", "features"],
                dynamic_shapes={"input_ids": sizes, "attention_mask": sizes}, verbose=False,
                custom_translation_table=translations(),
            )  # fmt: skip
        assert program is not None
        for given in program.model.graph.inputs:
            if given.shape is None or not given.shape.is_dynamic(1):
                raise ValueError("a part of it reads texts of one length only")
    except Exception as error:  # torch raises errors of its own kinds
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
        raise ModelError(
            f"The head {model.config.head.name!r} on {model.config.encoder.name!r} cannot be "
            f"exported ({reason}); use the PyTorch model"
        ) from None
    # Shapes that the trace took for fixed stay as remarks; runtimes find their own.
    for node in program.model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    program.save(path)


def _network(model: TorchModel) -> nn.Module:
    """Encoder and head of a model as one module that gives a pair."""
    from torch import nn

    class Network(nn.Module):
        def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
            super().__init__()
            self.encoder, self.head = encoder, head

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
            output = self.head(states.last_hidden_state, attention_mask)
            return output.logits, output.features

    from valence.models.classifier import ADAPTED

    encoder: Any = copy.deepcopy(model.classifier.encoder.model).cpu()
    if model.config.encoder.adaptation in ADAPTED:
        encoder = encoder.merge_and_unload()
    encoder.set_attn_implementation("eager")  # the fused kernel hides attention from optimizers
    return Network(encoder, copy.deepcopy(model.classifier.head).cpu())


def _to_runtime(plain: Path, folder: Path, seen: list[list[int]] | None) -> str:
    """Write the file for ONNX Runtime; in 8 bits where texts are given to calibrate on."""
    import onnx

    name = "model.onnx"
    network = onnx.load(plain)
    if seen is None:
        # Beside the graph, weights are read where they lie: 84 MiB less at the start.
        onnx.save(network, folder / name, save_as_external_data=True, location="model.bin")
        return name
    with _quantizing():
        network = quantize(network, seen, _head_names(plain) | products_of_activations(network))
        part_quantizers(network)
        look_up_first(network)
    onnx.save(network, folder / name)
    return name


def _head_names(plain: Path) -> set[str]:
    """What nodes of the head may be called, which stays in float32: it is small, and decides.

    OpenVINO calls some nodes by what they give.
    """
    import onnx

    names: set[str] = set()
    for node in onnx.load(plain, load_external_data=False).graph.node:
        about = {one.key: one.value for one in node.metadata_props}
        if about.get("namespace", "").partition("/")[2].partition(":")[0] == "head":
            own = [node.name, *node.output]
            names |= {f"{name}{part}" for name in own for part in ("", "/WithoutBiases")}
    return names


def _to_openvino(plain: Path, folder: Path, seen: list[list[int]] | None) -> str:
    """The same for OpenVINO."""
    import openvino

    name = "model.xml"
    network = openvino.Core().read_model(plain)
    if seen is not None:
        with _quantizing():
            network = quantize(network, seen, _head_names(plain))
    openvino.save_model(network, folder / name, compress_to_fp16=False)
    return name


def _write_config(source: Path, folder: Path, runtime: str) -> None:
    """The config of the model under its new kind; all else it says holds for the export."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({**config, "kind": runtime}, ensure_ascii=False, indent=1)
    (folder / "config.json").write_text(text, encoding="utf-8")


def _write_settings(folder: Path, settings: ExportSettings) -> None:
    (folder / EXPORT_FILE).write_text(settings.model_dump_json(indent=1), encoding="utf-8")


def _checked(
    model: TorchModel, exported: ExportedModel, rows: Split, options: ExportOptions
) -> dict[str, Any]:
    """Compare the export with its model on labeled rows.

    Raises:
        ModelError: if it is not good enough.
    """
    rows = _subsample(rows, CHECKED_ROWS)
    checks = compare_scores(
        rows.labels,
        model.predict(rows.examples()),
        exported.predict(rows.examples()),
        model.classes,
    )
    gap = checks["largest_difference"]
    if not options.int8 and not gap <= FP32_TOLERANCE:
        raise ModelError(
            f"The export gives other probabilities than the model (by {gap:.1e} on {len(rows)} "
            "rows) and was not saved; please report this with the spec of the run"
        )
    for name, title in (("macro_f1", "macro-F1"), ("worst_f1", "the worst class's F1")):
        before, after = checks[name]
        drop = 100 * (before - after)
        if drop > options.max_drop:
            raise ModelError(
                f"The export loses {drop:.2f} points of {title} on {len(rows)} rows "
                f"({100 * before:.2f} → {100 * after:.2f}) and was not saved; --max-drop "
                f"{options.max_drop:g} allows less: export without --int8, or allow more"
            )
    return checks


def _subsample(rows: Split, count: int) -> Split:
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
            f"The network cannot be made 8-bit ({reason}); export it without --int8"
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' remarks to developers."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
