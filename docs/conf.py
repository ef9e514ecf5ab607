"""The documents' site: ``make docs`` builds it without a network, and warnings are errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from site_parts import fill  # noqa: E402  the folder must be on the path first

import valence  # noqa: E402

project = "Valence"
copyright = "the authors of Valence, Apache-2.0"
version = release = valence.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["site_parts"]

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "substitution"]
myst_heading_anchors = 3
highlight_language = "sh"  # a fence without a language holds commands, which tests run

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "Valence"
html_static_path = ["_static"]
html_css_files = ["valence.css"]
html_show_sphinx = False
html_copy_source = False


FIGURE = re.compile(r"[-+−–\d~.]|\S+$")  # a number with its interval, or one word
SHORT = 32  # characters; longer cells are text that begins with a number


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Fill the marks of a page before it is read."""
    source[0] = fill(source[0])


def _mark_figures(app: Sphinx, document: nodes.document) -> None:
    """Cells of figures get a class, so that they are not broken over lines."""
    for cell in document.findall(nodes.entry):
        text = cell.astext().strip()
        if len(text) < SHORT and FIGURE.match(text):
            cell["classes"].append("figure")


def _keep_colons(app: Sphinx, what: str, *told: object) -> None:
    """An attribute's line may hold a colon; napoleon would read a type before it."""
    lines = told[-1]
    if what == "attribute" and isinstance(lines, list):
        lines.insert(0, "")


def setup(app: Sphinx) -> None:
    """Connect what pages and docstrings pass through."""
    app.connect("source-read", _fill)
    app.connect("doctree-read", _mark_figures)
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)
