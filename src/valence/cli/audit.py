"""``valence audit``: what is wrong with labeled rows, before any training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from valence.cli import console
from valence.cli.options import (
    DataOptions,
    Encoder,
    OptionGroup,
    OutputOptions,
    comma_separated,
    encoder_settings,
    with_groups,
)
from valence.cli.tables import print_table
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.audit.audit import Audit


@dataclass(frozen=True, kw_only=True)
class CheckOptions(OptionGroup):
    """What is checked, and how strictly."""

    fast: Annotated[
        bool,
        typer.Option("--fast", help="Look for label errors with n-grams only, despite --encoder."),
    ] = False
    near: Annotated[
        float, typer.Option(min=0.3, max=1, help="Minimum similarity of near-duplicates.")
    ] = 0.8
    budget: Annotated[
        float, typer.Option(min=0, max=1, help="Maximum fraction of a class to list as doubtful.")
    ] = 0.05
    language: Annotated[str | None, typer.Option(help="Expected languages: en or en,fr.")] = None
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 if there is a problem.")
    ] = False


@with_groups
def audit(
    data: DataOptions,
    checks: CheckOptions,
    output: OutputOptions,
    encoder: Encoder = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for audit.html and one CSV per check.")
    ] = None,
    to: Annotated[
        Literal["label-studio", "argilla", "xlsx"] | None,
        typer.Option(help="Write doubtful labels to --out, for this tool."),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(help="Folder for a copy without leaks, duplicates and contradictions."),
    ] = None,
) -> None:
    """Check your data: leaks, duplicates, contradictions, label errors, languages, long texts."""
    from valence.audit.annotation import write_rows_to_check
    from valence.audit.audit import audit as audit_rows
    from valence.audit.fix import write_fixed
    from valence.methods.registry import make_spec
    from valence.reports.audit_page import write_audit

    data.refuse_other_settings("data", "encoder")
    if to is not None and out is None:
        raise SpecError("--to needs a folder; set one with --out")
    rows = data.spec(data.data)
    settings = {**encoder_settings(encoder), **data.settings()}
    named = "encoder.name" in settings
    spec = make_spec("cross-entropy", rows, settings=settings)
    with console.Meter(quiet=output.quiet) as meter:
        result = audit_rows(
            spec.data, data_dir=data.data_dir, encoder=spec.get("encoder"),
            encoder_features=named and not checks.fast, near=checks.near,
            budget=checks.budget, languages=comma_separated(checks.language),
            progress=lambda what, fraction: meter.show("audit", fraction, what),
        )  # fmt: skip
    if not output.quiet:
        console.info(result.verdict)
    page = write_audit(result, out) if out else None
    fixed = write_fixed(result.source, fix) if fix else []
    if fix and not output.quiet:
        for line in fixed:
            console.info(str(fix / line))
    if to is not None and out is not None:
        files = write_rows_to_check(result, to, out)
        if not output.quiet:
            console.info(f"Written: {', '.join(map(str, files))}")
    _print(result, page, fixed, output)
    if checks.strict and any(finding.level == "problem" for finding in result.findings):
        raise typer.Exit(1)


def _print(result: Audit, page: Path | None, fixed: list[str], output: OutputOptions) -> None:
    from valence.reports.audit_page import summary

    if output.json:
        console.print_json({**summary(result), "fixed": fixed})
    else:
        lines = [[f.level, f.check, f.line] for f in result.findings]
        print_table(["", "check", "finding"], lines)
    if not output.quiet:
        for note in result.source.notes:
            console.info(f"Note: {note}")
        console.info(f"Report: {page}" if page else "For a report and CSV tables: --out audit")
