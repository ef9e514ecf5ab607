"""A journal whose last writer was switched off in the middle of a record."""

from __future__ import annotations

from pathlib import Path

import pytest

from valence.errors import RunError
from valence.tuning.journal import cut_torn_lines
from valence.tuning.study import open_study


def filled(path: Path, trials: int = 4) -> str:
    url = f"journal://{path}"
    study = open_study(url, "ours")
    for i in range(trials):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("note", "größer")
        study.tell(trial, i / 10)
    return url


def states(url: str) -> list[str]:
    return [trial.state.name for trial in open_study(url, "ours").get_trials()]


@pytest.mark.parametrize("bytes_lost", [1, 5, 40, 60])
def test_a_torn_end_is_cut_off_and_said(
    tmp_path: Path, bytes_lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "study.log"
    url = filled(path)
    path.write_bytes(path.read_bytes()[:-bytes_lost])
    assert states(url)[:3] == ["COMPLETE"] * 3
    assert "1 incomplete lines" in caplog.text
    caplog.clear()
    study = open_study(url, "ours")
    study.tell(study.ask(), 0.5)
    assert states(url)[-1] == "COMPLETE"
    assert caplog.text == ""


@pytest.mark.parametrize("place", [3, 7, 11])
@pytest.mark.parametrize("kind", ["joined", "line of its own", "no JSON", "nest"])
def test_a_torn_line_in_the_middle_is_cut_off(tmp_path: Path, place: int, kind: str) -> None:
    path = tmp_path / "study.log"
    url = filled(path)
    before = states(url)
    lines = path.read_bytes().splitlines(keepends=True)
    half = lines[place][: len(lines[place]) // 2]
    torn = {"joined": half, "line of its own": half + b"\n", "no JSON": b"\x00\xff\n",
            "nest": b"[" * 100_000 + b"\n"}[kind]  # fmt: skip
    path.write_bytes(b"".join([*lines[:place], torn, *lines[place:]]))
    assert states(url) == before


def test_a_whole_journal_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    url = filled(path)
    before = path.read_bytes()
    assert cut_torn_lines(path) == 0
    assert len(states(url)) == 4
    assert path.read_bytes().startswith(before)


def test_what_is_no_journal_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    path.write_bytes(b'{"op_code": 99}\n')
    with pytest.raises(RunError, match="Cannot open study") as refused:
        open_study(f"journal://{path}", "ours")
    assert "\n" not in str(refused.value)
