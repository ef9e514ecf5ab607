"""Charts read off figures: every line, bar and point, with its numbers."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tests.runs import spec_of, true_labels, with_errors, write_run
from valence.pages.page import LARGEST_PAGE_BYTES, PLOTLY, PLOTLY_SHA256, embedded
from valence.reports import diagnostic_plots, plots
from valence.reports.charts import charts_of
from valence.reports.confusions import confusions
from valence.reports.html import PageText, write_report
from valence.reports.leaderboard import leaderboard
from valence.reports.recommendation import recommend, train_commands
from valence.runs.store import RunResult, RunStore

LABELS = true_labels(300)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def runs_of(store: RunStore, method: str, errors: float, seeds: int = 3) -> list[RunResult]:
    return [
        write_run(store, spec_of(method, seed), LABELS, with_errors(LABELS, errors, seed))
        for seed in range(seeds)
    ]


def test_bars_lines_and_points_keep_their_numbers(store: RunStore) -> None:
    results = [*runs_of(store, "lora", 0.2), *runs_of(store, "focal", 0.6)]
    (bars,) = charts_of("F1 by class", plots.class_bars(results))
    assert [trace["name"] for trace in bars["traces"]] == ["lora", "focal"]
    mean = np.mean([r.test["f1/bad"] for r in results[:3]])
    assert bars["traces"][0]["y"][0] == pytest.approx(mean, abs=1e-3)
    assert bars["traces"][0]["customdata"][0] == "bad n=30"
    assert bars["xaxis"]["ticktext"][0] == "bad<br>n=30"
    (gap,) = charts_of("Gap", diagnostic_plots.accuracy_gap(results))
    assert gap["yaxis"]["ticktext"] == ["lora", "focal"]
    assert {trace["orientation"] for trace in gap["traces"]} == {"h"}
    (cost,) = charts_of("Cost", plots.score_against_cost(results))
    assert (cost["names"], cost["xaxis"]["type"]) == (["lora", "focal"], "log")
    assert len(cost["xaxis"]["tickvals"]) >= 3
    (reliable,) = charts_of("Reliability", diagnostic_plots.reliability(store, results))
    assert [t["showlegend"] for t in reliable["traces"]] == [False, True, True]
    assert charts_of("Confusion", plots.confusion_matrices(store, results)) == []
    json.dumps([bars, gap, cost, reliable], allow_nan=False)


def test_a_learning_curve_needs_two_sizes(store: RunStore) -> None:
    small = [r.model_copy(update={"sizes": {**r.sizes, "train": 30}})
             for r in runs_of(store, "lora", 0.5)]  # fmt: skip
    large = runs_of(store, "lora", 0.1)
    assert plots.learning_curve(large) is None
    figure = plots.learning_curve([*small, *large])
    assert figure is not None
    (chart,) = charts_of("Learning curve", figure)
    assert chart["traces"][0]["x"] == [30, 60]


def test_a_cell_has_its_cases(store: RunStore) -> None:
    results = runs_of(store, "lora", 0.4, seeds=2)
    (method,) = confusions(store, results)["methods"]
    assert np.sum(method["counts"]) == 2 * len(LABELS)
    rows = store.predictions(results[0].key).set_index("id")
    shown = method["cases"]["0,2"]
    assert 0 < len(shown) <= 12
    for name, text, prob in shown:
        assert tuple(rows.loc[name, ["label", "predicted"]]) == (0, 2)
        assert (text, 0 < float(prob) <= 1) == ("a text", True)


def test_the_verdict_names_what_is_as_good_and_cheaper(store: RunStore) -> None:
    slow = [r.model_copy(update={"train_seconds": 600.0}) for r in runs_of(store, "lora", 0.20)]
    fast = []
    for seed in range(3):
        near = with_errors(LABELS, 0.20, seed)
        wrong, right = np.flatnonzero(near != LABELS), np.flatnonzero(near == LABELS)
        near[wrong[:9]] = LABELS[wrong[:9]]
        near[right[:12]] = (LABELS[right[:12]] + 1) % 3
        fast.append(write_run(store, spec_of("focal", seed), LABELS, near))
    poor = runs_of(store, "majority", 1.0)
    every = [*slow, *fast, *poor]
    advice = recommend(store, every, leaderboard(store, every, "majority"))
    assert advice is not None
    assert advice.name == "lora"
    assert advice.score.low < advice.score.value < advice.score.high  # type: ignore[operator]
    mean = np.mean([r.test["macro_f1"] for r in slow])
    assert advice.score.value == pytest.approx(mean)
    text = " ".join(advice.lines)
    assert "3 seeds on 300 test rows" in text
    assert "Not clearly better than focal:" in text
    assert "If training time matters, take focal: 1 s instead of 10" in text
    assert advice.commands[0].startswith("valence train reviews.csv --method lora --seed 0")
    two = [*slow, *poor]
    sure = recommend(store, two, leaderboard(store, two, "majority"))
    assert sure is not None
    assert "significantly better than every other" in " ".join(sure.lines)


def test_the_command_has_every_setting_that_is_not_usual() -> None:
    spec = spec_of("lora", 7, train__epochs=9, data__text_column="my text")
    train, fit = train_commands(spec)
    assert "--text-column 'my text'" in train
    assert "--set train.epochs=9" in train
    assert "--seed 7" in train
    assert fit == "valence fit reviews.csv --text-column 'my text' --out models/best"


def test_no_text_ends_the_element_it_stands_in() -> None:
    text = str(embedded(["</script><script>x", "a\u2028b"]))
    assert "<" not in text
    assert json.loads(text) == ["</script><script>x", "a\u2028b"]


def test_the_library_of_the_charts_is_what_was_published() -> None:
    content = (files("valence.pages") / PLOTLY).read_bytes()
    assert hashlib.sha256(content).hexdigest() == PLOTLY_SHA256
    assert (files("valence.pages") / "vendor/plotly-LICENSE.txt").is_file()


def test_a_page_of_many_long_texts_stays_small(store: RunStore, tmp_path: Path) -> None:
    classes = tuple(f"class-{i}" for i in range(28))
    truth = true_labels(6000, classes=28)
    results = []
    for method in ("lora", "focal", "majority"):
        wrong = with_errors(truth, 0.9, 1, classes=28)
        result = write_run(store, spec_of(method), truth, wrong, classes=classes)
        table = pd_texts(store, result)
        table.to_parquet(store.path(result.key) / "predictions.parquet")
        results.append(result)
    page = write_report(store, results, tmp_path / "report.html", text=PageText("many"))
    assert page.stat().st_size < LARGEST_PAGE_BYTES
    assert len(list((tmp_path / "pictures").glob("*.png"))) >= 5
    assert "http://" not in page.read_text("utf-8").partition("<script>")[0]


def pd_texts(store: RunStore, result: RunResult):  # type: ignore[no-untyped-def]
    return store.predictions(result.key).assign(text="long words " * 60)
