"""Compressed tables, such as ``reviews.csv.gz``: unpacked once into a scratch folder."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from valence.errors import DataError

BLOCK = 1 << 20
MOST_TIMES = 200
"""Times its own size that a file may unpack to, beyond what is always allowed: no text does."""
ALWAYS = 1 << 26
"""Bytes."""


BROKEN = (
    EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError,
    RuntimeError,
)  # fmt: skip
"""What the libraries raise; the last two of an encrypted ZIP, among others."""


def _zstd(path: Path) -> Any:
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


def _zip(path: Path) -> Any:
    name = _only_name(path)
    with zipfile.ZipFile(path) as archive:
        return archive.open(name)  # which stays open after its archive


OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd, ".zip": _zip,
}  # fmt: skip
"""By suffix, what opens the file within."""

_unpacked: dict[tuple[str, int, int], Path] = {}
_scratch: list[TemporaryDirectory[str]] = []
"""Deleted when the process ends."""


def is_packed(path: Path) -> bool:
    """Whether its name is that of a compressed file."""
    return path.suffix.lower() in OPENERS


def table_name(path: Path) -> Path:
    """The name without that of the compression: ``a.csv`` of ``a.csv.gz``.

    Raises:
        DataError: if it is a ZIP of several files, or none.
    """
    if not is_packed(path):
        return path
    inner = path.with_suffix("")
    if path.suffix.lower() == ".zip" and not inner.suffix and path.is_file():
        return inner.with_suffix(Path(_only_name(path)).suffix)
    return inner


def unpacked(path: Path) -> Path:
    """The file itself, or what a compressed one holds, unpacked; the same at every call.

    Raises:
        DataError: if it is broken, holds several files, or far more than its size.
        OSError: if it cannot be read, or the scratch folder cannot be written.
    """
    if not is_packed(path):
        return path
    about = path.stat()
    key = (str(path.resolve()), about.st_size, about.st_mtime_ns)
    if key not in _unpacked:
        folder = TemporaryDirectory(prefix="valence-")
        _scratch.append(folder)
        target = Path(folder.name, table_name(path).name)
        _copy(path, target, about.st_size)
        _unpacked[key] = target
    return _unpacked[key]


def _copy(path: Path, target: Path, size: int) -> None:
    most = ALWAYS + MOST_TIMES * size
    try:
        with OPENERS[path.suffix.lower()](path) as source, target.open("wb") as file:
            while block := source.read(BLOCK):
                file.write(block)
                if file.tell() > most:
                    raise DataError(
                        f"{path} unpacks to more than {MOST_TIMES} times its size; unpack it "
                        "yourself if that is right"
                    )
    except BROKEN as error:
        raise _broken(path, error) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _broken(path, error) from None  # as libraries say that data are broken


def _only_name(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            files = [one.filename for one in archive.infolist() if not one.is_dir()]
    except (OSError, *BROKEN) as error:
        raise _broken(path, error) from None
    files = [name for name in files if not Path(name).name.startswith((".", "__MACOSX"))]
    files = [name for name in files if "__MACOSX" not in Path(name).parts]
    if len(files) != 1:
        raise DataError(f"{path} contains {len(files)} files; unpack it and pass the table")
    return files[0]


def _broken(path: Path, error: Any) -> DataError:
    reason = (str(error).strip().splitlines() or ["broken"])[0][:120]
    return DataError(f"{path} cannot be unpacked ({reason}); download it again")
