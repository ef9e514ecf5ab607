"""From a template to a page that is one file and asks the network for nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

PLOTLY = "vendor/plotly-basic.min.js"
"""Plotly 4.1.1, basic bundle, MIT license (``vendor/plotly-LICENSE.txt``)."""
PLOTLY_SHA256 = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
LARGEST_PAGE_BYTES = 1_500_000


def render_page(package: str, template: str, values: Mapping[str, Any]) -> str:
    """Render a page that extends ``base.html.j2``.

    Args:
        package: The package that holds the template.
        template: Its file.
        values: What the template names. A value ``charts`` that is not empty brings the charts'
            library with it.
    """
    own, shared = PackageLoader(package, "."), PackageLoader("valence.pages", ".")
    environment = Environment(
        loader=ChoiceLoader([own, shared]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    scripts = ["page.js"]
    if values.get("charts"):
        scripts = [PLOTLY, *scripts, "charts.js"]
    if values.get("confusions"):
        scripts.append("confusion.js")
    return environment.get_template(template).render(
        **values, style=Markup(_text("page.css")), scripts=[Markup(_text(s)) for s in scripts]
    )


def embedded(value: Any) -> Markup:
    """JSON that can stand in a script element, whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _text(name: str) -> str:
    return (files("valence.pages") / name).read_text(encoding="utf-8")
