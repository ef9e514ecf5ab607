"""From a pool of texts to a labeling session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from valence.config.data import DataSpec
from valence.config.llm import LlmSpec
from valence.config.sections import AUTO_ENCODER
from valence.errors import DataError, ModelError, RunError
from valence.labeling.background import Background
from valence.labeling.features import NO_ENCODER, Featurizer
from valence.labeling.pool import LabelPool, label_affinity
from valence.labeling.sampling import SamplingSettings
from valence.labeling.session import LabelingSession
from valence.labeling.store import LabelStore

FEWEST_CLASSES = 2
MOST_CLASSES = 500


@dataclass(frozen=True)
class LabelNames:
    """The labels people choose from.

    Attributes:
        classes: Names.
        words: What each one means, in a few words; the name where nothing more is known.
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> LabelNames:
        """Of ``good,bad``, or of a file with one label per line: ``name`` or ``name: words``.

        Raises:
            DataError: if there are fewer than two, one is double, or the file cannot be read.
        """
        path = Path(text)
        if "," not in text and path.suffix and path.exists():
            try:
                lines = path.read_text(encoding="utf-8").split("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path} cannot be read: {error}; save it as UTF-8") from None
        else:
            lines = text.split(",")
        parts = [line.partition(":") for line in lines if line.strip()]
        names = tuple(name.strip() for name, _, _ in parts)
        words = tuple(f"{name.strip()} {words.strip()}".strip() for name, _, words in parts)
        return cls(names, words).checked()

    def checked(self) -> LabelNames:
        """The same; raises DataError as :meth:`parse` does."""
        double = next((n for n in self.classes if self.classes.count(n) > 1), None)
        if double is not None:
            raise DataError(f"The label {double!r} is there twice; remove one")
        if not FEWEST_CLASSES <= len(self.classes) <= MOST_CLASSES or "" in self.classes:
            raise DataError(
                f"{len(self.classes)} labels cannot be labeled with; give {FEWEST_CLASSES} to "
                f"{MOST_CLASSES}, as --labels good,bad"
            )
        return self


@dataclass(frozen=True)
class LabelJob:
    """What is labeled, and with what.

    Attributes:
        out: The label file; an existing one is continued.
        data: The pool; None where the file has it already.
        model: Folder of a model that suggests; None without one.
        llm: A language model that drafts labels where there is no ``model``; None without one.
        names: The labels; those of the model or the file when None.
        encoder: Frozen encoder of the model that is fitted meanwhile, ``auto`` or ``none``.
        settings: How rows are given out.
        shared: Rows that every person labels, for the agreement.
        data_dir: Folder of corpora.
    """

    out: Path
    data: DataSpec | None = None
    model: Path | None = None
    names: LabelNames | None = None
    encoder: str = AUTO_ENCODER
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    shared: int = 0
    llm: LlmSpec | None = None
    data_dir: Path | None = None


def open_session(job: LabelJob, note: Callable[[str], None]) -> LabelingSession:
    """Open or continue a session; its model is not started yet.

    Args:
        job: What is labeled.
        note: Called with a line on what was left out, guessed or continued.

    Raises:
        DataError, ModelError, RunError: if pool, labels, model or file cannot be used.
    """
    predictor_classes = None if job.model is None else model_classes(job.model)
    if job.out.exists():
        store = LabelStore(job.out)
        count = len(store.standing())
        note(f"{job.out}: continued after {count} decisions on {len(store.texts())} rows")
        source = store.about.get("source")
        if job.data is not None and job.data.name != source:
            note(f"{job.out} holds the texts of {source}; {job.data.name} is not read")
        if job.names is not None and job.names.classes != store.classes:
            store.close()
            raise DataError(
                f"{job.out} has the labels {', '.join(store.classes)}; remove --labels, or "
                "use another file with --out"
            )
    else:
        names = _names(job, predictor_classes)
        store = _new_store(job, names, note)
    if predictor_classes is not None and predictor_classes != store.classes:
        store.close()
        raise ModelError(
            f"{job.model} has the classes {', '.join(predictor_classes[:20])}, the labels are "
            f"{', '.join(store.classes[:20])}; give a model with the same ones, or none"
        )
    prepare = partial(_prepare, store, job)
    background = Background(prepare, store.classes, job.settings)
    return LabelingSession(store, job.settings, background, shared=job.shared)


