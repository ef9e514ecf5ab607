"""Wrong training labels on purpose, to see what a method does with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from valence.config.data import DataSpec
from valence.data.dataset import Split
from valence.data.sampling import wrong_labels

# How steeply similarity of texts turns into likelihood of confusion.
SHARPNESS = 8.0


def with_label_noise(
    train: Split, spec: DataSpec, class_count: int, *, seed: int
) -> tuple[Split, str]:
    """Training rows with a fraction of wrong labels, and a note on them.

    Args:
        train: The rows, already subsampled.
        spec: ``noise_share`` and the kind of noise.
        class_count: C.
        seed: Decides which rows and which classes.
    """
    if spec.noise == "confusable":
        likelihood = class_similarity(train.texts, train.labels, class_count)
    else:
        likelihood = np.ones((class_count, class_count))
    labels = wrong_labels(train.labels, spec.noise_share, likelihood, seed=seed)
    changed = int((labels != train.labels).sum())
    note = f"label noise ({spec.noise}) added to {changed} of {len(labels)} training labels"
    return replace(train, labels=labels), note


def class_similarity(texts: list[str], labels: np.ndarray, class_count: int) -> np.ndarray:
    """(C, C) likelihood of confusing classes, by the cosine of their mean TF-IDF vectors.

    A class without rows has cosine 0 to all others.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True).fit_transform(texts)
    member = np.eye(class_count)[labels]
    means = np.asarray((rows.T @ member).T)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    similarity: np.ndarray = np.exp(SHARPNESS * (means @ means.T))
    return similarity
