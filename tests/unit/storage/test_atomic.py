"""The one writer: whole or not at all, with the umask's modes, and one line about a refusal."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from valence.errors import RunError
from valence.storage import atomic


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_mode_of_the_umask(tmp_path: Path, mask: int, expected: int) -> None:
    os.umask(mask)
    with atomic.new_file(tmp_path / "weights.safetensors") as path:
        save_file({"a": np.zeros(3)}, path)
        assert mode(path) == 0o600, "safetensors has begun to honor the umask"
    assert mode(tmp_path / "weights.safetensors") == expected
    atomic.write_text(tmp_path / "plain.json", "{}")
    assert mode(tmp_path / "plain.json") == expected


def test_a_folder_and_all_in_it_have_the_modes_of_the_umask(tmp_path: Path) -> None:
    with atomic.new_folder(tmp_path / "model") as folder:
        (folder / "encoder").mkdir(mode=0o700)
        save_file({"a": np.zeros(3)}, folder / "encoder" / "model.safetensors")
    assert mode(tmp_path / "model") == mode(tmp_path / "model" / "encoder") == 0o755
    assert mode(tmp_path / "model" / "encoder" / "model.safetensors") == 0o644


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    atomic.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError), atomic.new_file(path) as scratch:
        scratch.write_text("ne\ud800", encoding="utf-8")
    folder = tmp_path / "model"
    with atomic.new_folder(folder) as scratch:
        (scratch / "config.json").write_text("old")

    def stopped() -> None:
        with atomic.new_folder(folder) as scratch:
            (scratch / "config.json").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == (folder / "config.json").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "result.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_refusal_is_one_line_with_path_reason_and_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "new" / "result.json"
    monkeypatch.setattr(os, step, full)
    with pytest.raises(RunError) as refused:
        atomic.write_text(path, "text", advice="free some")
    assert str(refused.value) == f"Cannot write {path}: No space left on device; free some"
    with (
        pytest.raises(RunError, match="No space left"),
        atomic.new_folder(tmp_path / "f") as folder,
    ):
        (folder / "a").touch()
    monkeypatch.undo()
    assert [p.name for p in tmp_path.rglob("*")] == ["new"]


def test_refusals_of_other_libraries_and_other_paths(tmp_path: Path) -> None:
    lost = 'Error while serializing: I/O error: No space left on device (os error 28) at path "/x"'
    with pytest.raises(RunError) as refused, atomic.new_file(tmp_path / "a.safetensors"):
        raise SafetensorError(lost)
    assert str(refused.value).endswith("a.safetensors: No space left on device")
    lost = r"Cannot write .*b: No such file or directory: .*missing"
    with pytest.raises(RunError, match=lost), atomic.new_folder(tmp_path / "b"):
        (tmp_path / "missing").read_text()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"Cannot write .*file.c: "):
        atomic.write_text(tmp_path / "file" / "c", "text")
    with pytest.raises(RunError, match="it is a folder; use a file name"):
        atomic.write_text(tmp_path, "text")
    file = "it is a file; use a folder"
    with pytest.raises(RunError, match=file), atomic.new_folder(tmp_path / "file"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_replaces_one_of_ours_and_no_other(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with atomic.new_folder(tmp_path / "model", marker="config.json") as folder:
            (folder / "config.json").write_text(content)
            (folder / content).touch()
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "two"]
    (tmp_path / "photos").mkdir()
    with atomic.new_folder(tmp_path / "photos", marker="config.json") as folder:
        (folder / "config.json").touch()
    (tmp_path / "photos" / "config.json").rename(tmp_path / "photos" / "cat.jpg")
    photos = atomic.new_folder(tmp_path / "photos", marker="config.json")
    with pytest.raises(RunError, match=r"photos: it is not empty and has no config\.json"), photos:
        pass
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(RunError, match="is not empty"):
        atomic.publish_folder(work, tmp_path / "photos", marker="config.json")
    assert (tmp_path / "photos" / "cat.jpg").exists()
    atomic.publish_folder(work, tmp_path / "model", marker="config.json")
    assert not work.exists()
    assert list((tmp_path / "model").iterdir()) == []


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    original, calls = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        original(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(RunError, match="Input/output"), atomic.new_folder(tmp_path / "model"):
        pass
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["model", "model/old"]


def test_links_are_followed_and_pipes_are_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "disk" / "real.json")
    atomic.write_text(tmp_path / "link.json", "text")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "disk" / "real.json").read_text() == "text"
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    atomic.write_text(tmp_path / "pipe", "through")
    reader.join()
    assert read == ["through"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_long_names_and_suffixes(tmp_path: Path) -> None:
    name = "ж" * 120 + ".npz"
    with atomic.new_file(tmp_path / name) as scratch:
        np.savez(scratch, a=np.zeros(2))
    assert np.load(tmp_path / name)["a"].shape == (2,)
    assert len(list(tmp_path.iterdir())) == 1


WRITE = """
import sys, time
from pathlib import Path
from valence.storage import atomic
with atomic.new_folder(Path(sys.argv[1])) as folder:
    (folder / "part").write_text("new")
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_kill_leaves_what_was_there_and_the_next_writer_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    words = [sys.executable, "-c", WRITE, str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        atomic.sweep(tmp_path)
        (unfinished,) = tmp_path.glob(f"{atomic.TEMPORARY}*")
        assert (unfinished / "part").exists(), "a living writer is left alone"
        process.send_signal(signal.SIGKILL)
    assert [p.name for p in target.iterdir()] == ["old"]
    code = "import sys\nfrom valence.storage import atomic\natomic.write_text(sys.argv[1], 'x')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "other"]


def test_leftovers_of_other_machines_go_by_their_age(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / f"{atomic.TEMPORARY}ffffffff-1-0-{name}").touch()
    os.utime(tmp_path / f"{atomic.TEMPORARY}ffffffff-1-0-old", (0, 0))
    atomic.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [f"{atomic.TEMPORARY}ffffffff-1-0-new"]


def test_several_processes_put_a_folder_in_the_same_place(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from valence.storage import atomic
        for i in range(100):
            with atomic.new_folder(Path(sys.argv[1])) as folder:
                for part in "abc":
                    (folder / part).write_text(f"{sys.argv[2]} {i}")
    """)
    target = tmp_path / "run"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(target), str(n)]) for n in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len({(target / part).read_text() for part in "abc"}) == 1, "parts of two writers"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_the_first_stays_where_a_folder_is_to_be_kept(tmp_path: Path) -> None:
    target = tmp_path / "entry"
    with atomic.new_folder(target, existing="keep") as late:
        (late / "late").touch()
        with atomic.new_folder(target, existing="keep") as early:
            (early / "early").touch()
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["entry", "entry/early"]
