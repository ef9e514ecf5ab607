"""Settings of strangers: aliases, depth, values that are not what they say."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from valence.comparison.grid import read_comparison
from valence.config.overrides import parse_setting
from valence.config.yaml_text import MOST_CHARACTERS, parse_yaml
from valence.errors import SpecError


def laughs(levels: int, times: int, kind: str = "list") -> str:
    """Each level names the one before so many times."""
    lines = ["a0: &a0 [x, x]" if kind == "list" else "a0: &a0 {k: x}"]
    for i in range(1, levels):
        names = ", ".join([f"*a{i - 1}"] * times)
        if kind == "merge":
            lines.append(f"a{i}: &a{i} {{<<: [{names}]}}")
        elif kind == "map":
            keys = ", ".join(f"k{k}: *a{i - 1}" for k in range(times))
            lines.append(f"a{i}: &a{i} {{{keys}}}")
        else:
            lines.append(f"a{i}: &a{i} [{names}]")
    return "\n".join(lines) + f"\nmethod: *a{levels - 1}\n"


BOMBS = {
    "lists": laughs(9, 9),
    "many levels": laughs(30, 2),
    "wide": laughs(3, 400),
    "maps": laughs(12, 6, "map"),
    "merges": laughs(20, 4, "merge"),
    "itself": "method: &a [*a, *a]",
    "itself in a map": "method: &a {k: *a}",
    "deep lists": "method: " + "[" * 5000,
    "deep closed": "method: " + "[" * 5000 + "]" * 5000,
    "deep maps": "{a: " * 3000,
    "deep blocks": "\n".join(" " * i + "a:" for i in range(400)),
    "deep dashes": "- " * 3000,
    "deep aliases": "\n".join(
        ["a0: &a0 [x]", *(f"a{i}: &a{i} [[*a{i - 1}]]" for i in range(1, 60))]
    ),
    "long": "# " + "x" * MOST_CHARACTERS,
    "values": "a: [" + "1," * 40_000 + "]",
    "a huge number": "seed: " + "9" * 6000,
    "a date that is none": "seed: 2026-99-99",
    "no integer": "seed: !!int x",
    "no truth": "seed: !!bool x",
    "no time": "seed: !!timestamp x",
    "empty integer": "seed: !!int ''",
    "python": "seed: !!python/object/apply:os.system ['true']",
    "a list as key": "? [a]\n: b",
    "control": "seed: \x07",
    "two documents": "a: 1\n---\nb: 2",
    "an unknown alias": "a: *b",
}


@pytest.mark.parametrize("name", BOMBS)
def test_every_bomb_is_one_line(name: str, tmp_path: Path) -> None:
    clock = time.process_time()
    with pytest.raises(SpecError) as refused:
        parse_yaml(BOMBS[name], where="spec.yaml")
    assert time.process_time() - clock < 10
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)
    assert len(BOMBS["lists"]) < 600
    path = tmp_path / "sweep.yaml"
    path.write_text(BOMBS[name])
    with pytest.raises(SpecError):
        read_comparison(path)


def test_honest_anchors_are_read() -> None:
    text = "base: &base {epochs: 3, rate: 0.1}\na: *base\nb: {<<: *base, epochs: 5}\nc: [*base]"
    values = parse_yaml(text, where="x")
    assert values["b"] == {"epochs": 5, "rate": 0.1}
    assert values["a"] is values["c"][0]


def test_an_endless_file_is_not_read(tmp_path: Path, valence) -> None:  # type: ignore[no-untyped-def]
    code, _, said = valence("train", "demo", "--config", "/dev/zero", "--out", tmp_path / "m")
    assert (code, "longer than" in said) == (1, True)


def test_a_setting_is_a_value(tmp_path: Path) -> None:
    for value in ("[" * 5000, "&a [*a]", "9" * 6000, "!!int x"):
        with pytest.raises(SpecError):
            parse_setting(f"train.epochs={value}")
