"""The built-in corpus is what its docstring says."""

from __future__ import annotations

import numpy as np
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


def test_features_belong_to_rows_and_follow_the_grade() -> None:
    data, features = demo.demo_dataset(), demo.demo_features()
    splits = (data.train, data.validation, data.test)
    grade = {i: g for s in splits for i, g in zip(s.ids, s.extra["grade"], strict=True)}
    assert features.audio.shape[1:] == demo.AUDIO_SHAPE
    assert features.vision.shape[1:] == demo.VISION_SHAPE
    grades = np.array([grade[i] for i in features.ids])
    pitch = features.audio[:, :, 1].sum(1) / features.audio_lengths
    smile = features.vision[:, :, :4].mean(2).sum(1) / features.vision_lengths
    assert 0.5 < np.corrcoef(pitch, grades)[0, 1] < 0.99
    assert 0.5 < np.corrcoef(smile, grades)[0, 1] < 0.99
    assert (features.audio[0, features.audio_lengths[0] :] == 0).all()
