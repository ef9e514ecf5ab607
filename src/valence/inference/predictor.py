"""Predict with a saved model: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from valence.data.examples import Examples
from valence.data.frames import as_frame, list_of_texts, text_column, texts_of_column
from valence.distributed.device import Hardware
from valence.errors import ModelError, SpecError
from valence.evaluation.task import MetricScores, Task
from valence.inference.calibration import read_calibration
from valence.models.base import Outputs, Progress
from valence.models.config_file import ModelConfig, read_config
from valence.models.loader import load_model
from valence.models.windows import predict_windows

if TYPE_CHECKING:
    import pandas as pd

    from valence.data.dataset import Split


class Predictor:
    """A saved model, ready for texts.

    Args:
        folder: What ``valence train`` or ``valence export`` wrote.
        long: What is done with texts over the length limit: ``cut`` (truncated, and counted), or
            ``windows`` (read whole in overlapping pieces whose probabilities are averaged).
        hardware: How the model is run.

    Attributes:
        classes: Label names in the order of the probabilities.
        calibration: What ``valence calibrate`` fitted; changes nothing where it did not.
        truncated: Texts of the last call that were truncated at the length limit.

    Raises:
        ModelError: if the folder is missing or broken.
        SpecError: if ``long`` or a setting of ``hardware`` does not exist.
    """

    def __init__(
        self, folder: str | Path, *, long: str = "cut", hardware: Hardware | None = None
    ) -> None:
        if long not in ("cut", "windows"):
            raise SpecError(f"Unknown mode for long texts: {long!r}; use cut or windows")
        self.folder = Path(folder)
        self.long = long
        self.model = load_model(self.folder)
        self.config: ModelConfig = read_config(self.folder)
        self.classes = self.model.classes
        self.calibration = read_calibration(self.folder, self.config)
        self.truncated = 0
        self.model.prepare(hardware or Hardware())

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
    def task(self) -> Task:
        """What the model predicts."""
        return self.model.task

    @property
    def precision(self) -> str:
        """Number format in effect: ``fp32`` or ``bf16``."""
        return self.model.precision

    @property
    def target(self) -> Literal["classes", "intensity"]:
        """``classes`` or ``intensity``."""
        return self.task.target

    def outputs(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Outputs of N rows, calibrated; long texts are handled as the predictor says.

        Args:
            examples: The rows.
            progress: Called with (done, total) rows.
        """
        progress = progress and _of_rows(progress, len(examples))
        if self.long == "windows":
            outputs = predict_windows(self.model, examples, progress)
        else:
            outputs = self.model.predict(examples, progress)
        self.truncated = outputs.truncated
        if not np.isfinite(outputs.logits).all():
            raise ModelError(
                f"{self.folder} gives {int((~np.isfinite(outputs.logits)).any(axis=1).sum())} of "
                f"{len(outputs.logits)} rows invalid outputs (NaN); its weights are broken, so "
                "train or copy the model again"
            )
        return self.calibration.apply(outputs)

    def predict_proba(self, texts: Any, progress: Progress | None = None) -> np.ndarray:
        """(N, C) probabilities, in the order of ``texts`` and ``classes``.

        Args:
            texts: A list, a column, or a DataFrame with a column of texts: that of the training,
                else as ``load_dataset`` finds it.
            progress: Called with (done, total) texts.

        Raises:
            SpecError: if the model predicts a number.
            DataError: if there is one text and no list of them, or something else than strings.
        """
        if not self.classes:
            raise SpecError("The model predicts an intensity, not classes; use table()")
        return self.outputs(Examples(self._texts(texts)), progress).probs

    def predict(self, texts: Any) -> list[str]:
        """The most probable label of every text; ``""`` where a calibrated model abstains."""
        return self.calibration.labels(self.predict_proba(texts))

    def chosen(self, probs: np.ndarray) -> np.ndarray | None:
        """(N, C) which label is given for probabilities (N, C); None where it never abstains."""
        return None if self.calibration.limits is None else self.calibration.chosen(probs)

    def columns(self, texts: Any, progress: Progress | None = None) -> Mapping[str, list[Any]]:
        """What is predicted for every text, by column.

        ``label`` and ``prob_<class>``, or ``intensity``, for which the text alone is read.
        """
        return self._columns(self.outputs(Examples(self._texts(texts)), progress))

    def table(
        self, texts: Any, progress: Progress | None = None, *, text: str | None = None
    ) -> pd.DataFrame:
        """Columns ``label`` and ``prob_<class>``, or ``intensity``; one row per text.

        Of a DataFrame all columns and the index are kept in front of them; a column with such a
        name gets ``_given`` behind it, and rows without a text get no label.

        Args:
            texts: As for :meth:`predict_proba`.
            progress: Called with (done, total) texts.
            text: Of a DataFrame, the column of texts.
        """
        import pandas as pd

        from valence.inference.bulk.stream import GIVEN

        frame = None if isinstance(texts, list) else as_frame(texts)
        if frame is None:
            return _to_frame(self.columns(texts, progress))
        given = texts_of_column(frame, text_column(frame, text, trained_on=self._text_column))
        filled = [i for i, value in enumerate(given) if value.strip()]
        scored = _to_frame(self.columns([given[i] for i in filled], progress))
        scored = scored.set_axis(filled).reindex(range(len(frame))).set_axis(frame.index)
        kept = frame.rename(columns={name: f"{name}{GIVEN}" for name in scored.columns})
        return pd.concat([kept, scored], axis=1)

    @property
    def _text_column(self) -> str | None:
        """The column of the training's texts, where it was named or guessed."""
        return None if self.config.data is None else self.config.data.text_column

    def _texts(self, texts: Any) -> list[str]:
        frame = None if isinstance(texts, list) else as_frame(texts)
        if frame is None:
            return list_of_texts(texts)
        return texts_of_column(frame, text_column(frame, trained_on=self._text_column))

    def clip_columns(self, clip: str | Path, text: str = "") -> Mapping[str, list[Any]]:
        """As :meth:`columns`, of one sound or video file and what is said in it.

        Args:
            clip: The file; it is read as the clips of the training were.
            text: The words; none where they are not known.

        Raises:
            SpecError: if the model reads no sound or picture, or was trained on features that
                cannot be made here.
            DataError: if the file cannot be read.
        """
        outputs = self.model.predict_clip(Path(clip), [text])
        return self._columns(self.calibration.apply(outputs))

    def evaluate(self, rows: Split) -> MetricScores:
        """Every score of the model on labeled rows, with their audio and vision if there."""
        return self.scored(rows)[1]

    def scored(self, rows: Split) -> tuple[np.ndarray, MetricScores]:
        """Logits (N, C), or numbers (N, 1), of labeled rows, and every score of them."""
        logits = self.outputs(rows.examples()).logits
        return logits, self.task.scores(logits, rows.labels)

    def _columns(self, outputs: Outputs) -> dict[str, list[Any]]:
        labels = self.calibration.labels(outputs.probs) if self.classes else []
        return self.task.columns(outputs.logits, labels)


def _to_frame(columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {n: pd.Series(v, dtype=object if n == "label" else float) for n, v in columns.items()}
    )


def _of_rows(progress: Progress, count: int) -> Progress:
    """Progress in texts, windows or what is not cached as progress in rows."""

    def on_progress(done: int, total: int) -> None:
        progress(count * done // max(1, total), count)

    return on_progress
