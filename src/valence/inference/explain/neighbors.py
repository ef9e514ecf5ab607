"""The training texts nearest to a text, in the space of the model's features.

A saved model does not hold the texts it was trained on. Their index is made from rows that
are given, cached under their contents and the model's, and, on request,
written into the model's folder as ``neighbours.parquet``, which then shows these texts to
whoever gets the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from valence.data.dataset import Split
from valence.errors import ModelError
from valence.inference.predictor import Predictor
from valence.models.base import Model, Progress
from valence.models.config_file import seal_again
from valence.models.digests import check_later
from valence.storage import atomic, cache

FILE = "neighbours.parquet"
NO_TEXT = "(a training text whose words were not saved)"
WEIGHTS = ("*.json", "*.safetensors", "adapter/*", "encoder/*.safetensors", "*.onnx", "*.bin")
BLOCK = 256  # texts compared with all training texts at once


@dataclass(frozen=True)
class Neighbor:
    """A training text near the one explained.

    Attributes:
        text: Its words.
        label: Its label in training.
        similarity: Cosine of the features, 1 for the same text.
    """

    text: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Index:
    """Training texts with their unit vectors.

    Attributes:
        texts: N texts.
        labels: Their N labels.
        vectors: (N, D) float32, of length 1; (N, 0) for models without features.
    """

    texts: Sequence[str]
    labels: Sequence[str]
    vectors: np.ndarray

    def nearest(self, model: Model, texts: Sequence[str], count: int) -> list[list[Neighbor]]:
        """The ``count`` nearest of every text, the nearest first; none without features."""
        vectors = model.unit_features(texts)
        if not vectors.shape[1] or vectors.shape[1] != self.vectors.shape[1]:
            return [[] for _ in texts]
        neighbors = []
        for start in range(0, len(texts), BLOCK):
            similarity = vectors[start : start + BLOCK] @ self.vectors.T
            size = min(count, similarity.shape[1])
            best = np.argpartition(-similarity, size - 1, axis=1)[:, :size]
            for row, own in zip(similarity, best, strict=True):
                order = own[np.argsort(-row[own], kind="stable")]
                neighbors.append(
                    [Neighbor(self.texts[i], self.labels[i], float(row[i])) for i in order]
                )
        return neighbors


def find_index(predictor: Predictor) -> Index | None:
    """The index in the model's folder, or else the vectors its prototype memory holds.

    Raises:
        ModelError: if the file is broken.
    """
    path = predictor.folder / FILE
    check_later(predictor.folder, FILE, advice="create it again with --data and --keep")
    if path.exists():
        return _read(path)
    memory = predictor.model.memory()
    if memory is None:
        return None
    labels = [predictor.classes[i] for i in memory.labels]
    return Index([NO_TEXT] * len(labels), labels, memory.vectors)


def build_index(
    predictor: Predictor, rows: Split, *, progress: Progress | None = None, keep: bool = False
) -> Index:
    """The index of labeled rows, from the cache where it was made before.

    Args:
        predictor: The model.
        rows: Training rows; labels are ids of the model's classes.
        progress: Called with (done, total) texts.
        keep: Also write it into the model's folder, texts included.

    Raises:
        RunError: if the folder or the cache cannot be written.
    """
    labels = [predictor.classes[i] for i in rows.labels]
    key = cache.content_key([_identity(predictor.folder), *rows.texts, "", *labels])
    table = cache.load(cache.NEIGHBORS, key, lambda folder: _table(folder / FILE))
    if table is None:
        table = pd.DataFrame({"text": rows.texts, "label": labels})
        vectors = predictor.model.unit_features(rows.texts, progress)
        table["vector"] = list(vectors.astype(np.float16))
        about = {"model": predictor.folder.name, "texts": len(rows)}
        with cache.writing(cache.NEIGHBORS, key, about) as scratch:
            table.to_parquet(scratch / FILE, index=False)
    if keep:
        with atomic.new_file(predictor.folder / FILE) as path:
            table.to_parquet(path, index=False)
        seal_again(predictor.folder, FILE)
    return _indexed(table)


def _identity(folder: Path) -> str:
    """A name of what decides a model's features."""
    files = sorted({path for pattern in WEIGHTS for path in folder.glob(pattern)})
    parts = []
    for path in files:
        if path.is_file() and path.name != "calibration.json":
            with path.open("rb") as file:
                parts += [path.name, hashlib.file_digest(file, "sha256").hexdigest()]
    return cache.content_key(parts)


def _read(path: Path) -> Index:
    try:
        return _indexed(_table(path))
    except Exception as error:  # pyarrow and numpy raise errors of their own kinds
        reason = (str(error).strip().splitlines() or ["broken"])[0][:160]
        raise ModelError(f"{path} cannot be read ({reason}); create it again with --data") from None


def _table(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, columns=["text", "label", "vector"])


def _indexed(table: pd.DataFrame) -> Index:
    vectors = np.stack(table["vector"].to_list()).astype(np.float32)
    return Index(table["text"].tolist(), table["label"].tolist(), vectors)
