"""Who scores the files of a folder: this process, or the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from valence.distributed.ray_cluster import Cluster, connected, quietly, use_threads
from valence.errors import RunError, UnknownNameError
from valence.inference.bulk.folder import Done, Engine, FileDone, FileScorer, FolderJob
from valence.models.base import Progress


@dataclass(frozen=True)
class LocalEngine:
    """One file after another, here."""

    def score(self, job: FolderJob, files: Sequence[Path], done: Done, progress: Progress) -> None:
        """As :class:`valence.inference.bulk.folder.Engine`."""
        scorer = FileScorer(job)
        for path in files:
            done(scorer.score(path, progress))


@dataclass(frozen=True)
class RayEngine:
    """Ray Data hands the files to actors that hold the model.

    A file whose actor was lost goes to another one, which goes on behind the last part that
    is whole. What goes through Ray are names and counts; rows are read where they are scored,
    so the files and the folder must be seen by all machines under the same path.

    Attributes:
        cluster: Which, and the resources of an actor.
    """

    cluster: Cluster

    def score(self, job: FolderJob, files: Sequence[Path], done: Done, progress: Progress) -> None:
        """As :class:`valence.inference.bulk.folder.Engine`.

        Raises:
            RunError: if there is no Ray, no cluster or no room for an actor, or Ray gives up.
        """
        with connected(self.cluster) as ray:
            actors = min(self.cluster.room(ray), len(files))
            try:
                with quietly():
                    for row in self._rows(job, files, actors):
                        fields = {name: _plain(value) for name, value in row.items()}
                        done(FileDone(**fields))
            except ray.exceptions.RayError as error:
                reason = (str(error).strip().splitlines() or [repr(error)])[-1]
                raise RunError(
                    f"Ray failed ({type(error).__name__}: {reason}); finished rows are saved, "
                    "continue with --resume"
                ) from None

    def _rows(self, job: FolderJob, files: Sequence[Path], actors: int) -> Any:
        import ray.data

        pool = ray.data.ActorPoolStrategy(
            size=actors,
            max_tasks_in_flight_per_actor=1,  # a file waits for whoever is free first
        )
        named = [{"name": str(path)} for path in files]
        return (
            ray.data.from_items(named, override_num_blocks=len(named))
            .map_batches(
                RayFileScorer, fn_constructor_args=[job, self.cluster.threads], batch_size=1,
                compute=pool, num_cpus=self.cluster.cpus, num_gpus=self.cluster.gpus,
            )
            .iter_rows()
        )  # fmt: skip


class RayFileScorer:
    """A :class:`FileScorer` as Ray Data calls it: columns in, columns out."""

    def __init__(self, job: FolderJob, threads: int) -> None:
        use_threads(threads)
        self.scorer = FileScorer(job)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Score the files of a batch."""
        records = [asdict(self.scorer.score(Path(str(name)))) for name in batch["name"]]
        return {name: [file[name] for file in records] for name in records[0]}


def _local(_: Cluster) -> Engine:
    return LocalEngine()


ENGINES: dict[str, Callable[[Cluster], Engine]] = {"local": _local, "ray": RayEngine}


def make_engine(name: str, cluster: Cluster | None = None) -> Engine:
    """The engine of a name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name](cluster or Cluster())


def _plain(value: Any) -> Any:
    with suppress(AttributeError):
        return value.item()  # numpy's numbers
    return value
