"""Groups of options: flat on the command line, packed for the command, one spec of the rows."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from valence.cli.options import (
    DataOptions,
    HardwareOptions,
    ModelHardware,
    OldName,
    OptionGroup,
    OtherDataOptions,
    RowOptions,
    TrainingHardware,
    check_device,
    comma_separated,
    print_unread,
    with_groups,
)
from valence.config.data import DataSpec
from valence.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Colors(OptionGroup):
    panel: ClassVar[str] = "Colors"
    color: Annotated[str, typer.Option(help="Which.")]
    shades: Annotated[int, typer.Option(min=1, help="How many."), OldName("--colours")] = 3


def run(*words: str) -> tuple[int, str, list[tuple[Colors, str, int]]]:
    """Exit code and output of a command with the group, and what it was called with."""
    calls: list[tuple[Colors, str, int]] = []

    @with_groups
    def paint(
        colors: Colors,
        what: Annotated[str, typer.Argument(help="What.")],
        size: Annotated[int, typer.Option(help="How large.")] = 1,
    ) -> None:
        """Paint."""
        calls.append((colors, what, size))

    app = typer.Typer(add_completion=False)
    app.command()(paint)
    done = CliRunner().invoke(app, list(words), env={"COLUMNS": "100"})
    return done.exit_code, done.output, calls


def test_groups_are_flat_options_and_come_packed() -> None:
    code, _, calls = run("wall", "--color", "red", "--shades", "5", "--size", "2")
    assert (code, calls) == (0, [(Colors(color="red", shades=5), "wall", 2)])
    assert run("wall", "--color", "red")[2] == [(Colors(color="red", shades=3), "wall", 1)]


def test_what_is_needed_is_asked_for() -> None:
    code, out, calls = run("wall")
    assert (code, calls) == (2, [])
    assert "--color" in out


def test_an_old_name_is_read_and_not_shown() -> None:
    assert run("wall", "--color", "red", "--colours", "7")[2][0][0].shades == 7
    code, out, _ = run("--help")
    assert code == 0
    assert "--shades" in out
    assert "--colours" not in out
    assert "Colors" in out, "the panel of the group"
    assert run("wall", "--color", "red", "--colours", "0")[0] == 2, "bounds hold for both names"


def test_two_options_of_one_name_are_refused() -> None:
    def paint(colors: Colors, color: str) -> None:
        """Paint."""

    paint.__annotations__ |= {"colors": Colors, "color": str}
    with pytest.raises(TypeError, match="paint has two options color"):
        with_groups(paint)


def test_rows_are_named_in_one_place() -> None:
    options = DataOptions(
        data="rows.csv", text_column="body", label_column="stars", encoding="latin-1",
        group="lang", groups="en, de", set_=["data.features=none", "train.epochs=3"],
    )  # fmt: skip
    assert options.spec("rows.csv", target="intensity") == DataSpec(
        name="rows.csv", text_column="body", label_column="stars", encoding="iso8859-1",
        group="lang", groups=("en", "de"), features="none", target="intensity",
    )  # fmt: skip
    assert options.settings()["train.epochs"] == 3
    assert RowOptions().spec("demo") == DataSpec()
    database = RowOptions(query="SELECT 1", text_column="body").spec("sqlite:///x.db")
    assert database.query == "SELECT 1"
    with pytest.raises(SpecError, match="is for databases"):
        RowOptions(table="t").spec("rows.csv")


def test_settings_that_would_change_nothing_are_refused() -> None:
    options = DataOptions(data="rows.csv", set_=["data.features=none", "train.epochs=3"])
    with pytest.raises(SpecError, match=r"--set train\.epochs has no effect here; only d"):
        options.refuse_other_settings("data")
    options.refuse_other_settings("data", "train")


def test_options_of_rows_that_are_not_given_are_refused() -> None:
    assert OtherDataOptions().other_rows(target="classes") is None
    assert OtherDataOptions(data_dir=Path("x")).other_rows(target="classes") is None
    with pytest.raises(SpecError, match="needs --data"):
        OtherDataOptions(text_column="body").other_rows(target="classes")
    rows = OtherDataOptions(data="a.csv", text_column="b").other_rows(target="intensity")
    assert rows == DataSpec(name="a.csv", text_column="b", target="intensity")


@pytest.mark.parametrize(
    ("given", "stored"),
    [(None, None), ("UTF-8", None), ("utf-8-sig", None), ("latin1", "iso8859-1"),
     ("cp1252", "cp1252"), ("UTF16", "utf-16")],
)  # fmt: skip
def test_an_encoding_has_one_name(given: str | None, stored: str | None) -> None:
    assert RowOptions(encoding=given).spec("rows.csv").encoding == stored


@pytest.mark.parametrize("name", ["utf9", "hex", "rot13", "a\0b"])
def test_an_unknown_encoding_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"Encoding .* is unknown; use for example latin-1"):
        RowOptions(encoding=name).spec("rows.csv")


def test_a_database_has_its_own_encoding() -> None:
    with pytest.raises(SpecError, match="encoding is for files"):
        RowOptions(encoding="latin-1").spec("sqlite:///x.db")


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_device_is_looked_for_before_anything_is_done(without_gpu: None) -> None:
    for device in (None, "auto", "cpu"):
        assert HardwareOptions(device=device).prepared() == (device or "auto")
    for options in (HardwareOptions(device="cuda"), TrainingHardware(device="cuda")):
        with pytest.raises(SpecError, match="'cuda' is not available"):
            options.settings()
    with pytest.raises(SpecError, match="not available"):
        ModelHardware(device="cuda").requested()
    with pytest.raises(SpecError, match="not available"):
        RowOptions(set_=["train.device=cuda"]).settings()
    with pytest.raises(SpecError, match="Device 'gpu' is unknown; use auto, cpu, cuda, mps"):
        check_device("gpu")
    # the machines of a cluster are other ones
    assert TrainingHardware(device="cuda").settings(elsewhere=True) == {"train.device": "cuda"}
    assert ModelHardware(device="cuda").requested(elsewhere=True).device == "cuda"


def test_hardware_as_trainings_and_predictors_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                 "RAYON_NUM_THREADS"):  # fmt: skip
        monkeypatch.setenv(name, "7")
    assert TrainingHardware().settings() == {}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    given = TrainingHardware(device="cpu", precision="bf16", threads=1).settings()
    assert given == {"train.device": "cpu", "train.precision": "bf16"}
    assert os.environ["OMP_NUM_THREADS"] == os.environ["RAYON_NUM_THREADS"] == "1"
    speed = ModelHardware(threads=2, batch_tokens=64).requested()
    assert (speed.threads, speed.device, speed.precision, speed.batch_tokens) == (
        2, "auto", "fp32", 64,
    )  # fmt: skip
    for options in (HardwareOptions(threads=0), ModelHardware(threads=0)):
        with pytest.raises(SpecError, match="0 threads are not possible"):
            options.requested() if isinstance(options, ModelHardware) else options.prepared()


def test_lists() -> None:
    assert comma_separated(None) == comma_separated("") == ()
    assert comma_separated("en, de ,") == ("en", "de")


def test_the_processor_is_not_looked_for_with_torch() -> None:
    code = (
        "import sys\nfrom valence.cli.options import ModelHardware, check_device\n"
        "check_device('cpu'); ModelHardware(device='cpu').settings()\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settings_that_no_method_reads_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"train.epochs": 3, "train.device": "cpu", "loss.gamma": 1.0}
    print_unread(["majority"], given)
    assert (
        "Note: majority does not use loss.gamma, train.epochs; left out" in capsys.readouterr().err
    )
    print_unread(["majority", "tfidf-lr"], given)
    assert "Note: No method here uses loss.gamma, train.epochs" in capsys.readouterr().err
    print_unread(["majority", "focal"], given)
    assert capsys.readouterr().err == ""
