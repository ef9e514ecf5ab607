"""From a name to rows: :func:`load_dataset`. What is subsampled, split or left out is noted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence.config.data import DataSpec
from valence.config.database_url import is_sql_url, short_name
from valence.data.catalog import DATASETS, DatasetCard
from valence.data.dataset import Dataset, Split, tail_classes
from valence.data.draw import draw_rows
from valence.data.formats import table_stem
from valence.data.frames import frames_as_names
from valence.data.groups import (
    SOURCE_ROW,
    choose_rows,
    group_column,
    limit_groups,
    split_by_group,
    with_groups,
)
from valence.data.labels import class_names, unknown_label
from valence.data.locate import (
    READ_ROWS,
    SPLITS,
    FirstRows,
    Table,
    locate,
    refuse_subsampling,
)
from valence.data.noise import with_label_noise
from valence.data.sampling import longtail_counts, take_counts
from valence.data.source_columns import columns_beyond, read_columns
from valence.data.tables import clean
from valence.errors import DataError, SpecError, UnknownNameError


def load_dataset(
    spec: DataSpec | str | Path | Any, *, text: str | None = None, label: str | None = None,
    seed: int = 0, data_dir: str | Path | None = None, most_rows: int | None = None,
) -> Dataset:  # fmt: skip
    """The rows a spec names, split and subsampled as it says.

    A name is, in this order: the built-in corpus, the URL of a database, a file or folder, a
    folder of ``data_dir`` (or of the environment variable ``VALENCE_DATA``), a card with a
    hub id, a hub id. Only ``test_per_class`` subsamples the rows of an existing test split.

    Args:
        spec: What to load: a spec, a name, a path, or a DataFrame of any library.
        text: Name of the column of texts; as the spec says, or guessed, when not given.
        label: Name of the column of labels; likewise.
        seed: Seed of splits and subsamples where ``spec.cut_seed`` is not given.
        data_dir: Folder with one folder per corpus.
        most_rows: Rows of each split of a file or database that are read; all when None.

    Raises:
        DataError: if something cannot be found, read or used.
        UnknownNameError: if the name is none of the above.
    """
    if not isinstance(spec, DataSpec):
        with frames_as_names([spec]) as (name,):
            return load_dataset(
                DataSpec(name=name), text=text, label=label, seed=seed, data_dir=data_dir,
                most_rows=most_rows,
            )  # fmt: skip
    named = {"text_column": text, "label_column": label}
    spec = spec.model_copy(update={field: v for field, v in named.items() if v is not None})
    seed = spec.cut_seed if spec.cut_seed is not None else seed
    if spec.target == "intensity" and (spec.group or spec.groups or spec.train_groups):
        raise SpecError(
            "Groups can be scored for classes only; remove data.group, data.groups and "
            "data.train_groups with data.target=intensity"
        )
    from valence.data.demo import load_demo

    whole = load_demo(spec) if spec.name == "demo" else _located(spec, data_dir, seed, most_rows)
    if spec.target == "intensity":
        return whole
    return _subsample(spec, limit_groups(spec, with_groups(spec, whole), seed), seed)


def _located(
    spec: DataSpec, data_dir: str | Path | None, seed: int, most_rows: int | None
) -> Dataset:
    """All rows of a file, folder, card, hub id or database, split."""
    from valence.data.multimodal import archive_dataset, find_archive, intensity_dataset

    card = DATASETS.get(spec.name)
    archive = find_archive(spec, data_dir)
    if archive is not None:
        return archive_dataset(spec, archive, seed=seed)
    located, notes = locate(spec, data_dir)
    firsts = {} if most_rows is None else {n: FirstRows(t, most_rows) for n, t in located.items()}
    tables = choose_rows(spec, firsts or located)
    if spec.target == "intensity":
        return intensity_dataset(spec, tables, seed=seed, notes=notes)
    given = spec
    spec, tables, guessed = read_columns(spec, tables)
    frames, more = _read(spec, card, tables, seed)
    parts = [name for name, table in firsts.items() if table.has_more]
    more = [
        *more,
        *(f"{spec.name}: only the first {most_rows} rows of {n} were read" for n in parts),
    ]
    whole = _assemble(spec, card, frames, seed, [*notes, *guessed, *more])
    return replace(whole, columns=columns_beyond(given, spec))


@dataclass(frozen=True)
class LabeledRows:
    """Labeled rows on which a saved model is evaluated.

    Attributes:
        rows: The rows.
        source: Name of where they are from.
        split: The split they are; ``all`` for every row of a source without splits.
        notes: On what was left out.
        group: Column of the rows' ``extra`` that names their group; empty without one.
    """

    rows: Split
    source: str
    split: str
    notes: tuple[str, ...] = ()
    group: str = ""

    def __str__(self) -> str:
        part = "" if self.split == "all" else f" ({self.split})"
        return f"{len(self.rows)} rows of {self.source}{part}"


def load_split(
    spec: DataSpec,
    classes: tuple[str, ...],
    *,
    split: str = "test",
    data_dir: str | Path | None = None,
    trained_on: DataSpec | None = None,
) -> LabeledRows:
    """Labeled rows for a saved model: every row of a single file, else one split of a source.

    Rows are neither subsampled nor split: a source without splits gives all its rows,
    whether its labels are classes or numbers.

    Args:
        spec: Names the data, its columns, its groups and the target.
        classes: Label names in the order of the model; none where it predicts a number.
        split: Which split, where there are several.
        data_dir: As for :func:`load_dataset`.
        trained_on: The data of the model, whose columns are taken where the source has them.

    Raises:
        DataError: if the split is missing or has a label the model does not know.
        SpecError: if the spec subsamples rows.
    """
    refuse_subsampling(spec, "a saved model is evaluated on all rows")
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    from valence.data.multimodal import archive_dataset, find_archive, table_by_split

    archive = None if spec.name == "demo" else find_archive(spec, data_dir)
    if archive is not None or spec.name == "demo":
        named = spec.model_copy(update={"classes": classes or None})
        data = load_dataset(spec) if archive is None else archive_dataset(named, archive, seed=0)
        rows = _relabeled(getattr(data, split), data, classes)
        return LabeledRows(rows, spec.name, split, data.notes, data.group)
    located, notes = locate(spec, data_dir)
    tables = table_by_split(spec, choose_rows(spec, located), notes)
    spec, tables, guessed = read_columns(spec, tables, trained_on=trained_on)
    notes = [*notes, *guessed]
    name = "all" if "all" in tables else split
    if name not in tables:
        raise DataError(f"{spec.name} has no {split} split; it has {', '.join(tables)}")
    table = tables[name].read()
    group = group_column(spec, [str(column) for column in table.columns], spec.name)
    rows = _labeled(spec, table, classes, name, notes)
    has_group = group in rows.extra.columns  # rows with numbers have no other columns
    return LabeledRows(rows, spec.name, name, tuple(notes), group if has_group else "")


def _relabeled(rows: Split, data: Dataset, classes: tuple[str, ...]) -> Split:
    """The rows of a data set under the ids of a model's classes."""
    if data.classes == classes:
        return rows
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        raise DataError(
            f"{data.name}: unknown label {unknown[0]!r}; the model has the classes "
            f"{', '.join(classes[:20])}"
        )
    ids = np.array([classes.index(name) for name in data.classes], dtype=np.int64)
    return replace(rows, labels=ids[rows.labels])


