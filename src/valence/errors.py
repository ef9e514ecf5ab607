"""The errors a user can meet.

Every message is one line that says what happened, where, and what to do::

    ValenceError
    ├── SpecError            a setting is wrong
    │   └── UnknownNameError a name is in no table; the closest known one is offered
    ├── DataError            a file, column, label or text cannot be used
    ├── ModelError           an encoder or a model folder cannot be used
    └── RunError             a run could not be carried out or kept
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST_NAME = 200
LONGEST, BEGINNING, END = 1500, 900, 500
"""Characters of a message; of a longer one, what remains."""


def one_line(message: str) -> str:
    """A message in one line of a bearable length, whatever names and values are quoted in it."""
    plain = message if message.isprintable() else "".join(map(_shown, message))
    return plain if len(plain) <= LONGEST else f"{plain[:BEGINNING]} … {plain[-END:]}"


def _shown(sign: str) -> str:
    return sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii")


class ValenceError(Exception):
    """Base of all errors that Valence raises on purpose.

    Args:
        message: One line; what is none is made one.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class SpecError(ValenceError):
    """A setting has a wrong name, type or value."""


class UnknownNameError(SpecError):
    """A name is in no table.

    Args:
        kind: What was requested, for example ``"method"``.
        name: The unknown name.
        known: The names of the table.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name[:LONGEST_NAME], names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
        super().__init__(f"Unknown {kind} {name!r}; {hint}")


class DataError(ValenceError):
    """A file, column, label or text cannot be used."""


class ModelError(ValenceError):
    """An encoder or a saved model folder cannot be used."""


class RunError(ValenceError):
    """A run could not be carried out or its result could not be kept."""
