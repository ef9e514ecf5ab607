"""``valence serve``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.options import ModelFolder, ModelHardware, OptionGroup, Quiet, with_groups
from valence.errors import RunError

if TYPE_CHECKING:
    from valence.serving.connections import ConnectionLimits
    from valence.serving.settings import Limits, ServeSettings

RELOAD_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class AddressOptions(OptionGroup):
    """Address, processes and keys."""

    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8080
    workers: Annotated[
        int, typer.Option(min=1, help="Worker processes, each with its own copy of the model.")
    ] = 1
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Host name to accept: x.org, *.x.org. Repeatable."),
    ] = None
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with API keys, one per line; or set VALENCE_API_KEY.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class LimitOptions(OptionGroup):
    """Bounds of requests."""

    panel = "Limits"
    queue: Annotated[int, typer.Option(min=1, help="Maximum queued texts per process.")] = 1024
    max_wait: Annotated[
        float,
        typer.Option(
            min=0.01, help="Maximum seconds of queued work; above it the server answers 429."
        ),
    ] = 5.0
    batch: Annotated[int, typer.Option(min=1, help="Maximum batch size.")] = 64
    max_texts: Annotated[int, typer.Option(min=1, help="Maximum texts per request.")] = 256
    max_chars: Annotated[int, typer.Option(min=1, help="Longest text.")] = 20_000
    max_body: Annotated[int, typer.Option(min=1, help="Maximum request size in bytes.")] = 1_048_576
    timeout: Annotated[float, typer.Option(min=0.1, help="Maximum seconds per request.")] = 30.0
    max_connections: Annotated[
        int, typer.Option(min=1, help="Maximum connections per process.")
    ] = 1000
    header_timeout: Annotated[
        float, typer.Option(min=0.1, help="Maximum seconds to receive the headers.")
    ] = 10.0
    idle_timeout: Annotated[
        float, typer.Option(min=1, help="Maximum idle seconds of a connection.")
    ] = 30.0

    def connections(self) -> ConnectionLimits:
        """The bounds of connections."""
        from valence.serving.connections import ConnectionLimits

        return ConnectionLimits(self.max_connections, self.header_timeout, self.idle_timeout)

    def limits(self) -> Limits:
        """The same as the server takes them."""
        from valence.serving.settings import Limits

        return Limits(
            body_bytes=self.max_body, text_chars=self.max_chars,
            texts=min(self.max_texts, self.queue), queue_texts=self.queue,
            wait_seconds=self.max_wait, batch_texts=self.batch, timeout_seconds=self.timeout,
        )  # fmt: skip


@with_groups
def serve(
    model: ModelFolder,
    address: AddressOptions,
    bounds: LimitOptions,
    hardware: ModelHardware,
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Reload the model when its folder changes.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Serve a model over HTTP, with a web page at /.

    Ctrl-C or SIGTERM stops it after the accepted requests are answered.
    """
    requested = hardware.requested()
    try:
        from valence.serving.server import serve as run
        from valence.serving.settings import ServeSettings, read_keys
    except ImportError as error:
        missing = error.name or "a library"
        raise RunError(
            f"valence serve needs {missing}; install it: pip install 'valence[serve]'"
        ) from None
    settings = ServeSettings(
        folder=model, host=address.host, port=address.port, workers=address.workers,
        keys=read_keys(address.api_key_file), limits=bounds.limits(),
        connections=bounds.connections(), allowed_hosts=tuple(address.allowed_host or ()),
        hardware=requested, reload_seconds=RELOAD_SECONDS if reload else 0.0,
    )  # fmt: skip
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    run(settings, _started(settings, quiet=quiet))
    if not quiet:
        console.info("Stopped")


def _started(settings: ServeSettings, *, quiet: bool) -> Callable[[str, int], None]:
    def started(address: str, listening: int) -> None:
        shown = f"[{address}]" if ":" in address else address
        if settings.is_open:
            console.info(
                "Warning: anyone who can reach this address can use the model; see --api-key-file"
            )
        if not quiet:
            console.info(
                f"Serving {settings.folder} at http://{shown}:{listening}/  (Ctrl-C stops)"
            )

    return started
