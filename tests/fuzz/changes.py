"""What the fuzz targets do to inputs, and what they hold every answer to."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from valence.errors import ValenceError

FEW, MANY = 40, 2000
LONGEST_SECONDS = 5.0
LONGEST_MESSAGE = 2000


def changed_bytes(raw: bytes, draw: random.Random, pieces: list[bytes]) -> bytes:
    """Some bytes replaced, doubled, cut out, or put in."""
    own = bytearray(raw)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(own) + 1)
        way = draw.random()
        if way < 0.3 and at < len(own):
            own[at] = draw.randrange(256)
        elif way < 0.6:
            own[at : at + draw.choice([0, 0, 1, 4, 40])] = draw.choice(pieces)
        elif way < 0.7:
            del own[at:]
        elif way < 0.85:
            del own[at : at + draw.randint(1, 30)]
        else:
            own[at:at] = own[at : at + draw.randint(1, 200)]
    return bytes(own)


def tried(call: Callable[[], object]) -> str:
    """What became of an input: ``value`` or ``refused``; anything else is a fault."""
    clock, work = time.monotonic(), time.process_time()
    try:
        call()
    except ValenceError as error:
        message = str(error)
        assert message
        assert "\n" not in message, message
        assert len(message) < LONGEST_MESSAGE
        outcome = "refused"
    else:
        outcome = "value"
    # Others may use the machine, and what waits for ever does not work.
    assert time.process_time() - work < LONGEST_SECONDS, "it took long"
    assert time.monotonic() - clock < 4 * LONGEST_SECONDS, "it waited"
    return outcome


def outcomes_of(count: int, one: Callable[[random.Random], str]) -> set[str]:
    """The outcomes of many seeds; a fault is raised with its seed.

    With ``VALENCE_FUZZ_FAULTS``, a file, faults are written there and the next seed is tried.
    """
    outcomes = set()
    faults = os.environ.get("VALENCE_FUZZ_FAULTS")
    for seed in range(count):
        try:
            outcomes.add(one(random.Random(seed)))
        except Exception as error:
            if not faults:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
            with Path(faults).open("a", encoding="utf-8") as file:
                file.write(f"{one.__module__} {seed} {type(error).__name__} {str(error)[:300]!r}\n")
    return outcomes
