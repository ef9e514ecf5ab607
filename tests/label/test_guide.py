"""Every command of docs/label.md works as written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.label.conftest import topic_rows
from tests.label.labelserver import label_server
from tests.pages import commands, give

COMMANDS = commands("docs/label.md")
SERVED = [c for c in COMMANDS if c.startswith("valence label") and "--export" not in c
          and "--simulate" not in c]  # fmt: skip
OTHERS = [c for c in COMMANDS if c not in SERVED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("label-guide")
    topic_rows(240)[["text"]].to_csv(place / "pool.csv", index=False)
    topic_rows(240, seed=1).to_csv(place / "reviews.csv", index=False)
    return place


def test_commands_that_serve(folder: Path) -> None:
    """The first makes the label file, the other goes on with it."""
    assert len(SERVED) == 2
    truth = topic_rows(240)["label"]
    for number, command in enumerate(SERVED):
        words = [*shlex.split(command)[2:], "--encoder", "none"]
        with label_server(folder, *words) as server:
            for i in range(90):
                (item,) = server.call("/next", {"person": "ann"})
                decision = {
                    "person": "ann", "token": f"{number}-{i:08d}", "row": item["row"],
                    "action": "label", "label": truth[item["row"]], "chosen_by": item["chosen_by"],
                }  # fmt: skip
                assert server.call("/decide", decision)["id"] > 0
            assert server.call("/state")["labeled"] == 90 * (number + 1)


@pytest.mark.parametrize("command", OTHERS)
def test_other_commands(
    command: str, folder: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = shlex.split(command)
    if words[0] == "pip":
        pytest.skip("the extra is installed where tests run")
    if words[1] == "fit":
        words += ["--encoder", str(tiny_encoder), "--set", "portfolio.epochs=1"]
    if "--simulate" in words:
        words += ["--encoder", "none"]
    monkeypatch.chdir(folder)
    assert give(words, monkeypatch) == 0, capsys.readouterr().err
    if "--out" in words:
        assert (folder / words[words.index("--out") + 1]).is_dir()
    if "--export" in words:
        assert (folder / words[words.index("--export") + 1]).exists()
    if "--simulate" in words:
        assert (folder / "simulation" / "simulation.html").is_file()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("label pool.csv --labels a,b", "Where do the labels go?"),
        ("label pool.csv --out x.db", "Which labels?"),
        ("label pool.csv --labels a,b --out x.db --strategy tail-fisrt", "tail-first"),
        ("label nowhere.csv --labels a,b --out x.db", "File nowhere.csv does not exist"),
        ("label pool.csv --export x.csv", "holds no labels of valence label"),
        ("label reviews.csv --simulate", "Where does the report go?"),
        ("label pool.csv --labels a,b --out x.db --set train.epochs=1", "has no effect here"),
    ],
)
def test_refusals_are_one_line(
    words: str, line: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    assert give(["valence", *words.split()], monkeypatch) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert line in shown.err
    assert shown.err.count("\n") == 1
    assert not (folder / "x.db").exists()
