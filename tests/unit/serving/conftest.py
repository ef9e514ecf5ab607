from __future__ import annotations

from pathlib import Path

import pytest

import valence
from tests.conftest import make_reviews


def trained(folder: Path, method: str, *, rename: dict[str, str] | None = None) -> Path:
    """A model trained on the reviews; its folder."""
    frame = make_reviews(140)
    frame["label"] = frame["label"].replace(rename or {})
    frame.to_csv(folder / "reviews.csv", index=False)
    result = valence.train(str(folder / "reviews.csv"), method, runs=folder / "runs")
    return folder / "runs" / result.key / "model"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("served"), "tfidf-lr")
