"""The published metrics of MOSI, MOSEI and CH-SIMS, from recorded predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from valence.evaluation.regression import INTENSITY_METRICS, intensity_scores


def test_golden_intensity_metrics(golden: Path) -> None:
    records = json.loads((golden / "regression_metrics.json").read_text())
    assert {record["dataset"] for record in records} >= {"mosi", "sims"}
    for record in records:
        scale = "ch-sims" if "sims" in record["dataset"] else "mosi"
        found = intensity_scores(np.array(record["true"]), np.array(record["pred"]), scale=scale)
        published = {INTENSITY_METRICS[name].published: value for name, value in found.items()}
        assert published == pytest.approx(record["metrics"], abs=1e-4)
