"""Things computed once and kept by content: second views, token states of frozen encoders.

An entry is a folder ``<root>/<kind>/<key>/`` whose key is a hash of everything that decides
its contents. It gets its name only when it is whole, so a killed writer leaves nothing that
could be read. The root is ``VALENCE_CACHE``, else ``valence`` in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valence.errors import RunError

ABOUT = "about.json"
_UNFINISHED = ".writing-"


@dataclass(frozen=True)
class Entry:
    """One entry of the cache.

    Attributes:
        kind: What sort of thing it holds.
        key: Hash of what it was made from.
        size: Bytes on disk.
        used: Time of the last reading, in seconds since 1970.
        about: What it was made from, for people.
        path: Its folder.
    """

    kind: str
    key: str
    size: int
    used: float
    about: dict[str, Any]
    path: Path


def cache_root() -> Path:
    """The folder of the cache; it need not exist."""
    named = os.environ.get("VALENCE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "valence"


def content_key(parts: Iterable[str]) -> str:
    """Sixteen hex digits that name a sequence of strings; where one ends matters.

    Args:
        parts: Everything that decides what is kept; read once, so it may be a generator.
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:16]


def find(kind: str, key: str) -> Path | None:
    """The folder of a whole entry, marked as used now; None where there is none."""
    path = cache_root() / kind / key
    if not (path / ABOUT).exists():
        return None
    with suppress(OSError):  # a cache that may only be read is still read
        os.utime(path / ABOUT)
    return path


def folders(kind: str, prefix: str = "") -> list[Path]:
    """The folders of all whole entries of a kind whose key begins with ``prefix``."""
    found = (cache_root() / kind).glob(f"{prefix}*/{ABOUT}")
    return sorted(path.parent for path in found if not path.parent.name.startswith(_UNFINISHED))


@contextmanager
def writing(kind: str, key: str, about: dict[str, Any]) -> Iterator[Path]:
    """A folder to fill; it becomes the entry when the block ends without an error.

    Args:
        kind: What sort of thing it holds.
        key: Hash of what it is made from.
        about: What it is made from, for people.

    Raises:
        RunError: if the disk refuses (full, read-only).
    """
    final = cache_root() / kind / key
    scratch = final.with_name(f"{_UNFINISHED}{key}-{os.getpid()}")
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        yield scratch
        (scratch / ABOUT).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
        if (final / ABOUT).exists():  # another process was first, with the same contents
            return
        shutil.rmtree(final, ignore_errors=True)
        os.replace(scratch, final)
    except OSError as error:
        raise RunError(
            f"Cannot write the cache at {final}: {error.strerror or error}; free space, or name "
            "another folder with VALENCE_CACHE"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def entries() -> list[Entry]:
    """Every whole entry, the longest unused first."""
    found = []
    for about in cache_root().glob(f"*/*/{ABOUT}"):
        folder = about.parent
        if folder.name.startswith(_UNFINISHED):
            continue
        size = sum(file.stat().st_size for file in folder.iterdir())
        told = json.loads(about.read_text(encoding="utf-8"))
        kind = folder.parent.name
        found.append(Entry(kind, folder.name, size, about.stat().st_mtime, told, folder))
    return sorted(found, key=lambda entry: entry.used)


def clear(kind: str | None = None) -> int:
    """Delete the entries of a kind (of all kinds when not given), and what kills left.

    Returns:
        Bytes that were freed.
    """
    folders = [cache_root() / kind] if kind else list(cache_root().glob("*"))
    freed = 0
    for folder in folders:
        freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder, ignore_errors=True)
    return freed
