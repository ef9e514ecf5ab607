"""A process of a pool: specs come in as lines, news go out as lines, until the input ends."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any


def main() -> None:
    """Run what comes in; when the pool is gone, so is this."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between the news
    inbox: SimpleQueue[dict[str, Any]] = SimpleQueue()
    Thread(target=_read, args=(inbox,), daemon=True).start()
    from valence.comparison.executors.base import RunEvent
    from valence.comparison.executors.cells import CellRunner
    from valence.comparison.executors.process_pool import write_event
    from valence.methods.registry import parse_spec

    def tell(news: RunEvent) -> None:
        out.write(write_event(news))
        out.flush()

    about = inbox.get()
    runner = CellRunner(Path(about["root"]), about["data_dir"])
    while True:
        runner.run(parse_spec(json.loads(inbox.get()["spec"])), tell)


def _read(inbox: SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    os._exit(0)  # in the middle of a cell too: nobody would hear of it


if __name__ == "__main__":
    main()
