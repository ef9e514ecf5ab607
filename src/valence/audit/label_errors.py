"""Labels that are likely wrong: confident learning on cross-validated probabilities.

Northcutt, Jiang & Chuang 2021, "Confident Learning", in cleanlab's implementation. A class has
a budget: at most a fraction of its rows is reported, the least likely labels first, so that a
small class, whose rows every model doubts, is not emptied.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from valence.audit.checks import ROW_COLUMNS, Finding, LabeledSource, Level
from valence.models.ngrams import Ngrams

FOLDS = 5
BUDGET = 0.05
MAX_TERMS = 30_000
STRENGTH = {"encoder": 0.05, "terms": 3.0}
"""Inverse regularization strength: a few hundred dense features, or thousands of rare terms."""

Embed = Callable[[Sequence[str]], np.ndarray]


def find_label_errors(
    source: LabeledSource, embed: Embed | None, *, budget: float = BUDGET, seed: int = 45
) -> Finding:
    """Training rows whose label is likely wrong, by a cheap out-of-fold model.

    Args:
        source: The rows.
        embed: From N texts to features (N, H), for a second opinion beside that of n-grams.
        budget: Most rows of a class that are reported, as a fraction of it; at least one.
        seed: Seed of the folds.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        line = "Label errors were not checked; install the extra: pip install 'valence[audit]'"
        return Finding("label-errors", "skipped", line)
    rows = source.of(source.training)
    groups = rows.drop_duplicates("key")["label"].value_counts()
    classes = sorted(str(name) for name in groups.index[groups >= FOLDS])
    if len(classes) < 2:
        line = f"Label errors were not checked: too few classes have {FOLDS} different texts."
        return Finding("label-errors", "skipped", line)
    rows = rows[rows["label"].isin(classes)].reset_index(drop=True)
    labels = np.searchsorted(classes, rows["label"].to_numpy(dtype=str))
    probs = cross_validated_probs(rows, labels, embed, seed=seed)
    ranked = find_label_issues(labels, probs, return_indices_ranked_by="self_confidence", n_jobs=1)
    named = within_budget(labels, np.asarray(ranked, dtype=np.int64), budget)
    table = rows.loc[named, ROW_COLUMNS].reset_index(drop=True)
    table.insert(0, "suggested", [classes[i] for i in probs[named].argmax(axis=1)])
    table.insert(1, "chance_of_label", probs[named, labels[named]].round(4))
    judge = "n-grams" if embed is None else "n-grams and the encoder"
    looks = "label looks" if len(ranked) == 1 else "labels look"
    line = (
        f"{len(ranked)} of {len(rows)} {source.shown(source.training)}{looks} doubtful "
        f"(judged by {judge})"
    )
    if len(ranked) > len(named):
        line += f"; the {len(named)} most doubtful are listed (at most {budget:.0%} per class)"
    line += ". Check them by hand." if len(named) else "."
    level: Level = "warning" if len(named) else "fine"
    return Finding("label-errors", level, line, len(named), table)


def within_budget(labels: np.ndarray, ranked: np.ndarray, budget: float) -> np.ndarray:
    """The first ranked rows of every class, up to its budget.

    Args:
        labels: (N,) class ids.
        ranked: Indices into ``labels``, the most doubtful first.
        budget: Fraction of a class; at least one row.
    """
    allowed = np.maximum(1, np.floor(np.bincount(labels) * budget))
    rows = []
    for row in ranked:
        if allowed[labels[row]] > 0:
            allowed[labels[row]] -= 1
            rows.append(int(row))
    return np.array(rows, dtype=np.int64)


def cross_validated_probs(
    rows: pd.DataFrame, labels: np.ndarray, embed: Embed | None, *, seed: int
) -> np.ndarray:
    """(N, C) probabilities of every row by models fitted without it and its duplicates.

    Args:
        rows: N rows with ``text`` and ``key``.
        labels: (N,) ids of C classes, each with at least five different texts.
        embed: From texts to features, whose model is averaged with that of n-grams.
        seed: Seed of the folds.
    """
    texts, fold = rows["text"].tolist(), _folds(rows, labels, seed)
    # One class against the rest: the same quality as all at once, at a tenth of the time.
    terms = OneVsRestClassifier(LogisticRegression(C=STRENGTH["terms"], solver="liblinear"))
    grams = Ngrams.fit(texts, ("words",), max_terms=MAX_TERMS).transform(texts)
    parts = [_out_of_fold(terms, grams, labels, fold)]
    if embed is not None:
        dense = LogisticRegression(C=STRENGTH["encoder"], max_iter=200)
        features = StandardScaler().fit_transform(embed(texts))
        parts.append(_out_of_fold(dense, features, labels, fold))
    # A class missing from a fold's training rows would have probability 0.
    floor = 10.0 ** -math.ceil(math.log10(max(10, len(rows))))
    probs = np.maximum(np.mean(parts, axis=0), floor)
    normalized: np.ndarray = probs / probs.sum(axis=1, keepdims=True)
    return normalized


def _folds(rows: pd.DataFrame, labels: np.ndarray, seed: int) -> np.ndarray:
    """(N,) number of the fold of every row; duplicates are in the same."""
    first = ~rows.duplicated("key").to_numpy()
    keys = rows["key"].to_numpy()
    fold_of: dict[str, int] = {}
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class with few texts left
        for number, (_, held) in enumerate(folds.split(keys[first], labels[first])):
            fold_of.update(dict.fromkeys(keys[first][held], number))
    return np.array([fold_of[key] for key in keys])


def _out_of_fold(model: Any, features: Any, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(N, C) probabilities of every fold by a model fitted on the others."""
    probs = np.zeros((len(labels), int(labels.max()) + 1))
    for number in np.unique(fold):
        held = fold == number
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[~held], labels[~held])
        probs[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    return probs
