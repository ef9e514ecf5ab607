"""Rows whose target is an intensity or that have audio and vision: archives and plain tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from valence.config.data import DataSpec
from valence.config.database_url import is_sql_url
from valence.data.dataset import Dataset, Scale, Split
from valence.data.features.archive import FEATURE_CARDS, SPLITS, FeatureArchive, FeatureView
from valence.data.features.convert import convert, sha256_of
from valence.data.features.mmsa import SPLITS as SPLIT_NAMES
from valence.data.locate import InMemoryRows, Table, refuse_encoding
from valence.data.tables import LABEL_COLUMNS, TEXT_COLUMNS, find_column
from valence.errors import DataError, SpecError
from valence.storage import cache

NONE = "none"
PICKLES = (".pkl", ".pickle")
POLARITIES = ("Negative", "Neutral", "Positive")
CLASS_SETTINGS = (
    "train_counts", "imbalance_ratio", "validation_per_class", "noise_share", "classes", "tail",
)  # fmt: skip


def find_archive(spec: DataSpec, data_dir: str | Path | None) -> FeatureArchive | None:
    """The features of a corpus; None where it has none.

    A pickle is converted once; the archive is cached by content.

    Raises:
        DataError: if the features named are missing or unusable, or there are several.
    """
    where = data_dir or os.environ.get("VALENCE_DATA")
    roots = [Path(), *([Path(where)] if where else [])]
    names = (spec.name, spec.name.replace("-", "_"))
    folders = [root / name for root in roots for name in names]
    if spec.features == NONE or is_sql_url(spec.name):
        return None
    if spec.features is not None:
        places = [base / spec.features for base in (*roots, *folders)]
        named = next((path for path in places if path.exists()), None)
        if named is None:
            raise DataError(
                f"No features at {spec.features}; use a pickle, a folder that valence features "
                f"wrote, or {NONE}"
            )
        return _open(named)
    for path in folders:
        if path.suffix.lower() in PICKLES and path.is_file():
            return _open(path)
        if (path / "manifest.json").is_file():
            return _open(path)
    multimodal = spec.target == "intensity" or spec.name in FEATURE_CARDS
    if not multimodal or spec.text_column or spec.label_column:
        return None
    return next((a for path in folders if (a := _in_folder(path)) is not None), None)


def _in_folder(folder: Path) -> FeatureArchive | None:
    if not folder.is_dir():
        return None
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICKLES]
    paths += [path.parent for path in sorted(folder.glob("*/manifest.json"))]
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise DataError(
            f"{folder} has several feature files ({names}); choose one with --set "
            f"data.features=NAME"
        )
    return _open(paths[0]) if paths else None


def _open(path: Path) -> FeatureArchive:
    if path.is_dir():
        return FeatureArchive.open(path)
    key = cache.content_key([sha256_of(path)])
    archive = cache.load(cache.FEATURES, key, _held)
    if archive is None:
        with cache.writing(cache.FEATURES, key, {"source": path.name}) as folder:
            convert(path, folder)
        archive = cache.load(cache.FEATURES, key, _held)
    if archive is None:
        raise DataError(
            f"{path}: its converted features were deleted in the meantime; run the command again"
        )
    return archive


def _held(folder: Path) -> FeatureArchive:
    """An archive of the cache, held while it is read in parts."""
    cache.hold(folder)
    try:
        return FeatureArchive.open(folder)
    except DataError as error:
        raise ValueError(str(error)) from None


def archive_dataset(spec: DataSpec, archive: FeatureArchive, *, seed: int) -> Dataset:
    """The rows of an archive, by its own splits.

    Args:
        spec: The target; ``train_total`` subsamples the training rows of an intensity.
        archive: The features.
        seed: Seed of the subsample.

    Raises:
        DataError: if classes are requested and the archive has none.
        SpecError: if a setting needs classes and there are none, or groups are named.
    """
    refuse_encoding(spec, "features and their texts")
    if spec.group or spec.groups or spec.train_groups:
        raise SpecError(f"{spec.name}: features have no groups; remove --group and --groups")
    notes = [f"features: {archive.manifest.source}", *archive.manifest.notes]
    for modality, kinds in archive.manifest.zeroed.items():
        notes += [f"{n} of {kind} in {modality} read as 0" for kind, n in kinds.items() if n]
    classes, names = ((), None) if spec.target == "intensity" else _classes(spec, archive)
    splits = {}
    for name in SPLITS:
        part = archive.split(name)
        view = FeatureView(part, np.arange(len(part)), archive.manifest.sha256)
        if names is None:
            labels: np.ndarray = part.labels
        else:
            labels = np.array([classes.index(v) for v in part.table[names].astype(str)], np.int64)
        ids = np.array([f"{name}-{i}" for i in part.ids])
        splits[name] = Split(part.texts, labels, ids, features=view)
    data = Dataset(
        Path(spec.name).stem, classes, (), splits["train"], splits["validation"], splits["test"],
        notes=tuple(notes), scale=_scale(spec, splits["train"].labels),
    )  # fmt: skip
    return _subsampled(spec, data, seed) if not classes else data


def table_by_split(
    spec: DataSpec, tables: Mapping[str, Table], notes: list[str]
) -> Mapping[str, Table]:
    """The tables of a source, one with numbers as labels split by its column ``mode``.

    Args:
        spec: The target.
        tables: By split, or one under ``"all"``.
        notes: A line is added where the column decided.
    """
    if spec.target != "intensity" or "all" not in tables:
        return tables
    whole = tables["all"].read()
    if "mode" not in whole.columns:
        return {"all": InMemoryRows(whole)}
    modes = whole["mode"].astype(str).str.strip().str.lower()
    parts: dict[str, Table] = {
        name: InMemoryRows(whole[modes.isin(usual)].reset_index(drop=True))
        for name, usual in SPLIT_NAMES.items()
        if modes.isin(usual).any()
    }
    if not parts:
        return {"all": InMemoryRows(whole)}
    notes.append("splits by the column 'mode'")
    return parts


def intensity_dataset(
    spec: DataSpec, tables: Mapping[str, Table], *, seed: int, notes: Sequence[str] = ()
) -> Dataset:
    """Texts with numbers, without audio and vision.

    Args:
        spec: Names the columns. One table with a column ``mode`` of split names is split so.
        tables: By split, or one under ``"all"``.
        seed: Seed of splits made here.
        notes: On the tables, for the user.

    Raises:
        DataError: if a column is missing or labels are no numbers.
        SpecError: if a setting needs classes.
    """
    lines = list(notes)
    by_split = table_by_split(spec, tables, lines)
    splits = {
        name: rows_with_numbers(spec, table.read(), name, lines) for name, table in by_split.items()
    }
    if "all" in splits:
        splits["train"] = splits.pop("all")
    for name, share in (("test", spec.test_share), ("validation", spec.validation_share)):
        if name not in splits:
            train = splits["train"]
            order = np.random.default_rng(seed).permutation(len(train))
            count = max(1, round(share * len(train)))
            splits["train"] = train.take(np.sort(order[count:]))
            splits[name] = train.take(np.sort(order[:count]))
            lines.append(f"{name} split drawn at random: {count} of {len(train)} rows")
    data = Dataset(
        Path(spec.name).stem, (), (), splits["train"], splits["validation"], splits["test"],
        notes=tuple(lines), scale=_scale(spec, splits["train"].labels),
    )  # fmt: skip
    return _subsampled(spec, data, seed)


def rows_with_numbers(spec: DataSpec, frame: pd.DataFrame, name: str, notes: list[str]) -> Split:
    """The rows of a table that have a text and a number.

    Args:
        spec: Names the columns.
        frame: The table.
        name: Of the split.
        notes: A line is added where rows are left out.

    Raises:
        DataError: if a column is missing, a label is no number, or nothing is left.
    """
    where = f"{spec.name} ({name})"
    columns = [str(column) for column in frame.columns]
    text = find_column(columns, spec.text_column, TEXT_COLUMNS, what="text", where=where)
    label = find_column(columns, spec.label_column, LABEL_COLUMNS, what="label", where=where)
    given = frame[label].where(frame[label].astype(str).str.strip() != "")
    numbers = pd.to_numeric(given, errors="coerce")
    odd = given.notna() & ~np.isfinite(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise DataError(
            f"{where}, row {row + 1}: label {given.iloc[row]!r} is not a number; choose a column "
            "of numbers with --label-column, or use data.target=classes"
        )
    texts = frame[text].fillna("").astype(str)
    rows = np.flatnonzero(numbers.notna() & (texts.str.strip() != ""))
    if len(rows) < len(frame):
        notes.append(f"{where}: {len(frame) - len(rows)} rows without text or label were skipped")
    if not len(rows):
        raise DataError(f"{where}: no row has both a text and a number; check the columns")
    labels = numbers.to_numpy(dtype=np.float32, na_value=np.nan)[rows]
    return Split(texts.iloc[rows].tolist(), labels, np.array([f"{name}-{i}" for i in rows]))


def _classes(spec: DataSpec, archive: FeatureArchive) -> tuple[tuple[str, ...], str]:
    """Class names of an archive and the column that holds them."""
    column = next((c for c in ("annotation", "class_id") if c in archive.table), None)
    if column is None:
        raise DataError(
            f"{archive.manifest.source} has only intensities, no classes; use data.target=intensity"
        )
    present = set(archive.table[column].astype(str))
    if spec.classes is not None:
        missing = sorted(present - set(spec.classes))
        if missing:
            raise DataError(f"{archive.manifest.source}: class {missing[0]!r} is not in "
                            "data.classes; add it")  # fmt: skip
        return spec.classes, column
    ordered = POLARITIES if present <= set(POLARITIES) else tuple(sorted(present))
    return tuple(name for name in ordered if name in present), column


def _subsampled(spec: DataSpec, data: Dataset, seed: int) -> Dataset:
    for field in CLASS_SETTINGS:
        if getattr(spec, field):
            raise SpecError(
                f"data.{field} needs classes, but the target is an intensity; remove it "
                "(data.train_total subsamples the rows)"
            )
    total = spec.train_total
    if total is None and spec.sample is not None:
        total = min(spec.sample, len(data.train))
    if total is None:
        return data
    if total > len(data.train):
        raise DataError(
            f"{spec.name}: data.train_total is {total} and there are "
            f"{len(data.train)} training rows"
        )
    rows = np.random.default_rng(seed).permutation(len(data.train))[:total]
    return replace(data, train=data.train.take(np.sort(rows)))


def _scale(spec: DataSpec, labels: np.ndarray) -> Scale:
    """The card's, else by the range of the training labels."""
    card = FEATURE_CARDS.get(Path(spec.name).stem.replace("_", "-"))
    if card is not None:
        return "ch-sims" if card.scale == "ch-sims" else "mosi"
    inside = spec.target == "intensity" and float(np.abs(labels).max(initial=0.0)) <= 1.0
    return "ch-sims" if inside else "mosi"
