from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.causal import FailingServer, answer, failing_server, make_causal
from tests.conftest import make_reviews
from valence.comparison.grid import Comparison, execute, plan, with_transfer
from valence.config.data import DataSpec
from valence.config.spec import RunSpec
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.errors import ModelError, RunError, SpecError, UnknownNameError
from valence.llm.classify import QuestionBuilder
from valence.llm.cost_estimate import estimate_cost
from valence.methods.prompting import prompt_settings
from valence.methods.registry import make_spec
from valence.reports.leaderboard import leaderboard
from valence.reports.tables import by_setup
from valence.reports.transfer import transfer_table
from valence.runs.runner import run
from valence.runs.store import RunStore


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


@pytest.fixture
def spec(reviews: Path, causal: Path, tiny_encoder: Path) -> RunSpec:
    return asked("llm-zero-shot", reviews, causal, tiny_encoder)


def asked(method: str, reviews: Path, model: Path, encoder: Path, **more: object) -> RunSpec:
    settings = {"llm.model": str(model), "encoder.name": str(encoder), "train.device": "cpu"}
    own = {f"llm.{name}": value for name, value in more.items()}
    return make_spec(method, DataSpec(name=str(reviews)), settings={**settings, **own})


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("llm-zero-shot", {}),
        ("llm-fixed", {"prior": "content-free"}),
        ("llm-retrieved", {"per_label": 2, "template": "self-alignment"}),
        ("llm-zero-shot", {"answer": "greedy", "validation": True}),
    ],
)
def test_a_prompted_model_is_a_run_like_any_other(
    method: str, more: dict[str, object], reviews: Path, causal: Path, tiny_encoder: Path,
    data: Dataset, tmp_path: Path,
) -> None:  # fmt: skip
    store = RunStore(tmp_path)
    result = run(asked(method, reviews, causal, tiny_encoder, **more), store=store, dataset=data)
    assert result.spec.method == f"{method}@{causal.name}"
    assert result.trainable_parameters == 0
    rows = store.predictions(result.key)
    assert list(rows[rows["split"] == "test"]["id"]) == list(data.test.ids)
    assert ("validation" in set(rows["split"])) == bool(more.get("validation"))
    said = pd.read_csv(store.path(result.key) / "answers.csv")
    assert list(said["id"]) == list(data.test.ids)
    if more.get("answer") == "greedy":
        invalid = said.index[said["label"].isna()]
        test = rows[rows["split"] == "test"].reset_index(drop=True)
        assert (test.loc[invalid, "predicted"] != test.loc[invalid, "label"]).all()
        assert len(invalid)
        assert any(f"{len(invalid)} of {len(said)} answers" in note for note in result.notes)


def test_demonstrations_come_from_training_rows_alone(
    reviews: Path, causal: Path, tiny_encoder: Path, data: Dataset
) -> None:
    train = set(data.train.texts)
    for method in ("llm-fixed", "llm-retrieved"):
        spec = asked(method, reviews, causal, tiny_encoder, per_label=2)
        for question in QuestionBuilder(prompt_settings(spec), data.without_test()).questions(
            data.test.examples()
        ):
            assert {demo.text for demo in question.demos} <= train
            assert question.text not in {demo.text for demo in question.demos}
            assert len(question.demos) == 6


