"""What is installed: every package by a version and hashes, and one version in all files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;+\\]+)(?:\+cpu)?", re.MULTILINE)
FILES = ("requirements-dev.txt", "requirements-serve.txt")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return {plain(name): version for name, version in PIN.findall(text)}


def required(extra: str | None = None) -> set[str]:
    """Names that pyproject.toml requires, those of extras that an extra names among them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    extras = [extra] if extra else []
    while extras:
        for line in project["optional-dependencies"][extras.pop()]:
            if found := re.match(r"valence\[(.*)\]", line):
                extras += found[1].split(",")
            else:
                lines.append(line)
    return {plain(re.split(r"[\[<>=!~ ;]", line)[0]) for line in lines}


@pytest.mark.parametrize("file", FILES)
def test_every_package_has_a_version_and_hashes(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.split("\n", 1)[1])
    assert len(entries) > 50
    for entry in entries:
        assert PIN.match(entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]


@pytest.mark.parametrize(("file", "extra"), list(zip(FILES, ("dev", "serve"), strict=True)))
def test_all_that_is_required_is_in_it(file: str, extra: str) -> None:
    assert required(extra) - set(pins(file)) == set()


@pytest.mark.parametrize("file", FILES)
def test_versions_are_those_of_the_constraints(file: str) -> None:
    constraints = pins("constraints.txt")
    assert {name: constraints.get(name) for name in pins(file)} == pins(file)


def test_the_image_is_built_by_hashes() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes" in text
    assert "--no-deps --no-build-isolation ." in text
    assert "requirements-serve.txt" in (ROOT / ".dockerignore").read_text(encoding="utf-8")
