"""YAML within a budget: what a text would become is counted before it is built.

Six hundred bytes of aliases can stand for more values than a machine holds, and a hundred thousand
brackets for more depth than Python has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from valence.errors import SpecError

MOST_CHARACTERS = 100_000
MOST_VALUES = 20_000
"""Values of a document, each alias counted as all it stands for."""
DEEPEST = 40


def read_settings_file(path: str | Path) -> str:
    """The text of a file of settings, of which no more is read than is parsed.

    Raises:
        OSError, UnicodeDecodeError: if it cannot be read.
    """
    with Path(path).open(encoding="utf-8-sig") as file:
        return file.read(MOST_CHARACTERS + 1)


def parse_yaml(text: str, *, where: str) -> Any:
    """Read YAML.

    Raises:
        SpecError: naming ``where`` and the line that is wrong, or the budget it exceeds.
    """
    if len(text) > MOST_CHARACTERS:
        raise SpecError(
            f"{where}: longer than {MOST_CHARACTERS} characters; is this a settings file?"
        )
    try:
        _measure(text, where)
        return yaml.safe_load(text)
    except SpecError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SpecError(f"{where}{line}: not valid YAML; check indentation and colons") from None
    except Exception as error:  # values of a type they are not, as !!int x, fail in any way
        raise SpecError(
            f"{where}: cannot read a value ({type(error).__name__}); put it in quotes"
        ) from None


class _YamlSizes:
    """How large and deep the values of a document are, by their events."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.open: list[tuple[str | None, int]] = []
        self.anchors: dict[str, tuple[int, int]] = {}
        self.total = 0
        self.depth = 0

    def add(self, event: yaml.Event) -> None:
        """Count one event."""
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            # One that is not known yet stands in its own value, or nowhere: YAML refuses that.
            size, depth = self.anchors.get(str(event.anchor), (MOST_VALUES + 1, 0))
            self._count(size, depth, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self.open.append((event.anchor, self.total))
            self._count(1, 0, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self.open.pop()
            if anchor is not None:
                # Deeper than it is by what stands around it, which only makes the bound safer.
                self.anchors[anchor] = (self.total - before, self.depth)
        elif isinstance(event, yaml.ScalarEvent):
            self._count(1, 0, line)
            if event.anchor is not None:
                self.anchors[event.anchor] = (1, 0)

    def _count(self, size: int, depth: int, line: int) -> None:
        self.total += size
        self.depth = max(self.depth, len(self.open) + depth)
        if self.depth > DEEPEST:
            raise SpecError(f"{self.where}, line {line}: nested deeper than {DEEPEST} levels")
        if self.total > MOST_VALUES:
            raise SpecError(
                f"{self.where}, line {line}: more than {MOST_VALUES} values after "
                "aliases are expanded; write it without aliases"
            )


def _measure(text: str, where: str) -> None:
    sizes = _YamlSizes(where)
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        sizes.add(event)
