"""``valence encoders``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console
from valence.cli.options import Json
from valence.cli.tables import print_table
from valence.errors import UnknownNameError

if TYPE_CHECKING:
    from valence.models.encoder_cards import EncoderCard

Cell = Callable[["EncoderCard"], str]
COLUMNS: dict[str, Cell] = {
    "languages": lambda card: card.reads,
    "M": lambda card: _dash(card.millions),
    "license": lambda card: card.license or "–",
    "for": lambda card: ", ".join(card.use),
    "tokens": lambda card: _dash(card.max_tokens),
    "texts/s": lambda card: _dash(card.texts_per_second),
    "width": lambda card: _dash(card.width),
    "works": lambda card: works(card),
    "published": lambda card: card.score or "–",
    "hub": lambda card: card.hub_name or "–",
    "note": lambda card: card.note,
    "source": lambda card: card.source,
}
"""Columns by heading, the first to keep first."""


def encoders(
    language: Annotated[
        str | None, typer.Option(help="Only encoders for a language: an ISO 639-1 code such as sw.")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Only encoders under a license, such as MIT.")
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Print all columns, even if the terminal is too narrow.")
    ] = False,
    json: Json = False,
) -> None:
    """List encoders with their languages, sizes and uses.

    `*` marks built-in encoders, `+` those in this machine's hub cache.
    """
    cards = _chosen(language, license_)
    if json:
        console.print_json({name: _record(name, card) for name, card in cards.items()})
        return
    marked = {f"{name}{_mark(name, card)}": card for name, card in cards.items()}
    rows = [[name, *(cell(card) for cell in COLUMNS.values())] for name, card in marked.items()]
    print_table(["encoder", *COLUMNS], rows, wide=wide)
    if sys.stdout.isatty():
        console.info("* built in, + in the hub cache")
    if language is not None and any(card.languages is None for card in cards.values()):
        unsure = ", ".join(name for name, card in cards.items() if card.languages is None)
        console.info(f"Note: whether these read {language!r} is not on their cards: {unsure}")


def works(card: EncoderCard) -> str:
    """What works with an encoder, in a cell; a dash where it was not tried."""
    from valence.models.encoder_cards import WORKS

    if card.works is None:
        return "–"
    return ", ".join(name for name in WORKS if name in card.works) or "frozen only"


def _chosen(language: str | None, license_: str | None) -> dict[str, EncoderCard]:
    """The cards that pass both filters.

    Raises:
        UnknownNameError: if no card is under the license, or none lists the language.
    """
    from valence.models.encoder_cards import ENCODERS

    cards = dict(ENCODERS)
    if license_ is not None:
        known = sorted({card.license for card in cards.values() if card.license})
        if license_.lower() not in {name.lower() for name in known}:
            raise UnknownNameError("license", license_, known)
        cards = {n: c for n, c in cards.items() if c.license.lower() == license_.lower()}
    if language is not None:
        listed = {code for card in ENCODERS.values() for code in card.languages or ()}
        if language.lower() not in listed and len(language) not in (2, 3):
            raise UnknownNameError("language code", language, listed)
        cards = {n: c for n, c in cards.items() if c.reads_language(language.lower()) is not False}
    return cards


def _record(name: str, card: EncoderCard) -> dict[str, Any]:
    here = {"*": "built in", "+": "cached"}.get(_mark(name, card))
    listed = {"languages": card.languages, "works": None if card.works is None else
              sorted(card.works)}  # fmt: skip
    return {**asdict(card), **listed, "here": here}


def _mark(name: str, card: EncoderCard) -> str:
    from valence.models.built_in import BUILT_IN

    if name in BUILT_IN:
        return "*"
    if not card.hub_name:
        return ""
    from huggingface_hub import try_to_load_from_cache

    return "+" if isinstance(try_to_load_from_cache(card.hub_name, "config.json"), str) else ""


def _dash(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
