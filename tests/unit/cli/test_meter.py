"""The progress line: percentages that mean what they say, times left that were measured."""

from __future__ import annotations

import io
import sys

import pytest

from valence.cli import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands until a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_time_left_is_by_the_speed_since_the_first_call(clock: list[float]) -> None:
    left = console.TimeLeft()
    assert left.seconds(0.2) is None  # loading took no part of it
    clock[0] += 1
    assert left.seconds(0.3) is None  # a second tells too little
    clock[0] += 9
    assert left.seconds(0.4) == pytest.approx(30)
    clock[0] += 30
    assert left.seconds(1.0) is None


def test_lines_have_a_percentage_and_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.Meter() as meter:
        for fraction in (0.0, 0.5, 0.999, 1.0):
            meter.show_timed("lora", fraction, "epoch 1 of 2")
            clock[0] += 20
    assert capsys.readouterr().err.splitlines() == [
        "lora   0% epoch 1 of 2", "lora  50% epoch 1 of 2, about 20 s left",
        "lora  99% epoch 1 of 2, about 0 s left", "lora 100% epoch 1 of 2",
    ]  # fmt: skip


def test_a_new_work_has_its_own_clock(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.Meter() as meter:
        meter.show_timed("lora", 0.0, "")
        clock[0] += 100
        meter.show_timed("ldam", 0.5, "")
        clock[0] += 20
        meter.show_timed("ldam", 0.75, "")
    assert capsys.readouterr().err.splitlines()[-1] == "ldam  75% about 20 s left"


def test_a_narrow_terminal_cuts_the_details_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    with console.Meter() as meter:
        meter.show("[3 of 10 done] reviews.csv lora-balanced seed 45", 0.456, "epoch 2 of 6",
                   seconds_left=200)  # fmt: skip
        assert meter.bar is not None
        meter.bar.refresh()
    lines = [console.SEQUENCE.sub("", line) for line in terminal.getvalue().split("\r")]
    drawn = next(line for line in lines if "45%" in line)
    assert "about 3 min 20 s left: [3 of 10" in drawn
    assert drawn.rstrip().endswith("…")
    assert len(drawn.rstrip()) <= 60
