"""What pages say of the code and of measured rows, made when the site is built.

A mark in a page, ``<!-- generated: NAME key="value" -->``, is replaced by what the function of
that name in :data:`PARTS` writes, as Markdown. Nothing that it says can go stale.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from site_parts import code, commands, measured
from site_parts.markdown import toctree

MARK = re.compile(r"<!-- generated: (.*?) -->", re.DOTALL)

PARTS: dict[str, Callable[..., str]] = {
    "methods": code.methods,
    "components": code.components,
    "encoders": code.encoders,
    "datasets": code.datasets,
    "api": code.api,
    "faults": code.faults,
    "metrics": code.metrics,
    "cache": code.cache,
    "cli": commands.commands,
    "scale": lambda: toctree("Many machines", ["distributed", "ray", "scale"]),
    "rows": measured.rows,
    "lost": measured.lost,
    "missed": measured.missed,
    "published": measured.published,
}


def fill(text: str) -> str:
    """A page with its marks replaced."""
    return MARK.sub(lambda found: _part(found.group(1)), text)


def _part(mark: str) -> str:
    name, *pairs = shlex.split(mark)
    return PARTS[name](**dict(pair.split("=", 1) for pair in pairs))
