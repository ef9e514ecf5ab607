"""A scikit-learn estimator over any method of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from valence.config.data import DataSpec
from valence.data.dataset import Split, TrainingData, tail_classes
from valence.data.examples import Examples
from valence.data.frames import as_frame, list_of_texts, text_column, texts_of_column
from valence.data.sampling import stratified_split
from valence.errors import DataError, SpecError
from valence.methods.fit import fit_spec
from valence.methods.registry import check_target, find_method, make_spec
from valence.models.base import Model
from valence.models.loader import load_model
from valence.storage import atomic


class SentimentClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Train a method on texts and labels; a part of them chooses the weights.

    Args:
        method: A name of ``METHODS``.
        encoder: Hub name or folder of another encoder.
        settings: Dotted settings, for example ``{"train.epochs": 3}``.
        validation_share: Fraction of the rows of ``fit`` that is held out to choose the weights.
        seed: Seed of everything random.

    Attributes:
        classes_: (C,) the labels as they were given, sorted.
        model_: The trained model.
        text_column_: The column of texts, where :meth:`fit` was given a DataFrame.
    """

    def __init__(
        self,
        method: str = "hy-mora",
        *,
        encoder: str | None = None,
        settings: Mapping[str, Any] | None = None,
        validation_share: float = 0.1,
        seed: int = 45,
    ) -> None:
        self.method = method
        self.encoder = encoder
        self.settings = settings
        self.validation_share = validation_share
        self.seed = seed

    def fit(self, X: Any, y: Sequence[Any]) -> SentimentClassifier:
        """Train on N texts ``X`` with N labels ``y``.

        Of a DataFrame the column of texts is found as ``load_dataset`` finds it, and taken by
        :meth:`predict` too.

        Raises:
            DataError: if texts are no strings, lengths differ, or there is one class only.
            SpecError: if the method reads more than texts, or cannot be fitted so.
        """
        frame = as_frame(X)
        self.text_column_ = None if frame is None else text_column(frame)
        texts = self._texts(X)
        labels = np.asarray(y)
        if len(labels) != len(texts):
            raise DataError(f"There are {len(texts)} texts and {len(labels)} labels; give one each")
        if pd.isna(labels).any():
            raise DataError("Some labels are missing (NaN or None); leave those rows out")
        self.classes_, ids = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError("All labels are the same; a classifier needs at least two classes")
        self._check_method()
        named = {"encoder.name": self.encoder} if self.encoder else {}
        spec = make_spec(
            self.method, DataSpec(), seed=self.seed, settings={**named, **(self.settings or {})}
        )
        data = _training_data(texts, ids, self.classes_, self.validation_share, self.seed)
        self.model_: Model = fit_spec(spec, data, in_memory=True).model
        return self

    def _check_method(self) -> None:
        method = find_method(self.method)
        check_target(self.method, "classes")
        others = [name for name in method.inputs if name != "text"]
        if others:
            raise SpecError(
                f"Method {self.method!r} reads {' and '.join(others)} beside the text, which an "
                "estimator of texts is not given; train it with valence train"
            )

    def _texts(self, X: Any) -> list[str]:
        frame = as_frame(X)
        column = "" if frame is None else text_column(frame, trained_on=self.text_column_)
        texts = list_of_texts(X) if frame is None else texts_of_column(frame, column)
        if not texts:
            raise DataError("There are no texts")
        return texts

    def predict(self, X: Any) -> np.ndarray:
        """(N,) labels of N texts, of the type given to :meth:`fit`."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: np.ndarray = self.classes_[best]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, C) probabilities in the order of ``classes_``."""
        check_is_fitted(self, "model_")
        return self.model_.predict(Examples(self._texts(X))).probs

    def save(self, folder: str | Path) -> None:
        """Write the model as a folder that ``Predictor`` and the command line take.

        A model that is there is replaced, whole.

        Raises:
            RunError: if the disk refuses, or the folder holds something else.
        """
        check_is_fitted(self, "model_")
        with atomic.new_folder(folder, marker="config.json") as scratch:
            self.model_.save(scratch)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:  # as the files of a model folder, not as objects of libraries
            with TemporaryDirectory() as scratch:
                state.pop("model_").save(Path(scratch))
                files = [path for path in Path(scratch).rglob("*") if path.is_file()]
                state["_files"] = {str(p.relative_to(scratch)): p.read_bytes() for p in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            with TemporaryDirectory() as scratch:
                for name, content in files.items():
                    path = Path(scratch) / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                self.model_ = load_model(scratch)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _training_data(
    texts: list[str], ids: np.ndarray, classes: np.ndarray, fraction: float, seed: int
) -> TrainingData:
    train, validation = stratified_split(ids, fraction, seed=seed)
    if not len(validation):
        raise DataError("Too few rows to keep some for validation; give two of a class at least")
    rows = Split(texts, ids.astype(np.int64), np.arange(len(texts)).astype(str))
    train_rows = rows.take(train)
    tail = tail_classes(train_rows.counts(len(classes)))
    return TrainingData(tuple(str(c) for c in classes), tail, train_rows, rows.take(validation))
