from __future__ import annotations

from collections.abc import Iterator

import pytest

from valence.distributed.ray_cluster import Cluster


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    """A local Ray of two cores that the tests of a file share."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'valence[ray]'")
    from valence.distributed.ray_cluster import connected

    cluster = Cluster(workers=2)
    with connected(cluster):
        yield cluster
