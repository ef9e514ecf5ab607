"""Ours beside published figures."""

from __future__ import annotations

import pytest

from valence.comparison.grid import Comparison, execute, plan
from valence.config.data import DataSpec
from valence.reports.reproduction import published_figures, reproduction_markdown
from valence.runs.store import RunResult, RunStore


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    comparison = Comparison(
        data=(DataSpec(), DataSpec(imbalance_ratio=4)), methods=("majority", "tfidf-lr"),
        seeds=(45, 123),
    )  # fmt: skip
    store = RunStore(tmp_path_factory.mktemp("runs"))
    return execute(plan(comparison), store=store).results


def test_every_figure_has_ours_its_difference_and_its_source(results: list[RunResult]) -> None:
    comparison = Comparison(
        published={"tfidf-lr": {"macro_f1": 0.9, "accuracy/de": 0.8}, "unnamed": {"accuracy": 0.7}},
        published_for={"data.imbalance_ratio": 4}, published_source="a paper",
    )  # fmt: skip
    figures = published_figures(comparison, results)
    assert [(f.method, f.metric, f.published) for f in figures] == [
        ("tfidf-lr", "macro-F1", 0.9), ("tfidf-lr", "accuracy, de", 0.8),
        ("unnamed", "accuracy", 0.7),
    ]  # fmt: skip
    first, german, unnamed = figures
    own = [r for r in results if r.spec.method == "tfidf-lr" and r.spec.data.imbalance_ratio == 4]
    scores = [r.test["macro_f1"] for r in own]
    assert first.ours == pytest.approx(sum(scores) / 2)  # type: ignore[arg-type]
    assert first.difference == pytest.approx(first.ours - 0.9)  # type: ignore[operator]
    assert (first.seeds, first.source) == (2, "a paper")
    assert german.ours == pytest.approx(sum(r.groups["de"]["accuracy"] for r in own) / 2)  # type: ignore[misc]
    assert (unnamed.ours, unnamed.difference, unnamed.seeds) == (None, None, 0)
    assert unnamed.cells() == ["unnamed", "accuracy", "0.700", "–", "–", "0"]


def test_figures_without_any_run_stand_alone() -> None:
    comparison = Comparison(title="Reviews", published={"lora": {"accuracy": 0.7}})
    (figure,) = published_figures(comparison, [])
    assert (figure.setup, figure.metric, figure.ours) == ("Reviews", "accuracy", None)


def test_another_model_of_the_same_method_stands_in(results: list[RunResult]) -> None:
    run = results[0]
    other = run.model_copy(
        update={"spec": run.spec.model_copy(update={"method": "llm-fixed@small"})}
    )
    comparison = Comparison(published={"llm-fixed@large": {"accuracy": 0.7}})
    (figure,) = published_figures(comparison, [other])
    assert (figure.method, figure.name) == ("llm-fixed@large", "llm-fixed@small")
    assert figure.ours == run.test["accuracy"]


def test_the_page_has_a_table_under_every_heading() -> None:
    page = reproduction_markdown("Own", {"Ours": (["a", "b"], [["1", "2"]]), "Cut": (["c"], [])})
    assert page == "# Own\n\n## Ours\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n## Cut\n\nNothing.\n"
