"""Models that other tools trained, as model folders of ours: :func:`import_model`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from valence.data.examples import Examples
from valence.errors import ModelError
from valence.evaluation.task import Classification, softmax
from valence.storage import atomic

if TYPE_CHECKING:
    from valence.models.imported import ImportedModel

DEFAULT_LENGTH = 512
"""Tokens; most models can read no more, and of those that can most texts need no more."""
TOLERANCE = 1e-5
PROBES = ("Good.", "I liked the room, but not the staff.", "not bad at all " * 12, "不错")
"""Texts on which a model is compared with what transformers makes of it."""
UNNAMED = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Attributes:
        classes: Label names.
        max_length: Tokens of a text that are read.
        largest_difference: Of a probability, from what transformers gives.
        notes: Lines for the user.
    """

    classes: tuple[str, ...]
    max_length: int
    largest_difference: float
    notes: tuple[str, ...] = ()


def import_model(
    folder: str | Path,
    out: str | Path,
    *,
    labels: Sequence[str] | None = None,
    max_length: int | None = None,
) -> Imported:
    """Make a model folder of an ``AutoModelForSequenceClassification``.

    Args:
        folder: What ``save_pretrained`` of another tool wrote: ``config.json``, safetensors and
            the tokenizer. Code that it brings along is never run.
        out: The new folder; a model that is there is replaced.
        labels: Names in the order of the ids; those of its ``id2label`` when None.
        max_length: Tokens of a text that are read; what the model can read, at most 512, when
            None.

    Raises:
        ModelError: if it is no such model, predicts something else than one label of a text, or
            gives other probabilities here.
        RunError: if ``out`` cannot be written.
    """
    source = Path(folder)
    config = _checked_config(source)
    names, notes = _names(config, labels, source)
    atomic.refuse_foreign(Path(out), "config.json")
    model, more = _loaded(source, names, max_length)
    gap = _gap(model)
    if not gap <= TOLERANCE:
        raise ModelError(
            f"{source} was not imported: its probabilities differ from those in transformers (by "
            f"{gap:.1e}), for example because it reads token types; it was not imported"
        )
    with atomic.new_folder(out, marker="config.json") as scratch:
        model.save(scratch)
        if (source / "README.md").exists():
            shutil.copyfile(source / "README.md", scratch / "README.md")
    return Imported(names, model.max_tokens, gap, (*notes, *more))


def _checked_config(source: Path) -> dict[str, Any]:
    """The config of the folder.

    Raises:
        ModelError: if it is not of a model that gives every text one label.
    """
    path = source / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        tokenizer = source / "tokenizer_config.json"
        about = json.loads(tokenizer.read_text(encoding="utf-8")) if tokenizer.exists() else {}
    except FileNotFoundError:
        more = "; merge the adapter into its model first" if _is_adapter(source) else ""
        raise ModelError(f"{path} is missing; use a model folder of transformers{more}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if "auto_map" in config or "auto_map" in about:
        raise ModelError(f"{source} needs code from its own folder, which is never run")
    names = config.get("architectures") or []
    if not any(str(name).endswith("ForSequenceClassification") for name in names):
        what = ", ".join(map(str, names)) or "no architecture"
        raise ModelError(
            f"{source} is not a sequence classifier of transformers ({what}); train one on its "
            f"encoder: valence train DATA --encoder {source}"
        )
    _check_target(config, source)
    if not list(source.glob("*.safetensors")):
        raise ModelError(
            f"{source} has no safetensors; other weights are not loaded. Save it again with "
            "save_pretrained of a recent transformers"
        )
    return dict(config)


def _check_target(config: dict[str, Any], source: Path) -> None:
    problem, count = config.get("problem_type"), len(config.get("id2label") or {})
    if problem == "multi_label_classification":
        raise ModelError(f"{source} predicts several labels per text; Valence models predict one")
    if problem == "regression" or count == 1:
        raise ModelError(f"{source} predicts a number; only classifiers can be imported")
    applied = config.get("function_to_apply")
    if applied not in (None, "softmax"):
        raise ModelError(f"{source} applies {applied} to its scores; Valence models use a softmax")


def _is_adapter(source: Path) -> bool:
    return (source / "adapter_config.json").exists()


def _names(
    config: dict[str, Any], labels: Sequence[str] | None, source: Path
) -> tuple[tuple[str, ...], list[str]]:
    own = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # the default of transformers
    names = tuple(str(own[key]) for key in sorted(own, key=int))
    if labels is not None:
        if len(labels) != len(names):
            raise ModelError(f"{source} has {len(names)} labels but --labels has {len(labels)}")
        names = tuple(labels)
    if len(set(names)) < len(names) or not all(names):
        raise ModelError(f"{source} has duplicate or empty label names; set --labels")
    if not all(UNNAMED.fullmatch(name) for name in names):
        return names, []
    order = ",".join(f"name{i}" for i in range(len(names)))
    return names, [f"Its labels have no names; set them in their order: --labels {order}"]


def _loaded(
    source: Path, names: tuple[str, ...], max_length: int | None
) -> tuple[ImportedModel, list[str]]:
    from valence.models.backbone import position_count
    from valence.models.imported import (
        ImportedModel,
        ImportedNetwork,
        ImportedSpec,
        load_classifier,
        tokenizer_of,
    )

    network = load_classifier(source)
    tokenizer = tokenizer_of(source, max_length or DEFAULT_LENGTH)
    notes = _set_padding(network, tokenizer.backend, source)
    able = min(position_count(str(source)) or DEFAULT_LENGTH, tokenizer.backend.model_max_length)
    if max_length is None and able > DEFAULT_LENGTH:
        notes.append(
            f"It uses {DEFAULT_LENGTH} tokens per text, but supports {able:,}: --max-length"
        )
    if max_length is not None and tokenizer.max_length < max_length:
        notes.append(f"It can read at most {tokenizer.max_length} tokens per text")
    task = Classification(names, (0,) * len(names), ())
    provenance = {"method": "imported", "source": source.name}
    spec = ImportedSpec(max_length=tokenizer.max_length)
    model = ImportedModel(ImportedNetwork(network).eval(), tokenizer, task, spec, provenance)
    network.config.id2label = dict(enumerate(names))
    network.config.label2id = {name: i for i, name in enumerate(names)}
    return model, notes


def _set_padding(network: Any, tokenizer: Any, source: Path) -> list[str]:
    """Say which token is padding, which heads over the last token must know.

    Raises:
        ModelError: if neither the model nor its tokenizer has one.
    """
    config = network.config.get_text_config()
    if config.pad_token_id is not None and tokenizer.pad_token_id == config.pad_token_id:
        return []
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"The tokenizer of {source} has no padding token; set tokenizer.pad_token and "
            "model.config.pad_token_id as in its training and save both again"
        )
    if config.pad_token_id is not None:
        return []
    config.pad_token_id = tokenizer.pad_token_id
    return [f"Its config has no padding token; the tokenizer's is used: "
            f"{tokenizer.pad_token}"]  # fmt: skip


def _gap(model: ImportedModel) -> float:
    """Largest difference of a probability from one text at a time in transformers alone."""
    import torch

    texts = [*PROBES, "word " * model.max_tokens]
    ours = model.predict(Examples(texts)).probs
    rows = []
    with torch.inference_mode():
        for text in texts:
            batch = model.tokenizer.backend(
                text, truncation=True, max_length=model.max_tokens, return_tensors="pt"
            )
            rows.append(model.classifier.model(**batch).logits[0].numpy())
    return float(np.abs(softmax(np.stack(rows)) - ours).max())
