"""Scores that are not defined, data sets named alike, encoders that are changed, odd or broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import make_reviews
from tests.runs import true_labels, write_run
from tests.tiny_encoders import write_encoder
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.errors import ModelError, SpecError, UnknownNameError, ValenceError
from valence.evaluation.classification import classification_scores
from valence.evaluation.task import Classification
from valence.methods.registry import make_spec
from valence.models.encoder import Encoder, TextTokenizer
from valence.reports.tables import by_setup
from valence.runs.store import RunStore

CLASSES = tuple(f"c{i:03}" for i in range(150))
TASK = Classification(("a", "b", "c"), (9, 9, 9), (2,))


def states_of(spec: EncoderSpec, texts: list[str]) -> torch.Tensor:
    """Token states of texts of one length."""
    ids = torch.tensor(TextTokenizer(spec)(texts).input_ids)
    states: torch.Tensor = Encoder(spec).eval()(ids, torch.ones_like(ids))
    return states


@pytest.mark.parametrize("metric", ["f1", "macro-f1", "accuracy_", "AUC"])
def test_13_an_unknown_metric_is_named(metric: str) -> None:
    with pytest.raises(UnknownNameError):
        TASK.check_metric(metric)


def test_13_a_metric_without_a_value_is_refused_before_anything_is_fitted() -> None:
    TASK.check_metric("auc", np.array([0, 1, 2]))
    with pytest.raises(SpecError, match="'auc' is undefined on the validation rows"):
        TASK.check_metric("auc", np.array([0, 1, 1]))


def test_13_a_study_whose_trials_must_fail_ends_at_once(
    tmp_path: Path, valence: Any, tiny_words: list[str]
) -> None:
    rows = make_reviews(90)
    rows.to_csv(tmp_path / "train.csv", index=False)
    rows[rows["label"] != "meh"].to_csv(tmp_path / "validation.csv", index=False)
    rows.to_csv(tmp_path / "test.csv", index=False)
    code, _, error = valence(
        "tune", tmp_path, "--method", "lora", "--trials", 2, "--set", "train.metric=auc",
        *tiny_words, "--out", tmp_path / "study",
    )  # fmt: skip
    assert code == 1
    assert "'auc' is undefined on the validation rows" in error


def test_14_many_classes_of_few_rows_print_no_warnings_of_libraries(tmp_path: Path) -> None:
    texts = [f"word{i} of topic{i % 7}, {j}" for i in range(60) for j in range(3)]
    rows = pd.DataFrame({"text": texts, "label": [f"c{i}" for i in range(60) for _ in range(3)]})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    train = ["train", "rows.csv", "--method", "tfidf-lr", "--out", "model"]
    done = subprocess.run(
        [sys.executable, "-m", "valence", *train], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "Warning" not in done.stderr
    assert "Note: " in done.stderr


@pytest.mark.parametrize("present", [150, 100, 40, 3])
def test_14_one_rule_for_macro_and_tail(present: int) -> None:
    tail = tuple(range(100, 150))
    truth = np.repeat(np.arange(present), 2)
    scores = classification_scores(
        truth, np.eye(150)[truth], classes=CLASSES, train_counts=[2] * 150, tail=tail
    )
    assert scores["macro_f1"] == 1.0
    assert scores["tail_f1"] == (1.0 if present > 100 else None)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/reviews.csv", "b/reviews.csv"], ["a/reviews", "b/reviews"]),
        (["a/reviews.csv", "reviews.csv"], ["a/reviews", "x/reviews"]),
        (["a/c/reviews.csv", "b/c/reviews.csv"], ["a/c/reviews", "b/c/reviews"]),
        (["reviews.csv", "reviews.tsv"], ["reviews.csv", "reviews.tsv"]),
        (["reviews.csv"], ["reviews"]),
    ],
)
@pytest.mark.parametrize("method", ["majority", "lora"])
def test_20_files_of_one_name_are_told_apart_by_folder(
    paths: list[str], names: list[str], method: str, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "runs")
    labels = true_labels()
    results = []
    for path in paths:
        spec = make_spec(method, DataSpec(name=str(tmp_path / "x" / path)))
        result = write_run(store, spec, labels, labels, fingerprint=path)
        encoder = result.encoder if method == "lora" else None
        results.append(result.model_copy(update={"encoder": encoder}))
    assert [name.partition(":")[0] for name in by_setup(results)] == names


def test_20_the_command_tells_them_apart(tmp_path: Path, valence: Any) -> None:
    for seed, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        make_reviews(60, seed=seed).to_csv(tmp_path / folder / "reviews.csv", index=False)
    code, printed, error = valence(
        "compare", "a/reviews.csv", "b/reviews.csv", "--methods", "majority", "--seeds", 1
    )
    assert code == 0, error
    assert "a/reviews: " in printed
    assert "b/reviews: " in printed
    assert "#2" not in printed


def test_20_encoders_of_one_name_are_told_apart_by_folder(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    labels = true_labels()
    results = []
    for folder in ("a", "b"):
        settings = {"encoder.name": f"{folder}/encoder"}
        spec = make_spec("lora", DataSpec(name="x.csv"), settings=settings)
        result = write_run(store, spec, labels, labels, fingerprint=folder)
        results.append(result.model_copy(update={"encoder": f"{folder}/encoder"}))
    assert [name.rpartition(", ")[2] for name in by_setup(results)] == ["a/encoder", "b/encoder"]


def test_24_an_encoder_without_a_limit_has_that_of_its_positions(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in values.items() if k != "model_max_length"}))
    positions = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    spec = EncoderSpec(name=str(folder), max_length=5000, adaptation="frozen")
    encoded = TextTokenizer(spec)(["good film " * 3000])
    assert len(encoded.input_ids[0]) <= positions
    assert encoded.truncated == 1
    assert states_of(spec, ["good film " * 3000]).shape[1] <= positions


@pytest.mark.parametrize("name", ["t5", "distilbert", "bert", "llama"])
def test_29_other_kinds_work_or_say_what_they_are(name: str, tmp_path: Path) -> None:
    try:
        folder = write_encoder(name, tmp_path / name)
    except KeyError:
        pytest.skip(f"no tiny {name}")
    spec = EncoderSpec(name=str(folder), adaptation="frozen", max_length=16)
    assert bool(states_of(spec, ["good film"]).isfinite().all())


@pytest.mark.parametrize("size", [0, 7, 100, 4000])
def test_29_truncated_weights_are_one_line(size: int, tiny_encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValenceError) as error:
        Encoder(EncoderSpec(name=str(folder), adaptation="frozen"))
    assert isinstance(error.value, ModelError)
    assert "copy it again" in str(error.value)


def test_29_gpt2_without_padding_works(tiny_encoder: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "gpt2"))
    (folder / "model.safetensors").unlink()
    GPT2Model(
        GPT2Config(vocab_size=60, n_positions=40, n_embd=16, n_layer=1, n_head=2)
    ).save_pretrained(folder)
    spec = EncoderSpec(name=str(folder), adaptation="frozen", max_length=16)
    states = states_of(spec, ["good film", "bad film"])
    assert states.shape[-1] == 16
    assert bool(states.isfinite().all())
