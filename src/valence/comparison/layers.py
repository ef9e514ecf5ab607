"""Comparisons that extend others: one file holds a set-up, a second one only what it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.config.sections import BUILT_IN_ENCODER
from valence.config.spec import parse_yaml
from valence.config.yaml_text import read_settings_file
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.comparison.grid import Comparison
    from valence.config.data import DataSpec

BASE = "extends"
MERGED = ("settings", "encoder_settings", "method_settings")
"""Fields that are merged setting by setting; any other replaces that of the base."""
OWN = ("scaled_down",)
"""Fields that are not taken over from the base."""
COMPARED = ("data", "methods", "baseline", "seeds", "sweep", "sweep_methods", "transfer")


def read_layers(path: str | Path) -> dict[str, Any]:
    """The fields of a comparison's file, over those of the files it extends.

    Raises:
        SpecError: if a file is missing, is no YAML or no mapping, or extends itself.
    """
    return _read(Path(path), ())


def _read(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in before:
        raise SpecError(f"Config {path} extends itself; use another file")
    try:
        text = read_settings_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"Config {path} cannot be read: {error}") from None
    values = parse_yaml(text, where=str(path)) or {}
    if not isinstance(values, dict):
        raise SpecError(f"Config {path} must be a mapping of names to values")
    base = values.pop(BASE, None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise SpecError(f"Config {path}: {BASE} must be a file name")
    below = _read(path.parent / base, (*before, path.resolve()))
    inherited = {name: value for name, value in below.items() if name not in OWN}
    merged = {name: _merged(below.get(name), values.get(name)) for name in MERGED}
    return {**inherited, **values, **{name: value for name, value in merged.items() if value}}


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return below if above is None else above
    both = {**below, **above}
    for name in below.keys() & above.keys():  # the settings of a method or encoder
        if isinstance(below[name], Mapping) and isinstance(above[name], Mapping):
            both[name] = {**below[name], **above[name]}
    return both


@dataclass(frozen=True)
class SetupDifference:
    """Something in which a comparison differs from the one it stands in for.

    Attributes:
        name: A dotted setting, or a field such as ``seeds``.
        published: Its value there; None where it has none.
        here: Its value here.
        reason: Why, as the file says; empty where it does not.
    """

    name: str
    published: Any
    here: Any
    reason: str = ""


def differences(published: Comparison, here: Comparison) -> list[SetupDifference]:
    """Every setting and field in which two comparisons differ, with the reasons ``here`` gives."""
    before, after = _values(published), _values(here)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    reasons = here.scaled_down
    return [SetupDifference(n, before.get(n), after.get(n), reasons.get(n, "")) for n in names]


def _values(comparison: Comparison) -> dict[str, Any]:
    """Fields and settings by name, those of the encoder in use among them."""
    fields = {name: getattr(comparison, name) for name in COMPARED}
    encoder = str(comparison.settings.get("encoder.name", BUILT_IN_ENCODER))
    settings = {**comparison.settings, **comparison.encoder_settings.get(encoder, {})}
    by_method: dict[str, dict[str, Any]] = {}
    for method, own in comparison.method_settings.items():
        for path, value in own.items():
            by_method.setdefault(path, {})[method] = value
    shared = {path: _shared(values) for path, values in by_method.items()}
    return {**fields, **settings, **shared}


def _shared(values: Mapping[str, Any]) -> Any:
    """The value that all methods have, or those of every method."""
    first = next(iter(values.values()))
    return first if all(value == first for value in values.values()) else dict(values)


def change_text(one: SetupDifference) -> str:
    """A difference as people read it: ``20 → 6``; of lists, what is gone and what is new."""
    fields = _field_changes(one.published, one.here)
    if fields:
        return ", ".join(fields)
    before, after = _parts(one.published), _parts(one.here)
    if before is None or after is None:
        return f"{_value_text(one.published)} → {_value_text(one.here)}"
    gone, new = ([part for part in own if part not in other]
                 for own, other in ((before, after), (after, before)))  # fmt: skip
    words = (("without", gone), ("with", new))
    changes = [f"{word} {', '.join(parts)}" for word, parts in words if parts]
    return "; ".join(changes) or "another order"


def _field_changes(before: Any, after: Any) -> list[str]:
    """The fields in which one source of rows differs from itself; none for anything else."""
    from valence.config.data import DataSpec

    pair = [value[0] for value in (before, after) if isinstance(value, tuple) and len(value) == 1]
    if len(pair) < 2 or not all(isinstance(one, DataSpec) for one in pair):
        return []
    old, new = (one.model_dump(mode="json") for one in pair)
    if old["name"] != new["name"]:
        return []
    return [
        f"{name} {_field_text(old[name])} → {_field_text(new[name])}"
        for name in old if old[name] != new[name]
    ]  # fmt: skip


def _value_text(value: Any) -> str:
    return "–" if value is None else str(value)


def _parts(value: Any) -> list[str] | None:
    """The parts of a list, in words; None of another value."""
    from valence.config.data import DataSpec

    if not isinstance(value, tuple | list):
        return None
    return [
        _rows_text(one) if isinstance(one, DataSpec) else _without_owner(str(one)) for one in value
    ]


def _without_owner(name: str) -> str:
    """``llm-fixed@Qwen/Qwen2.5-7B`` → ``llm-fixed@Qwen2.5-7B``."""
    method, _, model = name.partition("@")
    return f"{method}@{model.rpartition('/')[2]}" if model else name


def _rows_text(data: DataSpec) -> str:
    """Which rows a spec names, in a few words."""
    plain = data.model_dump(mode="json", exclude_defaults=True, exclude={"name", "target"})
    parts = [f"{name} {_field_text(value)}" for name, value in plain.items()]
    return f"{data.name} ({', '.join(parts)})" if parts else data.name


def _field_text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return "/".join(str(one) for one in value.values())
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
