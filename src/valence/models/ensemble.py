"""Several models as one: the weighted sum of their logits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from valence.data.examples import Examples
from valence.distributed.device import Hardware
from valence.errors import ModelError
from valence.evaluation.task import Task
from valence.models.base import Model, Outputs, Progress
from valence.models.config_file import read_config, write_config
from valence.models.linear_views import add_linear
from valence.storage import atomic
from valence.storage.plain_files import load_json

if TYPE_CHECKING:
    from valence.models.text_model import TextModel

MEMBERS_FILE = "members.json"
MOST_MEMBERS = 1000


@dataclass
class EnsembleModel(Model):
    """The weighted sum of the logits of members.

    Its probabilities are the weighted geometric mean of those of the members, normalized.

    Attributes:
        members: The models.
        weights: Of the logits of each.
        shift: (C,) numbers added to the logits; None for none.
    """

    task: Task
    provenance: Mapping[str, Any]
    members: Sequence[Model]
    weights: Sequence[float]
    shift: tuple[float, ...] | None = None

    @property
    def trainable_parameters(self) -> int:  # type: ignore[override]
        """Those of all members."""
        return sum(member.trainable_parameters for member in self.members)

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a text that every member reads; None without a limit."""
        limits = [limit for member in self.members if (limit := member.max_tokens) is not None]
        return min(limits, default=None)

    def prepare(self, hardware: Hardware) -> None:
        """Prepare every member.

        Raises:
            SpecError: if the device is not available.
            ModelError: if a member cannot run so.
        """
        for member in self.members:
            member.prepare(hardware)

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """The sum of the logits; the features are those of the first member."""
        parts = []
        for number, member in enumerate(self.members):
            parts.append(member.predict(examples, self._part_of(progress, number)))
        logits = np.sum([w * p.logits for w, p in zip(self.weights, parts, strict=True)], axis=0)
        logits = logits.astype(np.float32)
        if self.shift is not None:
            logits += np.asarray(self.shift, np.float32)
        seconds = [part.seconds for part in parts]
        known = [one for one in seconds if one is not None]
        return Outputs(
            logits, parts[0].features, max(part.truncated for part in parts),
            seconds=sum(known) if len(known) == len(seconds) else None,
        )  # fmt: skip

    def _part_of(self, progress: Progress | None, number: int) -> Progress | None:
        """Progress of one member as progress of all."""
        if progress is None:
            return None
        count = len(self.members)

        def call(done: int, total: int) -> None:
            progress((number * total + done) // count, total)

        return call

    def uncached(self) -> Model:
        """With members without their caches."""
        return replace(self, members=[member.uncached() for member in self.members])

    def averaged(self) -> Sequence[Model]:
        """The members."""
        return self.members

    def text_model(self) -> TextModel:
        """Its members are exported one by one.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"{self.name} is an ensemble of {len(self.members)} networks; export it "
            "with --format onnx or openvino"
        )

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Every text in windows within the limit of the member that reads least."""
        limited = [member for member in self.members if member.max_tokens is not None]
        if not limited:
            return super().windows(texts)
        return min(limited, key=lambda member: member.max_tokens or 0).windows(texts)

    def shifted(self, shift: Sequence[float], provenance: Mapping[str, Any]) -> Model:
        """The same model with (C,) numbers added to the logits of every text."""
        before = np.zeros(len(shift)) if self.shift is None else np.asarray(self.shift)
        numbers = tuple(float(x) for x in before + np.asarray(shift))
        return replace(self, shift=numbers, provenance=provenance)

    def save(self, folder: Path) -> None:
        """Write a folder per member, and what each weighs; see :func:`average`.

        Members that are finished runs are read here, so what is written may be one linear model.
        """
        members = [member.uncached() for member in self.members]
        models, weights = add_linear(members, self.weights)
        single = _single(models, members, self.provenance, self.shift)
        if single is not None:
            single.save(folder)
            return
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"member-{number}" for number in range(1, len(models) + 1)]
        for name, member in zip(names, models, strict=True):
            with atomic.new_folder(folder / name) as path:
                member.save(path)
        entries = [
            {"folder": name, "weight": weight} for name, weight in zip(names, weights, strict=True)
        ]
        atomic.write_text(folder / MEMBERS_FILE, json.dumps(entries, indent=1))
        write_config(
            folder, loader="ensemble", task=self.task, provenance=self.provenance,
            logit_shift=self.shift,
        )  # fmt: skip


def average(
    task: Task, provenance: Mapping[str, Any], members: Sequence[Model], weights: Sequence[float]
) -> Model:
    """The weighted sum of the logits of members; linear ones on the same encoder become one.

    Args:
        task: What the members predict.
        provenance: The spec of the sum.
        members: K models.
        weights: Of the logits of each.
    """
    models, factors = add_linear(members, weights)
    single = _single(models, members, provenance)
    return EnsembleModel(task, provenance, models, factors) if single is None else single


def _single(
    models: Sequence[Model], members: Sequence[Model], provenance: Mapping[str, Any],
    shift: Sequence[float] | None = None,
) -> Model | None:  # fmt: skip
    """The one model that all members were added up into; None where several are left."""
    if len(models) > 1 or len(members) == 1:
        return None
    return models[0].shifted(shift or (0.0,) * len(models[0].classes), provenance)


def member_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders of the members of an ensemble's folder.

    Raises:
        ModelError: if the file that names them is missing or broken.
    """
    return tuple(_entries(folder))


def _entries(folder: Path) -> dict[str, float]:
    """The weight of every member, by its folder."""
    path = folder / MEMBERS_FILE
    try:
        listed = load_json(path)
        entries = {str(entry["folder"]): float(entry["weight"]) for entry in listed}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is missing or broken ({error})") from None
    if not entries or any(not _is_inside(folder, name) for name in entries):
        raise ModelError(f"{path} must name folders beside it, at least one")
    if len(entries) != len(listed) or len(entries) > MOST_MEMBERS:
        raise ModelError(f"{path} names a folder twice, or more than {MOST_MEMBERS}")
    if not all(0 <= weight < np.inf for weight in entries.values()):
        raise ModelError(f"{path} has a weight that is negative or no number")
    return entries


def _is_inside(folder: Path, name: str) -> bool:
    path = folder / name
    return name not in ("", ".", "..") and Path(name).name == name and not path.is_symlink()


def load_ensemble_model(folder: Path, load_member: Callable[[Path], Model]) -> EnsembleModel:
    """The model that :meth:`EnsembleModel.save` wrote.

    Args:
        folder: The model folder.
        load_member: Loads the folder of a member.

    Raises:
        ModelError: if a file is missing or broken, or a member predicts other classes.
    """
    config = read_config(folder)
    entries = _entries(folder)
    names, weights = list(entries), list(entries.values())
    members = [load_member(folder / name) for name in names]
    for name, member in zip(names, members, strict=True):
        if member.classes != config.task.classes:
            raise ModelError(f"{folder / name} predicts other classes than {folder}")
    return EnsembleModel(config.task, config.spec, members, weights, config.logit_shift)
