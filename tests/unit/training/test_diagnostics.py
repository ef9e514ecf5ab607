"""Signs of failure in a training history, and none in a sound one."""

from __future__ import annotations

from typing import Any

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


RISING = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]
SOUND = {"accuracy": RISING, "macro": [value - 0.05 for value in RISING]}


def test_a_sound_training_gives_no_warning() -> None:
    assert failure_signs(history(RISING, **SOUND)) == []


def test_drift() -> None:
    still = {"accuracy": [0.8] * 6, "macro": [0.75] * 6}
    (line,) = failure_signs(history([0.9, 0.9, 0.8, 0.7, 0.6, 0.5], **still))
    assert line.startswith("prototype drift: their cosine with the class means fell by 0.40")
    assert failure_signs(history([0.9, 0.9, 0.8, 0.7, 0.6, 0.5], **SOUND)) == []


def test_collapse() -> None:
    (line,) = failure_signs(history(RISING, **SOUND, diversity=0.01, near=0.99))
    assert line.startswith("synthetic samples have collapsed onto the prototypes")


def test_tail_overfit() -> None:
    poor = {"accuracy": RISING, "macro": [value - 0.2 for value in RISING]}
    (line,) = failure_signs(history(RISING, **poor))
    assert line.startswith("tail overfit: validation macro-F1 trails accuracy by 0.20")


def test_classes_not_seen_do_not_count() -> None:
    assert prototype_cosines(history([0.5], accuracy=[0.5], macro=[0.5])) == [(10, 0.5, 0.5)]
    assert failure_signs([]) == []
