"""The ``config.json`` of a model folder: what the model is and what its labels are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from valence.config.spec import RunSpec
from valence.errors import ModelError
from valence.storage import atomic


class ModelConfig(BaseModel):
    """Contents of ``config.json``; the label maps follow the Hugging Face convention."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    format: Literal[1] = 1
    model_type: Literal["valence"] = "valence"
    problem_type: Literal["single_label_classification", "regression"] = (
        "single_label_classification"
    )
    kind: Literal["torch", "tfidf", "majority", "fusion", "onnx", "openvino"]
    id2label: dict[int, str]
    label2id: dict[str, int]
    train_counts: tuple[int, ...]
    tail: tuple[int, ...]
    spec: RunSpec
    logit_shift: tuple[float, ...] | None = None
    """Added to the logits of every text: a post-hoc logit adjustment."""
    fusion: dict[str, Any] | None = None
    """Of a multimodal model: sizes, scale of its scores, and how clips become features."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Label names in the order of their ids."""
        return tuple(self.id2label[i] for i in range(len(self.id2label)))


def write_config(
    folder: Path, *, kind: Literal["torch", "tfidf", "majority", "fusion"], spec: RunSpec,
    classes: tuple[str, ...], counts: tuple[int, ...], tail: tuple[int, ...],
    logit_shift: tuple[float, ...] | None = None, fusion: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write ``config.json`` into ``folder``."""
    config = ModelConfig(
        kind=kind,
        problem_type="single_label_classification" if classes else "regression",
        id2label=dict(enumerate(classes)),
        label2id={name: i for i, name in enumerate(classes)},
        train_counts=counts,
        tail=tail,
        spec=spec,
        logit_shift=logit_shift,
        fusion=fusion,
    )
    text = json.dumps(config.model_dump(mode="json"), ensure_ascii=False, indent=1)
    atomic.write_text(folder / "config.json", text)


def read_config(folder: Path) -> ModelConfig:
    """Read ``config.json`` of ``folder``.

    Raises:
        ModelError: if the folder or file is missing, or is not one Valence wrote.
    """
    path = folder / "config.json"
    try:
        return ModelConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "is missing; give a folder that valence train wrote"
        raise ModelError(f"{path} {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise ModelError(
            f"{path} is no Valence model of format 1 ({where}: {first['msg']}); save it again"
        ) from None
