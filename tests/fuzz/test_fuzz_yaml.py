"""YAML of any shape: a value or one line, soon."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from valence.config.overrides import parse_setting
from valence.config.yaml_text import parse_yaml
from valence.errors import ValenceError
from valence.methods.registry import read_spec

FEW, MANY = 60, 2000
LONGEST_SECONDS = 5.0
PIECES = [
    "a: ", "method: ", "config:\n  ", "data:\n  name: demo\n", "train.epochs: 3\n", "- ", "? ",
    "&a ", "*a ", "*b", "<<: *a\n", "!!int ", "!!float ", "!!timestamp ", "!!binary ", "!!set ",
    "!!omap ", "!!python/object:os.x ", "[", "]", "{", "}", ",", ": ", "\n", "\n  ", "\n    ",
    "|\n", ">-\n", "'", '"', "\\", "# c\n", "---\n", "...\n", "%YAML 1.1\n", "\t", "\x00",
    "\x85", "\ufeff", "1e999", ".nan", "0x" + "f" * 50, "9" * 5000, "1:60:60", "2026-99-99",
    "2026-01-01T00:00:00Z",
    "null", "yes", "~", "größer", "🙂", "seed: -1\n", "[" * 60, "{a: " * 60, "- " * 60,
    "&x [*x]", "tf-idf", "tfidf-lr", "lora",
]  # fmt: skip
SPEC = "method: tfidf-lr\nseed: 1\ndata:\n  name: demo\nconfig:\n  head:\n    kind: linear\n"


def made(draw: random.Random) -> str:
    """Pieces of YAML, or a spec with some characters changed."""
    if draw.random() < 0.3:
        text = list(SPEC)
        for _ in range(draw.randint(1, 12)):
            at = draw.randrange(len(text))
            text[at : at + draw.randint(0, 3)] = draw.choice(PIECES)
        return "".join(text)
    return "".join(draw.choices(PIECES, k=draw.randint(1, 80)))


def tried(text: str) -> str:
    """What became of a text: ``value`` or ``refused``; anything else is a fault."""
    said = [""]
    for call in (
        lambda: parse_yaml(text, where="x.yaml"), lambda: read_spec(text),
        lambda: parse_setting(f"seed={text}"),
    ):  # fmt: skip
        clock = time.monotonic()
        try:
            call()
        except ValenceError as error:
            said.append(str(error))
        assert time.monotonic() - clock < LONGEST_SECONDS, repr(text)[:500]
    assert max(map(len, said)) < 2000
    return "refused" if any(said) else "value"


def outcomes_of(count: int) -> set[str]:
    outcomes = set()
    for seed in range(count):
        text = made(random.Random(seed))
        try:
            outcomes.add(tried(text))
        except Exception as error:
            if path := os.environ.get("VALENCE_FUZZ_FAULTS"):
                Path(path).write_text(text, encoding="utf-8", errors="surrogatepass")
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {text[:300]!r}") from error
    return outcomes


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_text_is_a_value_or_refused(count: int) -> None:
    assert outcomes_of(count) == {"value", "refused"}
