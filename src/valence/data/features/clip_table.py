"""From a table of clips to a feature archive: one's own videos, ready to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from valence.data.features.archive import FeatureArchive
from valence.data.features.convert import existing_archive, sha256_of, write_archive
from valence.data.features.extractor import ClipFeatures, Extractor, extractor_key
from valence.data.features.mmsa import FEATURES, SPLITS, FeatureRows, check_split
from valence.data.tables import read_table
from valence.errors import DataError

SHOWN = 5  # clips that are named
COLUMNS = ("clip", "text", "label", "split")


def archive_clips(
    table: str | Path,
    folder: str | Path,
    extractor: Extractor,
    *,
    encoding: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureArchive:
    """Make features of every clip a table names, and an archive of them.

    Args:
        table: CSV, TSV, JSONL or Parquet with the columns clip (a path, relative to the
            table), text, label (an intensity) and split; ``id`` names rows, the clip's name
            where it is missing.
        folder: Where the archive goes; written whole or not at all.
        extractor: Makes the features.
        encoding: Of a text table; UTF-8 when None.
        progress: Called with (done, total) clips.

    Raises:
        DataError: naming the row, if a column, clip, label or split cannot be used; clips that are
            broken are left out and noted, unless a split has no other.
    """
    table, folder = Path(table), Path(folder)
    rows = _checked(read_table(table, encoding), table)
    digest = hashlib.sha256(
        f"{sha256_of(table)}{encoding or ''}{extractor_key(extractor.settings)}".encode()
    )
    for path in rows["path"]:
        digest.update(sha256_of(path).encode())
    if (existing := existing_archive(folder, digest.hexdigest())) is not None:
        return existing
    made: list[ClipFeatures] = []
    broken: dict[int, str] = {}
    for i, path in enumerate(rows["path"]):
        try:
            made.append(extractor(path))
        except DataError as error:
            broken[i] = str(error)
        if progress is not None:
            progress(i + 1, len(rows))
    rows = _without(rows, broken, str(table))
    splits = {name: _split(rows, made, name, str(table)) for name in SPLITS}
    splits["train"].notes.extend([*_broken_notes(broken), *_clip_notes(made)])
    return write_archive(
        folder, splits, source=table.name, digest=digest.hexdigest(),
        extractor=extractor.settings.model_dump(mode="json"),
    )  # fmt: skip


def _checked(rows: pd.DataFrame, table: Path) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise DataError(
            f"{table}: no column {', '.join(missing)}; a table of clips has {', '.join(COLUMNS)}"
        )
    names = {alias: split for split, aliases in SPLITS.items() for alias in aliases}
    rows = rows.assign(
        split=rows["split"].astype(str).str.strip().map(names),
        number=pd.to_numeric(rows["label"], errors="coerce"),
        path=rows["clip"].map(lambda clip: table.parent / str(clip)),
        text=rows["text"].where(rows["text"].notna(), "").astype(str),
    )
    tests = (
        (rows["split"].isna(), "the split is not train, validation or test"),
        (rows["number"].isna(), "the label is not a number"),
        (~rows["path"].map(Path.is_file), "the clip does not exist"),
    )
    for wrong, what in tests:
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            value = rows["clip"].iloc[row]
            raise DataError(f"{table}, row {row + 1} ({value}): {what}; fix the row")
    for name in SPLITS:
        if not (rows["split"] == name).any():
            raise DataError(f"{table}: no row of split {name!r}; every split needs some")
    return rows


def _without(rows: pd.DataFrame, broken: dict[int, str], where: str) -> pd.DataFrame:
    """The rows whose clips could be read."""
    left = rows.drop(index=rows.index[list(broken)]).reset_index(drop=True)
    for name in SPLITS:
        if not (left["split"] == name).any():
            raise DataError(
                f"{where}: no clip of split {name!r} can be read; the first of {len(broken)}: "
                f"{next(iter(broken.values()))}"
            )
    return left


def _broken_notes(broken: dict[int, str]) -> list[str]:
    if not broken:
        return []
    shown = "; ".join(list(broken.values())[:SHOWN])
    more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    return [f"{len(broken)} unreadable clips skipped: {shown}{more}"]


def _split(rows: pd.DataFrame, made: list[ClipFeatures], name: str, where: str) -> FeatureRows:
    chosen = np.flatnonzero(rows["split"] == name)
    part = rows.iloc[chosen]
    features = {
        "audio": [made[i].audio for i in chosen],
        "vision": [made[i].vision for i in chosen],
    }
    lengths = {f"{m}_lengths": [len(row) for row in features[m]] for m in FEATURES}
    ids = part["id"] if "id" in part.columns else part["clip"]
    values = {
        "id": ids.astype(str).tolist(), "raw_text": part["text"].tolist(),
        "regression_labels": part["number"].tolist(), **features, **lengths,
    }  # fmt: skip
    return check_split(values, name, where)


def _clip_notes(made: list[ClipFeatures]) -> list[str]:
    notes = [note for clip in made for note in clip.notes]
    return [*notes[:5], *([f"{len(notes) - 5} more notes on clips"] if len(notes) > 5 else [])]
