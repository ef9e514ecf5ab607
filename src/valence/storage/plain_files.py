"""Folders of strangers: only plain files that lie in them, and JSON that cannot do harm."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from valence.errors import ModelError

MOST_FILES = 100_000
DEEPEST = 100
"""Folders in folders, and values in values of a JSON file."""
HUB_FOLDERS = ("snapshots", "blobs")


def check_plain(folder: Path, *, links: bool = False) -> None:
    """Refuse a folder that holds anything but plain files and folders.

    Links to files are followed if they stay inside, or are those of the Hugging Face cache, whose
    snapshots are links to its blobs.

    Args:
        folder: The folder; what is hidden in it is not looked at.
        links: Whether links may lead anywhere, as in a folder that the user made.

    Raises:
        ModelError: naming what is a pipe, a device, a link that leaves the folder or leads nowhere.
    """
    roots = _roots(folder)
    count = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if len(Path(place).parts) - len(folder.parts) > DEEPEST:
            raise ModelError(f"{place} is nested too deeply; copy the folder again")
        for name in (*folders, *files):
            count += 1
            if count > MOST_FILES:
                raise ModelError(f"{folder} has more than {MOST_FILES} files; it is not a model")
            if not name.startswith("."):
                _check_entry(Path(place, name), [] if links else roots)


def _roots(folder: Path) -> list[Path]:
    real = Path(os.path.realpath(folder))
    hub = next((p.parent / HUB_FOLDERS[1] for p in real.parents if p.name == HUB_FOLDERS[0]), None)
    return [real] if hub is None else [real, hub]


def _check_entry(path: Path, roots: list[Path]) -> None:
    try:
        linked = path.is_symlink()
        mode = path.stat().st_mode
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(f"{path} cannot be read ({reason}); copy the folder again") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ModelError(f"{path} is not a regular file; copy the folder again")
    if linked and roots:
        target = Path(os.path.realpath(path))
        if stat.S_ISDIR(mode) or not any(target.is_relative_to(root) for root in roots):
            raise ModelError(
                f"{path} is a link to {target}; links are not followed, so copy the file itself"
            )


def inner_file(folder: Path, name: str, *, of: str) -> Path:
    """A file that another file of the folder names.

    Args:
        folder: The folder.
        name: The file, relative to it.
        of: The file that names it, for messages.

    Raises:
        ModelError: if the name is absolute or leaves the folder.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name or "\\" in name:
        raise ModelError(f"{folder / of} names the file {name!r}, which is missing")
    return folder / name


def load_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        ValueError: if it is no JSON, is nested too deeply, or has numbers that are not finite.
        OSError: if it cannot be read.
    """
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """The value of a JSON text; as :func:`load_json`.

    Raises:
        ValueError: as :func:`load_json`.
    """
    try:
        values = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    if _depth(values) > DEEPEST:
        raise ValueError("its values are nested too deeply")
    return values


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _depth(values: Any) -> int:
    level, depth = [values], 0
    while level and depth <= DEEPEST:
        depth += 1
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return depth


def dumps(values: Any) -> str:
    """JSON in one spelling: equal values give equal text."""
    plain = json.loads(json.dumps(values, allow_nan=False))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
