"""Every command of docs/distributed.md works as written."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.causal import make_causal
from tests.conftest import ROOT, make_reviews
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.llm.instruct import make_instructions
from valence.llm.retrieval import Embedder

PAGE = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run"],
    "accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"],
    "valence": [sys.executable, "-m", "valence"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    place = tmp_path_factory.mktemp("page")
    make_reviews(70).to_csv(place / "reviews.csv", index=False)
    return place


def called(command: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(command)
    named = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [*LAUNCHERS[program], *words, *more], cwd=folder, env=os.environ | named, text=True,
        capture_output=True, timeout=250, check=False,
    )  # fmt: skip


TRAINS = [c for c in COMMANDS if "valence train" in c]


@pytest.mark.parametrize(
    "command", [TRAINS[0], *(pytest.param(c, marks=pytest.mark.slow) for c in TRAINS[1:])]
)
def test_training_speaks_and_writes_once(command: str, folder: Path, tiny_words: list[str]) -> None:
    runs = f"runs-{len(list(folder.glob('runs-*')))}"
    ended = called(command, folder, *tiny_words, "--runs", runs)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("macro-F1") == 1
    assert ended.stderr.count("Model: ") == 1
    assert "[rank" not in ended.stderr
    (result,) = (folder / runs).glob("*/result.json")
    assert json.loads(result.read_text())["provenance"]["processes"] == 2
    assert (folder / shlex.split(command)[-3] / "report/results.json").exists()


@pytest.mark.slow
def test_finetune_of_the_page(folder: Path, tiny_encoder: Path) -> None:
    pytest.importorskip("trl")
    (command,) = (c for c in COMMANDS if "finetune" in c)
    make_causal(folder / "tiny-llm")
    embedder = Embedder(EncoderSpec(name=str(tiny_encoder)), device="cpu")
    data = DataSpec(name=str(folder / "reviews.csv"))
    make_instructions(data, folder / "instructions", embedder=embedder)
    ended = called(command, folder)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "models/adapter/adapter_model.safetensors").exists()


@pytest.mark.slow
def test_tuning_of_the_page(folder: Path, tiny_words: list[str]) -> None:
    pytest.importorskip("optuna")
    commands = [c for c in COMMANDS if c.startswith("valence tune")]
    assert len(commands) == 2
    for command in commands:
        ended = called(command, folder, *tiny_words, "--epochs", "1")
        assert ended.returncode == 0, ended.stderr
    assert len(pd.read_csv(folder / "tuning/reviews/trials.csv")) == 4


def test_every_command_is_of_a_test() -> None:
    assert all(" train " in c or " finetune " in c or " tune " in c for c in COMMANDS)


def test_the_configuration_named_is_there() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(ROOT / "configs/accelerate/fsdp.yaml"))
    assert config.distributed_type == "FSDP"
    assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
