"""Every command and every piece of Python of docs/other-tools.md works as written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.architectures import save_classifier
from tests.conftest import make_reviews
from tests.models import untrained
from tests.pages import blocks, commands, give
from valence.config.data import DataSpec
from valence.data.sources import load_dataset
from valence.methods.registry import make_spec

COMMANDS = commands("docs/other-tools.md")
PYTHON = [code for code in blocks("docs/other-tools.md", "python") if "optimum" not in code]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    place = tmp_path_factory.mktemp("page")
    make_reviews(60, seed=3).to_csv(place / "reviews.csv", index=False)
    make_reviews(60, seed=2).to_csv(place / "labelled.csv", index=False)
    names = ("bad", "good", "meh")
    save_classifier(
        "distilbert", place / "their-model", id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    settings = {"encoder.name": str(tiny_encoder), "encoder.max_length": 12}
    data = DataSpec(name=str(place / "reviews.csv"))
    spec = make_spec("lora", data, settings=settings)
    rows = load_dataset(data, seed=spec.seed).without_test()
    untrained(spec, rows).save(place / "models/reviews")
    return place


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They run in the order of the text, since some make what others use."""
    words = shlex.split(command)
    if words[1] == "export" and "--format" not in words:
        pytest.importorskip("onnxscript")
    monkeypatch.chdir(folder)
    code = give(words, monkeypatch)
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "Warning" not in said.err


@pytest.mark.parametrize("code", PYTHON)
def test_python_of_the_page(
    code: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "sentence_transformers" in code:
        pytest.importorskip("sentence_transformers")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/other-tools.md", "exec"), names)
    printed = capsys.readouterr().out
    if "probs" in names:
        assert names["probs"].shape == (1, 3)
        assert names["probs"].sum() == pytest.approx(1, abs=1e-5)
    else:
        assert all(f"'label': '{name}'" in printed for name in ("bad", "good", "meh"))
