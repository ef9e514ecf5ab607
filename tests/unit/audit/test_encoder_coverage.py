"""What an encoder can read, counted by script."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import make_reviews
from valence.audit.encoder_coverage import Readiness, readiness, script_mix, write_readiness
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.sources import load_dataset

LINES = {
    "en": "the staff was lovely and the food was good",
    "zh": "酒店的服务员非常友好，早餐也很丰富，但是房间太小了",
    "ar": "كان الفندق جميلا والموظفون لطفاء ولكن الغرفة صغيرة",
}


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Readiness]:
    path = tmp_path_factory.mktemp("ready") / "r.csv"
    tone = {"good": "👍", "bad": "!"}
    rows = [
        {"text": f"{line} {mark}", "label": label, "language": name}
        for name, line in LINES.items()
        for label, mark in tone.items()
        for _ in range(6)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    found = readiness(load_dataset(DataSpec(name=str(path))), EncoderSpec(max_length=16))
    return {entry.group: entry for entry in found}


def test_rows_and_smallest_class(entries: dict[str, Readiness]) -> None:
    assert sorted(entries) == ["ar", "en", "zh"]
    assert sum(e.train + e.validation + e.test for e in entries.values()) == 36
    assert all(any("fewer than 50" in w for w in e.warnings) for e in entries.values())


def test_scripts_and_words(entries: dict[str, Readiness]) -> None:
    assert entries["en"].scripts == {"Latin": 1.0}
    assert script_mix(entries["zh"]) == "Han 100%"
    assert script_mix(entries["ar"]) == "Arabic 100%"
    # English: nine words of one token each; the mark is a token and no word.
    assert entries["en"].tokens_per_word == pytest.approx(10 / 9)
    assert entries["ar"].tokens_per_word > 3


def test_warnings_where_the_script_cannot_be_read(entries: dict[str, Readiness]) -> None:
    assert not any("multilingual" in line for line in entries["en"].warnings)
    assert any("cannot read Han" in line for line in entries["zh"].warnings)
    assert any("splits Arabic into letters, not words" in line for line in entries["ar"].warnings)
    assert entries["zh"].unknown > 0.3
    assert entries["ar"].over_limit == 1.0
    assert any("longer than 16 tokens" in line for line in entries["ar"].warnings)


def test_without_groups_and_as_a_file(reviews: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    data = load_dataset(DataSpec(name=str(reviews)))
    (entry,) = readiness(data, EncoderSpec(name=str(tiny_encoder), max_length=64))
    assert entry.group == "all"
    assert entry.tokens_per_word == 1.0
    assert entry.unknown == 0.0
    write_readiness([entry], tmp_path / "out" / "r.csv")
    assert pd.read_csv(tmp_path / "out" / "r.csv")["scripts"][0] == "Latin 100%"


def test_unknown_words_are_counted(tiny_encoder: Path, tmp_path: Path) -> None:
    rows = make_reviews(30)
    rows["text"] = "zebra " + rows["text"]
    rows.to_csv(tmp_path / "r.csv", index=False)
    (entry,) = readiness(
        load_dataset(DataSpec(name=str(tmp_path / "r.csv"))), EncoderSpec(name=str(tiny_encoder))
    )
    assert 0.08 < entry.unknown < 0.4
    assert any("cannot read Latin" in line for line in entry.warnings)
