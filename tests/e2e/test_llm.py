"""Every command of docs/llm.md works as written, with a small model of random weights."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pandas as pd
import pytest

from tests.causal import make_causal
from tests.conftest import ROOT, make_reviews
from tests.pages import blocks, commands
from valence import cli

pytest.importorskip("trl")

COMMANDS = commands("docs/llm.md")
TEMPLATES = blocks("docs/llm.md", "yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("llm")
    make_causal(place / "MODEL")
    make_reviews(42).to_csv(place / "reviews.csv", index=False)
    make_reviews(8, seed=1).drop(columns="label").to_csv(place / "new.csv", index=False)
    (place / "own.yaml").write_text(TEMPLATES[0], encoding="utf-8")
    return place


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["valence", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page(
    command: str, folder: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """They run in the order of the page, since one writes what the next reads."""
    words = shlex.split(command)[1:]
    if words[:2] in (["llm", "instructions"], ["llm", "classify"]) or "--unlabelled" in words:
        words += ["--encoder", str(tiny_encoder)]
    if words[:2] == ["llm", "finetune"]:  # the same at a size for tests
        words += ["--set", "max_steps=1", "--set", "accumulation=1"]
    monkeypatch.chdir(folder)
    assert call(words, monkeypatch) == 0, capsys.readouterr().err
    shown = capsys.readouterr()
    if "--dry-run" in words:
        assert "questions: " in shown.out
    elif words[1] == "classify":
        assert "llm-" in shown.out
    elif words[1] == "instructions":
        assert len(json.loads((folder / "instructions/train.json").read_text())) == 34
    elif words[1] == "finetune":
        assert (folder / words[words.index("--out") + 1] / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["classify", "reviews.csv", "--model", "MODEL", "--shots", "two"], "Unknown kind"),
        (["classify", "reviews.csv", "--model", "nowhere"], "cannot be read"),
        (["classify", "reviews.csv", "--model", "MODEL", "--template", "bad.yaml"],
         "Label 'bad' is not in the template"),
        (["instructions", "reviews.csv", "--out", "x", "--pool", "none"], "Unknown pool"),
        (["instructions", "reviews.csv", "--out", "x", "--group", "tongue"], "no column 'tongue'"),
        (["finetune", "nothing", "--model", "MODEL", "--out", "x"], "has no instructions"),
        (["finetune", "nothing", "--out", "x"], "No language model given"),
        (["finetune", "nothing", "--model", "M", "--out", "x", "--set", "epoch=1"],
         "did you mean 'epochs'"),
        (["merge", "MODEL", "--out", "x"], "not an adapter"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    words: list[str], told: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (folder / "bad.yaml").write_text('head: "Good?"\nexample: "{text}{answer}"\nquery: "{text}"\n')
    monkeypatch.chdir(folder)
    assert call(["llm", *words], monkeypatch) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert told in error
    assert error.startswith("Error: ")


def test_every_config_of_finetuning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from valence.cli.llm_finetune import FineTuneOptions
    from valence.cli.options import TrainingHardware

    found = sorted((ROOT / "configs/finetune").glob("*.yaml"))
    assert found
    for path in found:
        spec = FineTuneOptions(config=path).spec(TrainingHardware())
        assert (spec.learning_rate, spec.cutoff, spec.accumulation) == (1e-4, 1024, 8)


@pytest.mark.slow
def test_a_real_server(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """`transformers serve` on loopback; the answers are those of the same model asked here."""
    pytest.importorskip("openai")
    model = make_causal(tmp_path / "chat", chat=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()",
               "serve", str(model), "--port", str(port), "--host", "127.0.0.1"]  # fmt: skip
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        _await(f"http://127.0.0.1:{port}/health", server, tmp_path / "log")
        monkeypatch.chdir(tmp_path)
        make_reviews(42).to_csv("reviews.csv", index=False)
        asked = ["llm", "classify", "reviews.csv", "--model", str(model), "--answer", "greedy"]
        url = f"http://127.0.0.1:{port}/v1"
        assert call([*asked, "--server", url], monkeypatch) == 0, capsys.readouterr().err
        assert call([*asked, "--runs", "here"], monkeypatch) == 0
    finally:
        server.terminate()
        server.wait(timeout=30)
    capsys.readouterr()
    assert call([*asked, "--server", url, "--runs", "again"], monkeypatch) == 0, "all is kept"
    there, here, again = (
        pd.read_csv(next(Path(runs).glob("*/answers.csv")), dtype=str)
        for runs in ("runs", "here", "again")
    )
    pd.testing.assert_frame_equal(there, here)
    pd.testing.assert_frame_equal(there, again)


def _await(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("the server did not start: " + log.read_text())
