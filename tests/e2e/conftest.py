"""The command line as tests call it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from valence import cli


@pytest.fixture
def valence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the command line in a folder of its own: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["valence", *map(str, words)])
            patch.setattr(sys, "stderr", sys.stderr)  # --log-file puts another in its place
            with pytest.raises(SystemExit) as ended:
                cli.main()
        printed = capsys.readouterr()
        code = ended.value.code
        return (0 if code is None else int(code)), printed.out, printed.err

    return call


@pytest.fixture(scope="session")
def tiny_words(tiny_settings: dict[str, object]) -> list[str]:
    return [word for k, v in tiny_settings.items() for word in ("--set", f"{k}={v}")]
