"""One table of kinds, a size limit, and entries that other processes delete at any time."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from valence.cli import app
from valence.errors import SpecError, UnknownNameError
from valence.storage import atomic, cache
from valence.storage.cache import CacheKind

LONG_AGO = 1_000_000_000.0


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VALENCE_CACHE_LIMIT", "none")
    return tmp_path / "cache"


def write(kind: CacheKind, key: str, size: int = 1000, used: float = LONG_AGO) -> Path:
    with cache.writing(kind, key, {"texts": 3}) as folder:
        (folder / "data").write_bytes(b"x" * size)
    path = cache.cache_root() / kind.name / key
    os.utime(path / cache.ABOUT, (used, used))
    return path


def keys() -> set[str]:
    return {entry.key for entry in cache.entries()}


def command(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["cache", *words])
    return done.exit_code, done.stdout, done.stderr


def test_every_kind_has_a_name_and_a_description() -> None:
    assert len(cache.KINDS) == 8
    for name, kind in cache.KINDS.items():
        assert name == kind.name
        assert kind.description
    assert [k.name for k in cache.KINDS.values() if not k.recomputable] == ["answers"]


def test_all_kinds_are_listed() -> None:
    write(cache.VIEWS, "a", 5000)
    code, out, err = command("ls")
    assert code == 0
    rows = {line.split("\t")[0]: line.split("\t") for line in out.splitlines()[1:]}
    assert set(rows) == set(cache.KINDS)
    assert rows["views"][1:4] == ["second views of training texts", "1", "4.9 KiB"]
    assert "no limit (VALENCE_CACHE_LIMIT)" in err
    assert command("ls", "--kind", "views")[1].splitlines()[1].startswith("views\ttexts 3\t")


def test_clearing_all_leaves_what_was_paid_for() -> None:
    write(cache.STATES, "a")
    write(cache.ANSWERS, "paid")
    code, _, err = command("clear")
    assert code == 0
    assert "answers of language-model servers" in err
    assert "valence cache clear --kind answers" in err
    assert keys() == {"paid"}
    code, _, err = command("clear", "--kind", "answers")
    assert "Left" not in err
    assert keys() == set()


def test_an_unknown_kind_is_an_error_with_the_closest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'answers'"):
        cache.clear("answer")
    assert isinstance(CliRunner().invoke(app, ["cache", "ls", "--kind", "x"]).exception, SpecError)


def test_clearing_touches_nothing_else(root: Path) -> None:
    write(cache.STATES, "a")
    (root / "photos").mkdir()
    (root / "photos" / "cat.jpg").touch()
    other = root / "neighbours" / "of-an-older-version"
    other.mkdir(parents=True)
    (other / cache.ABOUT).write_text("{}")
    cache.clear()
    assert keys() == {other.name}
    assert (root / "photos" / "cat.jpg").exists()
    assert "neighbours\tfrom another version\t1" in command("ls")[1]
    cache.clear("neighbours")
    assert keys() == set()


def test_clearing_takes_what_kills_left_and_no_living_writer(root: Path) -> None:
    dead = root / "states" / f"{atomic.TEMPORARY}{atomic._machine()}-999999999-0-key"
    dead.mkdir(parents=True)
    (root / "states" / "half").mkdir()
    with cache.writing(cache.STATES, "alive", {}) as folder:
        (folder / "data").touch()
        cache.clear()
        assert folder.exists()
    assert keys() == {"alive"}
    assert [path.name for path in (root / "states").iterdir()] == ["alive"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20GB", 20 * 10**9), ("1.5GiB", 3 * 2**29), ("500 mb", 5 * 10**8), ("123", 123),
     ("2T", 2 * 10**12), ("none", None), ("", 20 * 2**30), ("64K", 64_000), ("7B", 7)],
)  # fmt: skip
def test_limits(text: str, expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALENCE_CACHE_LIMIT", text)
    assert cache.limit_bytes() == expected


@pytest.mark.parametrize("text", ["much", "-1GB", "1XB", "20 Gold", "IB"])
def test_a_wrong_limit_is_said_before_the_work(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALENCE_CACHE_LIMIT", text)
    with pytest.raises(SpecError, match=r"VALENCE_CACHE_LIMIT=.* is not a size; write 20GB"):
        write(cache.VIEWS, "a")
    assert keys() == set()


def test_the_longest_unused_go_when_the_limit_is_passed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(cache.ANSWERS, "paid", used=1)
    write(cache.STATES, "used-last", used=LONG_AGO + 9)
    write(cache.VIEWS, "oldest", used=LONG_AGO)
    write(cache.POOLED, "older", used=LONG_AGO + 1)
    monkeypatch.setenv("VALENCE_CACHE_LIMIT", "3500")
    with caplog.at_level(logging.WARNING):
        write(cache.VIEWS, "new")
    assert keys() == {"paid", "used-last", "new"}
    (record,) = caplog.records
    assert record.getMessage() == (
        "The cache was above its limit of 3.4 KiB: 2 entries (2.0 KiB) least recently used were "
        "deleted; change the limit with VALENCE_CACHE_LIMIT"
    )
    assert "limit 3.4 KiB" in command("ls")[2]


def test_what_this_process_used_is_never_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    write(cache.STATES, "read-now")
    write(cache.STATES, "unused")
    write(cache.FEATURES, "held")
    cache.hold(cache.cache_root() / "features" / "held")
    assert cache.find(cache.STATES, "read-now") is not None
    monkeypatch.setenv("VALENCE_CACHE_LIMIT", "10")
    with cache.writing(cache.VIEWS, "new", {}) as folder:
        (folder / "data").write_bytes(b"x" * 1000)
    assert keys() == {"read-now", "held", "new"}


def test_room_is_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.room_bytes() > 10**6
    monkeypatch.setenv("VALENCE_CACHE_LIMIT", "1MB")
    assert cache.room_bytes() == 10**6


def test_another_process_does_not_delete_what_is_held(root: Path) -> None:
    folder = write(cache.FEATURES, "held")
    write(cache.FEATURES, "free")
    cache.hold(folder)
    code = "from valence.storage import cache; print(cache.clear())"
    freed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(freed.stdout) > 1000
    assert keys() == {"held"}
    assert "of features: in use" in command("clear")[2]


def test_the_first_writer_of_an_entry_stays() -> None:
    with cache.writing(cache.ANSWERS, "a", {}) as late:
        (late / "answers.jsonl").touch()
        with cache.writing(cache.ANSWERS, "a", {}) as early:
            (early / "answers.jsonl").write_text("paid\n")
    path = cache.find(cache.ANSWERS, "a")
    assert path is not None
    assert (path / "answers.jsonl").read_text() == "paid\n"


def test_a_damaged_entry_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    folder = write(cache.VIEWS, "a")
    assert cache.load(cache.VIEWS, "a", lambda path: (path / "data").stat().st_size) == 1000
    (folder / "data").unlink()
    assert cache.load(cache.VIEWS, "a", lambda path: (path / "data").read_bytes()) is None
    assert "is damaged" in caplog.text
    write(cache.VIEWS, "a", 500)
    assert cache.load(cache.VIEWS, "a", lambda path: (path / "data").stat().st_size) == 500
    (folder / cache.ABOUT).unlink()
    assert cache.find(cache.VIEWS, "a") is None
    write(cache.VIEWS, "a", 700)
    assert cache.load(cache.VIEWS, "a", lambda path: (path / "data").stat().st_size) == 700
    (folder / cache.ABOUT).write_text("[broken")
    assert [entry.about for entry in cache.entries()] == [{}]


def test_entries_that_vanish_are_no_error() -> None:
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            for number in range(5):
                with cache.writing(cache.VIEWS, str(number), {}) as folder:
                    (folder / "data").touch()
            cache.clear()

    others = [threading.Thread(target=come_and_go) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for _ in range(300):
            cache.entries()
            cache.folders(cache.VIEWS)
            cache.load(cache.VIEWS, "1", lambda path: (path / "data").read_bytes())
    finally:
        stop.set()
        for other in others:
            other.join()
