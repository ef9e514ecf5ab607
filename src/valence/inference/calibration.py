"""What is done with a model's logits before they become probabilities and labels.

It is fitted on rows that the training has not seen and stands in ``calibration.json`` in the
model's folder, where the predictor finds it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valence.errors import ModelError, SpecError, UnknownNameError
from valence.models.base import Outputs
from valence.models.config_file import ModelConfig

FILE = "calibration.json"
ABSTAINED = ""
"""The label of a text for which no single class is left."""
SMALLEST = 1e-6  # share of a class that has no rows
SUM_SLACK = 0.02  # of given shares: rounded ones are taken too


class Calibration(BaseModel):
    """Numbers that turn logits z into probabilities: softmax(z / temperature + bias + more).

    ``more`` is the log ratio of target to fitted class shares where a target is set, or else
    ``shift``. The sets of labels are made of the probabilities without ``more``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    classes: tuple[str, ...]
    temperature: Annotated[float, Field(gt=0)] = 1.0
    bias: tuple[float, ...]
    shift: tuple[float, ...]
    """What moves decisions towards classes, at the price of moving probabilities too."""
    prior: tuple[float, ...]
    """Class shares of the rows it was fitted on; of the training rows before that."""
    target: tuple[float, ...] | None = None
    """Class shares where the model is used."""
    level: float | None = None
    """Most rows of a class that may be given a wrong label, as a share."""
    limits: tuple[float | None, ...] | None = None
    """Largest 1 − p at which a class is left in the set; None: it always is."""
    rows: int = 0
    notes: tuple[str, ...] = ()

    @property
    def _more(self) -> np.ndarray:
        if self.target is None:
            return np.asarray(self.shift)
        return np.log(np.maximum(self.target, SMALLEST)) - np.log(np.maximum(self.prior, SMALLEST))

    def logits(self, raw: np.ndarray) -> np.ndarray:
        """(N, C) calibrated logits of logits (N, C)."""
        done = raw / self.temperature + np.asarray(self.bias) + self._more
        logits: np.ndarray = done.astype(raw.dtype)
        return logits

    def applied(self, outputs: Outputs) -> Outputs:
        """Outputs with calibrated logits; the same where nothing was fitted."""
        if not self.classes or self == self.model_copy(update=_identity(len(self.classes))):
            return outputs
        return replace(outputs, logits=self.logits(outputs.logits))

    def sets(self, shares: np.ndarray) -> np.ndarray:
        """(N, C) which labels are left, of probabilities (N, C) that :meth:`logits` gave.

        Of each class's rows at least 1 − level keep their true label, if the rows are drawn
        as those it was fitted on: split conformal prediction with a limit per class (Vovk
        2012, "Conditional validity"; Sadinle, Lei & Wasserman 2019, arXiv 1609.00451).
        """
        if self.limits is None:
            best: np.ndarray = shares == shares.max(axis=1, keepdims=True)
            return best
        logs = np.log(np.maximum(shares.astype(np.float64), 1e-300)) - self._more
        before = _softmax(logs)
        limits = np.array([np.inf if x is None else x for x in self.limits])
        left: np.ndarray = 1.0 - before <= limits + 1e-9
        return left

    def chosen(self, shares: np.ndarray) -> np.ndarray:
        """(N, C) which label is given; none where not exactly one is left in the set."""
        if self.limits is None:
            best: np.ndarray = np.arange(shares.shape[1]) == shares.argmax(axis=1)[:, None]
            return best
        left = self.sets(shares)
        alone: np.ndarray = left & (left.sum(axis=1, keepdims=True) == 1)
        return alone

    def labels(self, shares: np.ndarray) -> list[str]:
        """The label of every row of (N, C); ``""`` where none is given."""
        names = np.array([*self.classes, ABSTAINED], dtype=object)
        chosen = self.chosen(shares)
        best = np.where(chosen.any(axis=1), chosen.argmax(axis=1), len(self.classes))
        found: list[str] = names[best].tolist()
        return found

    def towards(self, shares: Mapping[str, float]) -> Calibration:
        """The same for rows with other class shares: p(y|x) · target(y) / prior(y).

        The shift is left out, since the target says what decisions are for (Saerens,
        Latinne & Decaestecker 2002, eq. 2.4).

        Args:
            shares: By class; they sum to 1.

        Raises:
            UnknownNameError: if a name is no class.
            SpecError: if a class is missing or they do not sum to 1.
        """
        for name in shares:
            if name not in self.classes:
                raise UnknownNameError("class", name, self.classes)
        missing = [name for name in self.classes if name not in shares]
        total = sum(shares.values())
        if missing or abs(total - 1) > SUM_SLACK or min(shares.values()) < 0:
            what = f"{missing[0]!r} has none" if missing else f"they sum to {total:g}"
            raise SpecError(f"A target prior needs the share of every class, in all 1; {what}")
        target = tuple(shares[name] / total for name in self.classes)
        return self.model_copy(update={"target": target})


def _identity(count: int) -> dict[str, object]:
    none = (0.0,) * count
    return {"temperature": 1.0, "bias": none, "shift": none, "target": None}


def parse_shares(text: str) -> dict[str, float]:
    """``"good=0.7,bad=0.3"`` as a table.

    Raises:
        SpecError: if it is not of this form.
    """
    found = {}
    for part in text.split(","):
        name, sign, value = part.rpartition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            sign = ""
        if not sign:
            raise SpecError(f"A target prior is written good=0.7,bad=0.3; {part!r} is not")
    return found


def no_calibration(config: ModelConfig) -> Calibration:
    """One that changes nothing, for a model's classes."""
    counts = np.asarray(config.train_counts, dtype=float)
    prior = tuple(float(x) for x in counts / max(1.0, counts.sum()))
    none = (0.0,) * len(config.classes)
    return Calibration(classes=config.classes, bias=none, shift=none, prior=prior)


def read_calibration(folder: Path, config: ModelConfig) -> Calibration:
    """What stands in a model's folder; one that changes nothing where there is none.

    Raises:
        ModelError: if the file is broken or of another model.
    """
    path = folder / FILE
    try:
        found = Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return no_calibration(config)
    except (OSError, ValueError, ValidationError):
        raise ModelError(f"{path} cannot be read; make it again: valence calibrate") from None
    sizes = {
        len(x) for x in (found.bias, found.shift, found.prior, found.target, found.limits) if x
    }
    if found.classes != config.classes or sizes != {len(config.classes)}:
        raise ModelError(f"{path} is of a model with other classes; make it again or delete it")
    return found


def write_calibration(found: Calibration, folder: Path) -> Path:
    """Write ``calibration.json`` into a model's folder.

    Raises:
        ModelError: if it cannot be written.
    """
    path = folder / FILE
    scratch = folder / f".{FILE}.writing"
    try:
        scratch.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        scratch.unlink(missing_ok=True)
    return path


def probabilities(found: Calibration, raw: np.ndarray) -> np.ndarray:
    """(N, C) calibrated probabilities of logits (N, C)."""
    return _softmax(found.logits(raw.astype(np.float64)))


def _softmax(logits: np.ndarray) -> np.ndarray:
    """By hand: importing SciPy takes longer than loading a small exported model."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def log_shares(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """(C,) logarithm of class shares; a class without rows has a very small one."""
    total = max(1.0, float(np.sum(counts)))
    found: np.ndarray = np.log(np.maximum(np.asarray(counts) / total, SMALLEST))
    return found
