"""What is installed: every package by a version and hashes, and one version in all files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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


def instructions(word: str) -> list[str]:
    """The arguments of each instruction of the Dockerfile of that name."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.removeprefix(f"{word} ") for line in text.splitlines() if line.startswith(word)]


def test_the_image_is_built_by_hashes() -> None:
    installs = [line for line in instructions("RUN") if "pip install" in line]
    assert ["--require-hashes" in line for line in installs] == [True, False]
    assert "-r requirements-serve.txt" in installs[0]
    assert "--no-deps --no-build-isolation ." in installs[1]
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    names = {plain(re.split(r"[<>=!~ ;]", line)[0]) for line in backend["requires"]}
    assert names <= set(pins("requirements-serve.txt"))


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    copied = [line.split() for line in instructions("COPY") if not line.startswith("--from")]
    sources = {source for *own, _ in copied for source in own}
    assert {"requirements-serve.txt", "src"} <= sources
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {project["readme"], *project.get("license-files", [])} <= sources


def test_every_stage_of_the_image_is_on_a_base_named_by_digest() -> None:
    assert instructions("ARG") == ["BASE"], "no default: a tag is no name of bytes"
    assert {line.split()[0] for line in instructions("FROM")} == {"$BASE"}
    assert "build:" not in (ROOT / "compose.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("base", [None, "python:3.11-slim@sha256:" + "b" * 64])
def test_the_script_of_the_image_names_the_digest(base: str | None, tmp_path: Path) -> None:
    done, calls, written = run_image_script(tmp_path, base)
    name = base or "python:3.11-slim@sha256:" + "a" * 64
    assert done.returncode == 0, done.stderr
    assert f"--build-arg BASE={name}" in calls
    assert written == f"{name}\n"


@pytest.mark.parametrize("base", ["python:3.11-slim", "python@sha256:abc", "python:3.11@sha256:"])
def test_the_script_of_the_image_refuses_a_base_without_a_digest(base: str, tmp_path: Path) -> None:
    done, calls, written = run_image_script(tmp_path, base)
    assert (done.returncode, calls, written) == (1, "", "")
    assert "without a digest; set BASE=python:3.11-slim@sha256:" in done.stderr


def run_image_script(
    folder: Path, base: str | None
) -> tuple[subprocess.CompletedProcess[str], str, str]:
    """What ``.ci/image`` does where ``docker`` only writes down how it is called."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "image", folder / ".ci" / "image")
    docker = folder / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        '#!/bin/sh\n[ "$2" = imagetools ] && echo sha256:' + "a" * 64 + " && exit\n"
        f'echo "$@" >> {folder}/calls\n'
    )
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}"}
    environment.pop("BASE", None)
    if base is not None:
        environment["BASE"] = base
    done = subprocess.run(
        [folder / ".ci" / "image"], env=environment, capture_output=True, text=True, check=False
    )
    read = [path.read_text() if path.exists() else ""
            for path in (folder / "calls", folder / "dist" / "image-base.txt")]  # fmt: skip
    return done, read[0], read[1]
