"""Every multimodal method trains on numbers and on classes, is scored, saved and loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.features import mmsa, write_mmsa
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.methods.registry import METHODS, make_spec
from valence.models.encoder import Encoder
from valence.models.fusion_model import FusionModel
from valence.models.loader import load_model
from valence.runs.runner import run
from valence.runs.store import RunStore

FUSIONS = [name for name, method in METHODS.items() if method.family == "multimodal"]
CLASSES = {"data.target": "classes", "loss.name": "cross-entropy", "train.metric": "macro_f1"}
SMALL = {"fusion.dim": 16, "train.epochs": 3, "train.batch_size": 8, "train.learning_rate": 5e-3}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mmsa(tmp_path_factory.mktemp("own") / "talks.pkl", mmsa(24))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return RunStore(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def data(archive: Path) -> dict[str, Dataset]:
    return {
        target: load_dataset(DataSpec(name=str(archive), target=target))
        for target in ("intensity", "classes")
    }


@pytest.mark.parametrize(
    ("name", "target"),
    [*((name, "intensity") for name in FUSIONS), ("almt", "classes"), ("late-fusion", "classes")],
)
def test_method_end_to_end(
    name: str, target: str, store: RunStore, data: dict[str, Dataset], archive: Path,
    tiny_encoder: Path,
) -> None:  # fmt: skip
    changes = {**SMALL, "encoder.name": str(tiny_encoder)}
    changes |= CLASSES if target == "classes" else {}
    spec = make_spec(name, DataSpec(name=str(archive)), settings=changes)
    result = run(spec, store=store, dataset=data[target], keep_model=True)
    test = data[target].test
    rows = store.predictions(result.key)
    rows = rows[rows["split"] == "test"]
    assert list(rows["id"]) == list(test.ids)
    loaded = load_model(store.path(result.key) / "model")
    assert isinstance(loaded, FusionModel)
    again = loaded.predict(test.examples()).logits
    outputs = [f"logit_{i}" for i in range(max(1, len(data[target].classes)))]
    np.testing.assert_allclose(again, rows[outputs].to_numpy(), atol=1e-5)
    main = spec.config.train.metric
    records = [r for r in store.history(result.key) if f"validation/{main}" in r]
    values = {r["step"]: r[f"validation/{main}"] for r in records}
    best = (max if target == "classes" else min)(values.values())
    assert result.validation[main] == pytest.approx(best, abs=1e-5)
    step, at_own = result.own_best[main]
    assert values[step] == best
    assert at_own == pytest.approx(result.test[main], abs=1e-5)
    table = store.table(result.key, "robustness.csv")
    whole = table[(table["change"] == "missing") & (table["level"] == 0)]
    np.testing.assert_allclose(whole[main].astype(float), result.test[main], atol=1e-5)
    read = {name.removesuffix("-only")} if "-only" in name else {"text", "audio", "vision", "all"}
    assert set(table["modality"]) == read


def test_own_best_epochs_are_those_of_validation(
    store: RunStore, data: dict[str, Dataset], archive: Path, tiny_encoder: Path
) -> None:
    changes = {**SMALL, "encoder.name": str(tiny_encoder)}
    spec = make_spec("almt", DataSpec(name=str(archive)), settings=changes)
    result = run(spec, store=store, dataset=data["intensity"], keep_model=True)
    history = [r for r in store.history(result.key) if "validation/mae" in r]
    assert set(result.own_best) == {m for m in result.test if result.test[m] is not None}
    for metric, (step, _) in result.own_best.items():
        values = {r["step"]: r[f"validation/{metric}"] for r in history}
        best = min(values.values()) if metric == "mae" else max(values.values())
        assert values[step] == best, metric


def test_test_rows_change_nothing_but_the_test_scores(
    tmp_path: Path, data: dict[str, Dataset], archive: Path, tiny_encoder: Path
) -> None:
    changes = {**SMALL, "encoder.name": str(tiny_encoder), "train.epochs": 2}
    spec = make_spec("late-fusion", DataSpec(name=str(archive)), settings=changes)
    whole = data["intensity"]
    results = [
        run(spec, store=RunStore(tmp_path / name), dataset=own)
        for name, own in (("whole", whole), ("few", replace(whole, test=whole.test.take([3, 1]))))
    ]
    assert results[0].validation == results[1].validation
    assert results[0].test != results[1].test
    assert {m: s for m, (s, _) in results[0].own_best.items()} == {
        m: s for m, (s, _) in results[1].own_best.items()
    }


def test_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, data: dict[str, Dataset], archive: Path, tiny_encoder: Path
) -> None:
    changes = {**SMALL, "encoder.name": str(tiny_encoder), "fusion.modality_dropout": 0.2}
    spec = make_spec("late-fusion", DataSpec(name=str(archive)), settings=changes)
    own = data["intensity"]
    whole = run(spec, store=RunStore(tmp_path / "whole"), dataset=own)
    store = RunStore(tmp_path / "cut")

    def stop(share: float, words: str) -> None:
        if share > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, store=store, dataset=own, progress=stop)
    first: list[float] = []
    went_on = run(spec, store=store, dataset=own, progress=lambda share, _: first.append(share))
    assert max(first[:4]) > 0.5, "it went on from a checkpoint"
    assert went_on.test == whole.test
    assert went_on.own_best == whole.own_best


PUBLISHED = {"fusion.compat": "reference", "fusion.standardize": False}


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        ({"encoder.adaptation": "full"}, {"encoder"}),
        ({"encoder.adaptation": "lora"}, {"adapter"}),
        ({"encoder.adaptation": "full", **PUBLISHED}, {"encoder"}),
        (PUBLISHED, set()),
    ],
    ids=["full", "lora", "published", "published-frozen"],
)
def test_almt_with_a_trained_encoder_is_saved_whole(
    changes: dict[str, object], files: set[str], tmp_path: Path, data: dict[str, Dataset],
    archive: Path, tiny_encoder: Path,
) -> None:  # fmt: skip
    settings = {**SMALL, "encoder.name": str(tiny_encoder), **changes}
    spec = make_spec("almt", DataSpec(name=str(archive)), settings=settings)
    store = RunStore(tmp_path)
    result = run(spec, store=store, dataset=data["intensity"], keep_model=True)
    folder = store.path(result.key) / "model"
    assert {p.name for p in folder.iterdir() if p.is_dir()} == files
    rows = store.predictions(result.key)
    rows = rows[rows["split"] == "test"]
    loaded = load_model(folder)
    again = loaded.predict(data["intensity"].test.examples()).logits
    np.testing.assert_allclose(again[:, 0], rows["logit_0"].to_numpy(), atol=1e-5)
    table = store.table(result.key, "robustness.csv")
    gone = table[(table["change"] == "missing") & (table["level"] == 0.9)]
    scores = gone.set_index("modality")["mae"].astype(float)
    for modality in ("text", "audio", "vision"):
        assert abs(scores[modality] - result.test["mae"]) > 1e-7, modality


@pytest.mark.parametrize("adaptation", ["frozen", "full"])
def test_the_encoder_of_a_fusion_changes_only_where_it_is_trained(
    adaptation: str, tmp_path: Path, data: dict[str, Dataset], archive: Path, tiny_encoder: Path
) -> None:
    settings = {**SMALL, "encoder.name": str(tiny_encoder), "encoder.adaptation": adaptation}
    settings |= {"train.epochs": 1}
    spec = make_spec("almt", DataSpec(name=str(archive)), settings=settings)
    store = RunStore(tmp_path)
    result = run(spec, store=store, dataset=data["intensity"], keep_model=True)
    loaded = load_model(store.path(result.key) / "model")
    assert isinstance(loaded, FusionModel)
    before = Encoder(EncoderSpec(name=str(tiny_encoder), adaptation="frozen")).state_dict()
    after = loaded.net.encoder.state_dict()
    same = all(torch.equal(before[name], after[name]) for name in before)
    assert same == (adaptation == "frozen")
    trained = sum(p.numel() for p in loaded.net.encoder.parameters() if p.requires_grad)
    assert (trained > 0) != same


def test_as_published_a_row_is_padded_to_the_published_length_whatever_its_batch(
    tmp_path: Path, data: dict[str, Dataset], archive: Path, tiny_encoder: Path
) -> None:
    settings = {**SMALL, "encoder.name": str(tiny_encoder), "train.epochs": 1, **PUBLISHED}
    spec = make_spec("almt", DataSpec(name=str(archive)), settings=settings)
    store, test = RunStore(tmp_path), data["intensity"].test
    result = run(spec, store=store, dataset=data["intensity"], keep_model=True)
    loaded = load_model(store.path(result.key) / "model")
    assert isinstance(loaded, FusionModel)
    assert (loaded.sizes.audio_length, loaded.sizes.vision_length) == (375, 500)
    together = loaded.predict(test.examples()).logits
    alone = [loaded.predict(test.take([i]).examples()).logits[0] for i in range(4)]
    np.testing.assert_allclose(np.array(alone), together[:4], atol=1e-5)


def test_features_are_read_as_they_are_where_nothing_is_standardized(
    tmp_path: Path, data: dict[str, Dataset], archive: Path, tiny_encoder: Path
) -> None:
    results = {}
    for standardize in (True, False):
        settings = {**SMALL, "encoder.name": str(tiny_encoder), "train.epochs": 1}
        settings |= {"fusion.standardize": standardize}
        spec = make_spec("audio-only", DataSpec(name=str(archive)), settings=settings)
        store = RunStore(tmp_path)
        results[standardize] = run(spec, store=store, dataset=data["intensity"])
    assert results[True].key != results[False].key
    assert results[True].test["mae"] != results[False].test["mae"]
