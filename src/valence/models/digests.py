"""Digests of a model folder's files, which stand in its ``config.json``.

A folder into which a part of another was copied, or whose file is truncated or changed, is refused
before anything of it is used. Folders of members have digests of their own; the outer one has
those of their ``config.json``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from valence.errors import ModelError
from valence.storage.plain_files import dumps, load_json

DIGESTS = "digests"
CONFIG_FILE = "config.json"
OWN_KEY = "valence"
CALIBRATION_FILE = "calibration.json"
NOT_THE_MODEL = ("report", "README.md", "LICENSE")
LATER = ("neighbours.parquet", "validation.npz", CALIBRATION_FILE)
"""Written into a folder that is whole; the first is not sent to a hub."""
READ_SUFFIXES = (
    ".json", ".safetensors", ".bin", ".model", ".jinja", ".onnx", ".onnx_data", ".xml", ".py",
    ".pt", ".pkl",
)  # fmt: skip
READ_NAMES = ("vocab.txt", "merges.txt")
"""What libraries look for beside the files that they are told."""
ADVICE = "save or copy the model folder again, whole"


def with_digests(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a ``config.json`` with digests of all files of its folder and of itself.

    Args:
        folder: The folder; all other files are there.
        values: What stands in the file.
    """
    files = {name: _digest(folder / name) for name in sorted(_model_files(folder))}
    return _sealed(dict(values), {"files": files})


def update_digest(folder: Path, name: str) -> dict[str, Any] | None:
    """The contents of ``config.json`` after a file was written or deleted; None without digests.

    Raises:
        ModelError: if the file is broken or was changed.
    """
    values = _read(folder)
    digests = digests_of(values)
    if digests is None:
        return None
    _check_config(folder, values, digests)
    files = {n: d for n, d in digests["files"].items() if n != name}
    if (folder / name).exists():
        files[name] = _digest(folder / name)
    return _sealed(values, {**digests, "files": files})


def digests_of(values: Any) -> dict[str, Any] | None:
    """The digests in the contents of a ``config.json``; None where it has none."""
    if not isinstance(values, Mapping):
        return None
    own = values.get(OWN_KEY)
    digests = (own if isinstance(own, Mapping) else values).get(DIGESTS)
    return digests if isinstance(digests, dict) else None


def check_digests(folder: Path) -> bool:
    """Hold every file of a model folder to its digest.

    Returns:
        Whether it has digests; folders of Valence 0.1 have none.

    Raises:
        ModelError: naming the file that is missing, has been changed, or does not belong.
    """
    values = _read(folder)
    digests = digests_of(values)
    if digests is None:
        return False
    _check_config(folder, values, digests)
    files = digests["files"]
    for name, digest in sorted(files.items()):
        if name not in LATER:
            _check_file(folder, name, digest)
    extra = sorted({n for n in _model_files(folder) if _is_read(n)} - {*files, *LATER})
    if extra:
        raise ModelError(f"{folder / extra[0]} is not a file of this model; delete it, or {ADVICE}")
    return True


def check_later(folder: Path, name: str, *, advice: str) -> None:
    """Hold a file that was written into a whole folder to its digest.

    Args:
        folder: The model folder.
        name: One of :data:`LATER`.
        advice: What to do about a file of another model.

    Raises:
        ModelError: if the file has been changed, was removed, or is of another model.
    """
    digests = digests_of(_read(folder))
    if digests is None:
        return
    digest, there = digests["files"].get(name), (folder / name).exists()
    if digest is None and there:
        raise ModelError(f"{folder / name} does not belong to this model; {advice}")
    if digest is not None and (there or name == CALIBRATION_FILE):
        _check_file(folder, name, digest, advice=advice)


def _read(folder: Path) -> Any:
    path = folder / CONFIG_FILE
    try:
        return load_json(path)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; use a model folder") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); {ADVICE}") from None


def _sealed(values: dict[str, Any], digests: Mapping[str, Any]) -> dict[str, Any]:
    """The values with digests, that of the values among them."""
    files = {DIGESTS: {"files": digests["files"]}}
    own = values.get(OWN_KEY)
    if isinstance(own, Mapping):
        values = {**values, OWN_KEY: {**own, **files}}
    else:
        values = {**values, **files}
    sealed = digests_of(values)
    assert sealed is not None
    sealed["config"] = _config_digest(values)
    return values


def _config_digest(values: Mapping[str, Any]) -> str:
    digests = digests_of(values) or {}
    without = {"files": digests.get("files")}
    own = values.get(OWN_KEY)
    if isinstance(own, Mapping):
        values = {**values, OWN_KEY: {**own, DIGESTS: without}}
    else:
        values = {**values, DIGESTS: without}
    return hashlib.sha256(dumps(values).encode()).hexdigest()


def _check_config(folder: Path, values: Any, digests: Mapping[str, Any]) -> None:
    path, files = folder / CONFIG_FILE, digests.get("files")
    if not isinstance(files, Mapping) or not all(isinstance(d, str) for d in files.values()):
        raise ModelError(f"{path} has broken digests; {ADVICE}")
    if digests.get("config") != _config_digest(values):
        raise ModelError(f"{path} was changed after the model was saved; {ADVICE}")


def _check_file(folder: Path, name: str, digest: str, *, advice: str = ADVICE) -> None:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ModelError(f"{folder / CONFIG_FILE} names the file {name!r}, which is missing")
    try:
        actual = _digest(path)
    except OSError as error:
        reason = (
            "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        )
        raise ModelError(f"{path} {reason}; {advice}") from None
    if actual != digest:
        raise ModelError(
            f"{path} is not the file that was saved with this model (its digest differs); {advice}"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_read(name: str) -> bool:
    return Path(name).suffix in READ_SUFFIXES or Path(name).name in READ_NAMES


def _model_files(folder: Path) -> Iterator[str]:
    """The files of a model by their paths in its folder, of a member only its config."""
    for place, folders, files in os.walk(folder):
        inner = Path(place).relative_to(folder)
        is_top = inner == Path()
        if not is_top and _is_sealed(Path(place)):
            folders[:] = []
            yield (inner / CONFIG_FILE).as_posix()
            continue
        ignored = (*NOT_THE_MODEL, CONFIG_FILE) if is_top else ("README.md",)
        folders[:] = [n for n in folders if not n.startswith(".") and n not in ignored]
        for name in files:
            if name not in ignored and not name.startswith("."):
                yield (inner / name).as_posix()


def _is_sealed(folder: Path) -> bool:
    try:
        return digests_of(load_json(folder / CONFIG_FILE)) is not None
    except (OSError, ValueError):
        return False
