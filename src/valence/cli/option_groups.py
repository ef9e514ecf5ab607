"""Groups of options: a frozen dataclass whose fields are options, as one parameter of a command.

:func:`with_groups` makes of it the flat options that typer reads, and packs their values before
the command is called::

    @with_groups
    def evaluate(model: ModelFolder, data: DataOptions, output: OutputOptions) -> None: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo


@dataclass(frozen=True)
class OldName:
    """An earlier name of an option, which is still read but not shown.

    Attributes:
        name: With its dashes.
    """

    name: str


@dataclass(frozen=True, kw_only=True)
class OptionGroup:
    """Options that are declared together; every field is one, annotated for typer.

    Attributes:
        panel: Heading of the options in ``--help``; the usual one where empty.
    """

    panel: ClassVar[str] = ""


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every :class:`OptionGroup` among its parameters as flat options.

    Raises:
        TypeError: if two options have one name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, tuple[type[OptionGroup], list[str]]] = {}
    flat: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if isinstance(hint, type) and issubclass(hint, OptionGroup):
            own = list(_parameters(hint))
            groups[parameter.name] = (hint, [one.name for one in own])
            flat += own
        else:
            flat.append(_parameter(parameter.name, hint, parameter.default))
    names = [parameter.name for parameter in flat]
    for name in names:
        if names.count(name) > 1:
            raise TypeError(f"{command.__name__} has two options {name}")
    flat, old_names = _with_old_names(flat)

    @wraps(command)
    def packed(**values: Any) -> None:
        for old, name in old_names.items():
            value = values.pop(old)
            values[name] = values[name] if value is None else value
        for name, (group, own) in groups.items():
            values[name] = group(**{field: values.pop(field) for field in own})
        command(**values)

    packed.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    packed.__annotations__ = {one.name: one.annotation for one in flat}
    return packed


def _parameters(group: type[OptionGroup]) -> Iterator[inspect.Parameter]:
    """The fields of a group as parameters, under its panel."""
    hints = get_type_hints(group, include_extras=True)
    for field in sorted(fields(group), key=lambda one: one.name != "data"):  # the source first
        kind, *extras = get_args(hints[field.name])
        if group.panel:
            extras = [_under(group.panel, extra) for extra in extras]
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield _parameter(field.name, Annotated[kind, *extras], default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY  # so that what is needed may stand behind the rest
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _under(panel: str, extra: Any) -> Any:
    if not isinstance(extra, OptionInfo):
        return extra
    shown = copy(extra)
    shown.rich_help_panel = panel
    return shown


def _with_old_names(
    parameters: list[inspect.Parameter],
) -> tuple[list[inspect.Parameter], dict[str, str]]:
    """Parameters with a hidden one for each earlier name, and which stands for which."""
    flat: list[inspect.Parameter] = []
    old_names: dict[str, str] = {}
    for parameter in parameters:
        if get_origin(parameter.annotation) is not Annotated:
            flat.append(parameter)
            continue
        kind, *extras = get_args(parameter.annotation)
        old = next((extra.name for extra in extras if isinstance(extra, OldName)), None)
        extras = [extra for extra in extras if not isinstance(extra, OldName)]
        flat.append(parameter.replace(annotation=Annotated[kind, *extras]))
        if old is not None:
            shown = next(extra for extra in extras if isinstance(extra, OptionInfo))
            text = f"The earlier name of --{parameter.name}."
            hidden = typer.Option(old, hidden=True, help=text, min=shown.min, max=shown.max)
            name = f"old_{parameter.name}"
            flat.append(_parameter(name, Annotated[kind | None, hidden], None))
            old_names[name] = parameter.name
    return flat, old_names
