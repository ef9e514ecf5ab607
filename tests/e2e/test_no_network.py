"""Commands on a file of one's own look up no host, though the hub is not switched off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import make_reviews

WATCHED = """
import os, socket, sys

def refuse(host, *args, **options):
    print("looked up", host, file=sys.stderr, flush=True)
    os._exit(99)

socket.getaddrinfo = refuse
from valence.cli import app
app(sys.argv[1:])
"""
QUICK = ("--set", "encoder.max_length=16", "--quiet")


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "reviews.csv", "--methods", "tfidf-lr,linear-probe", "--seeds", "1", *QUICK),
        ("train", "reviews.csv", "--method", "kernel-ridge", "--encoder", "auto", "--out", "model",
         *QUICK),
        ("audit", "reviews.csv", "--out", "audit", "--quiet"),
    ],
)  # fmt: skip
def test_no_host_is_looked_up(tmp_path: Path, words: tuple[str, ...]) -> None:
    make_reviews(60).to_csv(tmp_path / "reviews.csv", index=False)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS"))}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "looked up" not in done.stderr
