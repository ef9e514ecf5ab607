"""Files and folders that appear whole or not at all.

What is written goes under a name of this process beside its target, is flushed to the disk, gets
the modes that the umask allows (libraries that write through temporary files leave 0600, which
nobody but their writer can read), and then takes the target's name in one step. An error leaves
what was there before; what a kill leaves behind is deleted by the next process that writes into
the same folder.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

from valence.errors import RunError

Existing = Literal["replace", "keep"]

TEMPORARY = ".valence-"
"""Begins the names of what is not whole yet."""
_LEFTOVER = re.compile(rf"{re.escape(TEMPORARY)}(?P<machine>[0-9a-f]+)-(?P<pid>\d+)-\d+-.*")
_TAIL = 40  # characters of the target's name; a file system takes 255 bytes in all
_ABANDONED_SECONDS = 7 * 24 * 3600
_ATTEMPTS = 20  # of putting a folder where other processes put theirs
_count = itertools.count()
_swept: set[Path] = set()


@contextmanager
def new_file(path: str | Path, *, advice: str = "", durable: bool = True) -> Iterator[Path]:
    """A temporary file to write; it takes its target's name when the block ends without an error.

    A link is followed, and a device or a pipe is written directly.

    Args:
        path: The target; its folder is made. The temporary name ends like the target's, so that
            libraries that go by the suffix write the same format.
        advice: What to do about a disk that refuses, added to the error.
        durable: Whether to wait for the disk; not needed for what is cheap to write again.

    Raises:
        RunError: if the disk refuses (full, read-only).
    """
    target = _followed(Path(path))
    scratch = _temporary(target)
    with _refusals(target, scratch, advice):
        if target.exists() and not target.is_file() and not target.is_dir():
            yield target
            return
        try:
            _prepare(target)
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder; use a file name")
            scratch.touch(exist_ok=False)
            mode = scratch.stat().st_mode
            yield scratch
            _finish_file(scratch, mode, durable=durable)
            os.replace(scratch, target)
            if durable:
                _sync(target.parent)
        finally:
            _delete(scratch)


def write_text(path: str | Path, text: str, *, advice: str = "", durable: bool = True) -> None:
    """Give a file new contents, in UTF-8, all or none.

    Raises:
        RunError: if the disk refuses.
    """
    with new_file(path, advice=advice, durable=durable) as scratch:
        scratch.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(
    path: str | Path, *, existing: Existing = "replace", marker: str = "", advice: str = ""
) -> Iterator[Path]:
    """A temporary folder to fill; it takes its target's place when the block ends without an error.

    Args:
        path: The target.
        existing: Whether a folder that is there by then is replaced, or kept in place of this.
        marker: A file that shows that a folder in the target's place is one of ours; others are
            refused unless they are empty. Without it every folder is replaced.
        advice: What to do about a disk that refuses, added to the error.

    Raises:
        RunError: if the disk refuses (full, read-only), or the target holds something else.
    """
    target = _followed(Path(path))
    scratch = _temporary(target)
    with _refusals(target, scratch, advice):
        try:
            _prepare(target)
            refuse_foreign(target, marker)
            scratch.mkdir()
            yield scratch
            _publish(scratch, target, existing)
        finally:
            _delete(scratch)


def publish_folder(
    folder: str | Path, path: str | Path, *, marker: str = "", advice: str = ""
) -> None:
    """Move a folder that is whole to its target, as :func:`new_folder` does.

    Args:
        folder: On the same disk as the target; it is gone afterwards.
        path: The target; a folder that is there is replaced.
        marker: As for :func:`new_folder`.
        advice: As for :func:`new_folder`.

    Raises:
        RunError: if the disk refuses, or the target holds something else.
    """
    source, target = Path(folder), _followed(Path(path))
    with _refusals(target, source, advice):
        _prepare(target)
        refuse_foreign(target, marker)
        _publish(source, target, "replace")


def remove_file(path: Path) -> None:
    """Delete a file that need not be there.

    Raises:
        RunError: if it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"Cannot delete {path}: {error.strerror or error}") from error


def sweep(folder: Path) -> None:
    """Delete what killed processes have left unfinished in a folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        left = _LEFTOVER.fullmatch(name)
        if left and _is_abandoned(folder / name, left["machine"], int(left["pid"])):
            _delete(folder / name)


def remove(folder: Path) -> bool:
    """Delete a folder that others may be reading: at once out of its name, then its files.

    Returns:
        Whether it is gone.
    """
    hidden = _temporary(folder)
    try:
        os.replace(folder, hidden)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    _delete(hidden)
    return True


def _followed(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _temporary(target: Path) -> Path:
    name = f"{TEMPORARY}{_machine()}-{os.getpid()}-{next(_count)}-{target.name[-_TAIL:]}"
    return target.with_name(name)


@functools.cache
def _machine() -> str:
    """Names the processes among which a pid means something: of a machine or a container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.blake2b(f"{platform.node()} {space}".encode(), digest_size=4).hexdigest()


