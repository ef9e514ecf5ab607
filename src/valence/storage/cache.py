"""What is computed once and read again: kinds of entries, their folders, a limit on their size.

An entry is a folder ``<root>/<kind>/<key>/`` whose key is a hash of everything that decides
its contents. It gets its name only when it is whole, so a killed writer leaves nothing that
could be read. Other processes may delete entries at any time: a reader takes what is gone for
what never was. The root is ``VALENCE_CACHE``, else ``valence`` in the user's cache folder;
``VALENCE_CACHE_LIMIT`` is the size above which the entries that were not used for the longest
time are deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from valence.errors import SpecError, UnknownNameError
from valence.storage import atomic

ABOUT = "about.json"
DEFAULT_LIMIT = "20GiB"
FREE_SHARE = 0.5  # of the free disk that is filled at once
ADVICE = "free space, or set VALENCE_CACHE to another folder"

Contents = TypeVar("Contents")

logger = logging.getLogger(__name__)

_STARTED = time.time() - 2.0  # some file systems keep whole seconds
_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4,
          "KI": 1024, "MI": 1024**2, "GI": 1024**3, "TI": 1024**4}  # fmt: skip
_in_use: dict[Path, int] = {}


@dataclass(frozen=True)
class CacheKind:
    """A sort of entries.

    Attributes:
        name: Of its folder, and of ``--kind``.
        description: What its entries hold, in one line.
        recomputable: Whether an entry that is deleted is made again at no cost but time. Others
            are deleted only by their name.
    """

    name: str
    description: str
    recomputable: bool = True


VIEWS = CacheKind("views", "second views of training texts")
STATES = CacheKind("states", "token states of frozen encoders")
POOLED = CacheKind("pooled", "pooled features of frozen encoders, a vector per text")
EMBEDDINGS = CacheKind("embeddings", "vectors by which demonstrations are found")
FEATURES = CacheKind("features", "audio and vision features, converted from pickles")
NEIGHBORS = CacheKind("neighbors", "training texts for explain")
ENCODERS = CacheKind("encoders", "built-in encoders, written from installed packages")
ANSWERS = CacheKind(
    "answers", "answers of language-model servers, which may have cost money", recomputable=False
)

KINDS: Mapping[str, CacheKind] = {
    kind.name: kind
    for kind in (VIEWS, STATES, POOLED, EMBEDDINGS, FEATURES, NEIGHBORS, ENCODERS, ANSWERS)
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One entry of the cache.

    Attributes:
        kind_name: Name of its kind.
        key: Hash of what it was made from.
        size: Bytes on disk.
        used: Time of the last reading, in seconds since 1970.
        about: What it was made from, for people.
        path: Its folder.
    """

    kind_name: str
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
        parts: Everything that decides the contents; read once, so it may be a generator.
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:16]


def find(kind: CacheKind, key: str) -> Path | None:
    """The folder of a whole entry, marked as used now; None where there is none."""
    path = cache_root() / kind.name / key
    if not (path / ABOUT).exists():
        return None
    touch(path)
    return path


def load(kind: CacheKind, key: str, read: Callable[[Path], Contents]) -> Contents | None:
    """What ``read`` makes of an entry's folder; None where there is none or it cannot be read.

    An entry that cannot be read is deleted, so that it is made again.

    Args:
        kind: Its kind.
        key: Hash of what it was made from.
        read: Reads its files; an ``OSError``, ``ValueError`` or ``KeyError`` means that it is gone
            or broken.
    """
    folder = find(kind, key)
    if folder is None:
        return None
    try:
        return read(folder)
    except (OSError, ValueError, KeyError) as error:
        discard(folder, str(error))
        return None


def folders(kind: CacheKind, prefix: str = "") -> list[Path]:
    """The folders of all whole entries of a kind whose key begins with ``prefix``."""
    return [
        path for path in _listed(cache_root() / kind.name)
        if path.name.startswith(prefix) and (path / ABOUT).exists()
    ]  # fmt: skip


def touch(folder: Path) -> None:
    """Mark an entry as used now."""
    with suppress(OSError):  # a cache that may only be read is still read
        os.utime(folder / ABOUT)


def discard(folder: Path, reason: str) -> None:
    """Delete an entry that cannot be used, unless another process has done so already."""
    if folder.exists():
        first = (reason.strip().splitlines() or ["broken"])[0]
        logger.warning("%s is damaged (%s) and was created again", folder, first)
        atomic.remove(folder)


