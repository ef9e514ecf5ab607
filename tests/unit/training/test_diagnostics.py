"""Signs of failure in a training history, and none in a sound one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from valence.config.data import DataSpec
from valence.methods.registry import METHODS, make_spec
from valence.training.diagnostics import failure_signs, prototype_cosines


def history(
    cosines: list[float], *, accuracy: list[float], macro: list[float], diversity: float = 0.4,
    near: float = 0.7,
) -> list[dict[str, Any]]:  # fmt: skip
    rows: list[dict[str, Any]] = []
    for i, cosine in enumerate(cosines):
        rows.append({"step": 10 * i + 5, "loss": 2.0 / (i + 1)})
        rows.append(
            {
                "step": 10 * i + 10,
                "validation/accuracy": accuracy[i],
                "validation/macro_f1": macro[i],
                "diagnostics/prototype_cosine": [cosine, cosine, -2.0],
                "diagnostics/diversity": [diversity],
                "diagnostics/positive_similarity": [near],
            }
        )
    return rows


SETTINGS = {
    path: make_spec("sharprecl", DataSpec()).get(path)
    for path in ("loss.weight", "loss.hard_count", "loss.positives", "loss.mixing")
}
RISING = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]
SOUND = {"accuracy": RISING, "macro": [value - 0.05 for value in RISING]}


def test_a_sound_training_gives_no_warning() -> None:
    assert failure_signs(history(RISING, **SOUND), SETTINGS) == []


def test_drift() -> None:
    still = {"accuracy": [0.8] * 6, "macro": [0.75] * 6}
    (line,) = failure_signs(history([0.9, 0.9, 0.8, 0.7, 0.6, 0.5], **still), SETTINGS)
    assert line.startswith("prototype drift: their cosine with the class means fell by 0.40")
    assert failure_signs(history([0.9, 0.9, 0.8, 0.7, 0.6, 0.5], **SOUND), SETTINGS) == []


def test_collapse() -> None:
    (line,) = failure_signs(history(RISING, **SOUND, diversity=0.01, near=0.99), SETTINGS)
    assert line.startswith("synthetic samples have collapsed onto the prototypes")


def test_tail_overfit() -> None:
    poor = {"accuracy": RISING, "macro": [value - 0.2 for value in RISING]}
    (line,) = failure_signs(history(RISING, **poor), SETTINGS)
    assert line.startswith("tail overfit: validation macro-F1 trails accuracy by 0.20")


def test_classes_not_seen_do_not_count() -> None:
    assert prototype_cosines(history([0.5], accuracy=[0.5], macro=[0.5])) == [(10, 0.5, 0.5)]
    assert failure_signs([], SETTINGS) == []


POOR = {"accuracy": [0.8] * 6, "macro": [0.6] * 6}


def settings_of(method: str, **given: object) -> dict[str, Any]:
    config = make_spec(method, DataSpec(), settings=given).config
    return {path: config.get(path) for path in METHODS[method].reads(config)}


@pytest.mark.parametrize("method", ["lora", "full", "ldam", "supcon", "sharprecl", "hy-mora"])
def test_advice_names_settings_that_the_method_reads(method: str) -> None:
    settings = settings_of(method)
    records = history([0.9, 0.9, 0.8, 0.7, 0.6, 0.5], **POOR, diversity=0.01, near=0.99)
    lines = failure_signs(records, settings)
    assert [line.split()[0] for line in lines] == ["prototype", "synthetic", "tail"]
    named = set(re.findall(r"(?:loss|train)\.\w+", " ".join(lines)))
    assert named <= settings.keys(), "of no other method"
    assert ("loss.mixing" in named) == (method == "sharprecl")


def test_nothing_is_advised_that_is_set_already() -> None:
    def tail(method: str, **given: object) -> str:
        return failure_signs(history(RISING, **POOR), settings_of(method, **given))[-1]

    assert tail("lora").endswith("set loss.class_weights=balanced")
    assert tail("lora-balanced").endswith("more rows of the rare classes help most")
    assert "loss.mixing" in tail("sharprecl")
    assert "loss.mixing" not in tail("sharprecl-no-mixup")
