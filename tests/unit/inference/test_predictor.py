"""Predictor: the same answer whatever the batch, little padding, and texts over the limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from valence.methods.fitting import build_seeded

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data.batches import TOKEN_BUDGET, padded_share
from valence.data.sources import load_dataset
from valence.distributed.device import Hardware
from valence.errors import SpecError
from valence.inference.predictor import Predictor
from valence.methods.registry import make_spec
from valence.models.cpu import usable_cores
from valence.models.windows import split_windows

LONG = " ".join(["the film was really quite good and the plot never dull but slow"] * 6)
TEXTS = [*make_reviews(60, seed=2)["text"], LONG, "good"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, reviews: Path) -> Path:
    settings = {"encoder.name": str(tiny_encoder), "encoder.max_length": 24}
    spec = make_spec("hy-mora", DataSpec(name=str(reviews)), settings=settings)
    folder = tmp_path_factory.mktemp("model") / "model"
    build_seeded(spec, load_dataset(spec.data, seed=1).without_test()).save(folder)
    return folder


@pytest.mark.parametrize("long", ["cut", "windows"])
def test_same_answer_whatever_the_batch(model: Path, long: str) -> None:
    alone = np.concatenate(
        [Predictor(model, long=long).predict_proba([text]) for text in TEXTS[:9]]
    )
    for batch_tokens in (1, 60, 1024, 100_000):
        found = Predictor(model, long=long, hardware=Hardware(batch_tokens=batch_tokens))
        np.testing.assert_allclose(found.predict_proba(TEXTS)[:9], alone, atol=1e-5)


def test_columns_and_table_agree(model: Path) -> None:
    predictor = Predictor(model)
    columns = predictor.columns(TEXTS)
    table = predictor.table(TEXTS)
    assert list(columns) == list(table) == ["label", "prob_bad", "prob_good", "prob_meh"]
    assert columns["label"] == predictor.predict(TEXTS) == list(table["label"])
    assert predictor.columns([]) == {name: [] for name in columns}
    assert len(predictor.table([])) == 0


def test_little_is_padded(real_data: Path) -> None:
    texts = pd.read_csv(real_data / "tweeteval/test.csv", nrows=4000)["text"]
    lengths = [len(text) // 4 + 2 for text in texts]  # about as many tokens
    for budget in TOKEN_BUDGET.values():
        assert padded_share(lengths, token_budget=budget) < 0.10
    in_order = [max(lengths[i : i + 32]) * 32 for i in range(0, len(lengths), 32)]
    assert 1 - sum(lengths) / sum(in_order) > 0.25, "what is saved by sorting"
    assert padded_share([], token_budget=8) == 0


def test_windows_are_the_mean_over_the_pieces(model: Path) -> None:
    cut, whole = Predictor(model), Predictor(model, long="windows")
    pieces = split_windows(cut.model.tokenizer.backend.backend_tokenizer, [LONG], 24)[0]
    words = LONG.split()
    assert len(words) == 78
    assert len(pieces) == 5
    assert all(len(piece.split()) == 22 for piece in pieces), "22 words and two special tokens"
    assert LONG.startswith(pieces[0])
    assert LONG.endswith(pieces[-1])
    mean = cut.predict_proba(pieces).mean(axis=0)
    assert cut.truncated == 0
    found = whole.predict_proba(TEXTS)
    np.testing.assert_allclose(found[TEXTS.index(LONG)], mean, atol=1e-6)
    short = [i for i, text in enumerate(TEXTS) if text != LONG]
    expected = cut.predict_proba(TEXTS)
    assert (cut.truncated, whole.truncated) == (1, 0)
    np.testing.assert_allclose(found[short], expected[short], atol=1e-6)
    assert np.abs(found - expected).max() > 1e-5, "the end of the text counts"


def test_windows_of_a_word_that_is_longer_than_the_limit(tiny_encoder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    letters.pre_tokenizer = pre_tokenizers.Split("a", "isolated")
    letters.enable_truncation(3)
    for count in range(1, 30):
        (pieces,) = split_windows(letters, ["a" * count], 5)
        assert all(len(piece) <= 5 for piece in pieces)
        assert sum(map(len, pieces)) >= count
        assert len(pieces) <= max(1, count)
    assert letters.truncation["max_length"] == 3, "the tokenizer is left as it was"


def test_settings_that_do_not_exist_are_told(model: Path) -> None:
    with pytest.raises(SpecError, match="cut or windows"):
        Predictor(model, long="fold")
    with pytest.raises(SpecError, match="0 threads"):
        Hardware(threads=0)
    with pytest.raises(SpecError, match="fp32, bf16 or auto"):
        Hardware(precision="fp8")  # type: ignore[arg-type]


def test_bfloat16_is_close(model: Path) -> None:
    exact = Predictor(model, hardware=Hardware(device="cpu")).predict_proba(TEXTS)
    rough = Predictor(model, hardware=Hardware(device="cpu", precision="bf16")).predict_proba(TEXTS)
    assert 0 < np.abs(exact - rough).max() < 0.05


def test_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from valence.models import cpu

    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(cpu, "QUOTA", quota)
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert usable_cores() == 8
    quota.write_text("150000 100000\n")
    assert usable_cores() == 2
    quota.write_text("max 100000\n")
    assert usable_cores() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert usable_cores() == 3
