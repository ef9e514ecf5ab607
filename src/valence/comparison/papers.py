"""Papers whose tables can be run: which comparisons they are made of, by :func:`read_paper`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from valence.comparison.grid import Comparison, read_comparison
from valence.comparison.layers import SetupDifference, differences
from valence.config.spec import build, parse_yaml
from valence.config.yaml_text import read_settings_file
from valence.errors import SpecError, UnknownNameError

SMALL = "-cpu"
"""Ending of the file that a small machine runs in place of a published set-up."""
Scale = Literal["published", "cpu"]


class PaperTable(BaseModel):
    """One comparison of a paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: str
    """The file of the published set-up, beside the paper's own."""
    methods: tuple[str, ...] = ()
    """Some of its methods; all when not given."""
    sweep: dict[str, tuple[Any, ...]] = {}
    rows: tuple[int, int, int] | None = None
    """Rows of train, validation and test as published; None where they are not known."""
    cpu_rows: tuple[int, int, int] | None = None
    """Those of the small set-up, where it has other rows."""
    classes: int = 1
    tokens: int = 32
    """Mean length of a text."""


class Paper(BaseModel):
    """A paper: its comparisons, and what else is to be known of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    source: str
    tables: tuple[PaperTable, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableRun:
    """A table of a paper as it is run.

    Attributes:
        name: Of its config, with the setting that is swept.
        about: The table.
        published: The published set-up.
        comparison: What is run: the published set-up, or the one that stands in for it.
        scaled_down: In what they differ, and why.
    """

    name: str
    about: PaperTable
    published: Comparison
    comparison: Comparison
    scaled_down: tuple[SetupDifference, ...] = ()

    def narrowed(self, methods: tuple[str, ...], seeds: tuple[int, ...]) -> TableRun | None:
        """With some methods and seeds only; None where it has none of the methods."""
        given = "given on the command line"
        changes: dict[str, Any] = {}
        if methods:
            changes["methods"] = tuple(m for m in self.comparison.methods if m in methods)
            if not changes["methods"]:
                return None
        if seeds:
            changes["seeds"] = seeds
        more = [
            SetupDifference(name, getattr(self.published, name), value, given)
            for name, value in changes.items()
            if value != getattr(self.comparison, name)
        ]
        names = {one.name for one in more}
        less = [one for one in self.scaled_down if one.name not in names]
        comparison = self.comparison.model_copy(update=changes)
        if comparison.baseline not in comparison.methods:
            comparison = comparison.model_copy(update={"baseline": comparison.methods[0]})
        return replace(self, comparison=comparison, scaled_down=(*less, *more))


def config_folder() -> Path:
    """The folder ``configs``: of the installed package, or of the source tree."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def paper_names() -> list[str]:
    """The papers known by name."""
    return sorted(path.stem for path in (config_folder() / "papers").glob("*.yaml"))


def read_paper(name: str) -> tuple[Paper, Path]:
    """A paper and its file, by name or by path.

    Raises:
        UnknownNameError: if there is no such paper.
        SpecError: if the file cannot be read or has a wrong field.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in paper_names():
            raise UnknownNameError("paper", name, paper_names())
        path = config_folder() / "papers" / f"{name}.yaml"
    try:
        text = read_settings_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"Paper {path} cannot be read: {error}") from None
    return build(Paper, parse_yaml(text, where=str(path)) or {}), path


def table_runs(paper: Paper, path: Path, scale: Scale) -> list[TableRun]:
    """The tables of a paper at a scale.

    Args:
        paper: The paper.
        path: Its file.
        scale: ``published``, or ``cpu`` for the files that stand in on a small machine.

    Raises:
        SpecError: if a config is missing or wrong.
    """
    return [_table_run(table, path.parent, scale) for table in paper.tables]


def _table_run(table: PaperTable, folder: Path, scale: Scale) -> TableRun:
    path = (folder / table.config).resolve()
    changes: dict[str, Any] = {}
    if table.sweep:
        changes["sweep"] = table.sweep
    if table.methods:
        changes |= {"methods": table.methods, "baseline": table.methods[0]}
    published = read_comparison(path).model_copy(update=changes)
    comparison = published
    if scale == "cpu":
        small = path.with_stem(path.stem + SMALL)
        if not small.exists():
            raise SpecError(f"{path} has no {small.name} for a small machine; use --published")
        comparison = read_comparison(small).model_copy(update=changes)
        table = table.model_copy(update={"rows": table.cpu_rows or table.rows})
    axes = "".join(f"-{axis.rpartition('.')[2]}" for axis in table.sweep)
    changed = tuple(differences(published, comparison))
    return TableRun(path.stem + axes, table, published, comparison, changed)
