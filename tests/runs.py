"""Run folders made by hand: predictions are given, and nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from valence.config.data import DataSpec
from valence.config.spec import RunSpec
from valence.evaluation.classification import classification_scores, group_scores
from valence.methods.registry import make_spec
from valence.runs.store import RunResult, RunStore

CLASSES = ("bad", "meh", "good")
ROWS = DataSpec(name="reviews.csv")


def spec_of(method: str, seed: int = 45, **settings: object) -> RunSpec:
    """The spec of a method; settings with two underscores for the dot."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return make_spec(method, ROWS, seed=seed, settings=dotted)


def write_run(
    store: RunStore,
    spec: RunSpec,
    labels: np.ndarray,
    predicted: np.ndarray,
    *,
    classes: Sequence[str] = CLASSES,
    fingerprint: str = "rows",
    groups: np.ndarray | None = None,
) -> RunResult:
    """A finished run with these test rows; the last class is the tail."""
    tail = (len(classes) - 1,)
    counts = tuple(range(10 * len(classes), 0, -10))
    logits = np.eye(len(classes))[predicted]
    scores = classification_scores(
        labels, logits, classes=classes, train_counts=counts, tail=tail
    )  # fmt: skip
    result = RunResult(
        key=f"{spec.method}-s{spec.seed}-{spec.digest()}-{fingerprint}", spec=spec,
        dataset="reviews", fingerprint=fingerprint,
        synthetic=False, classes=tuple(classes), tail=tail, train_counts=counts,
        sizes={"train": sum(counts), "validation": 10, "test": len(labels)}, validation=scores,
        test=scores, group="" if groups is None else "language",
        groups={} if groups is None else group_scores(labels, predicted, groups, classes),
        train_seconds=1.0, inference_seconds=0.1, peak_memory_mib=10.0,
        trainable_parameters=1000, provenance={"finished": "2026-01-01"},
    )  # fmt: skip
    table = pd.DataFrame({
        "split": "test", "id": [f"r{i}" for i in range(len(labels))], "text": "a text",
        "label": labels, "predicted": predicted,
        **{f"logit_{i}": logits[:, i] for i in range(len(classes))},
    })  # fmt: skip
    with store.writing(result.key) as folder:
        (folder / "result.json").write_text(result.model_dump_json(), encoding="utf-8")
        table.to_parquet(folder / "predictions.parquet")
        features = np.random.default_rng(0).normal(size=(len(labels), 4))
        np.savez(folder / "features.npz", features=features, labels=labels)
        history = [{"step": step, "validation/macro_f1": 0.5} for step in (1, 2)]
        lines = "\n".join(json.dumps(row) for row in history)
        (folder / "history.jsonl").write_text(lines, encoding="utf-8")
    return result


def true_labels(rows: int = 60, seed: int = 0, classes: int = 3) -> np.ndarray:
    """(N,) true ids, of every class some."""
    return np.random.default_rng(seed).permutation(np.arange(rows) % classes)


def with_errors(labels: np.ndarray, share: float, seed: int, classes: int = 3) -> np.ndarray:
    """Predictions of which about a share is drawn at random."""
    random = np.random.default_rng(seed)
    drawn = random.integers(classes, size=len(labels))
    return np.where(random.random(len(labels)) < share, drawn, labels)
