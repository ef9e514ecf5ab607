"""Exporting a trained model for other tools: :func:`export_model`.

What is written is a model folder like any other. It gets its name only after it was compared
with the PyTorch model on labeled rows.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.data.dataset import Dataset, Split
from valence.data.sources import LabeledRows, load_split
from valence.errors import DataError, ModelError, RunError
from valence.inference.calibration import FILE as CALIBRATION_FILE
from valence.inference.calibration import no_calibration, read_calibration
from valence.inference.export.job import ExportJob, ExportOptions
from valence.inference.export.parity import compare_scores
from valence.inference.export.runtimes import subsample, write_runtime
from valence.inference.export.transformers_export import (
    write_sentence_transformers,
    write_transformers,
)
from valence.inference.model_rows import OWN_ROWS, training_dataset
from valence.models.config_file import CONFIG_FILE, read_config, seal_again
from valence.models.ensemble import MEMBERS_FILE, member_folders
from valence.models.exported import EXPORT_FILE, ExportSettings
from valence.models.loader import load_model
from valence.models.static import MODEL_TYPE as STATIC
from valence.storage import atomic

if TYPE_CHECKING:
    from valence.config.data import DataSpec
    from valence.models.base import Model, Outputs
    from valence.models.config_file import ModelConfig
    from valence.models.text_model import TextModel

CHECKED_ROWS = 4000
"""Labeled rows on which an export is checked at most; drawn by a fixed seed."""
FP32_TOLERANCE = 1e-4
"""How far probabilities of a float32 export may be from PyTorch's."""


def export_model(
    folder: str | Path, out: str | Path, data: Dataset, *, options: ExportOptions | None = None
) -> dict[str, Any]:
    """Write a trained model as a folder that other tools load, or that needs no PyTorch.

    Args:
        folder: A model of a method that trains in PyTorch, or an imported one.
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
    model = load_model(source)
    if data.classes != model.classes:
        raise DataError(
            f"{data.name} has the classes {', '.join(data.classes)} and the model "
            f"{', '.join(model.classes)}; pass rows with the model's classes with --data"
        )
    _refuse_target(target)
    with atomic.new_folder(target) as scratch:
        if model.averaged() and options.needs_no_torch:
            return _write_members(source, model, scratch, data, options)
        calibration = read_calibration(source, read_config(source))
        job = ExportJob(source, _exportable(model, source, options), calibration, options)
        return _write_checked(job, scratch, data)


def _write_checked(job: ExportJob, folder: Path, data: Dataset) -> dict[str, Any]:
    """Write an export and compare it with its model."""
    if job.options.format == "transformers":
        settings = write_transformers(job, folder)
    elif job.options.format == "sentence-transformers":
        settings = write_sentence_transformers(job, folder)
    else:
        settings = write_runtime(job, folder, data)
    _write_settings(folder, settings)
    rows = subsample(data.validation, CHECKED_ROWS)
    expected = job.calibration.apply(job.model.predict(rows.examples()))
    checks = _checked(rows, expected, load_model(folder), job.options)
    if job.notes:
        checks["notes"] = list(job.notes)
    _write_settings(folder, settings.model_copy(update={"checks": checks}))
    return checks


def _write_members(
    source: Path, model: Model, folder: Path, data: Dataset, options: ExportOptions
) -> dict[str, Any]:
    """Write every member of a mean as an export, and compare the two means.

    The calibration of the mean stays a file of its own.
    """
    notes: dict[str, None] = {}
    settings = None
    for name, member in zip(member_folders(source), model.averaged(), strict=True):
        own = source / name
        calibration = no_calibration(read_config(own))
        job = ExportJob(own, _exportable(member, own, options), calibration, options)
        (folder / name).mkdir()
        settings = write_runtime(job, folder / name, data)
        _write_settings(folder / name, settings)
        notes |= dict.fromkeys(job.notes)
    assert settings is not None
    for file in (CONFIG_FILE, MEMBERS_FILE, CALIBRATION_FILE):
        if (source / file).exists():
            shutil.copyfile(source / file, folder / file)
    seal_again(folder)
    rows = subsample(data.validation, CHECKED_ROWS)
    checks = _checked(rows, model.predict(rows.examples()), load_model(folder), options)
    if notes:
        checks["notes"] = list(notes)
    whole = {"file": MEMBERS_FILE, "max_length": model.max_tokens, "checks": checks}
    _write_settings(folder, settings.model_copy(update=whole))
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


def _exportable(model: Model, folder: Path, options: ExportOptions) -> TextModel:
    network = model.text_model()
    if options.needs_no_torch and not network.tokenizer.backend.is_fast:
        raise ModelError(f"The tokenizer of {folder} has no tokenizer.json; it cannot be exported")
    if network.encoder_config().model_type == STATIC:
        raise ModelError(
            f"{folder} uses static embeddings, which an export does not make faster; use the model "
            "as it is"
        )
    return network


def _refuse_target(target: Path) -> None:
    if target.exists() and not (target / EXPORT_FILE).exists() and any(target.iterdir()):
        raise RunError(f"{target} is not empty and not an exported model; use another --out")


def _write_settings(folder: Path, settings: ExportSettings) -> None:
    (folder / EXPORT_FILE).write_text(settings.model_dump_json(indent=1), encoding="utf-8")
    seal_again(folder)


def _checked(
    rows: Split, expected: Outputs, exported: Model, options: ExportOptions
) -> dict[str, Any]:
    """Compare an export with the outputs of its model on labeled rows.

    Raises:
        ModelError: if it is not good enough.
    """
    outputs = exported.predict(rows.examples())
    checks = compare_scores(rows.labels, expected, outputs, exported.classes)
    gap = checks["largest_difference"]
    if not options.int8 and not gap <= FP32_TOLERANCE:
        raise ModelError(
            f"The exported model predicts different probabilities (by {gap:.1e} on {len(rows)} "
            "rows) and was not saved; please report this with the spec of the run"
        )
    for name, title in (("macro_f1", "macro-F1"), ("worst_f1", "the worst class's F1")):
        before, after = checks[name]
        drop = 100 * (before - after)
        if drop > options.max_drop:
            raise ModelError(
                f"The export loses {drop:.2f} points of {title} on {len(rows)} rows "
                f"({100 * before:.2f} → {100 * after:.2f}) and was not saved (limit: --max-drop "
                f"{options.max_drop:g}); export without --int8, or raise "
                f"--max-drop"
            )
    return checks
