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


def write_audit(audit: Audit, folder: Path) -> Path:
    """Write ``audit.html``, ``summary.json`` and ``<check>.csv`` of every check with rows.

    Args:
        audit: The findings.
        folder: Is made; tables of checks without findings are removed.

    Returns:
        The page.

    Raises:
        RunError: if the folder cannot be written.
    """
    page = folder / "audit.html"
    for finding in audit.findings:
        path = folder / f"{finding.check}.csv"
        if len(finding.rows):
            with atomic.new_file(path) as scratch:
                finding.rows.to_csv(scratch, index=False)
        else:
            atomic.remove_file(path)
    text = json.dumps(summary(audit), ensure_ascii=False, indent=1)
    atomic.write_text(folder / "summary.json", text + "\n")
    atomic.write_text(page, _render(audit))
    return page


def summary(audit: Audit) -> dict[str, Any]:
    """Verdict, rows per split and all findings, without their rows."""
    sizes = audit.source.rows["split"].value_counts()
    return {
        "verdict": audit.verdict,
        "rows": {split: int(sizes[split]) for split in audit.source.splits},
        "findings": [
            {"check": f.check, "level": f.level, "count": f.count, "line": f.line}
            for f in audit.findings
        ],
        "notes": list(audit.source.notes),
    }


def _render(audit: Audit) -> str:
    template = Environment(
        loader=PackageLoader("valence.reports", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("audit.html.j2")  # fmt: skip
    parts = [
        {"check": f.check, "level": f.level, "line": f.line, "total": len(f.rows),
         "heads": [str(c) for c in f.rows.columns], "rows": _cells(f.rows[:SHOWN_ROWS])}
        for f in audit.findings
    ]  # fmt: skip
    return template.render(audit=audit, parts=parts, **summary(audit))


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [
        [text if len(text := str(cell)) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
         for cell in row]
        for row in table.itertuples(index=False)
    ]  # fmt: skip
