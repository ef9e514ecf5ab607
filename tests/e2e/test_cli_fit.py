"""``valence fit``: from a file nobody describes to a model, and on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import make_reviews
from valence.methods.portfolio import Candidate, PortfolioSearch


@pytest.fixture
def feedback(tmp_path: Path) -> Path:
    frame = make_reviews(240, seed=3)
    rows = pd.DataFrame({
        "id": range(len(frame)), "date": "2026-01-02", "comment": frame["text"],
        "sentiment": frame["label"],
    })  # fmt: skip
    rows.to_csv(tmp_path / "feedback.csv", index=False)
    return tmp_path / "feedback.csv"


def one_line(text: str) -> str:
    return " ".join(text.split())


def quick(encoder: Path) -> tuple[str, ...]:
    return ("--encoder", str(encoder), "--budget", "60s", "--set", "portfolio.epochs=1")


def test_a_file_becomes_a_model_without_naming_a_column(
    valence, feedback: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    code, out_text, err = valence("fit", str(feedback), "--out", str(out), *quick(tiny_encoder))
    assert code == 0, err
    assert "comment" in err
    assert "kernel-ridge" in out_text
    assert "95% interval" in out_text
    assert "Compared with always predicting the largest class" in out_text
    assert "What would help most" in out_text
    assert f"valence predict {out}" in err
    new = tmp_path / "new.csv"
    pd.DataFrame({"comment": ["the food was good", "not good"]}).to_csv(new, index=False)
    labeled = tmp_path / "labeled.csv"
    assert valence("predict", str(out), str(new), "--out", str(labeled))[0] == 0
    assert len(pd.read_csv(labeled)) == 2


def test_quiet_hides_notes_and_not_the_result(
    valence, feedback: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    arguments = ("fit", str(feedback), "--out", str(tmp_path / "m"), *quick(tiny_encoder))
    code, out_text, err = valence(*arguments, "--quiet")
    assert (code, err) == (0, "")
    assert "kernel-ridge" in out_text
    assert "Macro-F1 " in out_text
    assert "What would help most" in out_text


def test_the_same_command_goes_on_from_finished_models(
    valence, feedback: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    arguments = ("fit", str(feedback), "--out", str(tmp_path / "m"), *quick(tiny_encoder), "--json")
    first = json.loads(valence(*arguments)[1])
    runs = {path.name: path.stat().st_mtime_ns for path in Path("runs").iterdir()}
    kept = [name for name in runs if "-auto-" not in name and not name.startswith(".")]
    assert len(kept) >= 4
    for path in Path("runs").glob("*-auto-*"):
        (path / "result.json").unlink()
    again = json.loads(valence(*arguments)[1])
    assert again["test"] == first["test"]
    assert all(Path("runs", name).stat().st_mtime_ns == runs[name] for name in kept)


def test_a_small_budget_says_what_was_not_tried(
    valence, feedback: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    code, out_text, err = valence(
        "fit", str(feedback), "--out", str(tmp_path / "m"), "--encoder", str(tiny_encoder),
        "--budget", "0.001s",
    )  # fmt: skip
    assert code == 0, err
    assert "lora-balanced was not tried" in one_line(err)
    assert "ldam" not in out_text


@pytest.mark.parametrize("budget", ["0s", "five", "-3m", "3d"])
def test_a_budget_that_is_none_is_one_line(valence, feedback: Path, budget: str) -> None:
    code, _, err = valence("fit", str(feedback), "--out", "m", f"--budget={budget}")
    assert code != 0
    assert "not a duration" in err
    assert len(err.strip().splitlines()) == 1


def test_a_folder_with_something_else_is_left_alone(
    valence, feedback: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    mine = str(tmp_path / "mine")
    code, _, err = valence("fit", str(feedback), "--out", mine, *quick(tiny_encoder))
    assert code != 0
    assert "not a model folder" in err
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years"


def interrupted_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ctrl-C strike when a method is about to be tried."""
    original = PortfolioSearch.try_method

    def strike(
        self: PortfolioSearch, method: str, encoder: str, settings: dict[str, Any]
    ) -> Candidate:
        if method == name:
            raise KeyboardInterrupt
        return original(self, method, encoder, settings)

    monkeypatch.setattr(PortfolioSearch, "try_method", strike)


def test_an_interrupt_keeps_the_best_so_far_and_the_same_command_goes_on(
    valence, feedback: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    arguments = ("fit", str(feedback), "--out", str(out), *quick(tiny_encoder))
    with monkeypatch.context() as patch:
        interrupted_at("lora-balanced", patch)
        code, table, err = valence(*arguments)
    assert code == 130
    assert "stopped: lora-balanced was not tried; run the same command again to resume" in one_line(
        err
    )
    assert "95% interval" in table
    assert "ldam" in table
    assert valence("predict", str(out), "not good")[0] == 0
    assert not list(Path("runs").glob("*-auto-*")), "not the run of all that was to be tried"
    code, table, err = valence(*arguments)
    assert code == 0, err
    assert "stopped" not in err
    assert "lora-balanced" in table
    assert not list(Path("runs/.unfinished").glob("*-auto-*/*")), "it is deleted in the end"


def test_an_interrupt_before_the_first_model_writes_none(
    valence, feedback: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_at("kernel-ridge", monkeypatch)
    code, table, err = valence(
        "fit", str(feedback), "--out", str(tmp_path / "m"), *quick(tiny_encoder)
    )
    assert code == 130
    assert table == ""
    assert "Stopped." in err
    assert not (tmp_path / "m").exists()


def test_an_interrupt_of_a_comparison_is_no_result(
    valence, feedback: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_at("ldam", monkeypatch)
    code, _, err = valence(
        "compare", str(feedback), "--methods", "auto", "--seeds", "1",
        "--encoder", str(tiny_encoder),
    )  # fmt: skip
    assert code == 130, err
    assert not list(Path("runs").rglob("*-auto-*/result.json"))


def test_auto_is_compared_where_no_model_is_kept(
    valence, feedback: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    code, table, err = valence(
        "compare", str(feedback), "--methods", "auto,majority", "--baseline", "majority",
        "--seeds", "1", "--encoder", str(tiny_encoder), "--set", "portfolio.fine_tuned=[]",
        "--runs", str(tmp_path / "fresh"),
    )  # fmt: skip
    assert code == 0, err
    assert "auto" in table
    results = [json.loads(p.read_text()) for p in tmp_path.glob("fresh/*/result.json")]
    seconds = {one["spec"]["method"]: one["train_seconds"] for one in results}
    members = seconds["kernel-ridge"] + seconds["linear-probe"]
    assert seconds["auto"] == pytest.approx(members, abs=0.01)
    assert not list(tmp_path.glob("fresh/*/model"))
