"""Every command of docs/audit.md, explain.md and calibrate.md works as written."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import make_reviews
from tests.pages import commands, give

pytest.importorskip("captum")
pytest.importorskip("cleanlab")

COMMANDS = [
    line for name in ("audit", "explain", "calibrate") for line in commands(f"docs/{name}.md")
]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("explain")
    make_reviews(140).to_csv(place / "reviews.csv", index=False)
    make_reviews(30, seed=1).drop(columns="label").to_csv(place / "new.csv", index=False)
    make_reviews(200, seed=2).to_csv(place / "labelled.csv", index=False)
    return place


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(folder)

    def run(*words: str) -> tuple[int, str, str]:
        code = give(["valence", *words], monkeypatch)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


EXPECTED = {
    "audit reviews.csv --out": ("label-errors", "reviews.csv: "),
    "--html": ("near\t", "Page: why.html"),
    "calibrate models/reviews --data": ("of texts get a label", "calibration.json"),
    "--off": ("", "Removed the calibration"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page(
    command: str, call: Call, folder: Path, tiny_settings: dict[str, object]
) -> None:
    """They run in the order of the page, since one makes what the next uses."""
    words = shlex.split(command)[1:]
    if words[0] == "train":  # the same command at a size for tests
        words += [word for k, v in tiny_settings.items() for word in ("--set", f"{k}={v}")]
    if words[0] == "audit":
        words += ["--encoder", str(tiny_settings["encoder.name"])]
    code, out, err = call(*words)
    assert code == 0, err
    assert "Traceback" not in err
    for part, (said, told) in EXPECTED.items():
        if part in command:
            assert said in out
            assert told in err
    if words[0] == "predict":
        scored = pd.read_csv(folder / "scored.csv", keep_default_na=False)
        assert set(scored["label"]) <= {"good", "bad", "meh", ""}
    if "--fix" in words:
        assert (folder / "audit" / "audit.html").exists()
        assert len(pd.read_csv(folder / "clean" / "reviews.csv")) <= 140


def test_audit_for_machines(call: Call, tiny_encoder: Path) -> None:
    rows = make_reviews(60)
    rows.loc[40:, "text"] = rows["text"][:20].to_list()
    rows.loc[40:, "label"] = "Good"
    rows.to_csv("leaky.csv", index=False)
    words = ["audit", "leaky.csv", "--fast", "--encoder", str(tiny_encoder)]
    code, out, err = call(*words, "--json", "--strict", "--quiet")
    found = json.loads(out)
    assert (code, err) == (1, "")
    assert found["rows"] == {"all": 60}
    levels = {f["check"]: f["level"] for f in found["findings"]}
    assert levels["contradictions"] == levels["labels"] == "problem"
    assert found["findings"][0]["level"] == "problem"


def test_explain_for_machines_and_its_errors(call: Call) -> None:
    assert call("train", "reviews.csv", "--method", "tfidf-lr", "--out", "m", "--quiet")[0] == 0
    code, out, _ = call("explain", "m", "great food", "bad", "--json", "--quiet")
    found = json.loads(out)
    assert code == 0
    assert [item["text"] for item in found] == ["great food", "bad"]
    assert [t["text"] for t in found[0]["tokens"]] == ["great", "food"]
    for words, said in {
        ("explain", "m", "x", "--target", "goood"): "did you mean 'good'",
        ("calibrate", "m", "--abstain", "10"): "write 0.1",
        ("calibrate", "m", "--target-prior", "good"): "good=0.7",
        ("predict", "m", "x", "--target-prior", "good=1"): "needs a fraction for every class",
    }.items():
        code, _, err = call(*words)
        assert code == 1
        assert said in err.splitlines()[-1]
