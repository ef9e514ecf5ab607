"""The executors by name."""

from __future__ import annotations

from collections.abc import Callable

from valence.comparison.executors.base import Executor
from valence.distributed.ray_cluster import Cluster
from valence.errors import UnknownNameError


def _local(cluster: Cluster) -> Executor:
    from valence.comparison.executors.process_pool import InProcess, ProcessPool

    workers = cluster.workers or 1
    return ProcessPool(workers) if workers > 1 else InProcess()


def _ray(cluster: Cluster) -> Executor:
    from valence.comparison.executors.ray import RayTasks

    return RayTasks(cluster)


EXECUTORS: dict[str, Callable[[Cluster], Executor]] = {"local": _local, "ray": _ray}


def make_executor(name: str, cluster: Cluster | None = None) -> Executor:
    """The executor of a name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in EXECUTORS:
        raise UnknownNameError("executor", name, EXECUTORS)
    return EXECUTORS[name](cluster or Cluster())
