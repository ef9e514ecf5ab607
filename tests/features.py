"""Small feature files of the MMSA layout, made on the spot."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import WORDS

GOOD, BAD = ("good", "great", "lovely"), ("bad", "awful", "terrible")
SPLITS = ("train", "valid", "test")
SHAPES = {"mosi": ((375, 5), (500, 20)), "mosei": ((500, 74), (500, 35)),
          "ch-sims": ((400, 33), (55, 709))}  # fmt: skip
"""Published (steps, width) of audio and vision."""


def mmsa(
    rows: int, *, audio: tuple[int, int] = (6, 5), vision: tuple[int, int] = (4, 3), top: float = 3,
    whole: bool = False, seed: int = 0,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Splits of ``rows`` rows whose words, sounds and pictures all tell the intensity.

    Args:
        rows: Of each split.
        audio: Most steps and width.
        vision: As ``audio``.
        top: Greatest intensity; the least is its negative.
        whole: Whether every row has all steps; else their numbers vary.
        seed: Of everything.
    """
    draw, pick = np.random.default_rng(seed), random.Random(seed)
    content: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        labels = np.round(draw.uniform(-top, top, rows), 1).astype(np.float32)
        labels[: 2 if rows > 1 else 1] = [top, -top][:rows]
        features: dict[str, Any] = {}
        for name, (steps, width) in (("audio", audio), ("vision", vision)):
            lengths = np.full(rows, steps) if whole else draw.integers(1, steps + 1, rows)
            values = draw.normal(size=(rows, steps, width)).astype(np.float32)
            values[..., 0] += labels[:, None] / top * 2
            values[np.arange(steps) >= lengths[:, None]] = 0
            features |= {name: values, f"{name}_lengths": lengths}
        texts = []
        for label in labels:
            tone = [pick.choice(GOOD if label > 0 else BAD) for _ in range(2)]
            texts.append(" ".join([*pick.sample(WORDS, 4), *tone]))
        content[split] = {
            "raw_text": texts, "id": [f"{split}{i}" for i in range(rows)],
            "regression_labels": labels, **features,
            "annotations": ["Positive" if v > 0 else "Negative" for v in labels],
        }  # fmt: skip
    return content


def write_mmsa(path: Path, content: object) -> Path:
    """Pickle ``content`` at ``path``; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path
