"""What every executor does with a cell, and in which order cells may be run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from valence.comparison.executors.base import Emit, RunEvent, Sizes
from valence.config.spec import RunSpec
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.llm.resident import keep_language_model, release_language_model
from valence.methods.fit import resolve_encoder
from valence.methods.registry import trained_part
from valence.runs.runner import log_finished, run
from valence.runs.store import RunStore


class CellRunner:
    """Runs cells one after another; the rows of the last data set are kept at hand.

    Args:
        root: Folder for finished runs.
        data_dir: Folder of corpora.
        track: The tool that runs are logged to.
    """

    def __init__(self, root: Path, data_dir: str | Path | None, track: str | None = None) -> None:
        self.track = track
        self.store = RunStore(root)
        self.data_dir = data_dir
        self.datasets: dict[str, Dataset] = {}
        self.models = ExitStack()
        self.models.enter_context(keep_language_model())

    def close(self) -> None:
        """Let go of a language model that was kept for the next cell."""
        self.models.close()

    def run(self, spec: RunSpec, emit: Emit) -> None:
        """Run a cell unless its run folder is there; an error is emitted and not raised."""
        release_language_model(unless=spec.get("llm.model"))
        emit(self._final(spec, emit))

    def _final(self, spec: RunSpec, emit: Emit) -> RunEvent:
        key = ""
        try:
            spec, dataset = resolve_encoder(spec, self._dataset(spec))
            key = self.store.key(spec, dataset)
            done = self.store.get(key)
            if done is not None:
                log_finished(self.track, self.store, done)
                return RunEvent("cached", key=key)
            sizes = Sizes(len(dataset.train), len(dataset.validation), len(dataset.test))
            emit(RunEvent("started", 0.0, "starting", sizes))
            clock = time.perf_counter()
            result = run(
                spec, store=self.store, dataset=dataset, track=self.track,
                progress=lambda share, message: emit(RunEvent("progress", share, message)),
            )  # fmt: skip
            message = f"done, test {headline(result.test)}"
            return RunEvent("done", 1.0, message, sizes, result.key, time.perf_counter() - clock)
        except Exception as error:  # whatever breaks one cell, the others still run
            self.store.record_failure(key or f"{spec.method}-s{spec.seed}", error)
            return RunEvent(
                "failed", message=str(error).splitlines()[0] if str(error) else repr(error)
            )

    def _dataset(self, spec: RunSpec) -> Dataset:
        seed = spec.data.cut_seed if spec.data.cut_seed is not None else spec.seed
        name = f"{spec.data.model_dump_json()}/{seed}"
        if name not in self.datasets:
            self.datasets.clear()  # cells of one data set and seed stand together in the plan
            self.datasets[name] = load_dataset(spec.data, seed=spec.seed, data_dir=self.data_dir)
        return self.datasets[name]


class DependencyQueue:
    """Cells that may be run at the same time.

    Cells that rest on one training (a correction of its logits, and the training itself) come
    one after another, or two workers would do that training and write its folder.
    """

    def __init__(self, specs: Sequence[RunSpec]) -> None:
        chains: dict[str, list[int]] = {}
        for number, spec in enumerate(specs):
            chains.setdefault(trained_part(spec).digest(), []).append(number)
        self.width = len(chains)
        self.ready = deque(chain[0] for chain in chains.values())
        self.behind = {
            chain[i]: chain[i + 1] for chain in chains.values() for i in range(len(chain) - 1)
        }

    def take(self) -> int | None:
        """A cell to run now, or None where all wait or are at work."""
        return self.ready.popleft() if self.ready else None

    def finished(self, number: int) -> None:
        """Let the cell that waits for this one come next."""
        if number in self.behind:
            self.ready.appendleft(self.behind[number])


def headline(test: Mapping[str, float | None]) -> str:
    """The score shown of a finished cell."""
    name, title = ("mae", "MAE") if "mae" in test else ("macro_f1", "macro-F1")
    value = test.get(name)
    return f"{title} {value:.3f}" if value is not None else f"{title} –"
