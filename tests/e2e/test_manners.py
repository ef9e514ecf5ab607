"""How the command line behaves in scripts and shells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_quiet_says_nothing_but_the_result(valence, reviews: Path) -> None:
    quiet = ("--quiet",)
    small = ("--methods", "majority,tfidf-lr", "--seeds", 1)
    code, out, err = valence("compare", reviews, *small, *quiet)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 3
    assert valence("train", reviews, "--method", "majority", "--out", "m", *quiet)[2] == ""
    for words in (
        ("evaluate", "m", reviews), ("predict", "m", reviews, "--out", "s.csv"),
        ("audit", reviews, "--fast"), ("calibrate", "m"), ("explain", "m", "good"),
    ):  # fmt: skip
        code, _, err = valence(*words, *quiet)
        assert (code, err) == (0, ""), words


def test_completion_is_installed_and_completes(tmp_path: Path) -> None:
    """As the shell asks for it: words so far in variables, candidates on stdout."""
    words = [sys.executable, "-m", "valence"]
    home = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    named = {**home, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # make runs in sh
    shown = subprocess.run([*words, "--show-completion", "bash"], env=named, capture_output=True)
    assert b"complete -o default -F _valence_completion valence" in shown.stdout
    asked = {"_VALENCE_COMPLETE": "complete_bash", "COMP_WORDS": "valence data lo"}
    done = subprocess.run(
        words, env={**home, **asked, "COMP_CWORD": "2"}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["longtail"]
