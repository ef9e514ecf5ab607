"""Labels that are likely wrong: confident learning on cross-validated probabilities.

Northcutt, Jiang & Chuang 2021, "Confident Learning", in cleanlab's implementation. A class has
a budget: at most a share of its rows is named, the least believable first, so that a small
class, whose rows every model doubts, is not emptied by the search for errors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from valence.audit.checks import PLAIN, Finding, LabeledSource, Level

FOLDS = 5
BUDGET = 0.05
MAX_TERMS = 30_000
STRENGTH = {"encoder": 0.05, "terms": 3.0}
"""Inverse regularisation: a few hundred dense features, or thousands of rare terms."""

Embed = Callable[[Sequence[str]], np.ndarray]


def find_label_errors(
    source: LabeledSource, embed: Embed | None, *, budget: float = BUDGET, seed: int = 45
) -> Finding:
    """Training rows whose label a cheap model that has not seen them holds for wrong.

    Args:
        source: The rows.
        embed: From N texts to features (N, H); n-gram counts when None.
        budget: Most rows of a class that are named, as a share of it; at least one.
        seed: Seed of the folds.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        line = "Label errors are not looked for; install the extra: pip install 'valence[audit]'"
        return Finding("label-errors", "skipped", line)
    rows = source.of(source.training)
    groups = rows.drop_duplicates("key")["label"].value_counts()
    judged = sorted(str(name) for name in groups.index[groups >= FOLDS])
    if len(judged) < 2:
        line = f"Too few classes have {FOLDS} different texts to look for label errors."
        return Finding("label-errors", "skipped", line)
    rows = rows[rows["label"].isin(judged)].reset_index(drop=True)
    labels = np.searchsorted(judged, rows["label"].to_numpy(dtype=str))
    chances = cross_validated(rows, labels, embed, seed=seed)
    ranked = find_label_issues(
        labels, chances, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    named = within_budget(labels, np.asarray(ranked, dtype=np.int64), budget)
    table = rows.loc[named, PLAIN].reset_index(drop=True)
    table.insert(0, "suggested", [judged[i] for i in chances[named].argmax(axis=1)])
    table.insert(1, "chance_of_label", chances[named, labels[named]].round(4))
    left = f" ({len(ranked)} before the budget of {budget:.0%} per class)"
    line = (
        f"{len(named)} of {len(rows)} {source.shown(source.training)}labels are likely wrong"
        f"{left if len(ranked) > len(named) else ''}; read them before you trust the list."
    )
    level: Level = "warning" if len(named) else "fine"
    return Finding("label-errors", level, line, len(named), table)


def within_budget(labels: np.ndarray, ranked: np.ndarray, budget: float) -> np.ndarray:
    """Of ranked rows the first of every class, up to the budget of the class.

    Args:
        labels: (N,) class ids.
        ranked: Places in ``labels``, the most doubtful first.
        budget: Share of a class; at least one row.
    """
    allowed = np.maximum(1, np.floor(np.bincount(labels) * budget))
    kept = []
    for place in ranked:
        if allowed[labels[place]] > 0:
            allowed[labels[place]] -= 1
            kept.append(int(place))
    return np.array(kept, dtype=np.int64)


def cross_validated(
    rows: pd.DataFrame, labels: np.ndarray, embed: Embed | None, *, seed: int
) -> np.ndarray:
    """(N, C) probabilities of every row by a model fitted without it and without its copies.

    Args:
        rows: N rows with ``text`` and ``key``.
        labels: (N,) ids of C classes, each with at least five different texts.
        embed: From texts to features; n-gram counts when None.
        seed: Seed of the folds.
    """
    features = _terms(rows["text"].tolist()) if embed is None else embed(rows["text"].tolist())
    kind = "terms" if embed is None else "encoder"
    if embed is not None:
        features = StandardScaler().fit_transform(features)
    first = ~rows.duplicated("key").to_numpy()
    fold_of = {}
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    keys = rows["key"].to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class that few texts are left of
        for number, (_, held) in enumerate(folds.split(keys[first], labels[first])):
            fold_of.update(dict.fromkeys(keys[first][held], number))
    fold = np.array([fold_of[key] for key in keys])
    chances = np.zeros((len(rows), int(labels.max()) + 1))
    for number in range(FOLDS):
        held = fold == number
        if not held.any():
            continue
        model = LogisticRegression(C=STRENGTH[kind], max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[~held], labels[~held])
        chances[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    # A class that a fold's model has not met would have no chance at all.
    floor = 10.0 ** -math.ceil(math.log10(max(10, len(rows))))
    chances = np.maximum(chances, floor)
    normal: np.ndarray = chances / chances.sum(axis=1, keepdims=True)
    return normal


def _terms(texts: Sequence[str]) -> sparse.csr_matrix:
    vectorizer = TfidfVectorizer(
        sublinear_tf=True, max_features=MAX_TERMS, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"
    )
    rows: sparse.csr_matrix = vectorizer.fit_transform(texts)
    return rows
