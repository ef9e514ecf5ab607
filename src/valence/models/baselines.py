"""The cheap rivals every honest table needs: majority, TF-IDF and the linear probe."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from valence.config.spec import RunSpec
from valence.data.dataset import TrainingData
from valence.errors import ModelError
from valence.evaluation.classification import classification_scores
from valence.models.base import Progress, Scores, TextModel
from valence.models.classifier import TorchModel, build_model
from valence.models.config_file import read_config, write_config
from valence.storage import atomic

# Inverse regularisation strengths tried on validation; three decades around the default.
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# Word pairs see "not good"; letter n-grams see misspellings and unspaced scripts.
VECTORIZERS = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    "letters": {"analyzer": "char_wb", "ngram_range": (2, 4)},
}
MAX_TERMS = 50_000


@dataclass
class MajorityModel:
    """Gives every text the class shares of the training rows."""

    classes: tuple[str, ...]
    spec: RunSpec
    counts: tuple[int, ...]
    tail: tuple[int, ...]
    trainable_parameters: int = 0

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """The log shares, once per text."""
        logits = np.log(np.maximum(self.counts, 1e-9) / max(1, sum(self.counts)))
        rows = np.tile(logits.astype(np.float32), (len(texts), 1))
        return Scores(rows, np.zeros((len(texts), 0), dtype=np.float32))

    def save(self, folder: Path) -> None:
        """Write ``config.json``; there is nothing else."""
        folder.mkdir(parents=True, exist_ok=True)
        write_config(
            folder, kind="majority", spec=self.spec, classes=self.classes,
            counts=self.counts, tail=self.tail,
        )  # fmt: skip


@dataclass
class TfidfModel:
    """Logistic regression on TF-IDF of word and letter n-grams."""

    classes: tuple[str, ...]
    spec: RunSpec
    counts: tuple[int, ...]
    tail: tuple[int, ...]
    vectorizers: list[TfidfVectorizer]
    weight: np.ndarray
    bias: np.ndarray

    @property
    def trainable_parameters(self) -> int:
        """Coefficients of the regression."""
        return int(self.weight.size + self.bias.size)

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Decision values (N, C); there are no dense features."""
        rows = _vectorize(self.vectorizers, texts)
        logits = (rows @ self.weight.T + self.bias).astype(np.float32)
        return Scores(logits, np.zeros((len(texts), 0), dtype=np.float32))

    def save(self, folder: Path) -> None:
        """Write terms as JSON and numbers as safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight, "bias": self.bias}
        terms = {}
        for name, vectorizer in zip(VECTORIZERS, self.vectorizers, strict=True):
            tensors[f"idf.{name}"] = vectorizer.idf_
            terms[name] = list(vectorizer.get_feature_names_out())
        with atomic.new_file(folder / "regression.safetensors") as path:
            save_file(tensors, path)
        atomic.write_text(folder / "terms.json", json.dumps(terms, ensure_ascii=False))
        write_config(
            folder, kind="tfidf", spec=self.spec, classes=self.classes,
            counts=self.counts, tail=self.tail,
        )  # fmt: skip


def load_majority_model(folder: Path) -> MajorityModel:
    """The model that :meth:`MajorityModel.save` wrote."""
    config = read_config(folder)
    return MajorityModel(config.classes, config.spec, config.train_counts, config.tail)


def load_tfidf_model(folder: Path) -> TfidfModel:
    """The model that :meth:`TfidfModel.save` wrote.

    Raises:
        ModelError: if a file is missing or truncated.
    """
    config = read_config(folder)
    try:
        tensors = load_file(folder / "regression.safetensors")
        terms = json.loads((folder / "terms.json").read_text(encoding="utf-8"))
        vectorizers = []
        for name, settings in VECTORIZERS.items():
            vectorizer = TfidfVectorizer(vocabulary=terms[name], sublinear_tf=True, **settings)
            vectorizer.idf_ = tensors[f"idf.{name}"]
            vectorizers.append(vectorizer)
        weight, bias = tensors["weight"], tensors["bias"]
    except Exception as error:  # safetensors and scikit-learn raise errors of their own kinds
        raise ModelError(f"{folder} is missing a file or has a broken one ({error})") from None
    return TfidfModel(
        config.classes, config.spec, config.train_counts, config.tail, vectorizers, weight, bias
    )


def fit_majority(spec: RunSpec, data: TrainingData) -> tuple[TextModel, list[str]]:
    """Count the classes."""
    counts = tuple(int(n) for n in data.train_counts)
    return MajorityModel(data.classes, spec, counts, data.tail), []


def fit_tfidf(spec: RunSpec, data: TrainingData) -> tuple[TextModel, list[str]]:
    """Fit the regression; its strength is chosen on validation."""
    vectorizers = [
        TfidfVectorizer(sublinear_tf=True, max_features=MAX_TERMS, **settings).fit(data.train.texts)
        for settings in VECTORIZERS.values()
    ]
    train = _vectorize(vectorizers, data.train.texts)
    validation = _vectorize(vectorizers, data.validation.texts)
    weight, bias, strength = _regression(spec, data, train, validation)
    counts = tuple(int(n) for n in data.train_counts)
    model = TfidfModel(data.classes, spec, counts, data.tail, vectorizers, weight, bias)
    return model, [f"regularisation strength C={strength:g} chosen on validation"]


def fit_linear_probe(spec: RunSpec, data: TrainingData) -> tuple[TextModel, list[str]]:
    """Fit the regression on the frozen encoder's pooled features; a torch model like others."""
    model: TorchModel = build_model(spec, data)
    model.enable_feature_cache()
    train = model.score(data.train.texts).features
    validation = model.score(data.validation.texts).features
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    weight, bias, strength = _regression(
        spec, data, (train - mean) / deviation, (validation - mean) / deviation
    )
    linear = model.classifier.head.get_submodule("linear")
    assert isinstance(linear, torch.nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight / deviation))
        linear.bias.copy_(torch.from_numpy(bias - (weight / deviation) @ mean))
    model.classifier.eval()
    return model, [f"regularisation strength C={strength:g} chosen on validation"]