def hold(folder: Path) -> None:
    """Let no process delete an entry while this one lives; for what is read bit by bit."""
    with suppress(OSError, ImportError):
        import fcntl

        before = _in_use.pop(folder, None)
        if before is not None:
            os.close(before)
        _in_use[folder] = os.open(folder / ABOUT, os.O_RDONLY)
        fcntl.flock(_in_use[folder], fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def writing(kind: CacheKind, key: str, about: dict[str, Any]) -> Iterator[Path]:
    """A folder to fill; it becomes the entry when the block ends without an error.

    Where another process is first, its entry stays. Where the cache is then above its limit, the
    entries that were not used for the longest time are deleted.

    Args:
        kind: What sort of thing it holds.
        key: Hash of what it is made from.
        about: What it is made from, for people.

    Raises:
        RunError: if the disk refuses (full, read-only).
        SpecError: if ``VALENCE_CACHE_LIMIT`` is no size.
    """
    limit = limit_bytes()
    target = cache_root() / kind.name / key
    if target.exists() and not (target / ABOUT).exists():  # deleted in part by hand
        atomic.remove(target)
    with atomic.new_folder(target, existing="keep", advice=ADVICE) as scratch:
        yield scratch
        text = json.dumps(about, ensure_ascii=False)
        (scratch / ABOUT).write_text(text, encoding="utf-8")
    _evict(limit)


def entries() -> list[Entry]:
    """Every whole entry, the longest unused first."""
    whole = [
        entry for kind in _listed(cache_root()) for folder in _listed(kind)
        if (entry := _entry(folder)) is not None
    ]  # fmt: skip
    return sorted(whole, key=lambda entry: entry.used)


def clear(kind: str | None = None) -> int:
    """Delete the entries of a kind, or all that can be made again at no cost, and what kills left.

    Entries that another process holds are left.

    Args:
        kind: A name of :data:`KINDS`, or of a folder with entries from another version. When not
            given, all kinds that are recomputable.

    Returns:
        Bytes that were freed.

    Raises:
        UnknownNameError: if there is no such kind.
    """
    there = entries()
    names = {*KINDS, *(entry.kind_name for entry in there)}
    if kind is not None and kind not in names:
        raise UnknownNameError("kind", kind, names)
    chosen = [kind] if kind else [name for name, one in KINDS.items() if one.recomputable]
    for name in chosen:
        folder = cache_root() / name
        atomic.sweep(folder)
        for path in _listed(folder):
            if not (path / ABOUT).exists():
                atomic.remove(path)
    return sum(entry.size for entry in there if entry.kind_name in chosen and _delete(entry.path))


def limit_bytes() -> int | None:
    """Bytes above which entries are deleted, from ``VALENCE_CACHE_LIMIT``; None without a limit.

    Raises:
        SpecError: if it is no size.
    """
    text = os.environ.get("VALENCE_CACHE_LIMIT") or DEFAULT_LIMIT
    if text.strip().lower() == "none":
        return None
    size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    if size is None or size[2] not in _UNITS:
        raise SpecError(
            f"VALENCE_CACHE_LIMIT={text!r} is not a size; write 20GB, 500MiB, or none for no limit"
        )
    return int(float(size[1]) * _UNITS[size[2]])


def room_bytes() -> int:
    """Bytes that may be written at once: half of the free disk, and not more than the limit."""
    folder = cache_root()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    room = int(FREE_SHARE * shutil.disk_usage(folder).free)
    limit = limit_bytes()
    return room if limit is None else min(room, limit)


def has_room(kind: CacheKind, needed_bytes: int) -> bool:
    """Whether entries of a size can be written; a line says so where they cannot."""
    room = room_bytes() if needed_bytes else 0
    if needed_bytes <= room:
        return True
    logger.warning(
        "The %s would take %s and the cache has room for %s, so they are computed each time; free "
        "disk space, or raise VALENCE_CACHE_LIMIT",
        kind.description, readable_bytes(needed_bytes), readable_bytes(room),
    )  # fmt: skip
    return False


def readable_bytes(count: int) -> str:
    """``1536`` → ``1.5 KiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _evict(limit: int | None) -> None:
    """Delete what was not used for the longest time, until the cache is within its limit.

    What cannot be made again stays, and so does what was used since this process began.
    """
    if limit is None:
        return
    there = entries()
    over = sum(entry.size for entry in there) - limit
    deleted: list[Entry] = []
    for entry in there:
        if over <= 0 or entry.used >= _STARTED:
            break
        kind = KINDS.get(entry.kind_name)
        if kind is not None and kind.recomputable and _delete(entry.path):
            over -= entry.size
            deleted.append(entry)
    if deleted:
        freed = readable_bytes(sum(entry.size for entry in deleted))
        logger.warning(
            "The cache was above its limit of %s: %d entries (%s) least recently used were "
            "deleted; change the limit with VALENCE_CACHE_LIMIT",
            readable_bytes(limit), len(deleted), freed,
        )  # fmt: skip


def _delete(folder: Path) -> bool:
    """Delete an entry unless a process holds it."""
    if folder in _in_use:
        return False
    try:
        import fcntl

        with (folder / ABOUT).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, ImportError):  # it is gone, or nothing can be held here
        pass
    return atomic.remove(folder)


def _entry(folder: Path) -> Entry | None:
    """What is known of an entry; None where it is not whole, or was deleted meanwhile."""
    try:
        used = (folder / ABOUT).stat().st_mtime
        size = sum(file.stat().st_size for file in _listed(folder))
        raw = (folder / ABOUT).read_bytes()
    except OSError:
        return None
    try:
        about = json.loads(raw)
    except ValueError:
        about = None
    about = about if isinstance(about, dict) else {}
    return Entry(folder.parent.name, folder.name, size, used, about, folder)


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, by name, without what is unfinished; nothing where it is gone."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [folder / name for name in names if not name.startswith(atomic.TEMPORARY)]