def test_trained_and_prompted_stand_in_one_table(
    reviews: Path, causal: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    store = RunStore(tmp_path)
    comparison = Comparison(
        data=(DataSpec(name=str(reviews)),), seeds=(45,),
        methods=(f"llm-zero-shot@{causal}", "majority", "tfidf-lr"),
    )  # fmt: skip
    specs = plan(comparison, {"encoder.name": str(tiny_encoder), "train.epochs": 3})
    assert specs[0].get("train.epochs") is None, "what is not read makes no other run"
    outcome = execute(specs, store=store)
    assert not outcome.failures, [cell.error for cell in outcome.failures]
    other = run(make_spec("llm-zero-shot", DataSpec(name=str(reviews)),
                          settings={"llm.model": str(causal)}), store=store)  # fmt: skip
    results = [other, *outcome.results]
    assert len(by_setup(results)) == 1
    table = leaderboard(store, outcome.results, "majority")
    assert set(table["method"]) == {f"llm-zero-shot@{causal.name}", "majority", "tfidf-lr"}
    again = execute(specs, store=store)
    assert [r.key for r in again.results] == [r.key for r in outcome.results]


def test_another_model_in_the_same_folder_is_another_run(
    spec: RunSpec, data: Dataset, tmp_path: Path
) -> None:
    store, folder = RunStore(tmp_path), make_causal(tmp_path / "model")
    one = spec.override({"llm.model": str(folder)})
    before = store.key(one, data)
    faster = one.override({"llm.concurrency": 9, "llm.per_minute": 3})
    assert store.key(faster, data) == before
    make_causal(folder, seed=1)
    assert store.key(one, data) != before


def test_the_plan_counts_what_a_run_reads(spec: RunSpec, data: Dataset) -> None:
    found = estimate_cost(prompt_settings(spec), data)
    assert found.questions == len(data.test)
    assert found.exact
    assert 0 < found.calls <= found.questions
    assert found.tokens > 10 * found.calls
    more = estimate_cost(prompt_settings(spec.override({"llm.prior": "content-free"})), data)
    assert more.questions == 2 * found.questions
    assert more.calls == found.calls + 1, "the question without content is one"


@pytest.fixture
def server() -> FailingServer:
    with failing_server() as told:
        yield told  # type: ignore[misc]


def test_a_server_run_stopped_by_it_goes_on(
    server: FailingServer, spec: RunSpec, data: Dataset, tmp_path: Path
) -> None:
    server.behave = lambda number, body: (
        (200, answer(str(number % 3)), {}) if number <= 5 else (401, "{}", {})
    )
    remote = spec.override({"llm.server": server.url, "llm.model": "m", "llm.concurrency": 1})
    with pytest.raises(RunError, match=r"refuses the key .*5 of .* answers are kept"):
        run(remote, store=RunStore(tmp_path), dataset=data)
    found = estimate_cost(prompt_settings(remote), data)
    assert found.known == 5
    assert not found.exact
    server.behave = lambda number, body: (200, answer("1"), {})
    result = run(remote, store=RunStore(tmp_path), dataset=data)
    assert len(server.requests) == found.calls + 5 + 1
    assert np.isfinite(result.test["macro_f1"] or 0.0)
    assert estimate_cost(prompt_settings(remote), data).calls == 0


def test_errors_are_told(spec: RunSpec, data: Dataset, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(SpecError, match="No language model given"):
        run(spec.override({"llm.model": ""}), store=store, dataset=data)
    with pytest.raises(ModelError, match="cannot be loaded"):
        run(spec.override({"llm.model": "no/such"}), store=store, dataset=data)
    with pytest.raises(UnknownNameError, match=r"llm\.fallback"):
        run(spec.override({"llm.fallback": "mehh"}), store=store, dataset=data)
    with pytest.raises(ModelError, match="cannot be saved"):
        run(spec, store=store, dataset=data, keep_model=True)
    with pytest.raises(SpecError, match="prompts are longer than the model's context"):
        run(spec.override({"llm.max_length": 40}), store=store, dataset=data)
    with pytest.raises(UnknownNameError, match="did you mean"):
        make_spec("llm-zero-shoot", spec.data)


def test_balanced_test_rows(reviews: Path) -> None:
    found = load_dataset(DataSpec(name=str(reviews), test_per_class=2), seed=45)
    assert list(found.test.counts(3)) == [2, 2, 2]
    assert any("test rows drawn, balanced" in note for note in found.notes)


def test_three_fixed_demonstrations_whatever_the_number_of_classes(
    reviews: Path, causal: Path, tiny_encoder: Path
) -> None:
    many = pd.DataFrame({
        "text": [f"text {i}" for i in range(300)], "label": [f"class {i % 10}" for i in range(300)]
    })  # fmt: skip
    path = reviews.with_name("ten-classes.csv")
    many.to_csv(path, index=False)
    ten, three = (load_dataset(DataSpec(name=str(p)), seed=45) for p in (path, reviews))
    for source, rows, total in ((path, ten, 3), (reviews, three, 3), (reviews, three, 7)):
        spec = asked("llm-fixed", source, causal, tiny_encoder, shots_total=total)
        builder = QuestionBuilder(prompt_settings(spec), rows.without_test())
        first, second = builder.questions(rows.test.examples())[:2]
        assert len(first.demos) == total
        assert first.demos == second.demos
        labels = [demo.label for demo in first.demos]
        assert len(set(labels)) == min(total, len(rows.classes)), "as many classes as can be"
        assert all(demo.text in rows.train.texts for demo in first.demos)


def test_a_transfer_takes_demonstrations_from_the_language_trained_on(
    causal: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    rows = make_reviews(60).assign(language=["en", "de"] * 30)
    rows["text"] = [f"{text} {name}" for text, name in zip(rows["text"], rows["language"])]  # noqa: B905
    rows.to_csv(tmp_path / "two.csv", index=False)
    base = asked("llm-retrieved", tmp_path / "two.csv", causal, tiny_encoder)
    comparison = Comparison(
        data=(base.data,), methods=("llm-retrieved",), seeds=(45,), transfer="matrix",
        settings={"llm.model": str(causal), "encoder.name": str(tiny_encoder),
                  "train.device": "cpu"},
    )  # fmt: skip
    store = RunStore(tmp_path / "runs")
    outcome = execute(plan(with_transfer(comparison)), store=store)
    assert [cell.status for cell in outcome.cells] == ["done", "done"], outcome.cells
    for result in outcome.results:
        (own,) = result.spec.data.train_groups or ()
        assert set(result.groups) == {"en", "de"}, "tested on both"
        assert f"demonstrations come from the groups trained on: {own}" in result.notes
        dataset = load_dataset(result.spec.data, seed=45)
        builder = QuestionBuilder(prompt_settings(result.spec), dataset.without_test())
        questions = builder.questions(dataset.test.examples("language"))
        assert {demo.text[-2:] for q in questions for demo in q.demos} == {own}
    table = transfer_table(outcome.results)
    assert len(table) == 4


def test_a_fine_tuned_model_is_trained_on_one_language_and_tested_on_all(
    causal: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trl")
    rows = make_reviews(60).assign(language=["en", "de"] * 30)
    rows.to_csv(tmp_path / "two.csv", index=False)
    settings = {
        "llm.model": str(causal), "encoder.name": str(tiny_encoder), "train.device": "cpu",
        "sft.max_steps": 2, "sft.accumulation": 2, "sft.learning_rate": 5e-3,
    }  # fmt: skip
    comparison = Comparison(
        data=(DataSpec(name=str(tmp_path / "two.csv")),), methods=("llm-finetuned",), seeds=(45,),
        transfer="matrix", settings=settings,
    )  # fmt: skip
    store = RunStore(tmp_path / "runs")
    outcome = execute(plan(with_transfer(comparison)), store=store)
    assert [cell.status for cell in outcome.cells] == ["done", "done"], outcome.cells
    for result in outcome.results:
        assert set(result.groups) == {"en", "de"}
        assert [row["step"] for row in store.history(result.key) if "loss" in row] == [1, 2]
        assert result.spec.config.get("sft.max_steps") == 2
    assert not list((tmp_path / "runs/.unfinished").glob("*/adapter")), "nothing is left"
    assert len(transfer_table(outcome.results)) == 4
    behind = asked("llm-finetuned", tmp_path / "two.csv", causal, tiny_encoder,
                   server="http://127.0.0.1:9/v1")  # fmt: skip
    with pytest.raises(SpecError, match="cannot be fine-tuned"):
        run(behind, store=store)
