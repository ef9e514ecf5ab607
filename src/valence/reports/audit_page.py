"""The folder of an audit: a page, a summary, and one table per check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from valence.audit.audit import Audit
from valence.storage import atomic

SHOWN_ROWS = 50
LONGEST_TEXT = 240  # characters of a text on the page; the tables have it whole


def write_audit(found: Audit, folder: Path) -> Path:
    """Write ``audit.html``, ``summary.json`` and ``<check>.csv`` of every check with rows.

    Args:
        found: What was found.
        folder: Is made; tables of checks that found nothing now are taken away.

    Returns:
        The page.

    Raises:
        RunError: if the folder cannot be written.
    """
    page = folder / "audit.html"
    for finding in found.findings:
        path = folder / f"{finding.check}.csv"
        if len(finding.rows):
            with atomic.new_file(path) as scratch:
                finding.rows.to_csv(scratch, index=False)
        else:
            atomic.remove_file(path)
    text = json.dumps(summary(found), ensure_ascii=False, indent=1)
    atomic.write_text(folder / "summary.json", text + "\n")
    atomic.write_text(page, _render(found))
    return page


def summary(found: Audit) -> dict[str, Any]:
    """Verdict, rows per split and all findings, without their rows."""
    sizes = found.source.rows["split"].value_counts()
    return {
        "verdict": found.verdict,
        "rows": {split: int(sizes[split]) for split in found.source.splits},
        "findings": [
            {"check": f.check, "level": f.level, "count": f.count, "line": f.line}
            for f in found.findings
        ],
        "notes": list(found.source.notes),
    }


def _render(found: Audit) -> str:
    template = Environment(
        loader=PackageLoader("valence.reports", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("audit.html.j2")  # fmt: skip
    parts = [
        {"check": f.check, "level": f.level, "line": f.line, "total": len(f.rows),
         "heads": [str(c) for c in f.rows.columns], "rows": _cells(f.rows[:SHOWN_ROWS])}
        for f in found.findings
    ]  # fmt: skip
    return template.render(found=found, parts=parts, **summary(found))


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [
        [text if len(text := str(cell)) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
         for cell in row]
        for row in table.itertuples(index=False)
    ]  # fmt: skip
