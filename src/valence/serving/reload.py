"""The model that answers now, exchanged whole when its folder changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from valence.distributed.device import Hardware
from valence.errors import ValenceError
from valence.inference.predictor import Predictor
from valence.serving.refusals import LOG

Signature = tuple[tuple[str, int, int, int], ...]
NOT_THE_MODEL = ("report", "README.md")
WARM_TEXT = "warm"


class LiveModel:
    """A model folder and the predictor made of it.

    A new model is loaded and tested beside the old one, which answers until the new one is
    ready; one that cannot be loaded is logged once and the old one stays.

    Args:
        folder: The model folder.
        callback: Called with ``"loaded"`` or ``"failed"`` after every reload.
        hardware: How the model is run.

    Raises:
        ModelError: if the folder holds no model that can be loaded.
    """

    def __init__(
        self,
        folder: Path,
        callback: Callable[[str], Any] | None = None,
        *,
        hardware: Hardware | None = None,
    ) -> None:
        self.folder, self.callback, self.hardware = folder, callback, hardware
        self.loaded = signature(folder)
        self.predictor = load_warm(folder, hardware)
        self.reloads = 0
        self._refused: Signature | None = None

    def current(self) -> Predictor:
        """The predictor that answers now; a reference changes hands in one step."""
        return self.predictor

    async def watch(self, seconds: float) -> None:
        """Look at the folder every ``seconds`` for ever; reload it when it has changed.

        A change counts when the next look finds it the same, so that a folder is not read
        while it is written.
        """
        before = self.loaded
        while True:
            await asyncio.sleep(seconds)
            now = signature(self.folder)
            if now == before and now and now not in (self.loaded, self._refused):
                await self._reload(now)
            before = now

    async def _reload(self, now: Signature) -> None:
        try:
            predictor = await asyncio.to_thread(load_warm, self.folder, self.hardware)
        except Exception as error:
            self._refused = now
            reason = str(error) if isinstance(error, ValenceError) else type(error).__name__
            LOG.warning("The changed model could not be loaded, so the old one stays: %s", reason)
            self._notify("failed")
            return
        self.predictor, self.loaded = predictor, now
        self.reloads += 1
        LOG.warning("Reloaded %s: %d classes", self.folder, len(predictor.classes))
        self._notify("loaded")

    def _notify(self, outcome: str) -> None:
        if self.callback is not None:
            self.callback(outcome)


def load_warm(folder: Path, hardware: Hardware | None = None) -> Predictor:
    """A predictor that has answered once, so that it is ready for the first request."""
    predictor = Predictor(folder, hardware=hardware)
    predictor.columns([WARM_TEXT])
    return predictor


def signature(folder: Path) -> Signature:
    """Names, sizes, times and inodes of the model's files; empty where there is no config."""
    entries = []
    for place, folders, files in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in NOT_THE_MODEL]
            files = [name for name in files if name not in NOT_THE_MODEL]
            if "config.json" not in files:
                return ()
        for name in files:
            try:
                seen = os.stat(os.path.join(place, name))
            except OSError:  # it went between the listing and the look
                return ()
            path = os.path.relpath(os.path.join(place, name), folder)
            entries.append((path, seen.st_size, seen.st_mtime_ns, seen.st_ino))
    return tuple(sorted(entries))
