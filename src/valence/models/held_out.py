"""Scores of validation rows by models fitted without them, in the folder of a refit model."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from valence.errors import ModelError
from valence.models.config_file import seal_again
from valence.models.digests import check_later
from valence.storage import atomic

HELD_OUT_FILE = "validation.npz"


def write_held_out(folder: Path, ids: np.ndarray, logits: np.ndarray) -> None:
    """Write the scores into a model folder.

    Args:
        folder: Of the model.
        ids: (M,) row ids.
        logits: (M, C).
    """
    with atomic.new_file(folder / HELD_OUT_FILE) as scratch, scratch.open("wb") as file:
        np.savez_compressed(file, ids=ids.astype(str), logits=logits.astype(np.float32))
    seal_again(folder, HELD_OUT_FILE)


def read_held_out(folder: Path, ids: np.ndarray, class_count: int) -> np.ndarray | None:
    """(M, C) logits of rows by models fitted without them; None where the model is such a one.

    Args:
        folder: Of the model.
        ids: (M,) ids of the rows, in the order of the result.
        class_count: C.

    Raises:
        ModelError: if the file is broken or does not have a row.
    """
    path = folder / HELD_OUT_FILE
    check_later(folder, HELD_OUT_FILE, advice="copy the folder again, whole")
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            known, logits = file["ids"].astype(str), file["logits"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if logits.shape != (len(known), class_count) or not np.isfinite(logits).all():
        raise ModelError(f"{path} does not have {class_count} finite numbers for every row")
    places = {name: number for number, name in enumerate(known.tolist())}
    missing = [name for name in ids.astype(str).tolist() if name not in places]
    if missing:
        raise ModelError(
            f"The model was fitted on its validation rows too, but {path} has no "
            f"out-of-fold scores of row {missing[0]!r}; pass other rows with --data"
        )
    rows: np.ndarray = logits[[places[name] for name in ids.astype(str).tolist()]]
    return rows
