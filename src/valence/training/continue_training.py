"""Continued training of a saved model, on new rows and optionally with more classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from valence.errors import ModelError
from valence.evaluation.task import Task
from valence.losses.base import ClassInfo
from valence.models.classifier import Classifier, NetworkConfig
from valence.models.torch_model import ADAPTED, HEAD_FILE, TorchModel, load_torch_model

MODEL_FILES = (
    "config.json", HEAD_FILE, "adapter", "encoder", "model.safetensors", "tokenizer.json",
)  # fmt: skip
HASH_BLOCK_BYTES = 1 << 20


def content_hash(folder: Path) -> str:
    """Sixteen hex digits of the model files in ``folder``; reports do not count."""
    digest = hashlib.sha256()
    for name in MODEL_FILES:
        path = folder / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in (f for f in files if f.is_file()):
            digest.update(str(file.relative_to(folder)).encode())
            with file.open("rb") as stream:
                while block := stream.read(HASH_BLOCK_BYTES):
                    digest.update(block)
    return digest.hexdigest()[:16]


def load_start(
    folder: Path, config: NetworkConfig, task: Task, provenance: Mapping[str, Any], *, seed: int
) -> TorchModel:
    """The saved model, ready to be trained further.

    Its weights are loaded. Layers with a row per class get new rows for new classes after the
    old ones; the parameters and buffers of the loss are then initialized anew.

    Args:
        folder: The model folder.
        config: Sections of the new training; encoder and head must be the model's.
        task: Of the new rows; the model's classes come first in it.
        provenance: The spec of the new training, as plain values.
        seed: Seed of new weights.

    Raises:
        ModelError: if a file is broken, or classes or parts do not fit.
    """
    from transformers.trainer_utils import set_seed

    old = load_torch_model(folder)
    if task.classes[: len(old.classes)] != old.classes:
        raise ModelError(
            f"{folder} knows the classes {', '.join(old.classes)}, which must come first in those "
            f"of the data ({', '.join(task.classes)}); set data.classes"
        )
    config = _as_saved(config, old.config)
    if (config.encoder, config.head) != (old.config.encoder, old.config.head):
        raise ModelError(
            f"{folder} has a different encoder or head than the spec; do not change them"
        )
    encoder = old.classifier.encoder
    if config.encoder.adaptation in ADAPTED:
        for name, parameter in encoder.named_parameters():  # an adapter is loaded frozen
            parameter.requires_grad_("lora_" in name)
    set_seed(seed)
    info = ClassInfo(task.counts, task.tail, encoder.hidden_size)
    classifier = Classifier(encoder, config.head, config.loss, info, config.sentence)
    saved = load_file(folder / HEAD_FILE)
    classifier.load_state_dict(_resized(saved, classifier, folder), strict=False)
    prompt = config.encoder.prompt
    notes = (f"prompt {prompt!r} before every text, as before",) if prompt else ()
    return TorchModel(classifier, old.tokenizer, task, config, provenance, notes=notes)


def _as_saved(config: NetworkConfig, old: NetworkConfig) -> NetworkConfig:
    """The sections of a new training; what they leave open is as in the saved model."""
    encoder, head = config.encoder, config.head
    if encoder.prompt is None:
        encoder = encoder.model_copy(update={"prompt": old.encoder.prompt})
    if not encoder.lora_targets:
        encoder = encoder.model_copy(update={"lora_targets": old.encoder.lora_targets})
    if head.pooling == "auto":
        head = head.model_copy(update={"pooling": old.head.pooling})
    return NetworkConfig(encoder=encoder, head=head, loss=config.loss, sentence=old.sentence)


def _resized(saved: dict[str, Tensor], classifier: Classifier, folder: Path) -> dict[str, Tensor]:
    """The saved head in the shapes of ``classifier``; losses only where they fit."""
    new = {n: v for n, v in classifier.state_dict().items() if not n.startswith("encoder.")}
    loss = [n for n in new if n.startswith("loss.")]
    keep_loss = all(n in saved and saved[n].shape == new[n].shape for n in loss)
    state: dict[str, Tensor] = {}
    for name, value in new.items():
        if name in loss:
            if keep_loss:
                state[name] = saved[name]
            continue
        old = saved.get(name)
        if old is None or old.shape[1:] != value.shape[1:] or old.dim() != value.dim():
            raise ModelError(f"{folder / HEAD_FILE} does not fit the head: {name}")
        if old.shape == value.shape:
            state[name] = old
        else:  # a row per class: the old ones first
            state[name] = torch.cat([old, value[len(old) :]])
    return state
