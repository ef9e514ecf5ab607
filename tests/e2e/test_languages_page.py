"""Every command of docs/languages.md works as written."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, make_reviews
from valence import cli

PAGE = (ROOT / "docs" / "languages.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for kind, block in BLOCKS for line in block.splitlines() if not kind and line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("languages")
    for number, name in enumerate(("de", "en", "sw")):
        (root / "reviews" / name).mkdir(parents=True)
        for split, rows in (("train", 40), ("test", 20)):
            table = make_reviews(rows, seed=10 * number + rows)
            table.to_csv(root / "reviews" / name / f"{split}.csv", index=False)
    make_reviews(60).assign(domain=["hotel", "school"] * 30).to_csv(
        root / "domains.csv", index=False
    )
    return root


def call(
    command: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[str, str]:  # fmt: skip
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    return printed.out, printed.err


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    if "compare" in words:  # the same command at a size for tests
        words += ["--seeds", "1", "--methods", "tfidf-lr"]
    out, _ = call(words, folder, monkeypatch, capsys)
    report = folder / "report"
    if "--transfer" in words:
        assert (report / "transfer-tfidf-lr.png").exists()
        assert "Transfer:" in (report / "report.html").read_text(encoding="utf-8")
    elif "domains.csv" in words:
        assert (report / "by-domain.xlsx").exists()
        assert "By domain" in (report / "report.html").read_text(encoding="utf-8")
    elif "--json" in words:
        assert [group["group"] for group in json.loads(out)["groups"]] == ["de", "en", "sw"]


def test_transfer_without_methods_is_of_frozen_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["valence", "compare", "--transfer", "reviews", "--dry-run", "--seeds", "1"]
    out, _ = call(words, folder, monkeypatch, capsys)
    assert out.count("linear-probe") == 3
    assert len(out.splitlines()) == 4


def test_a_wrong_group_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["valence", "data", "readiness", "reviews", "--groups", "dee"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "Unknown language 'dee'; did you mean 'de'?" in capsys.readouterr().err
