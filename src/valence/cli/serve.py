"""``valence serve``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from valence.cli import console
from valence.cli.compare import Quiet
from valence.errors import RunError


def serve(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with a model.")] = 1,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Keys that may ask, one per line; or VALENCE_API_KEY.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Texts that may wait, per process.")] = 1024,
    max_wait: Annotated[
        float, typer.Option(min=0.01, help="Seconds that the queue may take; beyond it 429.")
    ] = 5.0,
    batch: Annotated[int, typer.Option(min=1, help="Texts scored together.")] = 64,
    max_texts: Annotated[int, typer.Option(min=1, help="Most texts of a request.")] = 256,
    max_chars: Annotated[int, typer.Option(min=1, help="Longest text.")] = 20_000,
    max_body: Annotated[int, typer.Option(min=1, help="Largest body in bytes.")] = 1_048_576,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to an answer.")] = 30.0,
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Load the model anew when it changes.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Answer over HTTP, with a page at /: labels, explanations, scored files.

    Stops on Ctrl-C or SIGTERM when what it has accepted is answered.
    """
    try:
        from valence.serving.server import serve as run
        from valence.serving.settings import Limits, ServeSettings, read_keys
    except ImportError as error:
        missing = error.name or "a library"
        raise RunError(
            f"valence serve needs {missing}; install it: pip install 'valence[serve]'"
        ) from None
    limits = Limits(
        body_bytes=max_body, text_chars=max_chars, texts=min(max_texts, queue),
        queue_texts=queue, wait_seconds=max_wait, batch_texts=batch, timeout_seconds=timeout,
    )  # fmt: skip
    settings = ServeSettings(
        folder=model, host=host, port=port, workers=workers, keys=read_keys(api_key_file),
        limits=limits, reload_seconds=2.0 if reload else 0.0,
    )  # fmt: skip
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    def started(address: str, listening: int) -> None:
        shown = f"[{address}]" if ":" in address else address
        if settings.is_open:
            console.info("Warning: anybody who reaches this address may ask; see --api-key-file")
        if not quiet:
            console.info(f"Serving {model} at http://{shown}:{listening}/  (Ctrl-C stops)")

    run(settings, started)
    if not quiet:
        console.info("Stopped")
