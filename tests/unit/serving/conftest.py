from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import valence
from tests.conftest import make_reviews
from valence.inference.calibration import write_calibration
from valence.inference.predictor import Predictor


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


def make_numbers(rows: int, seed: int = 0) -> pd.DataFrame:
    """The reviews with a number in place of a label."""
    frame = make_reviews(rows, seed=seed)
    return frame.assign(label=frame["label"].map({"good": 2.0, "meh": 0.0, "bad": -2.5}))


@pytest.fixture(scope="session")
def numeric_model(
    tmp_path_factory: pytest.TempPathFactory, tiny_settings: dict[str, object]
) -> Path:
    """A model that gives every text a number."""
    folder = tmp_path_factory.mktemp("numeric")
    make_numbers(140).to_csv(folder / "numbers.csv", index=False)
    settings = {**tiny_settings, "train.epochs": 1, "fusion.dim": 16}
    result = valence.train(
        str(folder / "numbers.csv"), "text-only", runs=folder / "runs", settings=settings
    )
    return folder / "runs" / result.key / "model"


def careful(model: Path, folder: Path) -> Path:
    """A copy of a model that gives a label only where its probability is above 0.6."""
    shutil.copytree(model, folder)
    fitted = Predictor(model).calibration
    limits = (0.4,) * len(fitted.classes)
    write_calibration(fitted.model_copy(update={"limits": limits, "level": 0.1}), folder)
    return folder