def _is_abandoned(path: Path, machine: str, pid: int) -> bool:
    if machine == _machine():
        return not _is_alive(pid)
    try:  # of another machine only its age is known
        return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there, no signal only asks
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _prepare(target: Path) -> None:
    """Make the parent folder, and once per process clear what killed processes left in it."""
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    if parent not in _swept:
        _swept.add(parent)
        sweep(parent)


def refuse_foreign(target: Path, marker: str) -> None:
    """Refuse a target that :func:`new_folder` must not replace, before the work and not after it.

    Raises:
        RunError: if it is a folder with other files and without ``marker``.
        NotADirectoryError: if it is a file.
    """
    try:
        names = os.listdir(target)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise NotADirectoryError(errno.ENOTDIR, "it is a file; use a folder") from None
    if marker and names and marker not in names:
        raise RunError(
            f"Cannot write {target}: it is not empty and has no {marker}; use an empty or new "
            "folder"
        )


def _finish_file(path: Path, mode: int, *, durable: bool) -> None:
    """Give a file its mode and, if it is to be durable, wait until the disk has it."""
    current = path.stat().st_mode
    if stat.S_IMODE(current) != stat.S_IMODE(mode):
        with suppress(OSError):  # a file system that knows no modes
            path.chmod(stat.S_IMODE(mode))
    if durable:
        _sync(path)


def _publish(folder: Path, target: Path, existing: Existing) -> None:
    probe = _temporary(target)
    probe.mkdir()
    mode = probe.stat().st_mode
    probe.rmdir()
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(root, name)
            if not path.is_symlink():
                _finish_file(path, mode & 0o666, durable=True)
        _finish_file(Path(root), mode, durable=True)
    if existing == "replace":
        _take_place(folder, target)
    else:
        try:
            os.replace(folder, target)
        except OSError as error:
            if not _is_taken(error):
                raise
    _sync(target.parent)


def _take_place(folder: Path, target: Path) -> None:
    """Rename a folder to the target's name; what was there goes only when that has worked."""
    for attempt in range(_ATTEMPTS):
        before = _temporary(target)
        with suppress(FileNotFoundError):
            os.replace(target, before)
        try:
            os.replace(folder, target)
        except BaseException as error:
            _put_back(before, target)
            if not _is_taken(error) or attempt == _ATTEMPTS - 1:
                raise
        else:
            _delete(before)
            return


def _put_back(before: Path, target: Path) -> None:
    try:
        os.replace(before, target)
    except OSError as error:
        if _is_taken(error):  # another process has put its own there meanwhile
            _delete(before)


def _is_taken(error: BaseException) -> bool:
    """Whether a rename failed because of a folder that is there already."""
    return isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST)


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    if os.name == "nt" and path.is_dir():  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without fsync
            raise
    finally:
        os.close(handle)


def _delete(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _refusals(target: Path, scratch: Path, advice: str) -> Iterator[None]:
    """What the disk refuses is said in one line that names the target."""
    try:
        yield
    except OSError as error:
        reason = reason_of(error)
        name = error.filename
        other = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else target
        if other != target and not other.is_relative_to(scratch):
            reason = f"{reason}: {other}"
        raise RunError(_line(target, reason, advice)) from error
    except SafetensorError as error:
        reason = (str(error).strip().splitlines() or ["refused"])[0]
        plain = re.search(r"I/O error: (.*?) \(os error", reason)
        raise RunError(_line(target, plain[1] if plain else reason[:160], advice)) from error


def reason_of(error: OSError) -> str:
    """Why the disk refuses, in a few words; of a copied folder, the first file's reason."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        failures = error.args[0]
        first = failures[0] if failures else ""
        source, why = (first[0], first[-1]) if isinstance(first, tuple) else ("", first)
        plain = re.sub(r"^\[Errno \d+\] ([^:]+).*", r"\1", str(why))
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return f"{plain}: {source}{more}" if source else f"{plain}{more}"
    return error.strerror or str(error)


def _line(target: Path, reason: str, advice: str) -> str:
    return f"Cannot write {target}: {reason}{f'; {advice}' if advice else ''}"
