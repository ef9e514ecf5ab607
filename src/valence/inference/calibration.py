"""Calibration of a model's logits, before they become probabilities and labels.

It is fitted on rows that the training has not seen and saved as ``calibration.json`` in the
model's folder, where the predictor reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valence.errors import ModelError, SpecError, UnknownNameError
from valence.models.base import Outputs
from valence.models.config_file import ModelConfig, Shift, seal_again
from valence.models.digests import check_later
from valence.storage import atomic
from valence.storage.plain_files import load_json

FILE = "calibration.json"
ABSTAINED = ""
"""The label of a text for which no single class is left."""
MIN_PRIOR = 1e-6  # of a class that has no rows
SUM_SLACK = 0.02  # of given priors: rounded ones are accepted too


Share = Annotated[float, Field(ge=0, le=1.0001)]


class Calibration(BaseModel):
    """Numbers that turn logits z into probabilities: softmax(z / temperature + bias + offset).

    ``offset`` is the log ratio of target to fitted class priors where a target is set, or else
    ``shift``. Prediction sets are made of the probabilities without ``offset``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    classes: tuple[str, ...]
    temperature: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    bias: tuple[Shift, ...]
    shift: tuple[Shift, ...]
    """What moves decisions towards classes, at the price of moving probabilities too."""
    prior: tuple[Share, ...]
    """Class priors of the rows it was fitted on; of the training rows before that."""
    target: tuple[Share, ...] | None = None
    """Class priors where the model is used."""
    level: float | None = None
    """Largest fraction of a class's rows that may get a wrong label."""
    limits: tuple[float | None, ...] | None = None
    """Largest 1 − p at which a class stays in the prediction set; None: it always does."""
    rows: int = 0
    notes: tuple[str, ...] = ()

    @property
    def offset(self) -> np.ndarray:
        """(C,) what is added to logits that were divided by the temperature."""
        added: np.ndarray = np.asarray(self.bias) + self._offset
        return added

    @property
    def _offset(self) -> np.ndarray:
        if self.target is None:
            return np.asarray(self.shift)
        target, prior = (np.maximum(x, MIN_PRIOR) for x in (self.target, self.prior))
        return np.log(target) - np.log(prior)

    def logits(self, raw: np.ndarray) -> np.ndarray:
        """(N, C) calibrated logits of logits (N, C)."""
        calibrated = raw / self.temperature + self.offset
        logits: np.ndarray = calibrated.astype(raw.dtype)
        return logits

    def apply(self, outputs: Outputs) -> Outputs:
        """Outputs with calibrated logits; the same where nothing was fitted."""
        if not self.classes or self == self.model_copy(update=_identity(len(self.classes))):
            return outputs
        return replace(outputs, logits=self.logits(outputs.logits))

    def prediction_sets(self, probs: np.ndarray) -> np.ndarray:
        """(N, C) which labels are in the set, of probabilities (N, C) from :meth:`logits`.

        Of each class's rows at least 1 − level keep their true label, if the rows are drawn
        as those it was fitted on: split conformal prediction with a limit per class (Vovk
        2012, "Conditional validity"; Sadinle, Lei & Wasserman 2019, arXiv 1609.00451).
        """
        if self.limits is None:
            best: np.ndarray = probs == probs.max(axis=1, keepdims=True)
            return best
        logs = np.log(np.maximum(probs.astype(np.float64), 1e-300)) - self._offset
        before = _softmax(logs)
        limits = np.array([np.inf if x is None else x for x in self.limits])
        included: np.ndarray = 1.0 - before <= limits + 1e-9
        return included

    def chosen(self, probs: np.ndarray) -> np.ndarray:
        """(N, C) which label is given; none where the set has not exactly one."""
        if self.limits is None:
            best: np.ndarray = np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None]
            return best
        sets = self.prediction_sets(probs)
        single: np.ndarray = sets & (sets.sum(axis=1, keepdims=True) == 1)
        return single

    def labels(self, probs: np.ndarray) -> list[str]:
        """The label of every row of (N, C); ``""`` where none is given."""
        names = np.array([*self.classes, ABSTAINED], dtype=object)
        chosen = self.chosen(probs)
        best = np.where(chosen.any(axis=1), chosen.argmax(axis=1), len(self.classes))
        labels: list[str] = names[best].tolist()
        return labels

    def with_target_prior(self, priors: Mapping[str, float]) -> Calibration:
        """The same for rows with other class priors: p(y|x) · target(y) / prior(y).

        The shift is left out, since the target says what decisions are for (Saerens,
        Latinne & Decaestecker 2002, eq. 2.4).

        Args:
            priors: By class; they sum to 1.

        Raises:
            UnknownNameError: if a name is no class.
            SpecError: if a class is missing or they do not sum to 1.
        """
        if not any(self.prior):
            raise SpecError(
                "A target prior needs the training priors, which are unknown for this model; run "
                "valence calibrate on labeled rows first"
            )
        for name in priors:
            if name not in self.classes:
                raise UnknownNameError("class", name, self.classes)
        missing = [name for name in self.classes if name not in priors]
        total = sum(priors.values())
        if missing or abs(total - 1) > SUM_SLACK or min(priors.values()) < 0:
            what = f"{missing[0]!r} has none" if missing else f"they sum to {total:g}"
            raise SpecError(
                f"A target prior needs a fraction for every class, with a sum of 1; {what}"
            )
        target = tuple(priors[name] / total for name in self.classes)
        return self.model_copy(update={"target": target})


