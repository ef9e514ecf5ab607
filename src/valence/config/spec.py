"""What is trained and compared, as a value: :class:`RunSpec`.

A spec is frozen, refuses unknown fields, takes dotted overrides (``train.epochs=6``) and writes
YAML. Its ``config`` holds what its method reads and nothing else; the registry of methods has its
class (``valence.methods.registry.parse_spec`` reads specs).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, SerializeAsAny, ValidationError

from valence.config.data import DataSpec
from valence.config.llm import LlmSpec, SftSpec
from valence.config.sections import (
    EncoderSpec,
    FusionSpec,
    HeadSpec,
    LossSpec,
    PortfolioSpec,
    RefitSpec,
    RidgeSpec,
    Section,
    TrainSpec,
    ViewSpec,
)
from valence.config.yaml_text import parse_yaml as parse_yaml
from valence.errors import SpecError, UnknownNameError

Model = TypeVar("Model", bound=BaseModel)

SECTIONS: Mapping[str, type[Section]] = {
    "data": DataSpec,
    "encoder": EncoderSpec,
    "head": HeadSpec,
    "loss": LossSpec,
    "view": ViewSpec,
    "fusion": FusionSpec,
    "ridge": RidgeSpec,
    "refit": RefitSpec,
    "portfolio": PortfolioSpec,
    "train": TrainSpec,
    "llm": LlmSpec,
    "sft": SftSpec,
}
"""Every section a setting can be in, whichever methods read it."""

RENAMED: Mapping[str, str] = {"llm.quantisation": "llm.quantization"}
"""Settings by their former names, which are still read."""

LONGEST_SHOWN = 120  # characters of a wrong value in a message


class MethodConfig(Section):
    """The settings that a method reads; each method has a class of its own."""

    @classmethod
    def paths(cls) -> list[str]:
        """The dotted names of all settings."""
        return _paths(cls)

    def get(self, path: str, default: Any = None) -> Any:
        """The value of a dotted setting; ``default`` where the method does not read it."""
        value: Any = self
        for part in path.split("."):
            if not isinstance(value, Section) or part not in type(value).model_fields:
                return default
            value = getattr(value, part)
        return value


class RunSpec(Section):
    """One run: a method with its config, on a data set, with a seed."""

    method: str = ""
    data: DataSpec = DataSpec()
    config: SerializeAsAny[MethodConfig] = MethodConfig()
    seed: int = 45
    start: str | None = None
    """Content hash of the model folder that the training goes on from; a new model without."""

    def get(self, path: str, default: Any = None) -> Any:
        """The value of a dotted setting; ``default`` where the method does not read it."""
        if path in ("method", "seed", "start"):
            return getattr(self, path)
        section, _, field = path.partition(".")
        if section == "data":
            return getattr(self.data, field)
        return self.config.get(path, default)

    def settings(self) -> dict[str, Any]:
        """What the method reads and what may change the result, by dotted name."""
        names = ["start", *_paths(type(self.config), speed=False)]
        return {name: self.get(name) for name in names}

    def paths(self) -> list[str]:
        """Every dotted name that :meth:`override` takes."""
        return [
            "seed",
            "start",
            *(f"data.{name}" for name in _paths(DataSpec)),
            *_paths(type(self.config)),
        ]

    def override(self, settings: Mapping[str, Any]) -> RunSpec:
        """A copy with dotted settings changed, for example ``{"train.epochs": 6}``.

        Raises:
            UnknownNameError: if the method reads no such setting.
            SpecError: if a value does not fit.
        """
        own: dict[str, Any] = {}
        data = self.data.model_dump()
        config = self.config.model_dump()
        known = self.paths() if settings else []
        for given, value in settings.items():
            path = RENAMED.get(given, given)
            if path not in known:
                raise UnknownNameError("setting", path, known)
            section, _, field = path.partition(".")
            if not field and section in ("seed", "start"):
                own[section] = value
            elif section == "data":
                data[field] = value
            else:
                _put(config, path, value)
        changed = {
            "method": self.method, "seed": self.seed, "start": self.start, **own,
            "data": build(DataSpec, data, prefix="data"),
            "config": build(type(self.config), config),
        }  # fmt: skip
        return build(RunSpec, changed)

    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain values.

        Fields at their default do not enter, so that a field added later leaves old run folders
        valid; neither do those that change only the speed.
        """
        return {
            "method": self.method, "seed": self.seed, "start": self.start,
            "data": _identity(self.data), "config": _identity(self.config),
        }  # fmt: skip

    def digest(self) -> str:
        """Ten hex digits that name what decides the result, rows and files apart."""
        text = json.dumps(self.identity(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def to_yaml(self) -> str:
        """The spec as YAML, every field named."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def build(model: type[Model], values: Any, *, prefix: str = "") -> Model:
    """Validate ``values`` as ``model``.

    Args:
        model: A class of settings.
        values: What it is made of.
        prefix: The section the fields stand in, for messages.

    Raises:
        SpecError: with the first wrong field and what it must be, in one line.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join([prefix] * bool(prefix) + [str(part) for part in first["loc"]])
        field = field or model.__name__
        if first["type"] == "extra_forbidden":
            known = _paths(model) if issubclass(model, Section) else list(model.model_fields)
            raise UnknownNameError("setting", field, known) from None
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "string_type" and isinstance(first["input"], bool | int | float):
            # YAML reads no, on and 1 as other things than texts.
            reason += "; put text in quotes, as in data.tail='[\"no\"]'"
        raise SpecError(f"Setting {field} = {_shown(first['input'])}: {reason}") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def setting_paths() -> list[str]:
    """Every dotted setting there is, whichever methods read it."""
    sections = [f"{name}.{field}" for name, part in SECTIONS.items() for field in _paths(part)]
    return [*sections, "method", "seed", "start"]


def check_path(path: str) -> None:
    """Raise an UnknownNameError if there is no such dotted setting."""
    known = setting_paths()
    if RENAMED.get(path, path) not in known:
        raise UnknownNameError("setting", path, known)


def _paths(model: type[BaseModel], *, speed: bool = True) -> list[str]:
    """The dotted names of all fields; without ``speed``, only those that change the result."""
    paths = []
    for name, field in model.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, Section):
            paths += [f"{name}.{inner}" for inner in _paths(part, speed=speed)]
        elif speed or not issubclass(model, Section) or name not in model.speed_only:
            paths.append(name)
    return paths


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        values = values[parent]
    values[last] = value


def _identity(section: Section) -> dict[str, Any]:
    """Fields not at their default that decide the result, nested sections too."""
    fields: dict[str, Any] = {}
    plain = section.model_dump(mode="json", exclude_defaults=True)
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            inner = _identity(value)
            if inner:
                fields[name] = inner
        elif name in plain and name not in type(section).speed_only:
            fields[name] = plain[name]
    return fields
