"""What a person reads is plain English: no words of our own in help, messages, pages or documents.

Gathered are the help of every command, every string of three words or more in the package that is
no docstring, the templates of pages, the README and the guides. Each pattern below was found in a
text and replaced; the note beside it says what to write.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests.conftest import ROOT
from valence.cli import app

PATTERNS = {
    r"\banew\b": "again, or new",
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\b(goes|go|gone|went) on\b(?! (the|a|to) )": "continue, resume",
    r"(?<![Tt]here )\b(is|are|was) no (?!(longer|more|less|such|better|\w+ to)\b)[a-z]": "not a",
    r"\bis none of\b": "unknown",
    r"\bword for word\b": "identical",
    r"\bmore nearly\b": "near-duplicates",
    r"\bas it was\b": "unchanged",
    r"\bcannot be had\b": "cannot be loaded",
    r"\b(every|some|any|no)body\b": "say who: you, users, other tools",
    r"\bstands? (in|on|at|under|for|beside|by|behind|there|as)\b": "is in, is listed under",
    r"\bwhat is finished\b": "finished work",
    r"\b(and|is|are) said\b": "you see a note",
    r"\b(says|said) so\b": "prints a note",
    r"\bwhich is said\b": "you see a note",
    r"\b(wanted|told|gives? up his)\b": "requested, shown",
    r"\bask(s|ed|ing)? (a|the|such) (language )?models?\b": "prompt",
    r"\blook(s|ed|ing)? .{0,20}\bover\b": "check",
    r"\bfit to be\b": "check",
    r"\bmean what they say\b": "are reliable, are calibrated",
    r"\bspeaks? (for|against)\b": "supports, contradicts",
    r"\b(his|her) own\b": "your, their",
    r"\bof ours\b|\bours, not yours\b": "in Valence",
    r"\bunless (told|you say|it says|said)\b": "by default",
    r"\bsays otherwise\b": "change it with",
    r"\b(for ever|hitherto|wherein|whereof|thereof|whilst|lest|upon|likewise|as ever)\b": "modern",
    r"\bthat is (all|found, and said)\b": "plain",
    r"\bfor nothing\b": "free",
    r"\bwhatever the\b": "for any",
    r"\bnone wins\b": "no method wins",
    r"\bthe like\b|\bits like\b": "and similar",
    r"\bleave .{1,30} out\b": "remove, omit",
}  # fmt: skip
PLAIN = re.compile("|".join(f"(?:{pattern})" for pattern in PATTERNS), re.IGNORECASE)
#: The record of measurements.
RECORDS = {"results.md"}
#: Texts that are data: the synthetic corpus, and prompts and cards as published.
DATA = {"demo.py", "demo_lexicon.py", "prompts.py", "catalog.py", "columns.py", "text.py"}
MARKED = re.compile(r"```.*?```|`[^`]*`|<!--.*?-->", flags=re.DOTALL)
TAGS = re.compile(r"\{[%#].*?[%#]\}|\{\{.*?\}\}|<[^>]+>", flags=re.DOTALL)


def faults(text: str) -> list[str]:
    """What a text has of the list, each with the words around it."""
    flat = " ".join(text.split())
    return [flat[max(0, m.start() - 30) : m.end() + 30] for m in PLAIN.finditer(flat)]


def commands() -> Iterator[tuple[str, str]]:
    """Every command's own help and that of its options."""

    def walk(command: typer.core.TyperCommand | typer.core.TyperGroup, name: str) -> Iterator:
        options = [str(getattr(one, "help", "") or "") for one in command.params]
        yield name, "\n".join([command.help or "", *options])
        for sub, own in getattr(command, "commands", {}).items():
            yield from walk(own, f"{name} {sub}")

    yield from walk(typer.main.get_command(app), "valence")


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Strings of three words or more that are no docstrings; what is filled in becomes ``x``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
             for part in node.values}  # fmt: skip
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in parts | alone:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if len(re.findall(r"[A-Za-z]{2,}", text)) >= 3 and " " in text:
            yield node.lineno, text


SOURCES = sorted(path for path in (ROOT / "src/valence").rglob("*.py") if path.name not in DATA)
TEMPLATES = sorted(
    path for ending in ("*.j2", "*.html") for path in (ROOT / "src/valence").rglob(ending)
)  # fmt: skip
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md")
                                     if p.name not in RECORDS)]  # fmt: skip


def test_help_is_plain() -> None:
    found = dict(commands())
    assert len(found) > 35
    assert [(name, fault) for name, text in found.items() for fault in faults(text)] == []


def test_messages_are_plain() -> None:
    found = [
        (f"{path.relative_to(ROOT)}:{line}", text)
        for path in SOURCES for line, text in messages(path)
    ]  # fmt: skip
    assert len(found) > 1000
    assert [(where, fault) for where, text in found for fault in faults(text)] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_page_templates_are_plain(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.strip()
    assert faults(TAGS.sub(" ", source)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_documents_are_plain(path: Path) -> None:
    text = MARKED.sub("CODE", path.read_text(encoding="utf-8"))
    assert len(text.split()) > 10
    assert faults(text) == []


@pytest.mark.parametrize("text", [
    "Splits you do not give are made, stratified, and said.",
    "Is the data fit to be trained on?",
    "x is no Valence model",
    "The same command goes on from here",
    "Stopped. What is finished is kept.",
    "label 'x' is none of the classes",
    "Look the installation over",
    "Fixed: airline.csv: as it was",
])  # fmt: skip
def test_the_list_finds_what_was_replaced(text: str) -> None:
    assert faults(text) != []


def test_a_planted_message_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text('"""It is no text."""\nraise E(f"{a} is no text; mend it")\n')
    ((line, text),) = messages(planted)
    assert (line, text) == (2, "x is no text; mend it")
    assert len(faults(text)) == 2