def _identity(count: int) -> dict[str, object]:
    none = (0.0,) * count
    return {"temperature": 1.0, "bias": none, "shift": none, "target": None}


def parse_prior(text: str) -> dict[str, float]:
    """Parse ``"good=0.7,bad=0.3"`` into a class prior.

    Raises:
        SpecError: if it is not of this form.
    """
    prior = {}
    for part in text.split(","):
        name, sign, value = part.rpartition("=")
        try:
            prior[name.strip()] = float(value)
        except ValueError:
            sign = ""
        if not sign:
            raise SpecError(f"Cannot read the target prior {part!r}; write good=0.7,bad=0.3")
    return prior


def no_calibration(config: ModelConfig) -> Calibration:
    """One that changes nothing, for a model's classes."""
    counts = np.asarray(config.train_counts, dtype=float)
    prior = tuple(float(x) for x in counts / max(1.0, counts.sum()))
    none = (0.0,) * len(config.classes)
    return Calibration(classes=config.classes, bias=none, shift=none, prior=prior)


def read_calibration(folder: Path, config: ModelConfig) -> Calibration:
    """The calibration of a model's folder; one that changes nothing where there is none.

    Raises:
        ModelError: if the file is broken or of another model.
    """
    path = folder / FILE
    check_later(
        folder, FILE, advice="remove it with valence calibrate MODEL --off and calibrate again"
    )
    try:
        calibration = Calibration.model_validate(load_json(path))
    except FileNotFoundError:
        return no_calibration(config)
    except (OSError, ValueError, ValidationError):
        raise ModelError(f"{path} cannot be read; run valence calibrate again") from None
    c = calibration
    sizes = {len(x) for x in (c.bias, c.shift, c.prior, c.target, c.limits) if x}
    if c.classes != config.classes or sizes != {len(config.classes)}:
        raise ModelError(
            f"{path} belongs to a model with other classes; calibrate again or delete it"
        )
    return calibration


def write_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write ``calibration.json`` into a model's folder.

    Raises:
        RunError: if it cannot be written.
    """
    path = folder / FILE
    atomic.write_text(path, calibration.model_dump_json(indent=1) + "\n")
    seal_again(folder, FILE)
    return path


def remove_calibration(folder: Path) -> None:
    """Delete ``calibration.json`` from a model's folder, if it is there.

    Raises:
        RunError: if it cannot be deleted.
        ModelError: if the folder's ``config.json`` is broken.
    """
    atomic.remove_file(folder / FILE)
    seal_again(folder, FILE)


def probabilities(calibration: Calibration, raw: np.ndarray) -> np.ndarray:
    """(N, C) calibrated probabilities of logits (N, C)."""
    return _softmax(calibration.logits(raw.astype(np.float64)))


def _softmax(logits: np.ndarray) -> np.ndarray:
    """By hand: importing SciPy takes longer than loading a small exported model."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probs


def log_prior(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """(C,) logarithm of class priors; a class without rows has a very small one."""
    total = max(1.0, float(np.sum(counts)))
    prior: np.ndarray = np.log(np.maximum(np.asarray(counts) / total, MIN_PRIOR))
    return prior
