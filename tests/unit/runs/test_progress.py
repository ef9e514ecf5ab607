"""Progress of a run: within 0 and 1, never back, on to the end, with plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from valence.comparison.best_model import fit_best
from valence.config.callbacks import part_of
from valence.config.data import DataSpec
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunStore

METHODS = ["tfidf-lr", "linear-probe", "lora", "lora-posthoc", "kernel-ridge", "lstm-roberta"]


def check_grows(seen: list[float], *, end: float = 1.0) -> None:
    assert seen == sorted(seen)
    assert seen[0] >= 0
    assert seen[-1] == pytest.approx(end)


def test_a_part_is_a_part_of_all_of_it() -> None:
    seen: list[tuple[float, str]] = []
    part = part_of(lambda done, message: seen.append((done, message)), 0.5, 0.75)
    assert part is not None
    for done in (0.0, 0.5, 1.0):
        part(done, "x")
    assert seen == [(0.5, "x"), (0.625, "x"), (0.75, "x")]
    assert part_of(None, 0.5, 0.75) is None


@pytest.mark.parametrize("method", METHODS)
def test_progress_of_a_run_grows_to_the_end(
    method: str, reviews: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    seen: list[tuple[float, str]] = []
    spec = make_spec(method, DataSpec(name=str(reviews)), common=tiny_settings)
    run(spec, store=RunStore(tmp_path), progress=lambda *now: seen.append(now))
    check_grows([done for done, _ in seen])
    assert seen[-1][1] == "scoring test rows"
    if method.startswith("l"):
        assert any("epoch 2 of 2, best macro-f1 0." in words for _, words in seen) == (
            method != "linear-probe"
        )


def test_most_test_rows_are_most_of_the_progress(
    reviews: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    seen: list[tuple[float, str]] = []
    spec = make_spec(
        "lora", DataSpec(name=str(reviews)),
        common={**tiny_settings, "train.epochs": 1, "data.train_total": 15},
    )  # fmt: skip
    run(spec, store=RunStore(tmp_path), progress=lambda *now: seen.append(now))
    fit_end = max(done for done, words in seen if words.startswith("epoch"))
    check_grows([done for done, _ in seen])
    assert 0.05 <= fit_end < 0.65  # 0.9 if the rows did not count


def test_progress_of_fit_counts_the_steps(
    reviews: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    seen: list[tuple[float, str]] = []
    settings = {"encoder.name": tiny_settings["encoder.name"], "portfolio.budget_seconds": None,
                "portfolio.fine_tuned": ["lora-balanced"], "portfolio.epochs": 1}  # fmt: skip
    fit_best(
        DataSpec(name=str(reviews)), store=RunStore(tmp_path), settings=settings,
        progress=lambda *now: seen.append(now),
    )  # fmt: skip
    check_grows([done for done, _ in seen])
    steps = dict.fromkeys(words.partition(",")[0] for _, words in seen)
    assert list(steps)[:3] == [f"step {number} of 3" for number in (1, 2, 3)]
    assert sum(words.startswith("learning curve: ") for _, words in seen) > 0
