"""Settings as a person writes them on the command line: ``train.epochs=6``."""

from __future__ import annotations

from typing import Any

from valence.config.spec import LONGEST_SHOWN, check_path, parse_yaml
from valence.errors import SpecError


def parse_setting(text: str) -> tuple[str, Any]:
    """``"train.epochs=6"`` → ``("train.epochs", 6)``; the value is read as YAML.

    Raises:
        SpecError: if there is no ``=``.
        UnknownNameError: if the setting does not exist.
    """
    path, sign, value = text.partition("=")
    if not sign:
        raise SpecError(f"Setting {text!r} has no value; write it as name=value")
    check_path(path.strip())
    return path.strip(), _scalar(value)


def parse_axis(text: str) -> tuple[str, tuple[Any, ...]]:
    """``"loss.temperature=.05,.1"`` → ``("loss.temperature", (0.05, 0.1))``.

    Raises:
        SpecError: if there is no ``=`` or no value.
        UnknownNameError: if the setting does not exist.
    """
    path, sign, values = text.partition("=")
    parts = [part for part in values.split(",") if part.strip()]
    if not sign or not parts:
        raise SpecError(f"Sweep {text!r} has no values; write it as name=a,b,c")
    check_path(path.strip())
    return path.strip(), tuple(_scalar(part) for part in parts)


def _scalar(text: str) -> Any:
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
    value = parse_yaml(text, where=f"value {shown!r}")
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 and .5e1 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value