def _labeled(
    spec: DataSpec, table: pd.DataFrame, classes: tuple[str, ...], name: str, notes: list[str]
) -> Split:
    """The rows of a table with a text and a label; what was left out is added to ``notes``."""
    from valence.data.multimodal import rows_with_numbers

    if spec.target == "intensity":
        return rows_with_numbers(spec, table, name, notes)
    card = DATASETS.get(spec.name)
    frame, more = clean(
        table, where=spec.name,
        text_column=spec.text_column or (card.text_column if card else None),
        label_column=spec.label_column or (card.label_column if card else None), names=classes,
        normalize_labels=spec.normalize_labels,
    )  # fmt: skip
    notes += more
    return _split(frame, classes, name, spec.name)


def _read(
    spec: DataSpec, card: DatasetCard | None, tables: Mapping[str, Table], seed: int
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """All splits; of the training rows only a sample where the spec asks for one."""
    name = "train" if "train" in tables else "all"
    if name not in tables:
        raise DataError(f"{spec.name} has no train split; it has {', '.join(tables)}")
    if spec.sample is None:
        return {split: table.read() for split, table in tables.items()}, []
    train_fraction = 1.0
    for split, share in (("test", spec.test_share), ("validation", spec.validation_share)):
        train_fraction *= 1 - share if split not in tables else 1
    # Later splits are stratified, with at least one row of every class, so draw a few more.
    size = spec.sample
    if train_fraction != 1:
        size = int(spec.sample / train_fraction * 1.02) + 50
    drawn, seen = draw_rows(
        tables[name].batches(READ_ROWS), size, seed=seed, where=spec.name,
        text_column=spec.text_column or (card.text_column if card else None),
        label_column=spec.label_column or (card.label_column if card else None),
    )  # fmt: skip
    others = {split: table.read() for split, table in tables.items() if split != name}
    note = f"{spec.name}: {len(drawn)} of {seen} rows drawn (seed {seed})"
    return {name: drawn, **others}, [note] if len(drawn) < seen else []


def _assemble(
    spec: DataSpec,
    card: DatasetCard | None,
    tables: Mapping[str, pd.DataFrame],
    seed: int,
    notes: list[str],
) -> Dataset:
    text_column = spec.text_column or (card.text_column if card else None)
    label_column = spec.label_column or (card.label_column if card else None)
    names = spec.classes or (card.classes if card else ())
    frames = {}
    for split in sorted(tables, key=lambda name: name not in ("train", "all")):
        table = tables[split]
        where = f"{spec.name} ({split})" if split != "all" else spec.name
        frames[split], more = clean(
            table, where=where, text_column=text_column, label_column=label_column, names=names,
            normalize_labels=spec.normalize_labels,
        )  # fmt: skip
        notes += more
        names = names or class_names(frames[split], names, spec.name)
    classes = class_names(
        frames["train" if "train" in frames else "all"],
        spec.classes or (card.classes if card else ()), spec.name,
    )  # fmt: skip
    splits = {name: _split(frame, classes, name, spec.name) for name, frame in frames.items()}
    columns = [str(name) for name in splits["train" if "train" in splits else "all"].extra.columns]
    group = group_column(spec, columns, spec.name)
    splits, more = _complete(splits, spec, seed, group)
    train, validation, test = splits["train"], splits["validation"], splits["test"]
    notes += more
    stem = short_name(spec.name) if is_sql_url(spec.name) else table_stem(Path(spec.name))
    name = spec.name if card else stem
    return Dataset(name, classes, (), train, validation, test, notes=tuple(notes))


def _split(frame: pd.DataFrame, classes: tuple[str, ...], name: str, source: str) -> Split:
    ids = {label: i for i, label in enumerate(classes)}
    error = unknown_label(frame, classes, f"{source} ({name})")
    if error is not None:
        raise error
    labels = frame["label"].map(ids)
    numbers = frame[SOURCE_ROW if SOURCE_ROW in frame else "row"]
    rows = np.array([f"{name}-{i}" for i in numbers]) if len(frame) else np.array([], str)
    own = [n for n in ("text", "label", "row", SOURCE_ROW) if n in frame]
    extra = frame.drop(columns=own).reset_index(drop=True)
    return Split(frame["text"].tolist(), labels.to_numpy(dtype=np.int64), rows, extra)


def _complete(
    splits: Mapping[str, Split], spec: DataSpec, seed: int, group: str
) -> tuple[dict[str, Split], list[str]]:
    """Make the missing splits, stratified within every group, with a note on each."""
    complete = dict(splits)
    notes = []
    if "all" in complete:
        complete["train"] = complete.pop("all")
    for name, share in (("test", spec.test_share), ("validation", spec.validation_share)):
        if name in complete:
            continue
        train = complete["train"]
        rest, held_out = split_by_group(train, group, share, seed=seed)
        if not len(held_out):
            raise DataError(
                f"{spec.name}: {len(train)} rows are too few for a {name} split; add rows, at "
                "least two per class"
            )
        complete["train"], complete[name] = train.take(rest), train.take(held_out)
        notes.append(
            f"{name} split drawn at random: {len(held_out)} of {len(train)} rows, stratified"
        )
    return complete, notes


def _subsample(spec: DataSpec, data: Dataset, seed: int) -> Dataset:
    train, notes = data.train, data.notes
    if spec.sample is not None and spec.sample < len(train):
        counts = longtail_counts(train.counts(len(data.classes)), total=spec.sample)
        rows = take_counts(train.labels, counts, seed=seed, classes=data.classes)
        notes = (*notes, f"{len(rows)} of {len(train)} training rows drawn, stratified")
        train = train.take(rows)
    train = train.take(train_indices(spec, train.labels, data.classes, seed))
    if spec.noise_share:
        train, note = with_label_noise(train, spec, len(data.classes), seed=seed)
        notes = (*notes, note)
    validation = data.validation
    if spec.validation_per_class is not None:
        per_class = [spec.validation_per_class] * len(data.classes)
        rows = take_counts(validation.labels, per_class, seed=seed, classes=data.classes)
        validation = validation.take(rows)
    test = data.test
    if spec.test_per_class is not None:
        per_class = [spec.test_per_class] * len(data.classes)
        test = test.take(take_counts(test.labels, per_class, seed=seed, classes=data.classes))
        notes = (*notes, f"{len(test)} of {len(data.test)} test rows drawn, balanced")
    train_counts = train.counts(len(data.classes))
    lone = [repr(data.classes[c]) for c in np.flatnonzero(train_counts == 1)]
    if lone:
        have = "has" if len(lone) == 1 else "have"
        more = f" and {len(lone) - 5} more" if len(lone) > 5 else ""
        shown = f"{', '.join(lone[:5])}{more}"
        notes = (*notes, f"{shown} {have} one training row; their scores are unreliable")
    tail = _tail(spec, data, train_counts)
    return replace(data, train=train, validation=validation, test=test, tail=tail, notes=notes)


def train_indices(
    spec: DataSpec, labels: np.ndarray, classes: tuple[str, ...], seed: int
) -> np.ndarray:
    """Indices of the training rows that remain after the spec's long-tailed subsampling.

    Args:
        spec: How rows are subsampled.
        labels: (N,) ids of the training rows.
        classes: Label names.
        seed: Decides which rows.

    Raises:
        DataError: if a class is unknown or has too few rows.
    """
    if spec.train_counts is not None:
        counts = np.zeros(len(classes), dtype=np.int64)
        for name, count in spec.train_counts.items():
            if name not in classes:
                raise UnknownNameError("class", name, classes)
            counts[classes.index(name)] = count
        return take_counts(labels, counts, seed=seed, classes=classes)
    if spec.train_total is None and spec.imbalance_ratio is None:
        return np.arange(len(labels))
    counts = longtail_counts(
        np.bincount(labels, minlength=len(classes)),
        ratio=spec.imbalance_ratio,
        total=spec.train_total,
        head=spec.head_count,
        profile=spec.profile,
    )
    return take_counts(labels, counts, seed=seed, classes=classes)


def _tail(spec: DataSpec, data: Dataset, counts: np.ndarray) -> tuple[int, ...]:
    card = DATASETS.get(spec.name)
    named = spec.tail or (card.tail if card else None)
    if named is None:
        return tail_classes(counts)
    for name in named:
        if name not in data.classes:
            raise UnknownNameError("class", name, data.classes)
    return tuple(sorted(data.classes.index(name) for name in named))
