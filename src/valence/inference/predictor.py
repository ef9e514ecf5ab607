"""Predict with a saved model: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from valence.errors import SpecError
from valence.inference.bulk.stream import predict_file as predict_file
from valence.inference.calibration import read_calibration
from valence.models.base import Progress, Scores, TextModel
from valence.models.config_file import ModelConfig, read_config
from valence.models.cpu import usable_cores
from valence.models.loader import load_model
from valence.models.windows import score_windows

if TYPE_CHECKING:
    import pandas as pd

    from valence.data.dataset import Split
    from valence.models.fusion_model import FusionModel

DECIMALS = 6


@dataclass(frozen=True)
class Speed:
    """How a model is run; the defaults suit the machine and change no result.

    Attributes:
        threads: Processor threads; the usable cores when None.
        device: ``auto`` (the best there is), ``cpu``, ``cuda`` or ``mps``; of torch models.
        precision: ``fp32``; ``bf16``; ``auto`` takes bfloat16 on a GPU that has it, which is
            faster and moves probabilities by some thousandths.
        batch_tokens: Most tokens of a batch; what suits the device when None.
    """

    threads: int | None = None
    device: str = "auto"
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16", "auto"):
            raise SpecError(f"Precision {self.precision!r} is unknown; write fp32, bf16 or auto")
        for name, value in (("threads", self.threads), ("batch tokens", self.batch_tokens)):
            if value is not None and value < 1:
                raise SpecError(f"{value} {name} are not possible; give at least 1")


class Predictor:
    """A saved model, ready for texts.

    Args:
        folder: What ``valence train`` or ``valence export`` wrote.
        long: What is done with texts over the length limit: ``cut`` (and counted), or
            ``windows`` (read whole in overlapping pieces whose probabilities are averaged).
        speed: How the model is run.

    Attributes:
        classes: Label names in the order of the probabilities.
        calibration: What ``valence calibrate`` fitted; changes nothing where it did not.
        precision: Number format the model computes in: ``fp32`` or ``bf16``.
        truncated: Texts of the last call that were cut at the length limit.

    Raises:
        ModelError: if the folder is missing or broken.
        SpecError: if ``long`` or a setting of ``speed`` does not exist.
    """

    def __init__(
        self, folder: str | Path, *, long: str = "cut", speed: Speed | None = None
    ) -> None:
        if long not in ("cut", "windows"):
            raise SpecError(f"Long texts cannot be handled by {long!r}; write cut or windows")
        self.folder = Path(folder)
        self.long = long
        self.model = load_model(self.folder)
        self.config: ModelConfig = read_config(self.folder)
        self.classes = self.model.classes
        self.calibration = read_calibration(self.folder, self.config)
        self.truncated = 0
        self.precision = _prepare(self.model, self.config.kind, speed or Speed())

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
        return self._score(texts, progress).probabilities

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of every text; ``""`` where a calibrated model abstains."""
        return self.calibration.labels(self.predict_proba(texts))

    def chosen(self, shares: np.ndarray) -> np.ndarray | None:
        """(N, C) which label is given for probabilities (N, C); None where it never abstains."""
        return None if self.calibration.limits is None else self.calibration.chosen(shares)

    def columns(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> Mapping[str, list[Any]]:
        """What is said of every text, by column: ``label`` and ``prob_<class>``, or ``intensity``.

        A model of intensities reads the text alone.
        """
        return self._columns(self._score(texts, progress))

    def table(self, texts: Sequence[str], progress: Progress | None = None) -> pd.DataFrame:
        """Columns ``label`` and ``prob_<class>``, or ``intensity``; one row per text."""
        return _frame(self.columns(texts, progress))

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
        model = self.clip_model(clip)
        found = model.score_clip(model.read_clip(Path(clip)), [text])
        return self._columns(self.calibration.applied(found))

    def clip_model(self, clip: str | Path) -> FusionModel:
        """The model, if it can read a sound or video file.

        Raises:
            SpecError: if it reads no sound or picture, or was trained on features that cannot be
                made here.
        """
        from valence.models.fusion_model import FusionModel

        model = self.model
        if not isinstance(model, FusionModel) or model.extractor is None:
            raise SpecError(
                f"{self.folder} was not trained on clips that valence features extract read, so "
                f"{Path(clip).name} cannot be made into what it reads; give the text alone"
            )
        return model

    def evaluate(self, rows: Split) -> dict[str, float | None]:
        """Every score of the model on labelled rows, with their audio and vision if there."""
        return self.scored(rows)[1]

    def scored(self, rows: Split) -> tuple[np.ndarray, dict[str, float | None]]:
        """Logits (N, C), or intensities (N, 1), of labelled rows, and every score of them."""
        from valence.evaluation.classification import classification_scores

        if self.config.kind == "fusion":
            from valence.evaluation.regression import intensity_scores
            from valence.models.fusion_model import FusionModel

            assert isinstance(self.model, FusionModel)
            found = self.model.score_split(rows)
            if not self.classes:
                return found.logits, intensity_scores(
                    rows.labels, found.logits[:, 0], scale=self.model.scale
                )
            logits = self.calibration.applied(found).logits
        else:
            logits = self._score(rows.texts, None).logits
        return logits, classification_scores(
            rows.labels, logits, classes=self.classes,
            train_counts=self.config.train_counts, tail=self.config.tail,
        )  # fmt: skip

    def _columns(self, scores: Scores) -> dict[str, list[Any]]:
        if not self.classes:
            return {"intensity": scores.logits[:, 0].astype(np.float64).round(DECIMALS).tolist()}
        shares = scores.probabilities
        rounded = shares.astype(np.float64).round(DECIMALS)
        named = {f"prob_{name}": rounded[:, i].tolist() for i, name in enumerate(self.classes)}
        return {"label": self.calibration.labels(shares), **named}

    def _score(self, texts: Sequence[str], progress: Progress | None) -> Scores:
        if self.long == "windows":
            scores = score_windows(self.model, list(texts), progress)
        else:
            scores = self.model.score(list(texts), progress)
        self.truncated = scores.truncated
        return self.calibration.applied(scores)


def _frame(columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {n: pd.Series(v, dtype=object if n == "label" else float) for n, v in columns.items()}
    )


def _prepare(model: TextModel, kind: str, speed: Speed) -> str:
    """Give a model its threads, device and batches, and its number format, which is returned."""
    if kind in ("onnx", "openvino"):
        from valence.models.exported import ExportedModel

        assert isinstance(model, ExportedModel)
        model.open(threads=speed.threads or usable_cores())
        model.token_budget = speed.batch_tokens or model.token_budget
    elif kind == "torch":
        import torch

        from valence.distributed.device import pick_device, use_bf16
        from valence.models.classifier import TorchModel

        assert isinstance(model, TorchModel)
        wanted = speed.threads or min(torch.get_num_threads(), usable_cores())
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)
        device = pick_device(speed.device)
        model.classifier.to(device)
        model.token_budget = speed.batch_tokens
        model.precision = "bf16" if use_bf16(speed.precision, device) else "fp32"
        return model.precision
    return "fp32"
