"""Serve a labeling session on an address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from valence.labeling.app import make_app
from valence.labeling.session import LabelingSession
from valence.serving.server import bind, run_one
from valence.serving.settings import ServeSettings


def serve_session(
    session: LabelingSession, host: str, port: int, started: Callable[[str, int], None]
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        session: Is started, and closed at the end.
        host: Address to listen at.
        port: 0 takes a free one.
        started: Called with the address once requests are taken.

    Raises:
        RunError: if the address cannot be listened at.
    """
    settings = ServeSettings(Path(session.store.path), host=host, port=port, reload_seconds=0.0)
    with bind(host, port) as listening:
        guard = make_app(session, settings)
        session.start()
        try:
            started(*listening.getsockname()[:2])
            run_one(settings, guard, listening)
        finally:
            session.close()
