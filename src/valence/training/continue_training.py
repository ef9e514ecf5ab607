"""Going on from a saved model: its weights, on new rows, with more classes if wanted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from valence.config.spec import RunSpec
from valence.data.dataset import TrainingData
from valence.errors import ModelError, SpecError
from valence.losses.base import ClassInfo
from valence.models.classifier import Classifier, TorchModel, load_torch_model
from valence.models.config_file import ModelConfig, read_config

MODEL_FILES = ("config.json", "head.safetensors", "adapter", "encoder")
HASH_BLOCK_BYTES = 1 << 20


def content_hash(folder: Path) -> str:
    """Sixteen hex digits of the files that make the model in ``folder``; reports do not count."""
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


def start_config(folder: Path) -> ModelConfig:
    """The config of a model that a training can go on from.

    Raises:
        ModelError: if the folder is no model, or its kind is fitted in one go.
    """
    if not folder.is_dir():
        raise ModelError(f"No model folder at {folder}; give one that valence train wrote")
    config = read_config(folder)
    if config.kind != "torch" or config.spec.kind == "sklearn":
        raise ModelError(
            f"{folder} is a {config.spec.method} model, which is fitted in one go; "
            "train it anew on all rows"
        )
    return config


def checked_start(spec: RunSpec, folder: str | Path | None) -> Path:
    """The folder of the model that a spec goes on from.

    Raises:
        SpecError: if it is not given, or holds another model than the spec names.
        ModelError: if no training can go on from it.
    """
    if folder is None:
        raise SpecError(f"The spec goes on from model {spec.start}; say where it is with --from")
    path = Path(folder)
    start_config(path)
    if content_hash(path) != spec.start:
        raise SpecError(f"{path} is not the model {spec.start} that the spec goes on from")
    return path


def load_start(spec: RunSpec, data: TrainingData, folder: Path) -> TorchModel:
    """The saved model, ready to be trained further on ``data``.

    Its weights are kept. Of layers that have a row per class, new classes get new rows behind
    the old ones, and what the loss had learnt or remembered is then made anew.

    Args:
        spec: Settings of the new training; encoder and head must be the model's.
        data: The new rows; the model's classes come first in ``data.classes``.
        folder: The model folder.

    Raises:
        ModelError: if a file is broken, or classes or parts do not fit.
    """
    from transformers.trainer_utils import set_seed

    old = load_torch_model(folder)
    if data.classes[: len(old.classes)] != old.classes:
        raise ModelError(
            f"{folder} knows the classes {', '.join(old.classes)}, which must come first among "
            f"those of the data ({', '.join(data.classes)}); set data.classes"
        )
    if (spec.encoder, spec.head) != (old.spec.encoder, old.spec.head):
        raise ModelError(f"{folder} has another encoder or head than the spec; leave them as saved")
    encoder = old.classifier.encoder
    if spec.encoder.adaptation in ("lora", "dora"):
        for name, parameter in encoder.named_parameters():  # an adapter is loaded frozen
            parameter.requires_grad_("lora_" in name)
    set_seed(spec.seed)
    info = ClassInfo(tuple(int(n) for n in data.train_counts), data.tail, encoder.hidden_size)
    classifier = Classifier(encoder, spec.head, spec.loss, info)
    saved = load_file(folder / "head.safetensors")
    classifier.load_state_dict(_grown(saved, classifier, folder), strict=False)
    return TorchModel(classifier, old.tokenizer, data.classes, spec, info)


def _grown(saved: dict[str, Tensor], classifier: Classifier, folder: Path) -> dict[str, Tensor]:
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
            raise ModelError(f"{folder / 'head.safetensors'} does not fit the head: {name}")
        if old.shape == value.shape:
            state[name] = old
        else:  # a row per class: the old ones first
            state[name] = torch.cat([old, value[len(old) :]])
    return state
