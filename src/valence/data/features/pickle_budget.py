"""What a pickle would cost to read, counted before it is read.

A few bytes can ask for gigabytes: a memo of 2^28 places, or tuples that hold each other over and
over and are hashed as keys. An honest file needs no more places than it has instructions, and its
keys are short.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

WORK_PER_INSTRUCTION = 50
FREE_WORK = 1_000_000
_MARK = -1
_HASHED = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", "REDUCE")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")


class TooCostly(Exception):
    """Reading a pickle would take memory or time beyond its size."""


@dataclass(frozen=True)
class _Effect:
    """What an instruction takes from the stack and puts on it."""

    takes: int
    to_mark: bool
    gives: int


def _effect(opcode: pickletools.OpcodeInfo) -> _Effect:
    names = [kind.name for kind in opcode.stack_before]
    own = [name for name in names if name not in ("mark", "stackslice")]
    # What OBJ calls lies above the mark, in the slice.
    takes = 0 if names[:1] == ["mark"] else len(own)
    return _Effect(takes, "stackslice" in names, len(opcode.stack_after))


_EFFECTS = {opcode.name: _effect(opcode) for opcode in pickletools.opcodes}


class _Machine:
    """The stack of a pickle, of which only the size of each value is known."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.memo: dict[int, int] = {}
        self.instructions = 0
        self.work = 0

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        self.instructions += 1
        top = self.stack[-1] if self.stack else 1
        if name in _PUTS or name == "MEMOIZE":
            place = len(self.memo) if name == "MEMOIZE" else int(argument)
            if place > self.instructions:
                raise TooCostly(f"place {place} of a memo after {self.instructions} instructions")
            self.memo[place] = top
        elif name in _GETS:
            self.stack.append(self.memo.get(int(argument), 1))
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "DUP":
            self.stack.append(top)
        else:
            self._change(name, _EFFECTS[name])

    def _change(self, name: str, effect: _Effect) -> None:
        taken = 0
        while effect.to_mark and self.stack and (size := self.stack.pop()) != _MARK:
            taken += size
        for _ in range(effect.takes):
            taken += max(0, self.stack.pop()) if self.stack else 0
        self.work += taken
        if self.work > FREE_WORK + WORK_PER_INSTRUCTION * self.instructions:
            raise TooCostly("values that hold each other over and over")
        self.stack += [1 + taken if name in _HASHED else 1] * effect.gives


def check_budget(stream: Any) -> None:
    """Refuse a pickle that would cost more than its size; the stream is put back.

    Args:
        stream: An opened file at the beginning of the pickle, which can be put back.

    Raises:
        TooCostly: saying what it asks for.
        ValueError: if it is broken.
    """
    start = stream.tell()
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(cast(BinaryIO, stream)):
        machine.step(opcode.name, argument)
    stream.seek(start)
