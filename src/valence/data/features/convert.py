"""From a feature file of the MMSA layout to an archive: written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence.data.features.archive import FeatureArchive, Manifest, read_manifest, steps_file
from valence.data.features.mmsa import FEATURES, FeatureRows, check_split, find_splits
from valence.data.features.safe_pickle import read_pickle
from valence.errors import DataError
from valence.storage import atomic

_BLOCK = 1 << 20


def convert(source: str | Path, folder: str | Path) -> FeatureArchive:
    """Convert an MMSA pickle to an archive; a folder of the same source is used as it is.

    Args:
        source: The pickle. It is read without running what is in it.
        folder: Where the archive goes; written whole or not at all.

    Raises:
        DataError: if the file cannot be read or used, or the folder holds something else.
    """
    source, folder = Path(source), Path(folder)
    digest = sha256_of(source)
    if (existing := existing_archive(folder, digest)) is not None:
        return existing
    with source.open("rb") as stream:
        splits = find_splits(read_pickle(stream, source), str(source))
    checked = {name: check_split(values, name, str(source)) for name, values in splits.items()}
    _same_widths(checked, str(source))
    del splits  # so that each part can be freed once it is written
    return write_archive(folder, checked, source=source.name, digest=digest)


def existing_archive(folder: Path, digest: str) -> FeatureArchive | None:
    """The archive in ``folder`` if it is of the same source; None where the folder is free.

    Raises:
        DataError: if the folder holds something else.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if (folder / "manifest.json").exists() and read_manifest(folder).sha256 == digest:
        return FeatureArchive.open(folder)
    raise DataError(f"{folder} is not empty; use an empty or new folder")


def write_archive(
    folder: Path,
    splits: dict[str, FeatureRows],
    *,
    source: str,
    digest: str,
    extractor: dict[str, Any] | None = None,
) -> FeatureArchive:
    """Write checked rows as an archive: whole or not at all.

    Args:
        folder: Where it goes; it must not exist or be empty.
        splits: Rows by split; their features are freed once they are written.
        source: Name of what they come from.
        digest: Hash of it.
        extractor: How the features were made, if they were made here.

    Raises:
        RunError: if the disk refuses.
    """
    with atomic.new_folder(folder, marker="manifest.json") as scratch:
        _write(scratch, splits, source, digest, extractor)
    return FeatureArchive.open(folder)


def _write(
    folder: Path, splits: dict[str, FeatureRows], source: str, digest: str,
    extractor: dict[str, Any] | None,
) -> None:  # fmt: skip
    from safetensors.numpy import save_file

    zeroed = {m: {"-inf": 0, "inf": 0, "nan": 0} for m in FEATURES}
    steps: dict[str, dict[str, int]] = {name: {} for name in splits}
    tables = []
    widths: dict[str, int] = {}
    longest: dict[str, int] = {}
    for name, rows in splits.items():
        for modality in FEATURES:
            flat = _flat(rows, modality, zeroed[modality])
            save_file({"steps": flat}, folder / steps_file(name, modality))
            steps[name][modality], widths[modality] = flat.shape
            most = int(rows.lengths[modality].max())
            longest[modality] = max(most, longest.get(modality, 0))
            rows.features[modality] = None  # frees the memory
        lengths = {f"{m}_length": rows.lengths[m] for m in FEATURES}
        tables.append(pd.DataFrame({"split": name, **rows.columns, **lengths}))
    table = pd.concat(tables, ignore_index=True)
    table.to_parquet(folder / "rows.parquet", index=False)
    manifest = Manifest(
        source=source, sha256=digest, rows={name: len(rows) for name, rows in splits.items()},
        widths=widths, longest=longest, steps=steps, zeroed=zeroed,
        notes=tuple(_notes(splits, table)), extractor=extractor,
    )  # fmt: skip
    text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=1)
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def _flat(rows: FeatureRows, modality: str, zeroed: dict[str, int]) -> np.ndarray:
    """(total, d) the real steps of all rows; what is not finite becomes 0 and is counted."""
    features, lengths = rows.features[modality], rows.lengths[modality]
    flat = np.empty((int(lengths.sum()), np.shape(features[0])[1]), dtype=np.float32)
    start = 0
    for row, length in zip(features, lengths, strict=True):
        flat[start : start + length] = row[:length]
        start += length
    for kind, test in (("-inf", np.isneginf), ("inf", np.isposinf), ("nan", np.isnan)):
        where = test(flat)
        zeroed[kind] += int(where.sum())
        flat[where] = 0.0
    return flat


def _notes(splits: dict[str, FeatureRows], table: pd.DataFrame) -> list[str]:
    notes = list(dict.fromkeys(note for rows in splits.values() for note in rows.notes))
    shared = table.drop_duplicates(["split", "id"])["id"].duplicated().sum()
    if shared:
        notes.append(f"{shared} ids are in two splits: test rows may be in the training data")
    for modality in FEATURES:
        empty = int((table[f"{modality}_length"] == 0).sum())
        if empty:
            notes.append(f"{empty} rows have no {modality}")
    return notes


def _same_widths(splits: dict[str, FeatureRows], where: str) -> None:
    for modality in FEATURES:
        widths = {name: np.shape(rows.features[modality][0])[1] for name, rows in splits.items()}
        if len(set(widths.values())) > 1:
            sizes = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise DataError(f"{where}: {modality!r} has steps of different widths: {sizes}")


def sha256_of(path: Path) -> str:
    """Hash of a file's contents.

    Raises:
        DataError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()
