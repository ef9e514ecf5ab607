"""A PostgreSQL server of the tests' own: a temporary folder, a free port, a random password."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "tester"


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl; the newest version where there are several."""
    found = [Path(path).parent for name in ("initdb",) if (path := shutil.which(name))]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in found if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


def missing() -> str:
    """Why no server can be started here; empty where one can."""
    if find_programs() is None:
        return "no initdb and pg_ctl in PATH or /usr/lib/postgresql; install postgresql"
    if os.geteuid() == 0 and (shutil.which("setpriv") is None or _other_user() is None):
        return "PostgreSQL does not run as root, and there is no setpriv or no other user"
    return ""


def _other_user() -> str | None:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """A running server: its URL without a database and the password, as ${VALENCE_TEST_PG}."""
    programs = find_programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="valence-pg-"))
    as_user: list[str] = []
    user = _other_user() if os.geteuid() == 0 else None
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        ids = [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        as_user = ["setpriv", *ids]

    def call(*words: str) -> None:
        done = subprocess.run(
            [*as_user, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    password = secrets.token_hex(8) + "@/:%"
    (folder / "password").write_text(password, encoding="utf-8")
    (folder / "password").chmod(0o644)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, control = str(folder / "data"), str(programs / "pg_ctl")
    call(
        str(programs / "initdb"), "-D", data, "-U", USER, "-A", "scram-sha-256", "-E", "UTF8",
        "--locale=C", "--no-sync", f"--pwfile={folder / 'password'}",
    )  # fmt: skip
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
    call(control, "-D", data, "-w", "-t", "50", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://{USER}:${{VALENCE_TEST_PG}}@127.0.0.1:{port}", password
    finally:
        call(control, "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
