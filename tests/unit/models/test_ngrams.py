"""N-grams: the numbers are those of scikit-learn, and need no scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from valence.models.ngrams import ANALYZERS, FittedTfidf, Ngrams

TRAINING = (
    "Not good, not  good at all", "a GOOD day", "I\tlove it\n\nso much", "ß Straße 3x",
    "日本語 です", "x",
)  # fmt: skip
TEXTS = st.lists(st.text("aAbßİ日 \t\n.,'3é\u0301\u00a0-good", max_size=40), max_size=6)


def both(name: str, max_terms: int = 200) -> tuple[TfidfVectorizer, FittedTfidf]:
    theirs = TfidfVectorizer(
        sublinear_tf=True, max_features=max_terms, dtype=np.float32, **ANALYZERS[name].settings()
    ).fit(TRAINING)
    return theirs, FittedTfidf(ANALYZERS[name], theirs.get_feature_names_out(), theirs.idf_)


@pytest.mark.parametrize("name", ANALYZERS)
@settings(max_examples=60, deadline=None)
@given(texts=TEXTS)
def test_numbers_are_those_of_scikit_learn(name: str, texts: list[str]) -> None:
    theirs, ours = both(name)
    texts = [*TRAINING, *texts]
    expected, rows = theirs.transform(texts), ours.transform(texts)
    assert rows.dtype == np.float32
    assert rows.has_sorted_indices
    assert (rows.indptr == expected.indptr).all()
    assert (rows.indices == expected.indices).all()
    np.testing.assert_allclose(rows.data, expected.data, rtol=2e-7)


@pytest.mark.parametrize("name", ANALYZERS)
@settings(max_examples=60, deadline=None)
@given(texts=TEXTS)
def test_terms_are_those_of_scikit_learn(name: str, texts: list[str]) -> None:
    analyze = TfidfVectorizer(**ANALYZERS[name].settings()).build_analyzer()
    for text in texts:
        assert sorted(ANALYZERS[name].ngrams(text)) == sorted(analyze(text))


def test_no_text_and_a_text_without_terms() -> None:
    ours = Ngrams.fit(TRAINING, max_terms=200)
    assert ours.transform([]).shape == (0, ours.size)
    assert ours.transform(["", "\u4e00"]).nnz == 0


def test_a_folder_holds_the_same_numbers(tmp_path: Path) -> None:
    ours = Ngrams.fit(TRAINING, max_terms=30)
    tensors = ours.save(tmp_path)
    loaded = Ngrams.load(tmp_path, tensors)
    assert (loaded.transform(TRAINING) != ours.transform(TRAINING)).nnz == 0


@pytest.mark.parametrize("terms", [("a", "a"), ("a",)])
def test_terms_that_do_not_fit_are_refused(terms: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="terms do not fit 2 frequencies"):
        FittedTfidf(ANALYZERS["words"], terms, np.ones(2))
