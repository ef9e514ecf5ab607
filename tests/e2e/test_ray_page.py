"""Every command of docs/ray.md works as written."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'valence[ray]'")

from tests.conftest import ROOT, make_reviews
from valence import cli
from valence.config.data import DataSpec
from valence.distributed.ray_cluster import Cluster, connected
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunStore

PAGE = (ROOT / "docs/ray.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
OWN = [command for command in COMMANDS if command.startswith("valence")]
SAID = {
    "--seeds 2": r"4 runs: 2 methods × 2 seeds",
    "--seeds 3": r"6 runs: 2 methods × 3 seeds",
    "--resume": r"60 rows were already done",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("page")
    make_reviews(140).to_csv(place / "reviews.csv", index=False)
    spec = make_spec("tfidf-lr", DataSpec(name=str(place / "reviews.csv")))
    result = run(spec, store=RunStore(place / "made"), keep_model=True)
    (place / "models").mkdir()
    (place / "made" / result.key / "model").rename(place / "models/reviews")
    (place / "parts").mkdir()
    for number in range(2):
        rows = make_reviews(30, seed=number).drop(columns="label")
        rows.to_parquet(place / f"parts/{number}.parquet", index=False)
    with connected(Cluster(workers=2)):  # the commands use it and save the start of their own
        yield place


def test_every_command_is_of_a_known_kind() -> None:
    assert [c for c in COMMANDS if not c.startswith(("valence ", "pip install"))] == []


@pytest.mark.parametrize("command", OWN)
def test_command_of_the_page(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They run in the order of the text, since some go on from what others did."""
    words = shlex.split(command)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    assert not ended.value.code, said.err
    for noise in ("ray", "Ray", "raylet", "Warning"):  # Ray's own lines
        assert not re.search(rf"\b{noise}\b", said.err.replace("by-ray", "")), said.err
    for part, line in SAID.items():
        if part in command:
            assert re.search(line, said.err), said.err
    if words[1] == "predict":
        out = folder / words[words.index("--out") + 1]
        for number in range(2):
            assert len(pd.read_parquet(out / f"{number}.parquet")) == 30


def test_what_cannot_be_done_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    refused = {
        "compare reviews.csv --executor rays": "Unknown executor 'rays'; did you mean 'ray'?",
        "compare reviews.csv --workers 0": "0 workers are not possible",
        "predict models/reviews parts/0.parquet --out x.csv --engine ray": "into a folder",
        "predict models/reviews parts/0.parquet parts/1.parquet --out x.csv": "--out scored/",
        "predict models/reviews parts --out y/ --table t": "--table cannot be used with files",
        "predict models/reviews parts --out by-ray/ --long windows --resume": "another long",
    }
    for words, line in refused.items():
        monkeypatch.setattr(sys, "argv", ["valence", *shlex.split(words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capfd.readouterr().err.splitlines()
        assert ended.value.code == 1
        assert line in said[-1]
        assert len(said) == 1
