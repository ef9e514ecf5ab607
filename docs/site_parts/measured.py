"""Rows of ``results.md`` quoted elsewhere: figures have one home, and quotations follow it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from site_parts.markdown import DOCS, slug, table

RESULTS = DOCS / "results.md"
CONFIGS = DOCS.parent / "configs"

TITLES = {
    "mae": "MAE", "corr": "correlation", "acc2_has0": "acc-2 has0", "acc2_non0": "acc-2 non0",
    "acc5": "acc-5", "acc7": "acc-7", "accuracy": "accuracy", "macro_f1": "macro-F1",
    "f1_has0": "F1 has0", "f1_non0": "F1 non0",
}  # fmt: skip
"""Headings of ``results.md`` for the scores of ``published`` in configs."""

SECTION_OF = {"trec": "TREC", "mosi": "CMU-MOSI"}
"""Where ``results.md`` has our scores of a config with published ones."""


@dataclass(frozen=True)
class Row:
    """A row of a table of ``results.md``, and the heading it stands under."""

    section: str
    cells: dict[str, str]

    @property
    def link(self) -> str:
        """The section, linked."""
        return f"[{self.section}](results.md#{slug(self.section)})"


def measured() -> Iterator[Row]:
    """Every row of every table, in their order."""
    section, heads = "", []
    for line in RESULTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section, heads = line[3:].strip(), []
        elif not line.startswith("|"):
            heads = []
        else:
            cells = [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not heads:
                heads = cells
            elif set(line) - set("|-: "):
                yield Row(section, dict(zip(heads, cells, strict=True)))


def find(section: str, **cells: str) -> Row:
    """The one row under a heading that begins with ``section`` and has these cells.

    Raises:
        LookupError: if ``results.md`` has no such row any more.
    """
    for row in measured():
        if row.section.startswith(section) and cells.items() <= row.cells.items():
            return row
    raise LookupError(f"results.md has no row {cells} under a heading {section}…")


def rows(section: str, methods: str, columns: str, ratio: str = "") -> str:
    """A quoted table: the rows of some methods under a heading, some columns of them."""
    where = {"ratio": ratio} if ratio else {}
    found = [find(section, method=name, **where) for name in methods.split(",")]
    heads = columns.split(",")
    quoted = table(heads, [[row.cells[head] for head in heads] for row in found])
    told = f", ratio {ratio}" if ratio else ""
    return f"\n{quoted}\n\nFrom {found[0].link}{told}.\n"


def lost() -> str:
    """Every method that is significantly worse than the baseline it was compared with."""
    found = [row for row in measured() if row.cells.get("mark") == "▼"]
    lines = []
    for row in found:
        (change,) = [value for head, value in row.cells.items() if head.startswith("Δ")]
        (what,) = [head.split("[")[0][2:] for head in row.cells if head.startswith("Δ")]
        baseline = _baseline(row)
        if row.cells["method"] not in ("majority", "audio-only", "vision-only"):
            told = f"{row.link}, ratio {row.cells['ratio']}" if "ratio" in row.cells else row.link
            lines.append([told, row.cells["method"], baseline, what, change])
    return table(["where", "method", "against", "score", "difference"], lines)


def _baseline(row: Row) -> str:
    """What the row was compared with: marked so, or the one without a difference."""
    for other in measured():
        same = other.section == row.section and other.cells.keys() == row.cells.keys()
        told = other.cells.get("ratio") == row.cells.get("ratio")
        if same and told and other.cells["mark"] == "baseline":
            return other.cells["method"]
    raise LookupError(f"results.md has no baseline under {row.section}")


def missed() -> str:
    """Every measured figure that did not reach its target."""
    lines = []
    for row in measured():
        told = " ".join(row.cells.values())
        if "missed" in told:
            what, _, *rest = row.cells.values()
            lines.append([what, " ".join(rest)])
    return table(["what", "measured"], lines)


def _source_below(path: Path, config: dict[str, Any]) -> str:
    """The source that a config takes over from the one it extends."""
    if "extends" not in config:
        return ""
    below = yaml.safe_load((path.parent / config["extends"]).read_text(encoding="utf-8"))
    return str(below.get("published_source", ""))


def published() -> str:
    """Published scores beside ours, one line per score."""
    lines = []
    for path in sorted(CONFIGS.glob("*.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        source = config.get("published_source") or _source_below(path, config)
        for method, scores in (config.get("published") or {}).items():
            ratio = (config.get("published_for") or {}).get("data.imbalance_ratio")
            where = {"ratio": str(ratio)} if ratio else {}
            ours = None
            if path.stem in SECTION_OF:
                ours = find(SECTION_OF[path.stem], method=method, **where)
            for name, value in scores.items():
                plain, _, group = name.partition("/")
                title = f"{TITLES[plain]}, {group}" if group else TITLES[plain]
                got = "not run" if ours is None else ours.cells.get(title, "not in the table")
                link = "" if ours is None else ours.link
                lines.append([f"`{path.name}`", method, title, f"{value:g}", source, got, link])
    heads = ["config", "method", "score", "published", "by", "ours", "measured under"]
    return table(heads, lines)
