"""Every method with every verb: each works, or refuses for a reason that stands here.

A method without a row in :data:`REFUSALS` fails the meta-test, so that whoever adds one decides
what it can do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.causal import make_causal
from tests.conftest import make_reviews
from tests.features import mmsa, write_mmsa
from valence.config.data import DataSpec
from valence.config.spec import RunSpec
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.distributed.device import Hardware
from valence.errors import ValenceError
from valence.inference.explain.explain import explain
from valence.inference.predictor import Predictor
from valence.methods.registry import METHODS, check_target, make_spec
from valence.models.loader import load_model
from valence.runs.runner import run
from valence.runs.store import RunResult, RunStore
from valence.serving.reload import load_warm
from valence.tuning.tune import TuningPlan, ranges_of

VERBS = (
    "fit", "save", "load", "predict", "evaluate", "explain", "export", "serve", "tune", "device",
    "group", "intensity",
)  # fmt: skip
CLASSES_ONLY = {"intensity": "predicts classes but data.target is intensity"}
FITTED_IN_ONE_GO = {**CLASSES_ONLY, "export": "no network to export"}
NO_MODEL = "cannot be saved"
USES_OF_A_MODEL = ("save", "load", "predict", "evaluate", "explain", "export", "serve")
KEEPS_NOTHING = {
    **CLASSES_ONLY, "tune": "nothing to tune",
    **dict.fromkeys(USES_OF_A_MODEL, NO_MODEL),
}  # fmt: skip
MULTIMODAL = {
    "export": "no network to export",
    "group": "Groups can be scored for classes only",
}

REFUSALS: dict[str, dict[str, str]] = {
    "majority": {**FITTED_IN_ONE_GO, "tune": "nothing to tune"},
    "tfidf-lr": FITTED_IN_ONE_GO,
    "kernel-ridge": {**CLASSES_ONLY, "tune": "nothing to tune"},
    "kernel-ridge-encoder": {**CLASSES_ONLY, "tune": "nothing to tune"},
    "kernel-ridge-text": {**FITTED_IN_ONE_GO, "tune": "nothing to tune"},
    "auto": {**CLASSES_ONLY, "tune": "nothing to tune"},
    "linear-probe": CLASSES_ONLY,
    "full": CLASSES_ONLY,
    "cross-entropy": CLASSES_ONLY,
    "lora": CLASSES_ONLY,
    "lora-balanced": CLASSES_ONLY,
    "dora-balanced": CLASSES_ONLY,
    "focal": CLASSES_ONLY,
    "ldam": CLASSES_ONLY,
    "logit-adjust": CLASSES_ONLY,
    "balanced-softmax": CLASSES_ONLY,
    "class-balanced": CLASSES_ONLY,
    "supcon": CLASSES_ONLY,
    "sharprecl": CLASSES_ONLY,
    "sharprecl-no-simple": CLASSES_ONLY,
    "sharprecl-no-mixup": CLASSES_ONLY,
    "sharprecl-no-prototypes": CLASSES_ONLY,
    "sharprecl-no-compensation": CLASSES_ONLY,
    "lstm-roberta": CLASSES_ONLY,
    "han-roberta": CLASSES_ONLY,
    "hy-mora": CLASSES_ONLY,
    "hy-mora-no-memory": CLASSES_ONLY,
    "hy-mora-no-pooling": CLASSES_ONLY,
    "lora-posthoc": CLASSES_ONLY,
    "almt": MULTIMODAL,
    "text-only": MULTIMODAL,
    "audio-only": MULTIMODAL,
    "vision-only": MULTIMODAL,
    "early-fusion": MULTIMODAL,
    "late-fusion": MULTIMODAL,
    "llm-zero-shot": KEEPS_NOTHING,
    "llm-fixed": KEEPS_NOTHING,
    "llm-retrieved": KEEPS_NOTHING,
    "llm-finetuned": KEEPS_NOTHING,
}
"""By method, the verbs that it refuses and why; all others work."""

TEXTS = ["good film", "awful food"]


class Workshop:
    """Specs, rows and fitted models of every method, each made once.

    Args:
        folder: Where rows and runs are.
        settings: Settings under which a training takes a second.
    """

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        rows = make_reviews(120).assign(language=["en", "de"] * 60)
        rows.to_csv(folder / "reviews.csv", index=False)
        write_mmsa(folder / "talks.pkl", mmsa(24))
        causal = str(make_causal(folder / "causal"))
        self.folder, self.store = folder, RunStore(folder / "runs")
        small = {"fusion.dim": 16, "fusion.depth": 1, "head.hidden_size": 8}
        self.settings = {**settings, **small, "train.epochs": 1, "llm.model": causal}
        self.results: dict[str, RunResult] = {}
        self.datasets: dict[str, Dataset] = {}

    def data(self, name: str) -> DataSpec:
        multimodal = "vision" in METHODS[name].capabilities.inputs
        return DataSpec(name=str(self.folder / ("talks.pkl" if multimodal else "reviews.csv")))

    def spec(self, name: str, **more: object) -> RunSpec:
        given = {path.replace("__", "."): value for path, value in more.items()}
        return make_spec(name, self.data(name), settings={**self.settings, **given})

    def rows(self, name: str) -> Dataset:
        spec = self.spec(name).data
        key = spec.model_dump_json()
        if key not in self.datasets:
            self.datasets[key] = load_dataset(spec, seed=45)
        return self.datasets[key]

    def result(self, name: str, *, keep_model: bool = True) -> RunResult:
        if name not in self.results:
            self.results[name] = run(
                self.spec(name), store=self.store, dataset=self.rows(name), keep_model=keep_model
            )
        return self.results[name]

    def model(self, name: str) -> Path:
        return self.store.path(self.result(name).key) / "model"


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, tiny_settings: dict[str, object]
) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("verbs"), tiny_settings)


def fit(workshop: Workshop, name: str) -> None:
    keeps = METHODS[name].capabilities.keeps_model
    result = workshop.result(name, keep_model=keeps)
    assert result.sizes["test"] == len(workshop.rows(name).test)
    assert any(value is not None for value in result.test.values())


def save(workshop: Workshop, name: str) -> None:
    assert (workshop.model(name) / "config.json").is_file()


def load(workshop: Workshop, name: str) -> None:
    model = load_model(workshop.model(name))
    assert model.task.target == workshop.spec(name).data.target
    assert model.provenance["method"] == name


def predict(workshop: Workshop, name: str) -> None:
    table = Predictor(workshop.model(name)).table(TEXTS)
    assert len(table) == len(TEXTS)
    assert np.isfinite(table.select_dtypes("number").to_numpy()).all()


def evaluate(workshop: Workshop, name: str) -> None:
    predictor = Predictor(workshop.model(name))
    scores = predictor.evaluate(workshop.rows(name).test)
    told = workshop.result(name).test
    main = predictor.task.main_metric
    assert scores[main] == pytest.approx(told[main], abs=1e-6)


def explain_(workshop: Workshop, name: str) -> None:
    found = explain(Predictor(workshop.model(name)), TEXTS, steps=2)
    assert [one.text for one in found] == TEXTS
    assert all(one.tokens or one.note for one in found)


def export(workshop: Workshop, name: str) -> None:
    """What is exported; ``test_export.py`` and ``test_export_fit.py`` write and run them."""
    model = load_model(workshop.model(name))
    for one in model.averaged() or (model,):
        assert one.text_model().network is not None


def serve(workshop: Workshop, name: str) -> None:
    assert load_warm(workshop.model(name)).columns(TEXTS)


def tune(workshop: Workshop, name: str) -> None:
    assert ranges_of(workshop.spec(name), TuningPlan(), {})


def device(workshop: Workshop, name: str) -> None:
    """A device that is there is used; one that is not is refused by every method alike."""
    spec = workshop.spec(name)
    if "train.device" in spec.paths():
        with pytest.raises(ValenceError, match="not available"):
            run(spec.override({"train.device": "mps"}), store=workshop.store)
    if METHODS[name].capabilities.keeps_model:
        folder = workshop.model(name)
        with pytest.raises(ValenceError, match="not available"):
            Predictor(folder, hardware=Hardware(device="mps"))
        assert len(Predictor(folder, hardware=Hardware(device="cpu")).table(TEXTS)) == 2


def group(workshop: Workshop, name: str) -> None:
    load_dataset(workshop.spec(name, data__group="language").data)
    keeps = METHODS[name].capabilities.keeps_model
    assert set(workshop.result(name, keep_model=keeps).groups) == {"de", "en"}


def intensity(workshop: Workshop, name: str) -> None:
    spec = workshop.spec(name, data__target="intensity")
    check_target(name, spec.data.target)
    assert workshop.result(name).test["mae"] is not None


CHECKS: dict[str, Callable[[Workshop, str], None]] = {
    "fit": fit, "save": save, "load": load, "predict": predict, "evaluate": evaluate,
    "explain": explain_, "export": export, "serve": serve, "tune": tune, "device": device,
    "group": group, "intensity": intensity,
}  # fmt: skip


def test_every_method_has_a_row_and_every_verb_a_check() -> None:
    assert set(REFUSALS) == set(METHODS)
    assert tuple(CHECKS) == VERBS
    for name, row in REFUSALS.items():
        assert set(row) <= set(VERBS), name


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", METHODS)
def test_method_does_or_refuses(name: str, verb: str, workshop: Workshop) -> None:
    reason = REFUSALS[name].get(verb)
    if reason is None:
        CHECKS[verb](workshop, name)
        return
    if reason == NO_MODEL:
        workshop.results.pop(name, None)
        verb = "save"
    with pytest.raises(ValenceError) as refused:
        CHECKS[verb](workshop, name)
    assert re.search(reason, str(refused.value)), str(refused.value)
    assert "\n" not in str(refused.value)
