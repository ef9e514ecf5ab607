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

    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with a model.")] = 1
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name it is asked by, as in a proxy's Host: x.org, *.x.org. Repeatable."
        ),
    ] = None
    api_key_file: Annotated[
        Path | None, typer.Option(help="Valid keys, one per line; or VALENCE_API_KEY.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class LimitOptions(OptionGroup):
    """Bounds of requests."""

    panel = "Limits"
    queue: Annotated[int, typer.Option(min=1, help="Texts that may wait, per process.")] = 1024
    max_wait: Annotated[
        float, typer.Option(min=0.01, help="Seconds that the queue may take; beyond it 429.")
    ] = 5.0
    batch: Annotated[int, typer.Option(min=1, help="Texts scored together.")] = 64
    max_texts: Annotated[int, typer.Option(min=1, help="Most texts of a request.")] = 256
    max_chars: Annotated[int, typer.Option(min=1, help="Longest text.")] = 20_000
    max_body: Annotated[int, typer.Option(min=1, help="Largest body in bytes.")] = 1_048_576
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to an answer.")] = 30.0
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections open at once, per process.")
    ] = 1000
    header_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to the end of a header.")
    ] = 10.0
    idle_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds without a request, or without reading.")
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
        bool, typer.Option("--reload/--no-reload", help="Load the model anew when it changes.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Answer over HTTP, with a page at /: labels or numbers, explanations, scored files.

    Stops on Ctrl-C or SIGTERM when what it has accepted is answered.
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
            console.info("Warning: anybody who reaches this address has access; see --api-key-file")
        if not quiet:
            console.info(
                f"Serving {settings.folder} at http://{shown}:{listening}/  (Ctrl-C stops)"
            )

    return started
