"""The streams of the command line: any encoding, a full disk, a closed end, control characters."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from valence.errors import RunError

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that a terminal obeys rather than shows; tab and line feed are left."""
_SHORT = {"\r": r"\r"}
_CELL = str.maketrans({"\n": r"\n", "\t": r"\t"})


def visible(text: str) -> str:
    r"""The text with control characters as they are written in a program: ``\x1b``."""
    if text.isprintable():
        return text
    return CONTROL.sub(lambda match: _SHORT.get(match[0], f"\\x{ord(match[0]):02x}"), text)


def visible_cell(text: str) -> str:
    """The same of a cell of a table, which has one line and no tab."""
    return text if text.isprintable() else visible(text).translate(_CELL)


class Output:
    """A stdout whose failures are one line and an exit code.

    Args:
        stream: The stdout; None where it was closed before the start.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, or say why not.

        Raises:
            RunError: if the other end is full or closed.
            BrokenPipeError: if its reader has gone.
        """
        with _said():
            return self._open().write(text)

    def flush(self) -> None:
        """Hand on what is written.

        Raises:
            RunError, BrokenPipeError: as :meth:`write`.
        """
        if self.stream is not None:
            with _said():
                self.stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self.stream is not None and self.stream.isatty()

    def _open(self) -> TextIO:
        if self.stream is None:
            raise OSError(errno.EBADF, "it is closed")
        return self.stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream if self.stream is not None else io.StringIO(), name)


class Notes:
    """A stderr that nothing depends on: what cannot be written there is lost."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write if it can be."""
        with suppress(OSError):
            return self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what is written, if it can be."""
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(
            f"Cannot write to standard output: {error.strerror or error}; write to another place"
        ) from None


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Put streams in place that any text can be written to; the old ones come back."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = cast(TextIO, Output(sys.stdout))
    # Null has no end that could be full; it stays open, as stderr does.
    errors = sys.stderr if sys.stderr is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = cast(TextIO, Notes(errors))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def give_up_stdout() -> None:
    """Send what is still in the buffer nowhere, or the interpreter would complain at its end."""
    stream = sys.stdout.stream if isinstance(sys.stdout, Output) else sys.stdout
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, cast(TextIO, stream).fileno())
        os.close(null)
