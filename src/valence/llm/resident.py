"""The lifetime of language models: one at a time, and between runs only where that is asked for.

A model of many gigabytes must not wait for a garbage collector, nor be loaded again for every
seed. Inside :func:`keep_language_model` the last one stays for the next run that prompts it;
before another one is loaded it goes, and at the end of the block too.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valence.llm.language_model import LanguageModel


@dataclass(frozen=True)
class _Request:
    """What was loaded: the name, the content of a folder, and how."""

    name: str
    content: str
    weight_format: str
    device: str


@dataclass(frozen=True)
class _Loaded:
    request: _Request
    network: Any
    tokenizer: Any
    notes: tuple[str, ...]


_resident: list[_Loaded] = []
_scopes: list[object] = []


@contextmanager
def keep_language_model() -> Iterator[None]:
    """While the block runs, keep the last language model for the next run that prompts it."""
    scope = object()
    _scopes.append(scope)
    try:
        yield
    finally:
        _scopes.remove(scope)
        if not _scopes:
            release_language_model()


def release_language_model(*, unless: str | None = None) -> None:
    """Let go of the model that is kept.

    Args:
        unless: Name of a model that may stay.
    """
    if not _resident or _resident[0].request.name == unless:
        return
    _resident.clear()
    free_memory()


def free_memory() -> None:
    """Give back what is not referred to, on the GPU too."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def open_language_model(
    name: str, *, quantization: str = "auto", device: str = "auto", precision: str = "auto",
    max_length: int | None = None,
) -> LanguageModel:  # fmt: skip
    """As ``load_language_model``, without loading what is kept already.

    Raises:
        ModelError, SpecError: as ``load_language_model``.
    """
    from valence.distributed.device import pick_device
    from valence.llm.language_model import LanguageModel
    from valence.llm.local import load_language_model, weight_format_in_effect
    from valence.storage.key import folder_content

    place = pick_device(device)
    folder = Path(name)
    request = _Request(
        name, folder_content(folder) if folder.is_dir() else "",
        weight_format_in_effect(quantization, precision, place), place,
    )  # fmt: skip
    if not _resident or _resident[0].request != request:
        release_language_model()
        model = load_language_model(
            name, quantization=quantization, device=device, precision=precision,
            max_length=max_length,
        )  # fmt: skip
        if _scopes:
            _resident.append(_Loaded(request, model.model, model.tokenizer, model.notes))
        return model
    same = _resident[0]
    return LanguageModel(
        same.network, same.tokenizer, device=place, max_length=max_length,
        weight_format=request.weight_format, notes=same.notes,
    )  # fmt: skip
