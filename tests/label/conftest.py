from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.browser import chromium

TOPICS = {
    "food": ["soup", "bread", "salad", "dinner", "spicy", "tasty"],
    "room": ["bed", "window", "shower", "pillow", "floor", "quiet"],
    "staff": ["waiter", "desk", "helpful", "rude", "smile", "manager"],
}
COMMON = ["the", "a", "was", "we", "very", "and", "there", "then", "again", "today"]


def topic_rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Texts of three topics, the last of which is rare."""
    rng = np.random.default_rng(seed)
    names = rng.choice(list(TOPICS), count, p=[0.6, 0.35, 0.05])
    texts = [
        " ".join([*rng.choice(COMMON, 4), *rng.choice(TOPICS[name], 3), f"no{i}"])
        for i, name in enumerate(names)
    ]
    return pd.DataFrame({"text": texts, "label": names})


@pytest.fixture(scope="session")
def topics() -> pd.DataFrame:
    return topic_rows(400)


@pytest.fixture
def pool(topics: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "pool.csv"
    topics[["text"]].to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened
