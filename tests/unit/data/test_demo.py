"""The built-in corpus is what its docstring says."""

from __future__ import annotations

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from valence.data import demo


def test_sizes_order_languages_and_no_leak() -> None:
    data = demo.demo_dataset()
    assert data.synthetic
    assert "synthetic" in data.notes[0]
    assert data.train.counts(5).tolist() == list(demo.TRAIN_COUNTS)
    assert data.tail == (0, 1)
    texts = [*data.train.texts, *data.validation.texts, *data.test.texts]
    assert len(set(texts)) == len(texts)
    assert len(set(data.train.extra["language"])) == 11
    assert 0.6 < (data.train.extra["language"] == "en").mean() < 0.75


def test_is_the_same_every_time() -> None:
    first = demo.demo_dataset().fingerprint
    demo.demo_dataset.cache_clear()
    assert demo.demo_dataset().fingerprint == first == "b565adbfc7d8bbf7"


def test_bag_of_words_neither_fails_nor_solves_it() -> None:
    data = demo.demo_dataset()
    bag = CountVectorizer().fit(data.train.texts)
    model = LogisticRegression(max_iter=2000, class_weight="balanced")
    model.fit(bag.transform(data.train.texts), data.train.labels)
    predicted = model.predict(bag.transform(data.test.texts))
    assert 0.3 < f1_score(data.test.labels, predicted, average="macro") < 0.6
