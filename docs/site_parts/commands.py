"""The commands, as the command line itself describes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from site_parts.markdown import table
from valence.cli import app

Command = Any  # typer brings its own copy of click, whose types have no public name


def walk(command: Command, name: str = "valence") -> Iterator[tuple[str, Command]]:
    """Every command and group, by the words that call it."""
    yield name, command
    for word, child in getattr(command, "commands", {}).items():
        yield from walk(child, f"{name} {word}")


def commands() -> str:
    """A section per command: what it does, how it is called, arguments and options."""
    return "\n\n".join(_section(name, one) for name, one in walk(typer.main.get_command(app)))


def _section(name: str, command: Command) -> str:
    options = [one for one in command.params if one.opts[0].startswith("-")]
    arguments = [one for one in command.params if not one.opts[0].startswith("-")]
    usage = [name, *(_argument(one) for one in arguments)]
    usage += [f"{one.opts[0]} {_value(one)}" for one in options if one.required]
    if hasattr(command, "commands"):
        usage.append("COMMAND")
    parts = [f"## `{name}`", command.help or "", f"```text\n{' '.join(usage)} [OPTIONS]\n```"]
    if hasattr(command, "commands"):
        known = (
            f"[`{name} {word}`](#{name.replace(' ', '-')}-{word})" for word in command.commands
        )
        parts.append("Commands: " + ", ".join(known) + ".")
    shown = [[f"`{_argument(one)}`", one.help or "", ""] for one in arguments]
    shown += [[_flags(one), _help(one), _default(one)] for one in options if not one.hidden]
    if shown:
        parts.append(table(["option", "what it says", "if not given"], shown))
    return "\n\n".join(parts)


def _argument(one: Any) -> str:
    word = one.metavar or one.name.upper()
    word += "…" if one.nargs == -1 else ""
    return word if one.required else f"[{word}]"


def _value(one: Any) -> str:
    if one.metavar:
        return str(one.metavar)
    return str(one.name).strip("_").upper()


def _flags(one: Any) -> str:
    names = [*one.opts, *one.secondary_opts]
    if one.is_flag:
        return ", ".join(f"`{name}`" for name in names)
    return ", ".join(f"`{name} {_value(one)}`" for name in names)


def _help(one: Any) -> str:
    told = one.help or ""
    if one.envvar:
        told += f" Also `{one.envvar}`."
    return told


def _default(one: Any) -> str:
    if one.required:
        return "needed"
    if one.default is None or one.default is False or callable(one.default):
        return ""
    if one.is_flag:
        return f"`{one.opts[0]}`"
    return f"`{one.default}`"
