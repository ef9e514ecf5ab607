"""Text, audio and vision as a person uses them: train, compare, evaluate, predict, what fails."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.clips import make_clip
from tests.features import SHAPES, mmsa, write_mmsa
from valence.runs.store import RunStore

SMALL = ("train.epochs=2", "train.batch_size=8", "train.learning_rate=5e-3", "fusion.dim=16")


@pytest.fixture(scope="session")
def small(tiny_encoder: Path) -> list[str]:
    words = [word for setting in SMALL for word in ("--set", setting)]
    return [*words, "--encoder", str(tiny_encoder)]


def test_compare_of_intensities(valence, tmp_path: Path, small: list[str]) -> None:
    write_mmsa(tmp_path / "corpora" / "mosi" / "unaligned.pkl", mmsa(20))
    words = ("compare", "mosi", "--methods", "text-only,almt", "--data-dir", "corpora",
             "--seeds", 2, *small)  # fmt: skip
    code, out, err = valence(*words, "--json")
    assert code == 0, err
    board = json.loads(out)
    assert [row["mae_mean"] for row in board] == sorted(row["mae_mean"] for row in board)
    other = next(row for row in board if row["method"] == "almt")
    assert other["low"] <= other["difference"] <= other["high"]
    page = (tmp_path / "report" / "report.html").read_text()
    for words_shown in (
        "lowest MAE", "Δ MAE", "Each metric at its own best epoch", "Predicted and true",
        "Error by intensity", "Missing modalities", "Training",
    ):  # fmt: skip
        assert words_shown in page, words_shown
    assert "macro-F1" not in page
    own = pd.read_csv(tmp_path / "report" / "own_best_epochs.csv")
    assert set(own["method"]) == {"text-only", "almt"}
    assert len(own) == 2 * 2 * 8
    assert "| MAE |" in (tmp_path / "report" / "summary.md").read_text()
    cases = next((tmp_path / "report" / "cases").glob("*.csv"))
    errors = pd.read_csv(cases)["error"]
    assert errors.is_monotonic_decreasing
    written = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/result.json")}
    assert len(written) == 4
    code, out, _ = valence(*words)
    assert code == 0
    assert "MAE" in out
    assert written == {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/result.json")}


@pytest.mark.parametrize("corpus", SHAPES)
def test_published_shapes_end_to_end(
    valence, tmp_path: Path, small: list[str], corpus: str
) -> None:
    audio, vision = SHAPES[corpus]
    top = 1 if corpus == "ch-sims" else 3
    content = mmsa(3, audio=audio, vision=vision, top=top, whole=True)
    write_mmsa(tmp_path / "corpora" / corpus.replace("-", "_") / "features.pkl", content)
    code, out, err = valence(
        "train", corpus, "--method", "almt", "--data-dir", "corpora", "--out", "model", *small,
        "--set", "train.epochs=1", "--set", "fusion.dim=128",
    )  # fmt: skip
    assert code == 0, err
    assert ("acc-3" in out) == (corpus == "ch-sims")
    sizes = json.loads((tmp_path / "model" / "config.json").read_text())["fusion"]["sizes"]
    assert (sizes["audio_length"], sizes["audio_dim"]) == audio
    assert (sizes["vision_length"], sizes["vision_dim"]) == vision
    assert sizes["fusion"]["depth"] == (2 if corpus == "mosi" else 4)


def test_trained_model_is_evaluated_and_predicts(valence, tmp_path: Path, small: list[str]) -> None:
    write_mmsa(tmp_path / "talks.pkl", mmsa(20))
    code, out, err = valence("train", "talks.pkl", "--method", "late-fusion", "--out", "m", *small,
                             "--json")  # fmt: skip
    assert code == 0, err
    trained = RunStore(Path("runs")).all()[0]
    code, out, err = valence("evaluate", "m", "talks.pkl", "--json")
    assert code == 0, err
    assert json.loads(out)["mae"] == pytest.approx(trained.test["mae"], abs=1e-5)
    code, out, _ = valence("predict", "m", "the film was great", "--json")
    assert code == 0
    assert set(json.loads(out)[0]) == {"text", "intensity"}
    code, out, _ = valence("predict", "m", "--text", "the film was great")
    assert code == 0
    assert out.splitlines()[0].split("\t") == ["intensity", "text"]
    make_clip(tmp_path / "a.mp4", seconds=0.4)
    code, _, err = valence("predict", "m", "a.mp4", "--text", "good")
    assert code == 1
    assert "was not trained on clips" in err


def test_clips_are_read_as_those_of_the_training(valence, tmp_path: Path, small: list[str]) -> None:
    rows = ["clip,text,label,split"]
    for i, split in enumerate(("train", "train", "valid", "test", "test")):
        make_clip(tmp_path / f"{i}.mp4", pitch=90 + 30 * i, seconds=0.6)
        rows.append(f"{i}.mp4,the film was good,{i - 2},{split}")
    make_clip(tmp_path / "sound.m4a", fps=None, seconds=0.5)
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    words = ("features", "extract", "clips.csv", "--out", "own", "--frames-per-second", 10)
    assert valence(*words)[0] == 0
    code, _, err = valence("train", "own", "--method", "almt", "--out", "model", *small)
    assert code == 0, err
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["fusion"]["extractor"]["frames_per_second"] == 10
    key = RunStore(Path("runs")).all()[0].key
    known = RunStore(Path("runs")).predictions(key)
    known = known[known["split"] == "test"]["predicted"].to_numpy()
    for i, expected in zip((3, 4), known, strict=True):
        code, out, err = valence(
            "predict", "model", f"{i}.mp4", "--text", "the film was good", "--json"
        )
        assert code == 0, err
        assert json.loads(out)[0]["intensity"] == pytest.approx(expected, abs=1e-4)
    code, out, err = valence("predict", "model", "sound.m4a", "--json")
    assert code == 0, err
    assert np.isfinite(json.loads(out)[0]["intensity"])
    code, out, err = valence(
        "explain", "model", "3.mp4", "--text", "the film was good", "--json", "--html", "why.html"
    )
    assert code == 0, err
    (why,) = json.loads(out)
    assert why["label"] == "intensity"
    assert why["probabilities"]["intensity"] == pytest.approx(known[0], abs=1e-4)
    assert [one["text"] for one in why["tokens"]] == ["the", "film", "was", "good"]
    assert all(why["modalities"][name] for name in ("text", "audio", "vision"))
    assert "vision" in (tmp_path / "why.html").read_text()
    code, out, _ = valence("explain", "model", "sound.m4a")
    assert code == 0
    assert "vision\t+0.000" in out
    assert "text\t+0.000" in out


class _Hostile:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch touched",)


def _broken(case: str) -> bytes:
    content: dict[str, Any] = mmsa(4)
    if case == "hostile":
        content["train"]["id"] = _Hostile()
    elif case == "shapes":
        content["train"]["audio"] = content["train"]["audio"][:, 0]
    elif case == "widths":
        content["test"]["vision"] = content["test"]["vision"][:, :, :2]
    elif case == "label":
        content["valid"]["regression_labels"][1] = np.nan
    elif case == "empty":
        content["test"] = {key: value[:0] for key, value in content["test"].items()}
    elif case == "split":
        del content["valid"]
    data = pickle.dumps(content)
    return data[: len(data) // 2] if case == "truncated" else data


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("truncated", "bad.pkl"),
        ("hostile", "bad.pkl"),
        ("shapes", "each row must be (steps"),
        ("widths", "steps of different widths"),
        ("label", "split 'validation', row 2: 'regression_labels' is not a finite number"),
        ("empty", "split 'test': no rows"),
        ("split", "valid"),
    ],
)
def test_archive_that_cannot_be_used(valence, tmp_path: Path, case: str, message: str) -> None:
    (tmp_path / "bad.pkl").write_bytes(_broken(case))
    code, _, err = valence("train", "bad.pkl", "--method", "almt", "--out", "m")
    assert code == 1
    told = [line for line in err.splitlines() if line.strip()]
    assert len(told) == 1
    assert message in told[0]
    assert not (tmp_path / "touched").exists()
    assert not list(tmp_path.glob("runs/*"))


def test_what_is_not_finite_is_read_as_zero_and_said(
    valence, tmp_path: Path, small: list[str]
) -> None:
    content = mmsa(6)
    content["train"]["audio"][0, 0, 0] = -np.inf
    content["test"]["vision"][1, 0, 1] = np.nan
    write_mmsa(tmp_path / "odd.pkl", content)
    code, _, err = valence("train", "odd.pkl", "--method", "audio-only", "--out", "m", *small)
    assert code == 0, err
    assert "1 of -inf in audio read as 0" in err
    assert "1 of nan in vision read as 0" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("reviews.csv", "--method", "almt"),
            "needs audio and vision, which reviews.csv does not have",
        ),
        (("reviews.csv", "--method", "text-only", "--label-column", "text"), "is not a number"),
        (("talks.pkl", "--method", "lora", "--set", "data.target=intensity"), "predicts classes"),
        (("talks.pkl", "--method", "almt", "--set", "loss.name=focal"), "is not for an intensity"),
        (("talks.pkl", "--method", "almt", "--set", "data.imbalance_ratio=5"), "needs classes"),
        (("talks.pkl", "--method", "almt", "--set", "data.features=no.pkl"), "No features at"),
    ],
)
def test_what_a_method_cannot_read(
    valence, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    write_mmsa(tmp_path / "talks.pkl", mmsa(4))
    table = pd.DataFrame({"text": ["good film", "bad film"] * 4, "label": [1.5, -2] * 4})
    table.to_csv(tmp_path / "reviews.csv", index=False)
    code, _, err = valence("train", *words, "--out", "m", "--quiet")
    assert code == 1
    assert message in err
    assert "Traceback" not in err
