"""``valence audit``: what is wrong with labelled rows, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.compare import (
    DataDir,
    Encoder,
    Json,
    LabelColumn,
    Query,
    Quiet,
    Settings,
    TableName,
    TextColumn,
    settings,
)

if TYPE_CHECKING:
    from valence.audit.audit import Audit


def audit(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for audit.html and a CSV per check.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Folder for a copy without leaks, copies, contradictions.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="EvalCallback labels by n-grams, without the encoder.")
    ] = False,
    near: Annotated[
        float, typer.Option(min=0.3, max=1, help="Least likeness of near copies.")
    ] = 0.8,
    budget: Annotated[
        float, typer.Option(min=0, max=1, help="Most labels of a class to doubt, as a share.")
    ] = 0.05,
    language: Annotated[
        str | None, typer.Option(help="Languages the texts should be in: en or en,fr.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 1 where there is a problem.")
    ] = False,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    encoder: Encoder = None,
    set_: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check rows: leaks, copies, contradictions, wrong labels and languages, cuts, tail sizes."""
    from valence.audit.audit import audit as find
    from valence.audit.fix import write_fixed
    from valence.config.data import DataSpec
    from valence.methods.registry import make_spec
    from valence.reports.audit_page import write_audit

    rows = DataSpec(
        name=data, text_column=text_column, label_column=label_column, query=query, table=table
    )
    spec = make_spec("cross-entropy", rows, settings=settings(set_, encoder=encoder))
    with console.Meter(quiet=quiet) as meter:
        found = find(
            spec.data, data_dir=data_dir, encoder=spec.get("encoder"), fast=fast, near=near,
            budget=budget, languages=[name for name in (language or "").split(",") if name],
            told=lambda what, share: meter.show("audit", share, what),
        )  # fmt: skip
    if not quiet:
        console.say(found.verdict)
    page = write_audit(found, out) if out else None
    fixed = write_fixed(found.source, fix) if fix else []
    _show(found, page, fixed, as_json=json, quiet=quiet)
    if strict and any(finding.level == "problem" for finding in found.findings):
        raise typer.Exit(1)


def _show(found: Audit, page: Path | None, fixed: list[str], *, as_json: bool, quiet: bool) -> None:
    from valence.reports.audit_page import summary

    if as_json:
        console.print_json({**summary(found), "fixed": fixed})
    else:
        lines = [[f.level, f.check, f.line] for f in found.findings]
        console.print_table(["", "check", "what it means"], lines)
    if not quiet:
        for note in found.source.notes:
            console.say(f"Note: {note}")
        for line in fixed:
            console.say(f"Fixed: {line}")
        where = f"Details: {page}" if page else "Details as tables and a page: --out audit"
        console.say(where)
