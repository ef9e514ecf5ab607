"""Predict with a saved model: texts in, labels and probabilities out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from valence.data.dataset import Split
from valence.data.tables import SUFFIXES, TEXT_COLUMNS, find_column, read_table
from valence.errors import DataError, SpecError
from valence.inference.calibration import read_calibration
from valence.metrics import classification_scores
from valence.metrics_regression import intensity_scores
from valence.models.base import Progress, Scores
from valence.models.fusion_model import FusionModel, score_split
from valence.models.load import load_model
from valence.models.store import read_config


class Predictor:
    """A saved model, ready for texts.

    Args:
        folder: What ``valence train`` wrote.

    Attributes:
        classes: Label names in the order of the probabilities.
        calibration: What ``valence calibrate`` fitted; changes nothing where it did not.
        truncated: Texts of the last call that were cut at the length limit.

    Raises:
        ModelError: if the folder is missing or broken.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.model = load_model(self.folder)
        self.config = read_config(self.folder)
        self.classes = self.model.classes
        self.calibration = read_calibration(self.folder, self.config)
        self.truncated = 0

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None) -> Predictor:
        """The model of a folder, or of ``owner/name`` on the Hugging Face hub.

        Args:
            name: Folder or hub id.
            revision: Branch, tag or commit on the hub.

        Raises:
            ModelError: if there is no such model, or it cannot be fetched.
        """
        from valence.inference.hub import fetch

        return cls(fetch(name, revision=revision))

    @property
    def target(self) -> str:
        """``classes`` or ``intensity``."""
        return self.config.spec.data.target

    def predict_proba(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(N, C) probabilities, in the order of ``texts`` and ``classes``."""
        if not self.classes:
            raise SpecError("The model predicts an intensity and no classes; use table()")
        return self._scores(texts, progress).probabilities

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of every text; ``""`` where a calibrated model abstains."""
        return self.calibration.labels(self.predict_proba(texts))

    def table(self, texts: Sequence[str], progress: Progress | None = None) -> pd.DataFrame:
        """Columns ``label`` and ``prob_<class>``, one row per text.

        A model of intensities gives one column, ``intensity``; it reads the text alone.
        """
        if not self.classes:
            return _intensities(self._scores(texts, progress))
        return self._labelled(self.predict_proba(texts, progress))

    def _labelled(self, shares: np.ndarray) -> pd.DataFrame:
        columns = {f"prob_{name}": shares[:, i].round(6) for i, name in enumerate(self.classes)}
        labels = self.calibration.labels(shares)
        return pd.DataFrame({"label": pd.Series(labels, dtype=object), **columns})

    def clip_table(self, clip: str | Path, text: str = "") -> pd.DataFrame:
        """As :meth:`table`, of one sound or video file and what is said in it.

        Args:
            clip: The file; it is read as the clips of the training were.
            text: The words; none where they are not known.

        Raises:
            SpecError: if the model reads no sound or picture, or was trained on features that
                cannot be made here.
            DataError: if the file cannot be read.
        """
        model = self.model
        if not isinstance(model, FusionModel) or model.extractor is None:
            raise SpecError(
                f"{self.folder} was not trained on clips that valence features extract read, so "
                f"{Path(clip).name} cannot be made into what it reads; give the text alone"
            )
        scores = self.calibration.applied(model.score_clip(Path(clip), text))
        if not self.classes:
            return _intensities(scores)
        return self._labelled(scores.probabilities)

    def _scores(self, texts: Sequence[str], progress: Progress | None) -> Scores:
        scores = self.calibration.applied(self.model.score(list(texts), progress))
        self.truncated = scores.truncated
        return scores

    def evaluate(self, rows: Split) -> dict[str, float | None]:
        """Every score of the model on labelled rows, with their audio and vision if there."""
        return self.scored(rows)[1]

    def scored(self, rows: Split) -> tuple[np.ndarray, dict[str, float | None]]:
        """Logits (N, C), or intensities (N, 1), of labelled rows, and every score of them."""
        logits = self.calibration.applied(score_split(self.model, rows)).logits
        if isinstance(self.model, FusionModel) and not self.classes:
            return logits, intensity_scores(rows.labels, logits[:, 0], scale=self.model.scale)
        return logits, classification_scores(
            rows.labels, logits, classes=self.classes,
            train_counts=self.config.train_counts, tail=self.config.tail,
        )  # fmt: skip


def _intensities(scores: Scores) -> pd.DataFrame:
    return pd.DataFrame({"intensity": scores.logits[:, 0].astype(np.float64).round(6)})


def predict_file(
    predictor: Predictor,
    source: Path,
    target: Path,
    *,
    text_column: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Score every row of a file; all columns are kept, a column named ``label`` as ``label_given``.

    The output appears under its name only when it is whole. Rows without a text get no
    label.

    Args:
        predictor: The model.
        source: CSV, TSV, JSONL or Parquet.
        target: The same formats; need not be the source's.
        text_column: Name of the column of texts.
        progress: Told (done, all) rows.

    Returns:
        How many rows were written.

    Raises:
        DataError: if the source cannot be read or the target cannot be written.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{target}: cannot write {target.suffix or 'no suffix'}; use {', '.join(SUFFIXES)}"
        )
    table = read_table(source)
    column = find_column(
        list(table.columns), text_column, TEXT_COLUMNS, what="text", where=str(source)
    )
    texts = table[column].where(table[column].notna(), "").astype(str)
    filled = np.flatnonzero(texts.str.strip() != "")
    scored = predictor.table(texts.iloc[filled].tolist(), progress)
    scored.index = pd.Index(filled)
    kept = table.rename(columns={"label": "label_given"})
    result = pd.concat([kept, scored.reindex(range(len(table)))], axis=1)
    _write(result, target)
    return len(result)


def _write(table: pd.DataFrame, target: Path) -> None:
    scratch = target.with_name(f".{target.name}.writing")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        suffix = target.suffix.lower()
        if suffix == ".parquet":
            table.to_parquet(scratch, index=False)
        elif suffix == ".jsonl":
            table.to_json(scratch, orient="records", lines=True, force_ascii=False)
        else:
            table.to_csv(scratch, index=False, sep="\t" if suffix == ".tsv" else ",")
        os.replace(scratch, target)
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        scratch.unlink(missing_ok=True)
