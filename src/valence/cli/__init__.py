"""The command line. A command parses, calls one function of the package, and prints."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

from valence import __version__
from valence.cli import (
    audit,
    cache,
    calibrate,
    compare,
    console,
    data,
    doctor,
    encoders,
    evaluate,
    explain,
    export,
    features,
    fit,
    import_model,
    label,
    llm,
    methods,
    predict,
    push,
    reproduce,
    serve,
    train,
    tune,
)
from valence.cli.streams import give_up_stdout, guarded_streams, visible
from valence.distributed import process_group
from valence.errors import RunError, ValenceError
from valence.models.cpu import usable_cores

app = typer.Typer(
    name="valence",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Train, compare and serve sentiment models for imbalanced data.",
)
app.command("fit")(fit.fit)
app.command("compare", cls=compare.CompareCommand)(compare.compare)
app.command("reproduce")(reproduce.reproduce)
app.command("audit")(audit.audit)
app.command("label")(label.label)
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("import-model")(import_model.import_model)
app.command("calibrate")(calibrate.calibrate)
app.command("explain")(explain.explain)
app.command("methods")(methods.methods)
app.command("encoders")(encoders.encoders)
app.command("serve")(serve.serve)
app.command("push")(push.push)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")
app.add_typer(features.app, name="features")
app.add_typer(llm.app, name="llm")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"valence {__version__}")
        raise typer.Exit


TOGETHER = ("train", "llm")
"""Commands that several processes can carry out together."""


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    log_file: Annotated[
        Path | None, typer.Option(help="Also write stderr to this file, with timestamps.")
    ] = None,
) -> None:
    if context.invoked_subcommand not in TOGETHER:
        process_group.require_single_process(
            f"valence {context.invoked_subcommand}",
            "start it without a launcher; to go faster use --workers or --executor, or train one "
            "model with several processes: torchrun --nproc_per_node 2 -m valence "
            "train",
        )
    if process_group.launched_alone():
        console.info(
            "Note: accelerate launch starts one process on CPUs; for several: torchrun "
            "--nproc_per_node N -m valence …"
        )
    if log_file is not None and process_group.is_main_process():
        sys.stderr = cast(TextIO, console.Logged(sys.stderr, log_file))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # off unless the user sets it
    # Tokenizing is an eighth of the time of an 8-bit model; by more threads than there are
    # cores it would only wait.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("RAYON_NUM_THREADS", str(usable_cores()))


def main() -> None:
    """Run the command line; every failure is one line on stderr and an exit code."""
    process_group.silence_non_main()
    with guarded_streams():
        _run()


def _run() -> None:
    try:
        _call()
    except SystemExit as ended:
        if process_group.destroy_process_group(failed=bool(ended.code)):
            sys.stdout.flush()
            sys.stderr.flush()
            # Threads of a group that an object still names abort an interpreter that ends in the
            # usual way, now and then, with all the work done.
            os._exit(0)
        raise
    except ValenceError as error:
        _fail(f"Error: {error}", 1)
    except KeyboardInterrupt:
        _fail("Stopped. Finished work is saved; run the same command again to resume.", 130)
    except BrokenPipeError:  # the reader of stdout has gone, as with `| head`
        give_up_stdout()
        raise SystemExit(0) from None
    except (MemoryError, RecursionError) as error:
        what = "has too little memory" if isinstance(error, MemoryError) else "nests too deeply"
        _fail(f"Error: This input {what}; split it into smaller parts, or check it", 1)
    except Exception as error:
        if os.environ.get("VALENCE_DEBUG"):
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        _fail(
            f"Unexpected error: {type(error).__name__}: {reason}; "
            "run again with VALENCE_DEBUG=1 to see where, and please report it",
            70,
        )


def _call() -> None:
    """The command, and what it has printed handed on, so that a full disk is seen."""
    try:
        app(prog_name="valence")
    except SystemExit as ended:
        if not ended.code:
            sys.stdout.flush()
        raise


def _fail(message: str, code: int) -> None:
    prints, code = process_group.first_failure(code)
    if prints:
        stream = sys.stderr if process_group.is_main_process() else sys.__stderr__
        cast(TextIO, stream).write(visible(message.replace("\n", " ")) + "\n")
    try:
        sys.stdout.flush()
    except (RunError, OSError):  # that is the failure, or no news beside it
        give_up_stdout()
    raise SystemExit(code)
