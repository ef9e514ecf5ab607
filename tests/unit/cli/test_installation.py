"""``valence doctor`` finds what is wrong and gives nothing secret away."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from valence import cli
from valence.cli import installation


def states() -> dict[str, str]:
    return {one.name: one.state for one in installation.examine()}


def test_a_healthy_machine_has_nothing_to_mend() -> None:
    found = {one.name: one for one in installation.examine()}
    assert [one for one in found.values() if one.state == "bad"] == []
    assert {"torch", "transformers", "GPU", "cache", "hub token", "extra tune"} <= set(found)


def test_versions_are_held_against_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        "numpy>=99",
        "no-such-thing-here>=1",
        "nor-this; extra == 'odd'",
        "numpy>=1; extra == 'dev'",
    ]
    monkeypatch.setattr(installation, "requires", lambda _: asked)
    found = {one.name: one for one in installation.examine()}
    assert found["numpy"].state == "bad"
    assert "numpy>=99" in found["numpy"].advice
    assert found["no-such-thing-here"].state == "bad"
    assert found["extra odd"].state == "ok"
    assert "valence[odd]" in found["extra odd"].advice


def test_surroundings_are_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "VALENCE_DATA" not in states() or states()["VALENCE_DATA"] == "ok"
    monkeypatch.setenv("VALENCE_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(installation, "LOW_DISK_GIB", 1e9)
    found = states()
    assert (found["VALENCE_DATA"], found["hub"], found["disk of the cache"]) == (
        "bad",
        "note",
        "bad",
    )


def test_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("KAGGLE_KEY", "kaggle_secret")
    monkeypatch.setattr(sys, "argv", ["valence", "doctor", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().out
    assert not ended.value.code
    rows = {row["name"]: row["found"] for row in json.loads(printed)}
    assert (rows["hub token"], rows["Kaggle credentials"]) == ("present", "present")
    assert "secret" not in printed
    monkeypatch.setenv("VALENCE_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "argv", ["valence", "doctor"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "1 to fix" in capsys.readouterr().err
