"""The ``config.json`` of a model folder: what the model is and what its labels are called."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from valence.config.data import DataSpec
from valence.config.sections import Section
from valence.errors import ModelError
from valence.evaluation.task import Classification, Regression, Task
from valence.models.digests import CONFIG_FILE as CONFIG_FILE
from valence.models.digests import DIGESTS, OWN_KEY, update_digest, with_digests
from valence.storage import atomic
from valence.storage.plain_files import load_json

FORMAT = 3
"""Format 1 (Valence 0.1) has every section of the spec, read or not, and no ``network``; format 2
has all fields side by side. Format 3 is the config of transformers, with ours under one key."""
SHARED_FIELDS = ("problem_type", "id2label", "label2id")
"""What transformers and we call the same."""

Loader = Literal[
    "torch",
    "tfidf",
    "majority",
    "linear-views",
    "ensemble",
    "fusion",
    "transformers",
    "onnx",
    "openvino",
]
Part = TypeVar("Part", bound=Section)
MOST_CLASSES = 1_000_000
LARGEST = 1 << 24
"""Of the sizes a network is built from: all others are mistakes, or meant to fill the memory."""
LARGEST_SHIFT = 1e6
ClassId = Annotated[int, Field(ge=0, lt=MOST_CLASSES)]
RowCount = Annotated[int, Field(ge=0, le=1 << 53)]
Shift = Annotated[float, Field(ge=-LARGEST_SHIFT, le=LARGEST_SHIFT)]


class ModelConfig(BaseModel):
    """Contents of ``config.json``; the label maps follow the Hugging Face convention."""

    model_config = ConfigDict(
        extra="forbid", protected_namespaces=(), populate_by_name=True, allow_inf_nan=False
    )

    format: Literal[1, 2, 3] = 2
    model_type: Literal["valence"] = "valence"
    problem_type: Literal["single_label_classification", "regression"] = (
        "single_label_classification"
    )
    loader: Loader = Field(alias="kind")
    """A name of ``LOADERS``."""
    id2label: dict[ClassId, str]
    label2id: dict[str, ClassId]
    train_counts: tuple[RowCount, ...]
    tail: tuple[ClassId, ...]
    spec: dict[str, Any]
    """The spec it was trained by, as plain values."""
    network: dict[str, Any] = {}
    """Sections the network is built from."""
    logit_shift: tuple[Shift, ...] | None = None
    """Added to the logits of every text: a post-hoc logit adjustment."""
    fusion: dict[str, Any] | None = None
    """Of a multimodal model: sizes, scale of its scores, and how clips become features."""
    encoder_content: str | None = None
    """Identifies the files of the encoder that the folder does not hold."""
    digests: dict[str, Any] | None = None
    """Of the folder's files; see ``valence.models.digests``."""

    @model_validator(mode="after")
    def _labels_fit(self) -> ModelConfig:
        count = len(self.id2label)
        if sorted(self.id2label) != list(range(count)):
            raise ValueError("the ids of the labels must be 0, 1, 2 … without gaps")
        if len(set(self.id2label.values())) < count:
            raise ValueError("two labels have the same name")
        if "" in self.label2id:
            raise ValueError("a label has no name")
        if self.label2id != {name: number for number, name in self.id2label.items()}:
            raise ValueError("id2label and label2id do not fit each other")
        if self.problem_type != "regression" and not count:
            raise ValueError("there are no labels")
        if count and len(self.train_counts) != count:
            raise ValueError(f"there are {len(self.train_counts)} counts for {count} labels")
        if len(set(self.tail)) < len(self.tail) or any(i >= max(1, count) for i in self.tail):
            raise ValueError("the tail names classes that are not there, or one twice")
        if self.logit_shift is not None and len(self.logit_shift) != max(1, count):
            raise ValueError(f"there are {len(self.logit_shift)} shifts for {count} labels")
        return self

    @model_validator(mode="after")
    def _sizes_in_range(self) -> ModelConfig:
        _check_sizes(self.network)
        _check_sizes(self.fusion or {})
        seed = self.spec.get("seed", 0)
        if not isinstance(seed, int) or not 0 <= seed < 1 << 64:
            raise ValueError(f"the seed {seed!r} is none")
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """Label names in the order of their ids."""
        return tuple(self.id2label[i] for i in range(len(self.id2label)))

    @property
    def task(self) -> Task:
        """What the model predicts."""
        if self.problem_type == "regression":
            scale = (self.fusion or {}).get("scale")
            return Regression.of_scale("ch-sims" if scale == "ch-sims" else "mosi")
        return Classification(self.classes, self.train_counts, self.tail)

    @property
    def method(self) -> str:
        """The method it was trained by."""
        return str(self.spec.get("method", ""))

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        return int(self.spec.get("seed", 45))

    @property
    def data(self) -> DataSpec | None:
        """The rows it was trained on; None where they were in-memory objects."""
        values = self.spec.get("data")
        return None if values is None else DataSpec.model_validate(values)

    def setting(self, path: str, default: Any = None) -> Any:
        """The value of a dotted setting of its training; ``default`` where it has none."""
        value: Any = self.spec.get("config", self.spec)
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    @property
    def is_exported(self) -> bool:
        """Whether the folder holds a graph of another runtime in place of weights."""
        return self.loader in ("onnx", "openvino")

    @property
    def base_encoder(self) -> str | None:
        """The encoder that the folder does not hold; None where it needs no other files."""
        encoder = self.network.get("encoder") or self.spec.get("encoder")
        if self.loader not in ("torch", "linear-views", "fusion") or not isinstance(
            encoder, Mapping
        ):
            return None
        # Multimodal models of format 1 name an adaptation that was not used.
        is_trained = self.loader == "torch" or (self.loader == "fusion" and self.network)
        whole = is_trained and encoder.get("adaptation") == "full"
        return None if whole or self.holds_encoder else str(encoder.get("name"))

    @property
    def holds_encoder(self) -> bool:
        """Whether other tools load the folder too, which has the encoder in it."""
        return self.format == FORMAT

    def section(self, name: str, part: type[Part]) -> Part:
        """A section the network is built from.

        Raises:
            ValidationError: if it does not fit.
        """
        values = self.network.get(name)
        if values is None:  # format 1
            values = self.spec.get(name, {})
        if name == "encoder" and isinstance(values, Mapping) and values.get("prompt") is None:
            values = {**values, "prompt": ""}  # models older than prompts were trained without
        return part.model_validate(values)


