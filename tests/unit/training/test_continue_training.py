"""Going on from a saved model: its weights, more classes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import make_reviews
from tests.models import continued, fitted, untrained
from valence.config.data import DataSpec
from valence.data.dataset import Dataset
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.errors import DataError, ModelError, SpecError
from valence.methods.registry import make_spec
from valence.models.loader import load_model
from valence.runs.continued import continued_spec
from valence.runs.runner import run
from valence.runs.store import RunStore
from valence.training.continue_training import content_hash


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New rows, a fifth of them of a class the model does not know."""
    frame = make_reviews(150, seed=9)
    frame.loc[frame.index % 5 == 0, "label"] = "odd"
    path = tmp_path_factory.mktemp("newer") / "newer.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("same") / "same.csv"
    make_reviews(120, seed=5).to_csv(path, index=False)
    return path


def saved(method: str, data: Dataset, settings: dict[str, object], folder: Path) -> Path:
    spec = make_spec(method, DataSpec(), settings={**settings, "train.epochs": 1})
    fitted(spec, data.without_test()).save(folder)
    return folder


@pytest.mark.parametrize("method", ["lora", "hy-mora", "full", "han-roberta", "supcon"])
def test_training_starts_from_the_old_weights(
    method: str, data: Dataset, same: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    folder = saved(method, data, tiny_settings, tmp_path / "model")
    spec = continued_spec(folder, DataSpec(name=str(same)))
    rows = load_dataset(spec.data, seed=spec.seed)
    model = continued(spec, rows.without_test(), folder)
    fresh = untrained(spec, rows.without_test())
    assert model.trainable_parameters == fresh.trainable_parameters, "the adapter is trained too"
    old = load_model(folder)
    texts = data.validation.texts
    assert model.predict(Examples(texts)).logits == pytest.approx(
        old.predict(Examples(texts)).logits, abs=1e-5
    )
    assert model.predict(Examples(texts)).logits != pytest.approx(
        fresh.predict(Examples(texts)).logits, abs=1e-3
    )
    assert model.task.counts == tuple(rows.without_test().train_counts)


def test_more_training_is_a_run_of_its_own(
    data: Dataset, same: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    folder = saved("lora", data, tiny_settings, tmp_path / "model")
    store = RunStore(tmp_path / "runs")
    spec = continued_spec(folder, DataSpec(name=str(same)), settings={"train.epochs": 2})
    result = run(spec, store=store, start=folder, keep_model=True)
    again = run(spec, store=store, start=folder, keep_model=True)
    assert again.key == result.key
    plain = spec.model_copy(update={"start": None})
    rows = load_dataset(spec.data, seed=spec.seed)
    assert store.key(plain, rows) != result.key
    (folder / "report").mkdir()
    (folder / "report" / "results.json").write_text("[]")
    assert content_hash(folder) == spec.start, "a report is no part of the model"
    twice = continued_spec(store.path(result.key) / "model", DataSpec(name=str(same)))
    assert twice.start not in (None, spec.start)
    with pytest.raises(SpecError, match="set its folder with --from"):
        run(spec.override({"seed": 7}), store=store)
    other = saved("lora", data, {**tiny_settings, "train.learning_rate": 1e-3}, tmp_path / "other")
    with pytest.raises(SpecError, match="is not the model"):
        run(spec.override({"seed": 7}), store=store, start=other)


def test_new_labels_are_named(
    data: Dataset, newer: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    folder = saved("lora", data, tiny_settings, tmp_path / "model")
    with pytest.raises(DataError, match=r"a label that .* does not know: odd; .*--extend-labels"):
        continued_spec(folder, DataSpec(name=str(newer)))


@pytest.mark.parametrize("method", ["lora", "hy-mora", "full", "lstm-roberta", "sharprecl", "ldam"])
def test_new_classes_keep_the_old_rows(
    method: str, data: Dataset, newer: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    folder = saved(method, data, tiny_settings, tmp_path / "model")
    spec = continued_spec(folder, DataSpec(name=str(newer)), extend_labels=True)
    rows = load_dataset(spec.data, seed=spec.seed)
    assert rows.classes == (*data.classes, "odd")
    model = continued(spec, rows.without_test(), folder)
    texts = data.validation.texts
    old, grown = (
        load_model(folder).predict(Examples(texts)).logits,
        model.predict(Examples(texts)).logits,
    )
    assert grown.shape == (len(texts), 4)
    if method == "sharprecl":  # its logits have length one over all classes
        grown = grown[:, :3] / (grown[:, :3] ** 2).sum(1, keepdims=True) ** 0.5
    assert grown[:, :3] == pytest.approx(old, abs=1e-5)
    result = run(spec, store=RunStore(tmp_path / "runs"), start=folder, keep_model=True)
    assert result.classes[-1] == "odd"
    assert result.test["f1/odd"] is not None


def test_what_cannot_go_on_is_refused(
    data: Dataset, same: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    rows = DataSpec(name=str(same))
    for name in ("tfidf-lr", "linear-probe"):
        spec = make_spec(name, DataSpec(), settings=tiny_settings)
        fitted(spec, data.without_test()).save(tmp_path / name)
        with pytest.raises(ModelError, match="cannot be trained further"):
            continued_spec(tmp_path / name, rows)
    with pytest.raises(ModelError, match="No model folder"):
        continued_spec(tmp_path / "nowhere", rows)
    folder = saved("lora", data, tiny_settings, tmp_path / "model")
    spec = continued_spec(folder, rows)
    changed = spec.override({"encoder.max_length": 16})
    with pytest.raises(ModelError, match="different encoder or head"):
        continued(changed, data.without_test(), folder)
    mixed = replace(data.without_test(), classes=tuple(reversed(data.classes)))
    with pytest.raises(ModelError, match="must come first"):
        continued(spec, mixed, folder)
