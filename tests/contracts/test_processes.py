"""Two processes compute what one does: every loss, and whole trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests import together
from tests.conftest import WORDS
from valence.runs.store import RunResult, RunStore

TOLERANCE = 1e-5
"""Of losses, gradients and memories after a few steps: sums in another order."""
SCORED = 1e-4
"""Of the logits after a training: the same, grown by the optimiser's steps."""


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder without dropout, whose masks two processes draw otherwise than one."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("steady-encoder")
    config = BertConfig.from_pretrained(tiny_encoder)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    assert config.vocab_size == len(WORDS) + 5
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def two(encoder: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left: losses of both, run folders of one."""
    folder = tmp_path_factory.mktemp("two")
    ended = together.launched("-m", "tests.together", folder, encoder, reviews, where=folder)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    return folder


@pytest.mark.parametrize("variant", together.VARIANTS)
@pytest.mark.parametrize(("name", "contrast"), together.COMBINATIONS)
def test_loss_gradient_and_memory_are_those_of_one_process(
    name: str, contrast: str, variant: str, two: Path
) -> None:
    alone = together.loss_steps(name, contrast, variant)
    both = [torch.load(two / f"{name}-{contrast}-{variant}-{rank}.pt") for rank in (0, 1)]
    for found in both:
        assert set(found) == set(alone)
        for what, expected in alone.items():
            torch.testing.assert_close(
                found[what], expected, atol=TOLERANCE, rtol=TOLERANCE, msg=lambda m, w=what: w + m
            )
    for what in both[0]:
        assert torch.equal(both[0][what], both[1][what]), f"{what} differs between the two"


@pytest.mark.parametrize("method", together.METHODS)
def test_training_leaves_the_same_run_folder(
    method: str, two: Path, encoder: Path, reviews: Path, tmp_path: Path
) -> None:
    key = together.trainings(tmp_path, str(encoder), str(reviews), method)
    folders = [tmp_path / key, two / "runs" / key]
    assert len({tuple(sorted(str(f.relative_to(p)) for f in p.rglob("*"))) for p in folders}) == 1
    one, other = (RunStore(p.parent).get(key) for p in folders)
    assert isinstance(one, RunResult)
    assert isinstance(other, RunResult)
    assert (one.provenance["processes"], other.provenance["processes"]) == (1, 2)
    cached = " (from the cache)"  # as it was filled by the tests before
    assert [n.removesuffix(cached) for n in one.notes] == [
        n.removesuffix(cached) for n in other.notes
    ]
    assert one.test == pytest.approx(other.test, abs=SCORED)
    assert one.validation == pytest.approx(other.validation, abs=SCORED)
    rows = [pd.read_parquet(p / "predictions.parquet") for p in folders]
    logits = [frame.filter(like="logit_").to_numpy() for frame in rows]
    assert rows[0]["id"].tolist() == rows[1]["id"].tolist()
    assert np.abs(logits[0] - logits[1]).max() < SCORED
    steps = [RunStore(p.parent).history(key) for p in folders]
    assert [row["step"] for row in steps[0]] == [row["step"] for row in steps[1]]
    assert [row.get("learning_rate") for row in steps[0]] == [
        row.get("learning_rate") for row in steps[1]
    ]


def test_process_0_alone_writes_and_nothing_is_left_unfinished(two: Path) -> None:
    assert list((two / "runs" / ".unfinished").glob("*")) == []
    assert [path for path in (two / "runs-1").rglob("*") if path.is_file()] == []
    assert list((two / "cache").glob("states/*/about.json"))
    assert list((two / "cache").rglob(".valence-*")) == []
    assert len(list((two / "runs").glob("*/result.json"))) == len(together.METHODS)
