"""Contracts of every command: it explains itself, and so does every option."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
import pytest
import typer

from valence import cli


def walk(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*words, name))


ROOT = typer.main.get_command(cli.app)
COMMANDS = list(walk(ROOT))


def find(words: tuple[str, ...]) -> click.Command:
    found = ROOT
    for word in words:
        found = found.commands[word]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_shown(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["valence", *words, "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert not ended.value.code, shown.err
    assert "Usage: valence" in shown.out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_is(words: tuple[str, ...]) -> None:
    command = find(words)
    assert command.help
    mute = [p.name for p in command.params if not getattr(p, "help", None)]
    assert not [name for name in mute if name not in {"install_completion", "show_completion"}]


@pytest.mark.parametrize(
    ("words", "transfer"),
    [
        ([], None),
        (["--transfer"], "matrix"),
        (["--transfer", "--quiet"], "matrix"),
        (["--transfer", "leave-one-out"], "leave-one-out"),
    ],
)
def test_compare_takes_nothing_and_a_bare_transfer(words: list[str], transfer: str | None) -> None:
    context = find(("compare",)).make_context("compare", list(words))
    found = context.params["transfer"]
    assert (None if found in (None, "none") else found) == transfer
