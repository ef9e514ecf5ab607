"""What an export is made of, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from valence.errors import ModelError
from valence.inference.calibration import Calibration
from valence.models.exported import ExportSettings

if TYPE_CHECKING:
    from valence.models.text_model import TextModel

Format = Literal["onnx", "openvino", "transformers", "sentence-transformers"]
MAX_DROP = 0.5


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and what is accepted.

    Attributes:
        format: For which tools: ONNX Runtime, OpenVINO, transformers, or sentence-transformers.
        int8: Whether weights and what passes between layers are 8-bit.
        max_drop: Points of macro-F1 and of the worst class's F1 that may be lost.

    Raises:
        ModelError: if the format has no 8-bit form.
    """

    format: Format = "onnx"
    int8: bool = False
    max_drop: float = MAX_DROP

    def __post_init__(self) -> None:
        if self.int8 and self.format not in ("onnx", "openvino"):
            raise ModelError(f"--int8 is for --format onnx and openvino, not {self.format}")

    @property
    def needs_no_torch(self) -> bool:
        """Whether the export runs without PyTorch."""
        return self.format in ("onnx", "openvino")

    @property
    def precision(self) -> Literal["fp32", "int8"]:
        """As it is written into ``export.json``."""
        return "int8" if self.int8 else "fp32"


@dataclass(frozen=True)
class ExportJob:
    """A model on its way out.

    Attributes:
        source: Its folder.
        model: It stays as it is.
        calibration: What ``valence calibrate`` fitted; becomes a part of the export.
        options: What is exported.
    """

    source: Path
    model: TextModel
    calibration: Calibration
    options: ExportOptions

    def settings(self, file: str) -> ExportSettings:
        """What ``export.json`` says before the export was checked.

        Args:
            file: The one with the weights, by its path in the folder.
        """
        return ExportSettings(
            runtime=self.options.format, precision=self.options.precision, file=file,
            max_length=self.model.tokenizer.max_length, pad_id=self.model.tokenizer.pad_id,
            feature_size=self.model.feature_size, prompt=self.model.tokenizer.prompt,
            ngrams=self.model.ngram_logits is not None,
        )  # fmt: skip

    @property
    def notes(self) -> tuple[str, ...]:
        """What other tools do not do by themselves."""
        notes = []
        prompt = self.model.tokenizer.prompt
        if prompt and self.options.format != "sentence-transformers":
            notes.append(
                f"The model needs the prompt {prompt!r} before each text; Valence adds it, in "
                "other tools you add it yourself"
            )
        if self.model.ngram_logits is not None:
            notes.append(
                "Valence adds n-gram logits to the network's; other tools see only the network's "
                "part"
            )
        if self.calibration.limits is not None:
            notes.append(
                "The export includes the calibration but not abstaining; run valence calibrate "
                "--abstain on the export"
            )
        return tuple(notes)
