"""Second views: their kinds, their cache, and that they are made once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from valence.config.sections import ViewSpec
from valence.data import augment
from valence.data.augment import Texts, edit_words, second_views, word_tokens
from valence.errors import DataError, UnknownNameError
from valence.storage import cache

TEXTS = ["the film was good but slow", "a great plot and lovely staff", "good", "it is not bad"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))


def source(encoder: Path | str, extra: pd.DataFrame | None = None, seed: int = 1) -> Texts:
    return Texts(TEXTS, pd.DataFrame() if extra is None else extra, str(encoder), 64, seed)


@pytest.fixture(scope="module")
def language_model(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language-model")
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(tiny_encoder)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@given(st.text(max_size=60), st.floats(0.01, 0.9), st.integers(0, 99))
def test_edits_use_the_words_of_the_text_and_lose_no_text(
    text: str, share: float, seed: int
) -> None:
    made = edit_words(text, share, np.random.default_rng(seed))
    assert set(made.split()) <= set(text.split()) or augment.UNSPACED.search(text)
    assert made == edit_words(text, share, np.random.default_rng(seed))
    assert not text.strip() or made.strip()


def test_edits_work_without_spaces() -> None:
    text = "这家酒店的服务非常好"
    made = edit_words(text, 0.3, np.random.default_rng(0))
    assert made != text
    assert set(made) <= set(text)


def test_substitution_changes_whole_words_alone(language_model: Path) -> None:
    views, note = second_views(ViewSpec(name="auto", share=0.3), source(language_model))
    assert note == "second views: substitution"
    assert len(views) == len(TEXTS)
    for text, view in zip(TEXTS, views, strict=True):
        before, after = text.split(), view.split()
        assert len(before) == len(after)
        changed = sum(a != b for a, b in zip(before, after, strict=True))
        assert changed == max(1, round(0.3 * len(before)))
    again, note = second_views(ViewSpec(name="substitution", share=0.3), source(language_model))
    assert (again, note) == (views, "second views: substitution (from the cache)")
    other, _ = second_views(ViewSpec(name="auto", share=0.3), source(language_model, seed=2))
    assert other != views


def test_views_are_made_once(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Counter[str]()

    def counting(view: ViewSpec, texts: Texts, progress: object) -> list[str]:
        made["edits"] += 1
        return list(texts.texts)

    monkeypatch.setitem(augment.VIEWS, "edits", counting)
    for _ in range(3):
        second_views(ViewSpec(name="auto"), source(tiny_encoder))
    assert made == {"edits": 1}
    (entry,) = cache.entries()
    assert entry.kind_name == "views"
    assert entry.about["texts"] == len(TEXTS)
    assert cache.clear() > 0
    second_views(ViewSpec(name="auto"), source(tiny_encoder))
    assert made == {"edits": 2}


def test_a_column_comes_first_and_empty_cells_fall_back(language_model: Path) -> None:
    extra = pd.DataFrame({"aug_text": ["one", None, " ", "four"]})
    views, note = second_views(ViewSpec(name="auto"), source(language_model, extra))
    assert views == ["one", TEXTS[1], TEXTS[2], "four"]
    assert note == "second views: column"


def test_dropout_views_are_the_texts(tiny_encoder: Path) -> None:
    assert second_views(ViewSpec(name="dropout"), source(tiny_encoder))[0] == TEXTS


def test_what_cannot_be_had_is_said(tiny_encoder: Path) -> None:
    with pytest.raises(DataError, match="no column 'aug_text' of second views"):
        second_views(ViewSpec(name="column"), source(tiny_encoder))
    with pytest.raises(DataError, match="no masked language model"):
        second_views(ViewSpec(name="substitution"), source(tiny_encoder))
    with pytest.raises(UnknownNameError, match="did you mean 'edits'"):
        second_views(ViewSpec(name="edit"), source(tiny_encoder))


def test_word_tokens_of_both_kinds_of_tokenizers() -> None:
    class Fake:  # the two ways in which vocabularies mark words
        def __init__(self, tokens: list[str]) -> None:
            self.tokens = tokens
            self.all_special_tokens = ["<s>"]

        def get_vocab(self) -> dict[str, int]:
            return {token: i for i, token in enumerate(self.tokens)}

    begins, goes_on = word_tokens(Fake(["<s>", "film", "##s", "!"]))
    assert begins.tolist() == [False, True, False, False]
    assert goes_on.tolist() == [False, False, True, False]
    begins, goes_on = word_tokens(Fake(["<s>", "Ġfilm", "s", "Ġ!"]))
    assert begins.tolist() == [False, True, False, False]
    assert goes_on.tolist() == [False, False, True, False]


def test_views_that_vanish_or_break_are_made_again(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = second_views(ViewSpec(name="edits"), source(tiny_encoder))
    (entry,) = cache.entries()
    (entry.path / augment.FILE).write_bytes(b"PAR1 half")
    again, note = second_views(ViewSpec(name="edits"), source(tiny_encoder))
    assert (again, note) == (first, "second views: edits")
    original = cache.find

    def found_and_gone(kind: cache.CacheKind, key: str) -> Path | None:
        path = original(kind, key)
        cache.clear()
        return path

    monkeypatch.setattr(cache, "find", found_and_gone)
    assert second_views(ViewSpec(name="edits"), source(tiny_encoder)) == (first, note)
