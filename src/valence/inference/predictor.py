"""Predict with a saved model: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from valence.errors import SpecError
from valence.inference.stream import predict_file as predict_file
from valence.models.base import Progress, Scores, TextModel
from valence.models.load import load_model
from valence.models.machine import usable_cores
from valence.models.store import ModelConfig, read_config
from valence.models.windows import score_windows

if TYPE_CHECKING:
    import pandas as pd

    from valence.data.dataset import Split

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
        self.truncated = 0
        _prepare(self.model, self.config.kind, speed or Speed())

    def predict_proba(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(N, C) probabilities, in the order of ``texts`` and ``classes``."""
        return self._score(texts, progress).probabilities

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of every text."""
        return [self.classes[i] for i in self.predict_proba(texts).argmax(axis=1)]

    def columns(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> Mapping[str, list[Any]]:
        """What is said of every text, by column: ``label`` and ``prob_<class>``."""
        shares = self.predict_proba(texts, progress)
        labels = [self.classes[i] for i in shares.argmax(axis=1)]
        rounded = shares.astype(np.float64).round(DECIMALS)
        named = {f"prob_{name}": rounded[:, i].tolist() for i, name in enumerate(self.classes)}
        return {"label": labels, **named}

    def table(self, texts: Sequence[str], progress: Progress | None = None) -> pd.DataFrame:
        """Columns ``label`` and ``prob_<class>``, one row per text."""
        import pandas as pd

        label, *shares = self.columns(texts, progress).items()
        return pd.DataFrame({label[0]: pd.Series(label[1], dtype=object), **dict(shares)})

    def evaluate(self, rows: Split) -> dict[str, float | None]:
        """Every score of the model on labelled rows."""
        return self.scored(rows)[1]

    def scored(self, rows: Split) -> tuple[np.ndarray, dict[str, float | None]]:
        """Logits (N, C) of labelled rows, and every score of them."""
        from valence.metrics import classification_scores

        logits = self._score(rows.texts, None).logits
        return logits, classification_scores(
            rows.labels, logits, classes=self.classes,
            train_counts=self.config.train_counts, tail=self.config.tail,
        )  # fmt: skip

    def _score(self, texts: Sequence[str], progress: Progress | None) -> Scores:
        if self.long == "windows":
            scores = score_windows(self.model, list(texts), progress)
        else:
            scores = self.model.score(list(texts), progress)
        self.truncated = scores.truncated
        return scores


def _prepare(model: TextModel, kind: str, speed: Speed) -> None:
    """Give a model its threads, its device, its number format and its batches."""
    if kind in ("onnx", "openvino"):
        from valence.models.exported import ExportedModel

        assert isinstance(model, ExportedModel)
        model.open(threads=speed.threads or usable_cores())
        model.token_budget = speed.batch_tokens or model.token_budget
    elif kind == "torch":
        import torch

        from valence.models.classifier import TorchModel
        from valence.models.device import pick_device, use_bf16

        assert isinstance(model, TorchModel)
        wanted = speed.threads or min(torch.get_num_threads(), usable_cores())
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)
        device = pick_device(speed.device)
        model.classifier.to(device)
        model.token_budget = speed.batch_tokens
        model.precision = "bf16" if use_bf16(speed.precision, device) else "fp32"
