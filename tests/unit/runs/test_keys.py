"""A run's key holds all that decides its result; what is kept is neither lost nor overwritten."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.config.sections import ViewSpec
from valence.config.spec import RunSpec
from valence.data.augment import Texts, second_views
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.distributed.device import Hardware
from valence.errors import RunError, SpecError, UnknownNameError
from valence.inference.predictor import Predictor
from valence.methods.registry import make_spec
from valence.models.built_in import encoder_content
from valence.models.torch_model import TorchModel
from valence.runs.runner import run
from valence.runs.store import RunStore, result_key


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


def spec_of(method: str, reviews: Path, settings: dict[str, object]) -> RunSpec:
    return make_spec(method, DataSpec(name=str(reviews)), common=settings)


@pytest.fixture
def own_encoder(tiny_encoder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))


def replace_weights(encoder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = encoder / "model.safetensors"
    weights = {n: torch.roll(v, 1, 0) for n, v in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("method", ["linear-probe", "lora", "lora-posthoc"])
def test_another_encoder_under_the_same_path_is_another_run(
    method: str, reviews: Path, data: Dataset, tiny_settings: dict[str, object],
    own_encoder: Path, store: RunStore,
) -> None:  # fmt: skip
    settings = {**tiny_settings, "encoder.name": str(own_encoder), "train.epochs": 1}
    spec = spec_of(method, reviews, settings)
    first = run(spec, store=store, dataset=data)
    replace_weights(own_encoder)
    second = run(spec, store=store, dataset=data)
    assert second.key != first.key
    assert not np.array_equal(
        store.predictions(first.key)["logit_0"], store.predictions(second.key)["logit_0"]
    )


def test_second_views_of_another_encoder_are_made_anew(own_encoder: Path) -> None:
    def views() -> tuple[list[str], str]:
        source = Texts(["good film"], make_reviews(1), str(own_encoder), 16, 1, content)
        return second_views(ViewSpec(name="substitution"), source)

    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig.from_pretrained(own_encoder)
    torch.manual_seed(1)
    BertForMaskedLM(config).save_pretrained(own_encoder)
    content = encoder_content(str(own_encoder))
    assert "from the cache" not in views()[1]
    assert "from the cache" in views()[1]
    BertForMaskedLM(config).save_pretrained(own_encoder)
    content = encoder_content(str(own_encoder))
    assert "from the cache" not in views()[1]


def test_number_formats_do_not_share_a_key(
    reviews: Path, data: Dataset, tiny_settings: dict[str, object]
) -> None:
    spec = spec_of("lora", reviews, tiny_settings)
    keys = {
        name: result_key(spec.override({"train.precision": name, "train.device": "cpu"}), data)
        for name in ("auto", "fp32", "bf16")
    }
    assert keys["auto"].digest() == keys["fp32"].digest(), "on a processor auto is float32"
    assert keys["bf16"].digest() != keys["fp32"].digest()


def test_relabeled_groups_are_another_run(tmp_path: Path, store: RunStore) -> None:
    path, keys = tmp_path / "rows.csv", []
    for languages in (["en", "de"], ["de", "en"]):
        make_reviews(80).assign(language=languages * 40).to_csv(path, index=False)
        keys.append(run(make_spec("majority", DataSpec(name=str(path), cut_seed=1)), store=store))
    assert keys[0].key != keys[1].key
    assert set(keys[0].groups) == {"de", "en"}


def test_two_processes_make_a_run_once(
    reviews: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    """The second waits, and takes what the first has made."""
    words = [word for k, v in tiny_settings.items() for word in ("--set", f"{k}={v}")]
    command = [
        sys.executable, "-m", "valence", "train", str(reviews), "--method", "lora", *words,
        "--runs", str(tmp_path / "runs"), "--json", "--quiet",
    ]  # fmt: skip
    started = [
        subprocess.Popen(
            [*command, "--out", str(tmp_path / f"model{i}")], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    ended = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 1
    assert (tmp_path / "model0" / "config.json").exists()
    assert (tmp_path / "model1" / "config.json").exists()


def test_a_result_of_a_later_version_is_kept(reviews: Path, data: Dataset, store: RunStore) -> None:
    spec = make_spec("majority", DataSpec(name=str(reviews)))
    result = run(spec, store=store, dataset=data)
    path = store.path(result.key) / "result.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "new_field": 3}))
    assert run(spec, store=store, dataset=data).test == result.test
    assert json.loads(path.read_text())["new_field"] == 3, "it is not made again"
    path.write_text(json.dumps({**values, "test": "much better"}))
    with pytest.raises(RunError, match=r"result.json cannot be read \(test: .* delete the folder"):
        run(spec, store=store, dataset=data)
    assert json.loads(path.read_text())["test"] == "much better", "it is not overwritten"
    assert store.all() == []
    assert list(store.unreadable()) == [result.key]


def test_a_model_is_scored_where_it_was_trained(
    reviews: Path, data: Dataset, tiny_settings: dict[str, object], store: RunStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The device of the training is the one the test rows are scored on, and the one recorded."""
    prepared: list[str] = []
    original = TorchModel.prepare

    def prepare(self: TorchModel, hardware: Hardware) -> None:
        prepared.append(hardware.device)
        original(self, hardware)

    monkeypatch.setattr(TorchModel, "prepare", prepare)
    spec = spec_of("lora", reviews, {**tiny_settings, "train.epochs": 1, "train.device": "cpu"})
    result = run(spec, store=store, dataset=data)
    assert prepared[0] == "cpu"
    assert result.provenance["device"] == "cpu"


def test_a_metric_is_checked_before_anything_is_fitted(
    reviews: Path, data: Dataset, tiny_settings: dict[str, object], store: RunStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("valence.runs.runner.fit_spec", None)
    spec = spec_of("lora", reviews, tiny_settings)
    with pytest.raises(UnknownNameError, match="'f1'"):
        run(spec.override({"train.metric": "f1"}), store=store, dataset=data)
    labels = data.validation.labels
    few = replace(data, validation=data.validation.take(np.flatnonzero(labels != 2)))
    with pytest.raises(SpecError, match=r"'auc' is undefined on the validation rows; use one of"):
        run(spec.override({"train.metric": "auc"}), store=store, dataset=few)


def test_threads_of_a_predictor_are_its_own(
    reviews: Path, data: Dataset, tiny_settings: dict[str, object], store: RunStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    spec = spec_of("linear-probe", reviews, tiny_settings)
    result = run(spec, store=store, dataset=data, keep_model=True)
    before = torch.get_num_threads()
    used: list[int] = []
    original = TorchModel.encode

    def encode(self: TorchModel, *given: object, **more: object) -> object:
        used.append(torch.get_num_threads())
        return original(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(TorchModel, "encode", encode)
    threads = before + 1
    predictor = Predictor(
        store.path(result.key) / "model", hardware=Hardware(threads=threads, device="cpu")
    )
    assert torch.get_num_threads() == before
    predictor.predict(["good film"])
    assert used == [threads]
    assert torch.get_num_threads() == before


def test_importing_a_module_mutes_nothing() -> None:
    code = (
        "from transformers.utils import logging\n"
        "before = logging.get_verbosity(), logging.is_progress_bar_enabled()\n"
        "import valence.models.encoder, valence.training.trainer, valence.cli\n"
        "assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_spec_without_settings_has_those_of_its_method(
    reviews: Path, data: Dataset, store: RunStore
) -> None:
    rows = DataSpec(name=str(reviews))
    result = run(RunSpec(method="tfidf-lr", data=rows), store=store, dataset=data)
    assert result.spec == make_spec("tfidf-lr", rows)
