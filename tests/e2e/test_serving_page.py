"""Every command of docs/serving.md works as written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from tests.conftest import make_reviews
from tests.pages import commands, give, serve_and_ask

COMMANDS = commands("docs/serving.md")
SERVES = [c for c in COMMANDS if c.startswith("valence serve")]
CURLS = [c for c in COMMANDS if c.startswith("curl")]


def test_every_command_is_of_a_known_kind() -> None:
    for command in COMMANDS:
        known = ("pip install", "valence train", "valence serve", "valence push", "curl")
        assert command.startswith(known), command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page")
    make_reviews(140).to_csv(place / "reviews.csv", index=False)
    (place / "keys.txt").write_text("a-key-of-the-page\n")
    return place


def test_train(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (command,) = [c for c in COMMANDS if c.startswith("valence train")]
    assert give(shlex.split(command), monkeypatch) == 0
    assert (folder / "models/reviews/README.md").exists()


@pytest.mark.parametrize("command", SERVES)
def test_serve_and_curl(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    code, statuses = serve_and_ask(command, CURLS, monkeypatch, key="a-key-of-the-page")
    assert code == 0, capsys.readouterr().err
    assert statuses == [200] * len(CURLS)


def test_push_without_a_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (command,) = [c for c in COMMANDS if c.startswith("valence push")]
    assert give(shlex.split(command), monkeypatch) == 1
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
