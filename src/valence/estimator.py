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
from valence.inference.calibration import FILE as CALIBRATION_FILE
from valence.inference.calibration import Calibration, read_calibration, write_calibration
from valence.methods.fit import fit_spec
from valence.methods.registry import check_target, find_method, make_spec, parse_spec
from valence.models.base import Model
from valence.models.config_file import read_config
from valence.models.loader import load_model
from valence.storage import atomic

SETTING = "settings__"
"""Begins the parameters that are dotted settings."""


class SentimentClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Train a method on texts and labels; a part of them chooses the weights.

    In a grid search, a setting is a parameter ``settings__`` with its dots as double underscores:
    ``settings__train__epochs``.

    Args:
        method: A name of ``METHODS``; ``auto`` is what ``valence fit`` uses.
        encoder: Hub name or folder of another encoder.
        settings: Dotted settings, for example ``{"train.epochs": 3}``.
        validation_share: Fraction of the rows of ``fit`` that is held out to choose the weights.
        seed: Seed of everything random.

    Attributes:
        classes_: (C,) the labels as they were given, sorted.
        model_: The trained model.
        calibration_: Of a loaded model, what ``valence calibrate`` fitted; else None.
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

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name.

        Args:
            deep: Whether the given settings are parameters too.
        """
        params: dict[str, Any] = super().get_params(deep)
        if deep:
            given = self.settings if isinstance(self.settings, Mapping) else {}
            params |= {SETTING + path.replace(".", "__"): value for path, value in given.items()}
        return params

    def set_params(self, **params: Any) -> SentimentClassifier:
        """Set parameters by name; ``settings__train__epochs`` changes that setting alone."""
        own = {name: value for name, value in params.items() if name.startswith(SETTING)}
        super().set_params(**{name: value for name, value in params.items() if name not in own})
        if own:
            changed = {n.removeprefix(SETTING).replace("__", "."): v for n, v in own.items()}
            self.settings = {**(self.settings or {}), **changed}
        return self

    def fit(self, X: Any, y: Sequence[Any], sample_weight: Any = None) -> SentimentClassifier:
        """Train on N texts ``X`` with N labels ``y``.

        Of a DataFrame the column of texts is found as ``load_dataset`` finds it, and taken by
        :meth:`predict` too.

        Args:
            X: A list, a column, or a DataFrame of texts.
            y: The labels.
            sample_weight: (N,) weights of the rows, beside those of their classes, for a method
                that can weigh rows; rows of weight 0 are left out. The rows that choose the
                weights of the model count alike.

        Raises:
            DataError: if texts are no strings, lengths differ, or there is one class only.
            SpecError: if the method reads more than texts, or cannot be fitted so.
        """
        frame = as_frame(X)
        self.text_column_ = None if frame is None else text_column(frame)
        texts = self._texts(X)
        labels = np.asarray(y)
        if len(labels) != len(texts):
            raise DataError(
                f"There are {len(texts)} texts but {len(labels)} labels; pass one label per text"
            )
        if pd.isna(labels).any():
            raise DataError("Some labels are missing (NaN or None); remove those rows")
        weights = None if sample_weight is None else _checked_weights(sample_weight, len(texts))
        if weights is not None:
            texts = [text for text, weight in zip(texts, weights, strict=True) if weight]
            labels, weights = labels[weights > 0], weights[weights > 0]
        self.classes_, ids = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError("All labels are the same; a classifier needs at least two classes")
        self._check_method()
        named = {"encoder.name": self.encoder} if self.encoder else {}
        spec = make_spec(
            self.method, DataSpec(), seed=self.seed, settings={**named, **(self.settings or {})}
        )
        rows = Split(texts, ids.astype(np.int64), np.arange(len(texts)).astype(str))
        data = _training_data(rows, weights, self.classes_, self.validation_share, self.seed)
        self.model_: Model = fit_spec(spec, data, in_memory=True).model
        self.calibration_: Calibration | None = None
        return self

    def _check_method(self) -> None:
        method = find_method(self.method)
        check_target(self.method, "classes")
        others = [name for name in method.inputs if name != "text"]
        if others:
            raise SpecError(
                f"Method {self.method!r} needs {' and '.join(others)} besides texts, which this "
                "estimator does not take; use valence train"
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
        outputs = self.model_.predict(Examples(self._texts(X)))
        return (outputs if self.calibration_ is None else self.calibration_.apply(outputs)).probs

    @classmethod
    def load(cls, folder: str | Path) -> SentimentClassifier:
        """The estimator of a model folder: of :meth:`save`, ``valence fit`` or ``train``.

        Its labels are strings, as the folder has them. Its parameters are those of the training,
        so that :meth:`fit` trains such a model on other rows.

        Args:
            folder: The model folder.

        Raises:
            ModelError: if it is missing or broken.
            SpecError: if the model predicts a number, or its method is none of ``METHODS``.
        """
        config = read_config(Path(folder))
        if not config.classes:
            raise SpecError(f"{folder} predicts an intensity, not classes; use valence.Predictor")
        spec = parse_spec(config.spec)
        defaults = make_spec(spec.method, DataSpec())
        paths = type(spec.config).paths()
        settings = {p: v for p in paths if (v := spec.get(p)) != defaults.get(p)}
        estimator = cls(spec.method, settings=settings or None, seed=config.seed)
        estimator.text_column_ = None if config.data is None else config.data.text_column
        estimator._load(Path(folder))
        estimator.classes_ = np.array(config.classes)
        return estimator

    def _load(self, folder: Path) -> None:
        self.model_ = load_model(folder)
        has_calibration = (folder / CALIBRATION_FILE).exists()
        self.calibration_ = (
            read_calibration(folder, read_config(folder)) if has_calibration else None
        )

    def save(self, folder: str | Path) -> None:
        """Write the model as a folder that ``Predictor`` and the command line take.

        A model that is there is replaced, whole.

        Raises:
            RunError: if the disk refuses, or the folder holds something else.
        """
        check_is_fitted(self, "model_")
        with atomic.new_folder(folder, marker="config.json") as scratch:
            self._save(scratch)

    def _save(self, folder: Path) -> None:
        self.model_.save(folder)
        if self.calibration_ is not None:
            write_calibration(self.calibration_, folder)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:  # as the files of a model folder, not as objects of libraries
            with TemporaryDirectory() as scratch:
                self._save(Path(scratch))
                del state["model_"], state["calibration_"]
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
                self._load(Path(scratch))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _checked_weights(given: Any, count: int) -> np.ndarray:
    """(N,) weights.

    Raises:
        DataError: if they are not one number per text, or one is negative.
    """
    try:
        weights = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("sample_weight must be numbers, one per text") from None
    if weights.shape != (count,):
        raise DataError(f"sample_weight has the shape {weights.shape}; pass {count} numbers")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError("sample_weight has a negative or non-finite number")
    return weights


def _training_data(
    rows: Split, weights: np.ndarray | None, classes: np.ndarray, fraction: float, seed: int
) -> TrainingData:
    train, validation = stratified_split(rows.labels, fraction, seed=seed)
    if not len(validation):
        raise DataError("Too few rows for a validation split; pass at least two rows per class")
    train_rows = rows.take(train)
    tail = tail_classes(train_rows.counts(len(classes)))
    return TrainingData(
        tuple(str(c) for c in classes), tail, train_rows, rows.take(validation),
        row_weights=None if weights is None else weights[train],
    )  # fmt: skip
