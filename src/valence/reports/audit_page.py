"""The folder of an audit: a page, a summary, and one table per check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from valence.audit.audit import Audit
from valence.pages.page import render_page
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


CHECK_NAMES = {
    "contradictions": "One text, several labels", "labels": "Names of the labels",
    "label-errors": "Doubtful labels", "languages": "Languages", "sizes": "Rows per class",
    "cut": "Texts over the length limit",
}  # fmt: skip
"""Headings of the checks that are not about single splits."""
HEADS = {"chance_of_label": "probability of label", "suggested": "suggested label"}
"""Columns with other names on the page than in the tables."""


def title_of(check: str) -> str:
    """The heading of a check: its name in words."""
    kind, _, splits = check.partition("-")
    if kind == "leak":
        first, _, second = splits.partition("-")
        return f"Texts of {first} that are also in {second}"
    if kind == "copies":
        return "Repeated texts" if splits == "all" else f"Repeated texts in {splits}"
    return CHECK_NAMES.get(check, _words(check).capitalize())


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _render(audit: Audit) -> str:
    one = [] if len(audit.source.splits) > 1 else ["split"]
    parts = []
    for finding in audit.findings:
        shown = finding.rows.drop(columns=one, errors="ignore")
        heads = [HEADS.get(str(c), _words(str(c))) for c in shown.columns]
        parts.append(
            {"title": title_of(finding.check), "file": f"{finding.check}.csv",
             "level": finding.level, "line": finding.line, "total": len(finding.rows),
             "heads": heads, "rows": _cells(shown[:SHOWN_ROWS])}
        )  # fmt: skip
    values = {"name": audit.source.name, "parts": parts, **summary(audit)}
    return render_page("valence.reports", "audit.html.j2", values)


def _shown(cell: Any) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [
        [text if len(text := _shown(cell)) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
         for cell in row]
        for row in table.itertuples(index=False)
    ]  # fmt: skip