def _check_sizes(values: Any) -> None:
    """Refuse whole numbers that are no sizes of a network."""
    if isinstance(values, Mapping | list | tuple):
        for value in values.values() if isinstance(values, Mapping) else values:
            _check_sizes(value)
    elif isinstance(values, int) and not -1 <= values <= LARGEST:
        raise ValueError(f"{values} is not a valid network size")


@contextmanager
def valid_sections(folder: Path) -> Iterator[None]:
    """Say of sections that do not fit in which file they stand."""
    try:
        yield
    except ValidationError as error:
        raise _no_model(folder / CONFIG_FILE, error) from None


def write_config(
    folder: Path,
    *,
    loader: Loader,
    task: Task,
    provenance: Mapping[str, Any],
    network: Mapping[str, Section] | None = None,
    logit_shift: tuple[float, ...] | None = None,
    fusion: dict[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> None:
    """Write ``config.json`` into ``folder``.

    Args:
        folder: The model folder; it exists.
        loader: Which loader reads it.
        task: What the model predicts.
        provenance: The spec it was trained by, as plain values.
        network: Sections the network is built from.
        logit_shift: Added to the logits of every text.
        fusion: Of a multimodal model.
        base: The config of transformers that ours becomes a key of, in a folder that both load.
    """
    from valence.models.base_encoder import base_content

    config = ModelConfig(
        format=2 if base is None else FORMAT,
        loader=loader,
        problem_type=task.problem_type,
        id2label=dict(enumerate(task.classes)),
        label2id={name: i for i, name in enumerate(task.classes)},
        train_counts=task.counts,
        tail=task.tail,
        spec=dict(provenance),
        network={name: part.model_dump(mode="json") for name, part in (network or {}).items()},
        logit_shift=logit_shift,
        fusion=fusion,
    )
    config = config.model_copy(update={"encoder_content": base_content(config.base_encoder)})
    write_fields(folder, config.model_dump(mode="json", by_alias=True), base)


def write_fields(
    folder: Path, fields: Mapping[str, Any], base: Mapping[str, Any] | None = None
) -> None:
    """Write the fields of a :class:`ModelConfig` as :func:`write_config` does, with digests.

    All other files of the folder are there.
    """
    values: Mapping[str, Any] = {n: v for n, v in fields.items() if n != DIGESTS}
    if base is not None:
        shared = {name: fields[name] for name in SHARED_FIELDS}
        own = {n: v for n, v in fields.items() if n not in (*SHARED_FIELDS, "model_type", DIGESTS)}
        values = {**base, **shared, OWN_KEY: {**own, "format": FORMAT}}
    _write(folder, with_digests(folder, values))


def seal_again(folder: Path, name: str = "") -> None:
    """Renew the digests of a folder after a file was written into it.

    Args:
        folder: The model folder.
        name: The file; all files that are there when not given, of a folder that is being made.

    Raises:
        ModelError: if ``config.json`` is broken, or was changed by others.
        RunError: if the disk refuses.
    """
    values = update_digest(folder, name) if name else with_digests(folder, _raw(folder))
    if values is not None:
        _write(folder, values)


def _raw(folder: Path) -> Any:
    return load_json(folder / CONFIG_FILE)


def _write(folder: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, ensure_ascii=False, indent=1)
    atomic.write_text(folder / CONFIG_FILE, text)


def read_fields(folder: Path) -> Any:
    """The fields of a :class:`ModelConfig`, of any format.

    Raises:
        ValueError: if the file is no JSON.
        OSError: if it cannot be read.
    """
    values = _raw(folder)
    own = values.get(OWN_KEY) if isinstance(values, dict) else None
    if not isinstance(own, dict):
        return values
    return {**own, **{name: values.get(name) for name in SHARED_FIELDS}}


def read_config(folder: Path) -> ModelConfig:
    """Read ``config.json`` of ``folder``.

    Raises:
        ModelError: if the folder or file is missing, or is not one Valence wrote.
    """
    path = folder / CONFIG_FILE
    try:
        return ModelConfig.model_validate(read_fields(folder))
    except FileNotFoundError:
        what = "is missing; use a model folder"
        raise ModelError(f"{path} {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        raise _no_model(path, error) from None
    except ValueError as error:
        raise ModelError(
            f"{path} is not a Valence model (no JSON: {error}); save it again"
        ) from None


def _no_model(path: Path, error: ValidationError) -> ModelError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "file"
    return ModelError(
        f"{path} is not a Valence model ({where}: {first['msg']}); save it again, or import a "
        f"transformers folder: valence import-model {path.parent}"
    )
