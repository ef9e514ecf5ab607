"""From a source of rows to a folder of instruction records: :func:`make_instructions`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.sources import load_dataset
from valence.llm.prompts import make_renderer
from valence.llm.records import (
    InstructionsInfo,
    missing_labels,
    source_splits,
    write_instructions,
)
from valence.llm.retrieval import Embedder, Retriever
from valence.models.base import Progress


def make_instructions(
    data: DataSpec,
    out: Path,
    *,
    template: str = "self-alignment",
    embedder: Embedder | None = None,
    pool: Literal["language", "all"] = "language",
    seed: int = 0,
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> InstructionsInfo:
    """Write an instruction record for every training, validation and test text of a source.

    Args:
        data: The rows; its ``group`` names the column of languages.
        out: The folder that is written.
        template: A name of ``TEMPLATES`` or a YAML file.
        embedder: Computes the vectors; the built-in encoder's mean when not given.
        pool: Whether demonstrations are of the text's own language, or of any.
        seed: Of splits and subsamples, as for ``load_dataset``.
        data_dir: Folder of corpora, as for ``load_dataset``.
        progress: Called with (done, total) texts that had to be embedded.

    Raises:
        DataError: if the rows cannot be used, or a language has no training rows.
        SpecError: if the template does not fit the labels.
        RunError: if the folder cannot be written.
    """
    loaded = load_dataset(data, seed=seed, data_dir=data_dir)
    renderer = make_renderer(template, loaded.classes)
    splits, group = source_splits(loaded), loaded.group or None
    embedder = embedder or Embedder(EncoderSpec())
    retriever = Retriever(
        embedder, splits["train"], len(loaded.classes),
        group=group if pool == "language" else None, progress=progress,
    )  # fmt: skip
    notes = missing_labels(splits, loaded.classes, group)
    drawn = "validation split drawn"
    data_notes = [note for note in loaded.notes if not note.startswith(drawn)]
    return write_instructions(
        renderer, splits, retriever, out,
        lambda groups: InstructionsInfo(
            data=loaded.name, template=template, classes=loaded.classes,
            answers=renderer.answers, encoder=Path(embedder.encoder.spec.name).name,
            pooling=embedder.pooling, groups=groups, notes=(*data_notes, *notes),
        ),
        group,
    )  # fmt: skip
