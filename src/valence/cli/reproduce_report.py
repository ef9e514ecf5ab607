"""What ``valence reproduce`` prints and writes: plans, figures, and what was scaled down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence.cli import console
from valence.cli.compare_report import print_leaderboard
from valence.cli.tables import print_table

if TYPE_CHECKING:
    from valence.cli.options import TableOptions
    from valence.comparison.layers import SetupDifference
    from valence.comparison.papers import Paper, Scale, TableRun
    from valence.comparison.resources import TableResources
    from valence.reports.reproduction import PublishedFigure

EVERY = "all"
SEVERAL = 4
"""Tables that are counted, not named, in a table of a terminal."""


@dataclass(frozen=True)
class TableReport:
    """What came out of a table."""

    table: TableRun
    leaderboard: Any
    figures: Sequence[PublishedFigure]
    page: Path | None


def scaled_down(
    tables: Sequence[TableRun], settings: dict[str, Any]
) -> list[tuple[str, SetupDifference]]:
    """In what tables differ from the published ones, each difference once, with its tables."""
    from valence.comparison.layers import SetupDifference

    rows: dict[tuple[str, str, str], tuple[list[str], SetupDifference]] = {}
    for table in tables:
        published = table.published.settings
        given = [
            SetupDifference(path, published.get(path), value, "given on the command line")
            for path, value in settings.items() if published.get(path) != value
        ]  # fmt: skip
        overridden = {one.name for one in given}
        for one in (*(o for o in table.scaled_down if o.name not in overridden), *given):
            key = (one.name, str(one.published), str(one.here))
            rows.setdefault(key, ([], one))[0].append(table.name)
    count = len(tables)
    return [
        (EVERY if len(names) == count else ", ".join(names), one) for names, one in rows.values()
    ]


def _difference_rows(changed: Sequence[tuple[str, SetupDifference]]) -> list[list[str]]:
    from valence.comparison.layers import change_text

    return [[one.name, names, change_text(one), one.reason] for names, one in changed]


DIFFERENCE_HEADS = ["what", "tables", "published → here", "why"]


def print_reproduction(
    paper: Paper, reports: Sequence[TableReport], changed: Sequence[tuple[str, SetupDifference]], *,
    out: Path, output: TableOptions,
) -> None:  # fmt: skip
    """Print leaderboards, ours beside published, and what was scaled down; write them too."""
    from valence.reports.leaderboard import json_rows
    from valence.reports.reproduction import HEADS, figures_json, reproduction_markdown
    from valence.storage import atomic

    figures = [one for report in reports for one in report.figures]
    rows = [[one.setup, *one.cells(), one.source] for one in figures]
    differences = _difference_rows(changed)
    page = reproduction_markdown(paper.title, {
        "Ours beside published": (["set-up", *HEADS, "source"], rows),
        "Scaled down": (DIFFERENCE_HEADS, differences),
    })  # fmt: skip
    atomic.write_text(out / "reproduction.md", page)
    if output.json:
        console.print_json({
            "paper": paper.title, "source": paper.source, "figures": figures_json(figures),
            "scaled_down": [dict(zip(DIFFERENCE_HEADS, row, strict=True)) for row in differences],
            "notes": list(paper.notes),
            "tables": [
                {"name": r.table.name, "title": r.table.comparison.title,
                 "rows": [] if r.leaderboard is None else json_rows(r.leaderboard)}
                for r in reports
            ],
        })  # fmt: skip
        return
    for report in reports:
        if report.leaderboard is not None:
            title = f"{report.table.name}: {report.table.comparison.title}"
            print_leaderboard(report.leaderboard, output, title=title)
            console.info(f"Report: {report.page}")
    _print_figures(figures)
    _print_differences(changed)
    for note in paper.notes:
        console.info(f"Note: {note}")
    console.info(f"Summary: {out / 'reproduction.md'}")


def _print_figures(figures: Sequence[PublishedFigure]) -> None:
    """Ours beside published, a table for each set-up, with the source of the figures."""
    from valence.reports.reproduction import HEADS

    if not figures:
        console.info("There are no published figures for these tables.")
    setups = dict.fromkeys(one.setup for one in figures)
    for setup in setups:
        own = [one for one in figures if one.setup == setup]
        rows = [one.cells() for one in own]
        print_table(
            HEADS, rows, title=f"Ours beside published: {setup}", one_of_several=len(setups) > 1
        )
        for source in dict.fromkeys(one.source for one in own):
            console.info(f"Published: {source}")


def _print_differences(changed: Sequence[tuple[str, SetupDifference]]) -> None:
    if not changed:
        console.info("Nothing was scaled down; these are the published set-ups.")
        return
    rows = _merged([
        [_with_tables(name, names), change, reason]
        for name, names, change, reason in _difference_rows(changed)
    ])  # fmt: skip
    heads = [head for head in DIFFERENCE_HEADS if head != "tables"]
    print_table(heads, rows, title="Scaled down")


def _with_tables(name: str, names: str) -> str:
    """A setting, and the tables in which it differs where they are few."""
    count = names.count(",") + 1
    if names == EVERY or name == "data":
        return name
    return f"{name} ({names})" if count < SEVERAL else f"{name} ({count} tables)"


def _merged(rows: list[list[str]]) -> list[list[str]]:
    """One row for those of a name and reason."""
    merged: dict[tuple[str, str], list[str]] = {}
    for name, change, reason in rows:
        merged.setdefault((name, reason), []).append(change)
    return [
        [name, "; ".join(dict.fromkeys(changes)), reason]
        for (name, reason), changes in merged.items()
    ]


def print_plan(
    paper: Paper, tables: Sequence[TableRun], settings: dict[str, Any], data_dir: Path | None, *,
    scale: Scale, as_json: bool,
) -> None:  # fmt: skip
    """What the tables take, and what is needed; nothing is run."""
    from valence.comparison.resources import table_resources

    device = "cuda" if scale == "published" else "cpu"
    taken = [table_resources(t, settings, data_dir=data_dir, device=device) for t in tables]
    changed = scaled_down(tables, settings)
    if as_json:
        differences = [
            dict(zip(DIFFERENCE_HEADS, row, strict=True)) for row in _difference_rows(changed)
        ]
        console.print_json({
            "paper": paper.title, "scale": scale, "tables": [vars(one) for one in taken],
            "scaled_down": differences, "notes": list(paper.notes),
        })  # fmt: skip
        return
    heads = ["table", "runs", "GPU", "CPU here", "GiB", "rows"]
    print_table(heads, [_plan_row(one) for one in taken], title=f"{paper.title}, {scale}")
    for line in _hardware_lines(taken, scale):
        console.info(line)
    _print_differences(changed)
    for note in paper.notes:
        console.info(f"Note: {note}")


def _plan_row(one: TableResources) -> list[str]:
    rows = ", ".join(f"{where}" for where in dict.fromkeys(one.rows.values()))
    memory = "–" if one.memory_gib is None else f"{one.memory_gib:.1f}"
    return [
        one.name, str(one.runs), _hours(one.gpu_hours), _hours(one.cpu_hours), memory, rows,
    ]  # fmt: skip


def _hours(hours: float | None) -> str:
    """An order of magnitude: ``20 min``, ``3 h``, ``12 days``."""
    if hours is None:
        return "–"
    if hours < 1.5:
        return f"{max(1, round(60 * hours))} min"
    return f"{hours:,.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def _hardware_lines(taken: Sequence[TableResources], scale: Scale) -> list[str]:
    """The sums, the machine they ask for, and what has to be fetched."""
    lines = []
    gpu, cpu = ([getattr(one, f"{p}_hours") for one in taken] for p in ("gpu", "cpu"))
    memory = max((one.memory_gib or 0.0 for one in taken), default=0.0)
    if None not in gpu:
        lines.append(
            f"Total: {sum(one.runs for one in taken)} runs (shared runs count once per table): "
            f"about {_hours(sum(gpu))} on one large GPU, {_hours(sum(cpu))} on this machine's "
            "cores. These are rough estimates."
        )
    else:
        lines.append("Time unknown: the size of some data or of a model is unknown.")
    what = "of a GPU" if scale == "published" else "of main memory"
    lines.append(f"Memory: at most {memory:.1f} GiB {what}, if long texts fill a batch.")
    models = dict.fromkeys(name for one in taken for name in one.models)
    lines.append(f"Models: {', '.join(models) or 'none'}")
    missing = dict.fromkeys(
        name for one in taken for name, where in one.rows.items() if where == "missing"
    )
    if missing:
        lines.append(f"Data not found: {', '.join(missing)}; name their folder with --data-dir")
    return lines
