"""The table of all methods, and how names and settings become a ``RunSpec``.

Every module of this package that has ``ENTRIES`` is a family of methods. Adding a method is
adding an entry; adding a family is adding a module. The command line, the tests and the
documents follow from the table.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from valence import methods
from valence.config.data import DataSpec
from valence.config.spec import (
    RENAMED,
    MethodConfig,
    RunSpec,
    build,
    check_path,
    parse_yaml,
)
from valence.errors import SpecError, UnknownNameError
from valence.methods.base import Method


def _families() -> dict[str, Method[Any]]:
    table: dict[str, Method[Any]] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(methods.__path__)):
        if module == "registry":
            continue
        entries = getattr(import_module(f"valence.methods.{module}"), "ENTRIES", {})
        for name, method in entries.items():
            if name in table:
                raise SpecError(f"Two methods are called {name!r}; rename one of them")
            table[name] = replace(method, name=name)
    return table


METHODS: dict[str, Method[Any]] = _families()
"""Every method by name."""


def find_method(name: str) -> Method[Any]:
    """The method called ``name``; of ``name@model``, the method that prompts it.

    Raises:
        UnknownNameError: with the closest known name.
    """
    plain, _, model = name.partition("@")
    known = {n: m for n, m in METHODS.items() if not model or m.family == "prompting"}
    if plain not in known:
        raise UnknownNameError("method", plain, known)
    return known[plain]


def make_spec(
    name: str,
    data: DataSpec,
    *,
    seed: int = 45,
    common: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RunSpec:
    """The spec of a method on data.

    Settings that the method does not read are left out (see :func:`unread`), or the same fit
    would count as another run.

    Args:
        name: A name of :data:`METHODS`.
        data: Which rows.
        seed: Seed of everything random.
        common: Settings of all methods of a comparison; the method's own override them.
        settings: Settings of this run; they override everything.

    Raises:
        UnknownNameError: if the method or a setting is unknown.
        SpecError: if a value does not fit.
    """
    method = find_method(name)
    requested = {**(common or {}), **method.defaults(), **(settings or {})}
    requested = {RENAMED.get(path, path): value for path, value in requested.items()}
    plain = RunSpec(method=name, data=data, config=method.Config(), seed=seed)
    skipped = unread(name, requested)
    spec = plain.override({path: v for path, v in requested.items() if path not in skipped})
    return method.complete(spec, requested)


def with_config(spec: RunSpec) -> RunSpec:
    """The spec with the settings of its method, where it was made without any.

    Raises:
        UnknownNameError: if the method is unknown.
    """
    if isinstance(spec.config, find_method(spec.method).Config):
        return spec
    return make_spec(spec.method, spec.data, seed=spec.seed).model_copy(
        update={"start": spec.start}
    )


def unread(name: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of some settings that a method does not read.

    Raises:
        UnknownNameError: if the method is unknown, or no method reads a setting.
    """
    config = find_method(name).Config
    known = RunSpec(config=config()).paths()
    skipped = []
    for given in settings:
        path = RENAMED.get(given, given)
        if path not in known:
            check_path(path)
            skipped.append(path)
    return tuple(skipped)


def check_target(name: str, target: str) -> None:
    """Refuse a target that a method cannot be trained for.

    Raises:
        SpecError: naming the methods that can.
    """
    targets = find_method(name).capabilities.targets
    if target not in targets:
        able = [n for n, method in METHODS.items() if target in method.capabilities.targets]
        raise SpecError(
            f"Method {name!r} predicts {' or '.join(targets)} but data.target is {target}; use one "
            f"of {', '.join(able)}, or another data.target"
        )


def parse_spec(values: Mapping[str, Any]) -> RunSpec:
    """The spec of plain values, as a YAML file or a run folder holds them.

    Specs of Valence 0.1 have every section at the top, read or not; what the method does not
    read is left out.

    Raises:
        UnknownNameError: if the method or a setting is unknown.
        SpecError: if a value does not fit.
    """
    values = dict(values)
    name = str(values.get("method", ""))
    config = find_method(name).Config
    own: Any = values.pop("config", None)
    if own is None:
        own = _upgraded(values, config)
    if not isinstance(own, Mapping):
        raise SpecError("The config of a spec must be a mapping of sections to settings")
    data = build(DataSpec, values.pop("data", None) or {}, prefix="data")
    return build(RunSpec, {**values, "data": data, "config": build(config, _renamed(own))})


def read_spec(text: str) -> RunSpec:
    """The spec that :meth:`RunSpec.to_yaml` wrote.

    Raises:
        SpecError: if the text is no YAML or a field does not fit.
    """
    values = parse_yaml(text, where="spec")
    if not isinstance(values, Mapping):
        raise SpecError("A spec must be a mapping of names to values")
    return parse_spec(values)


def trained_part(spec: RunSpec) -> RunSpec:
    """The spec of the training that a spec builds on: itself for most.

    Raises:
        UnknownNameError: if the method is unknown.
    """
    return find_method(spec.method).base_spec(spec)


def _upgraded(values: dict[str, Any], config: type[MethodConfig]) -> dict[str, Any]:
    """The config in a spec of Valence 0.1, whose sections are taken out of ``values``."""
    sections = set(values) - {"method", "data", "seed", "start"}
    given = {name: values.pop(name) for name in sections}
    known = set(config.paths())
    upgraded: dict[str, Any] = {}
    for section, fields in given.items():
        for field, value in fields.items() if isinstance(fields, Mapping) else ():
            name = RENAMED.get(f"{section}.{field}", f"{section}.{field}").partition(".")[2]
            if f"{section}.{name}" in known:
                upgraded.setdefault(section, {})[name] = value
    return upgraded


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with settings under their current names."""
    renamed = {name: dict(f) if isinstance(f, Mapping) else f for name, f in config.items()}
    for before, now in RENAMED.items():
        section, _, field = before.partition(".")
        if isinstance(renamed.get(section), dict) and field in renamed[section]:
            renamed[section][now.partition(".")[2]] = renamed[section].pop(field)
    return renamed
