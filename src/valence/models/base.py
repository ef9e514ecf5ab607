"""The base class of all trained models: :class:`Model`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from valence.data.examples import Examples
from valence.distributed.device import Hardware, check_device
from valence.errors import ModelError, SpecError
from valence.evaluation.task import Task, softmax

if TYPE_CHECKING:
    from valence.models.attribution import Attribution
    from valence.models.linear_views import LinearViewsModel
    from valence.models.text_model import TextModel

Progress = Callable[[int, int], None]
"""Called with (done, total) rows."""

ClipReader = Callable[[Sequence[str], "str | None"], "Outputs"]
"""Outputs of a clip with N texts, without a modality or with all."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of a model for N rows.

    Attributes:
        logits: (N, C) float32; (N, 1) where a number is predicted. A row that is not a number
            has no answer.
        features: (N, H) float32 pooled vectors; (N, 0) where a model has none.
        truncated: How many texts were truncated at the length limit.
        answers: What a prompted model answered to each row, as JSON text (None for a row whose
            labels were scored); None for all other models.
        notes: Lines for the user.
        seconds: What it took, where that was measured earlier.
    """

    logits: np.ndarray
    features: np.ndarray
    truncated: int = 0
    answers: tuple[str | None, ...] | None = None
    notes: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def probs(self) -> np.ndarray:
        """(N, C) softmax of the logits."""
        return softmax(self.logits)


def no_features(rows: int) -> np.ndarray:
    """(N, 0) features of a model that has none."""
    return np.zeros((rows, 0), dtype=np.float32)


@dataclass(frozen=True)
class Memory:
    """Training texts that a model stores by their vectors.

    Attributes:
        vectors: (N, D) float32, of length 1.
        labels: (N,) class ids.
    """

    vectors: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Variant:
    """A model under a change, such as audio that is missing.

    Attributes:
        about: What is changed, as columns of a table.
        predict: Outputs of rows under the change.
    """

    about: Mapping[str, Any]
    predict: Callable[[Examples], Outputs]


class Model(ABC):
    """A trained model: predicts, explains, and can be saved.

    Attributes:
        task: What it predicts.
        provenance: The spec it was trained by, as plain values.
        inputs: What it can read of a row.
        trainable_parameters: Numbers that the training set.
        precision: Number format it computes in.
    """

    task: Task
    provenance: Mapping[str, Any]
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    trainable_parameters: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"

    @property
    def classes(self) -> tuple[str, ...]:
        """Label names in the order of the logits; empty where a number is predicted."""
        return self.task.classes

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a text that are read; None without a limit."""
        return None

    @abstractmethod
    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Outputs of N rows, in their order."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what is needed to load the model again into ``folder``.

        Raises:
            ModelError: if a model of this family cannot be saved.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing of the kind
        """Let go of what takes much memory; nothing can be predicted afterwards."""

    def prepare(self, hardware: Hardware) -> None:
        """Get ready to run as ``hardware`` says.

        Raises:
            SpecError: if the device is not available.
            ModelError: if the model cannot run so.
        """
        check_device(hardware.device)

    def attribute(self, text: str, target: int, steps: int = 32) -> Attribution:
        """Attribute the prediction of a class to the words of a text.

        Args:
            text: One text.
            target: Id of the class.
            steps: Points of the integral, where there is one.

        Raises:
            ModelError: if an extra is missing.
        """
        from valence.models.attribution import leave_one_out

        return leave_one_out(self, text, target)

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Every text in windows within the length limit; whole where there is none."""
        return [[text] for text in texts]

    def uncached(self) -> Model:
        """The same model without its caches."""
        return self

    def unit_features(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(N, D) features of length 1, in the space in which the model separates classes."""
        features = self.predict(Examples(texts), progress).features.astype(np.float32)
        return unit_rows(features)

    def memory(self) -> Memory | None:
        """Training texts that the model stores; None where it stores none."""
        return None

    def variants(self) -> Iterator[Variant]:
        """Perturbations under which the model is scored too; none for most."""
        yield from ()

    def shifted(self, shift: Sequence[float], provenance: Mapping[str, Any]) -> Model:
        """The same model with (C,) numbers added to the logits of every row.

        Args:
            shift: (C,) numbers.
            provenance: What the new model says of its training.

        Raises:
            ModelError: if the family cannot store them.
        """
        raise ModelError(f"The logits of {self.name} cannot be adjusted")

    def text_model(self) -> TextModel:
        """The model as a PyTorch network over one text, for exports.

        Raises:
            ModelError: if it has no such network.
        """
        raise ModelError(f"{self.name} has no network to export; use the model as it is")

    def averaged(self) -> Sequence[Model]:
        """The models whose mean it is; none for most."""
        return ()

    def linear_views(self) -> LinearViewsModel | None:
        """The same as a linear model on what a frozen encoder gives; None where it is no such."""
        return None

    def predict_clip(self, clip: Path, texts: Sequence[str]) -> Outputs:
        """Outputs (N, C) of one clip with each of N texts as what is said in it.

        Raises:
            SpecError, DataError: as :meth:`clip_reader`.
        """
        return self.clip_reader(clip)(texts, None)

    def clip_reader(self, clip: Path) -> ClipReader:
        """Read a sound or video file once, and predict it with several texts.

        Args:
            clip: The file; it is read as the clips of the training were.

        Returns:
            A function of N texts (an empty one says that the words are not known) and a modality
            that is taken away, or None; it gives the outputs (N, C).

        Raises:
            SpecError: if the model cannot read clips.
            DataError: if the file cannot be read.
        """
        raise SpecError(
            f"{self.name} was not trained on clips that valence features extract read, so it "
            f"cannot read {clip.name}; pass only the text"
        )

    @property
    def name(self) -> str:
        """The method that made the model, for messages."""
        return f"A {self.provenance.get('method', 'model')} model"


def unit_rows(features: np.ndarray) -> np.ndarray:
    """(N, D) rows of length 1; zeros stay zeros."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit: np.ndarray = features / np.maximum(norms, 1e-9)
    return unit