BASELINES: dict[str, Callable[[RunSpec, TrainingData], tuple[TextModel, list[str]]]] = {
    "majority": fit_majority,
    "tfidf-lr": fit_tfidf,
    "linear-probe": fit_linear_probe,
}


def _vectorize(vectorizers: list[TfidfVectorizer], texts: Sequence[str]) -> sparse.csr_matrix:
    rows: sparse.csr_matrix = sparse.hstack([v.transform(texts) for v in vectorizers]).tocsr()
    return rows


def _regression(
    spec: RunSpec, data: TrainingData, train: np.ndarray | sparse.csr_matrix,
    validation: np.ndarray | sparse.csr_matrix,
) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
    """Weight (C, D), bias (C,) and strength of the regression that does best on validation."""
    best: tuple[float, np.ndarray, np.ndarray, float] | None = None
    for strength in STRENGTHS:
        weight, bias = _fit(spec, data, train, strength)
        found = classification_scores(
            data.validation.labels, validation @ weight.T + bias, classes=data.classes,
            train_counts=[int(n) for n in data.train_counts], tail=data.tail,
        )  # fmt: skip
        value = found[spec.train.metric] or 0.0
        if best is None or value > best[0]:
            best = (value, weight, bias, strength)
    assert best is not None
    return best[1], best[2], best[3]


def _fit(
    spec: RunSpec, data: TrainingData, train: np.ndarray | sparse.csr_matrix, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    weights = "balanced" if spec.loss.class_weights == "balanced" else None
    regression = LogisticRegression(C=strength, class_weight=weights, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(train, data.train.labels)
    weight = np.zeros((len(data.classes), train.shape[1]), dtype=np.float32)
    # A class without training rows keeps a bias no text overcomes.
    bias = np.full(len(data.classes), -1e4, dtype=np.float32)
    if len(regression.classes_) == 2:  # one row of coefficients stands for both classes
        weight[regression.classes_[1]] = regression.coef_[0]
        bias[regression.classes_] = (0.0, float(regression.intercept_[0]))
    else:
        weight[regression.classes_] = regression.coef_
        bias[regression.classes_] = regression.intercept_
    return weight, bias