def model_classes(folder: Path) -> tuple[str, ...]:
    """The classes of a model folder.

    Raises:
        ModelError: if it is none, or predicts a number.
    """
    from valence.models.config_file import read_config

    classes = tuple(read_config(folder).classes)
    if not classes:
        raise ModelError(f"{folder} predicts a number and no classes; give a model of classes")
    return classes


def _names(job: LabelJob, of_model: tuple[str, ...] | None) -> LabelNames:
    if job.names is not None:
        return job.names
    if of_model is None:
        raise DataError("Which labels? Give --labels good,bad, or a model with --model")
    return LabelNames(of_model, of_model).checked()


def _new_store(job: LabelJob, names: LabelNames, note: Callable[[str], None]) -> LabelStore:
    if job.data is None:
        raise RunError(f"{job.out} is not there; name the pool of texts to label first")
    frame, texts, column = read_pool(job.data, job.data_dir, note)
    others = [name for name in frame.columns if str(name) != column]
    extra = frame[others].rename(columns=str).to_dict("records")
    order = np.random.default_rng(job.settings.seed).permutation(len(texts))
    return LabelStore.create(
        job.out, texts, source_rows=[int(i) for i in frame.index], classes=names.classes,
        about={"words": list(names.words), "source": job.data.name, "seed": job.settings.seed},
        order=order.tolist(), extra=[{str(k): v for k, v in row.items()} for row in extra],
    )  # fmt: skip


def read_pool(
    spec: DataSpec, data_dir: Path | None, note: Callable[[str], None]
) -> tuple[pd.DataFrame, list[str], str]:
    """The rows of a pool with a text, every text once; the texts and the name of their column.

    Raises:
        DataError: if there is no column of texts, or fewer than two rows are left.
    """
    from valence.data.frames import text_column, texts_of_column
    from valence.data.locate import locate

    tables, notes = locate(spec, data_dir)
    for line in notes:
        note(line)
    frame = pd.concat([table.read() for table in tables.values()], ignore_index=True)
    column = text_column(frame, spec.text_column)
    texts = pd.Series(texts_of_column(frame, column))
    blank = texts.str.strip() == ""
    double = texts.duplicated() & ~blank
    for mask, what in ((blank, "without a text"), (double, "with a text that was there before")):
        if mask.any():
            note(f"{spec.name}: {int(mask.sum())} rows {what} left out")
    usable = ~(blank | double)
    if int(usable.sum()) < FEWEST_CLASSES:
        raise DataError(f"{spec.name}: {int(usable.sum())} texts are too few to label; give more")
    note(f"{spec.name}: {int(usable.sum())} texts of column {column!r}")
    return frame[usable.to_numpy()], texts[usable].tolist(), column


def _prepare(store: LabelStore, job: LabelJob, progress: Callable[[int, int], None]) -> LabelPool:
    """Features of the pool, and what a model that was given predicts."""
    texts = store.texts()
    featurizer = Featurizer(texts, encoder=job.encoder, progress=progress)
    words = store.about.get("words") or store.classes
    affinity = None if featurizer.encoder == NO_ENCODER else label_affinity(featurizer, words)
    given = None
    if job.model is not None:
        from valence.inference.predictor import Predictor

        predictor = Predictor(job.model)
        probs = predictor.predict_proba(texts, progress)
        given = probs[:, [predictor.classes.index(name) for name in store.classes]]
    elif job.llm is not None:
        from valence.labeling.drafts import draft_probs

        given = draft_probs(texts, words, job.llm, progress)
    return LabelPool(featurizer.pool, featurizer.embeddings, len(store.classes), affinity, given)
