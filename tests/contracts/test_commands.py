"""Contracts of every command: it explains itself, and shared options are the same everywhere."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest
import typer

from valence import cli
from valence.cli.options import (
    HardwareOptions,
    ModelHardware,
    OptionGroup,
    OutputOptions,
    RowOptions,
    RunsOptions,
    TextOptions,
    TrainingHardware,
    with_groups,
)


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


LEAVES = [" ".join(words) for words in COMMANDS if not getattr(find(words), "commands", {})]

READERS: dict[type[OptionGroup] | None, set[str]] = {
    RowOptions: {
        "audit", "calibrate", "compare", "data import", "data longtail",
        "data merge", "data readiness",
        "data show", "evaluate", "explain", "export", "fit", "label", "llm classify",
        "llm instructions",
        "reproduce", "train",
        "tune",
    },
    TextOptions: {"llm finetune", "predict"},
    None: {
        "cache clear", "cache ls", "data list", "doctor", "encoders", "features cards",
        "features convert", "features extract", "features show", "import-model", "llm merge",
        "methods", "push",
        "serve",
    },
}  # fmt: skip
"""The commands that read labeled rows, texts alone, or neither; features are made of clips."""

HARDWARE: dict[type[OptionGroup] | None, dict[str, str]] = {
    ModelHardware: {
        "calibrate": "nowhere", "evaluate": "nowhere rows.csv", "explain": "nowhere text",
        "predict": "nowhere text", "serve": "nowhere",
    },
    TrainingHardware: {
        "compare": "demo --methods majority,tfidf-lr --seeds 1",
        "fit": "demo --out model",
        "llm finetune": "records --out adapter --model causal",
        "reproduce": "sharprecl --only trec --methods majority --seeds 1",
        "train": "demo --method majority --out model",
        "tune": "demo --method tfidf-lr --trials 1",
    },
    HardwareOptions: {
        "llm classify": "demo --model causal", "llm instructions": "demo --out records",
        "llm merge": "adapter --out model",
    },
    None: dict.fromkeys(
        [
            "audit", "cache clear", "cache ls", "data import", "data list", "data longtail",
        "data merge",
            "data readiness", "data show", "doctor", "encoders", "export", "features cards",
            "features convert", "features extract", "features show", "import-model", "label",
            "methods", "push",
        ],
        "",
    ),
}  # fmt: skip
"""What every command computes with, and words that call it; exports are made on the CPU."""

OUTPUT: dict[type[OptionGroup] | None, set[str]] = {
    RunsOptions: {"compare", "fit", "llm classify", "reproduce", "train", "tune"},
    OutputOptions: {
        "audit", "calibrate", "data import", "data longtail",
        "data merge", "data readiness", "data show",
        "evaluate", "explain", "export", "features convert", "features extract", "features show",
        "import-model", "label", "llm finetune", "llm instructions", "predict",
    },
    None: {
        "cache clear", "cache ls", "data list", "doctor", "encoders", "features cards",
        "llm merge", "methods", "push", "serve",
    },
}  # fmt: skip

TABLES = {"readers": READERS, "hardware": HARDWARE, "output": OUTPUT}
OTHER_FLAGS = {("data import", "table"): "--from-table"}  # its --table is where rows go
SHARED = [
    (name, group)
    for table in TABLES.values()
    for group, names in table.items()
    if group is not None
    for name in sorted(names)
]


def options_of(group: type[OptionGroup]) -> dict[str, click.Parameter]:
    """The options of a group, by field, as typer makes them."""

    def command(own: OptionGroup) -> None:
        """Takes the group."""

    command.__annotations__["own"] = group
    app = typer.Typer(add_completion=False)
    app.command()(with_groups(command))
    return {str(one.name): one for one in typer.main.get_command(app).params}


@pytest.mark.parametrize("table", TABLES)
def test_every_command_is_in_one_list(table: str) -> None:
    named = [name for names in TABLES[table].values() for name in names]
    assert sorted(named) == sorted(LEAVES), "a command is in no list, or in two"


@pytest.mark.parametrize(("name", "group"), SHARED, ids=lambda x: getattr(x, "__name__", x))
def test_options_of_a_group_are_the_same_everywhere(name: str, group: type[OptionGroup]) -> None:
    own = {one.name: one for one in find(tuple(name.split())).params}
    for field, option in options_of(group).items():
        if field == "help" or getattr(option, "hidden", False):
            continue
        other = own[field]
        flags = [OTHER_FLAGS.get((name, field), option.opts[0]), *option.opts[1:]]
        assert other.opts == flags, (name, field)
        for what in ("help", "envvar", "multiple", "nargs", "rich_help_panel"):
            assert getattr(other, what) == getattr(option, what), (name, field, what)


@pytest.mark.parametrize("name", LEAVES)
def test_no_command_has_options_of_a_group_that_it_is_not_in(name: str) -> None:
    """An option that a command does not read would be taken and change nothing."""
    own = {one.name for one in find(tuple(name.split())).params}
    in_groups = {group for n, group in SHARED if n == name}
    meant = {field.name for group in in_groups for field in fields(group)}
    every = (RowOptions, ModelHardware)
    foreign = {field.name for group in every for field in fields(group)} - meant
    allowed = {"encoding"} if name == "features extract" else set()
    allowed |= {"set_"} if name == "llm finetune" else set()  # of its own settings
    assert own & foreign <= allowed


OWN_MEANING = {
    "--budget", "--config", "--dry-run", "--labels", "--language", "--max-length", "--model",
    "--out", "--seed",
    "--set",
    "--split",
    "--table", "--target-prior", "--template", "--text", "--to", "--workers",
}  # fmt: skip
"""Options of several commands whose help is not one: each says what it is there."""


def test_an_option_of_several_commands_says_the_same() -> None:
    texts: dict[str, set[str]] = {}
    for name in LEAVES:
        for one in find(tuple(name.split())).params:
            if one.opts[0].startswith("--"):
                texts.setdefault(one.opts[0], set()).add(str(getattr(one, "help", "")))
    assert {name for name, helps in texts.items() if len(helps) > 1} == OWN_MEANING


DEVICES = [
    f"{name} {words}".split()
    for group, commands in HARDWARE.items()
    if group is not None
    for name, words in commands.items()
]


@pytest.mark.parametrize(
    "words", [*DEVICES, ["train", "demo", "--method", "tfidf-lr", "--out", "model"]], ids=" ".join
)
def test_a_device_that_is_not_there_is_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["valence", *words, "--device", "cuda"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (1, "")
    assert shown.err == ("Error: Device 'cuda' is not available; use --device auto or cpu\n")
    assert not list(tmp_path.iterdir())


def test_commands_are_short() -> None:
    for path in Path(cli.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= 60, (path.name, node.name, lines)


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
