"""One process at a time: the others wait or are refused, and a kill lets them in."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from valence.errors import RunError
from valence.storage.file_lock import locked

HOLD = """
import sys, time
from pathlib import Path
from valence.storage.file_lock import locked
with locked(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def test_another_is_refused_or_waits(tmp_path: Path) -> None:
    path = tmp_path / "here" / "lock"
    with holder(path, 1.5) as process:
        with pytest.raises(RunError, match="taken"), locked(path, RunError("taken")):
            pass
        begun = time.monotonic()
        with locked(path):
            assert time.monotonic() - begun > 0.3
            assert path.exists()
        assert process.wait() == 0
    assert not path.exists()


def test_a_killed_process_lets_others_in(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, 60) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(path, RunError("taken")):
            pass
    with locked(path, RunError("taken")):
        pass


def test_those_who_wait_enter_one_by_one(tmp_path: Path) -> None:
    path, tally = tmp_path / "lock", tmp_path / "tally"
    code = (
        "import sys\nfrom pathlib import Path\nfrom valence.storage.file_lock import locked\n"
        "for _ in range(200):\n"
        "    with locked(Path(sys.argv[1])):\n"
        "        tally = Path(sys.argv[2])\n"
        "        count = int(tally.read_text()) if tally.exists() else 0\n"
        "        tally.write_text(str(count + 1))\n"
    )
    words = [sys.executable, "-c", code, str(path), str(tally)]
    all_of_them = [subprocess.Popen(words) for _ in range(3)]
    assert [process.wait() for process in all_of_them] == [0, 0, 0]
    assert tally.read_text() == "600"
