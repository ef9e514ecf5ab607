"""``valence encoders``: a table that fits a terminal, filters, JSON."""

from __future__ import annotations

import json
import re
import sys

import pytest

from valence.models.built_in import BUILT_IN
from valence.models.encoder_cards import ENCODERS


def test_all_encoders_are_listed_and_built_in_ones_marked(valence) -> None:
    code, out, _ = valence("encoders")
    names = [line.split("\t")[0] for line in out.splitlines()[1:]]
    assert code == 0
    assert [name.rstrip("*+") for name in names] == list(ENCODERS)
    assert {name.rstrip("*") for name in names if name.endswith("*")} == set(BUILT_IN)


def test_a_terminal_of_80_columns_shows_whole_lines(
    valence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, _ = valence("encoders")
    assert code == 0
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in out.splitlines()) <= 80
    head, _, dropped = out.partition("Hidden columns")
    assert "license" in head
    assert "source" not in head
    assert "source" in dropped
    assert "--wide" in out


def test_filters_by_language_and_license(valence) -> None:
    code, out, err = valence("encoders", "--language", "SW", "--license", "mit", "--json")
    cards = json.loads(out)
    assert code == 0
    assert "multilingual-e5-small" in cards
    assert "mmBERT-base" in cards
    assert "deberta-v3-base" not in cards
    assert cards["multilingual-e5-small"]["here"] == "built in"
    assert {card["license"] for card in cards.values()} == {"MIT"}
    _, _, err = valence("encoders", "--language", "sw")
    assert "Note: whether these read 'sw' is not on their cards: potion-multilingual-128M" in err


def test_wrong_filters_name_what_there_is(valence) -> None:
    code, _, err = valence("encoders", "--license", "MTI")
    assert code == 1
    assert "did you mean 'MIT'" in err
    code, _, err = valence("encoders", "--language", "swahili")
    assert code == 1
    assert "Unknown language code 'swahili'" in err


def test_wide_has_every_column(valence) -> None:
    code, out, _ = valence("encoders", "--wide")
    heading = out.splitlines()[0].split("\t")
    assert code == 0
    assert {"hub", "note", "source", "published", "works"} <= set(heading)
