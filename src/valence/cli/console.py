"""Output of the command line: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from valence.cli.streams import CONTROL, visible
from valence.config.duration import duration as duration
from valence.errors import RunError

SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])")
QUIET_SECONDS = 15.0  # between plain progress lines, so that log files stay readable


def out(*, width: int | None = None) -> Console:
    """Where results go; plain when it is no terminal or NO_COLOR is set.

    Args:
        width: Columns to write, where they are more than the terminal has.
    """
    terminal = sys.stdout.isatty()
    return Console(file=sys.stdout, soft_wrap=not terminal, highlight=False, width=width)


def log() -> Console:
    """Where progress, notes and errors go."""
    return Console(file=sys.stderr, soft_wrap=True, highlight=False)


class Logged:
    """A stderr that also goes to a file: whole lines, with the time, without control characters.

    Args:
        stream: The stderr.
        path: The file, which is added to.

    Raises:
        RunError: if the file cannot be written.
    """

    def __init__(self, stream: TextIO, path: Path) -> None:
        self.stream, self.rest = stream, ""
        self.path: Path | None = path.absolute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a", encoding="utf-8").close()
        except OSError as error:
            raise RunError(f"Cannot write {path}: {error.strerror or error}") from None

    def write(self, text: str) -> int:
        """Write to both; of a line that is drawn anew in place, the file gets the last state."""
        written = self.stream.write(text)
        *lines, rest = (self.rest + text).split("\n")
        self.rest = rest.rpartition("\r")[2]
        plain = [CONTROL.sub("", SEQUENCE.sub("", _last_state(line))).rstrip() for line in lines]
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        self._append("".join(f"{now} {line}\n" for line in plain if line))
        return written

    def _append(self, text: str) -> None:
        if self.path is None or not text:
            return
        try:
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as error:  # a full disk for the log is no reason to end a training
            reason = error.strerror or str(error)
            self.stream.write(f"Note: cannot write to {self.path.name}: {reason}\n")
            self.path = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def info(text: str) -> None:
    """Print a line for the person, not part of the result."""
    log().print(visible(text), markup=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    # In another encoding a letter that it lacks would be written so that JSON does not read it.
    plain = (sys.stdout.encoding or "").lower().replace("_", "-") not in ("utf-8", "utf8")
    sys.stdout.write(json.dumps(value, ensure_ascii=plain, indent=2, default=str) + "\n")


def number(value: float | None) -> str:
    """``0.5`` → ``0.500``; a dash where there is no value."""
    return "–" if value is None else f"{value:.3f}"


class TimeLeft:
    """Estimates how long the rest takes, by the speed since the first call."""

    MIN_SECONDS = 2.0
    MIN_FRACTION = 0.03

    def __init__(self) -> None:
        self.start = (0.0, 0.0)
        self.is_started = False

    def seconds(self, fraction: float) -> float | None:
        """Seconds until the fraction is 1; None while too little is done to tell.

        Args:
            fraction: Fraction that is done, in [0, 1]; it grows evenly.
        """
        now = time.monotonic()
        if not self.is_started:
            self.start, self.is_started = (now, fraction), True
        began, before = self.start
        done, taken = fraction - before, now - began
        if done < self.MIN_FRACTION or taken < self.MIN_SECONDS or fraction >= 1:
            return None
        return taken / done * (1 - fraction)


class Meter:
    """Progress with the time left: a bar in a terminal, sparse plain lines elsewhere.

    In a narrow terminal the line is cut at its end, where the details are.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.last_line = 0.0
        self.work, self.clock = "", TimeLeft()
        self.bar: Progress | None = None
        if not quiet and sys.stderr.isatty():
            detail = Column(no_wrap=True, overflow="ellipsis", ratio=1)
            self.bar = Progress(
                TextColumn("{task.fields[percent]:>4}"),
                BarColumn(bar_width=16),
                TextColumn("{task.description}", markup=False, table_column=detail),
                console=Console(file=sys.stderr, highlight=False),
                transient=True,
                expand=True,
            )
            self.task = self.bar.add_task("starting", total=1.0, percent="")

    def __enter__(self) -> Meter:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(
        self, what: str, fraction: float, words: str, *, seconds_left: float | None = None,
        important: bool = False,
    ) -> None:  # fmt: skip
        """Show the progress.

        Args:
            what: The work.
            fraction: Fraction that is done, in [0, 1].
            words: What happens now.
            seconds_left: Estimate of the time until all is done; None where there is none.
            important: Print a plain line even shortly after the last one.
        """
        if self.quiet:
            return
        left = "" if seconds_left is None else f"about {duration(seconds_left)} left"
        percent = f"{math.floor(100 * fraction)}%"  # 100% means done
        if self.bar is not None:
            line = visible(" ".join(filter(None, (left and f"{left}:", what, words))))
            self.bar.update(self.task, description=line, completed=fraction, percent=percent)
            if important:
                self.bar.console.print(visible(_joined(what, words, left)), markup=False)
            return
        now = time.monotonic()
        if important or now - self.last_line > QUIET_SECONDS:
            self.last_line = now
            info(_joined(f"{what} {percent:>4}", words, left))

    def show_timed(self, what: str, fraction: float, words: str) -> None:
        """As :meth:`show`, with the time left by the speed so far, for work that is even."""
        if what != self.work:
            self.work, self.clock = what, TimeLeft()
        self.show(what, fraction, words, seconds_left=self.clock.seconds(fraction))


def _joined(what: str, words: str, left: str) -> str:
    """``lora``, ``epoch 2 of 6`` and ``about 3 s left`` in a line."""
    return f"{what} {', '.join(filter(None, (words, left)))}".rstrip()
