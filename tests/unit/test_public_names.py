"""The names of ``import valence``."""

from __future__ import annotations

import importlib
from types import ModuleType

import valence


def test_every_public_name_is_there_and_no_module() -> None:
    for name in valence.__all__:
        assert not isinstance(getattr(valence, name), ModuleType), name
    assert valence.run is importlib.import_module("valence.runs.runner").run
    assert valence.__all__ == sorted(valence.__all__)
