"""One cluster for all cluster tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, cluster


@pytest.fixture(scope="session")
def two_workers(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Iterator[Cluster]:
    """A master and two workers of one core each: two ranks or tasks at once run on different workers."""
    with cluster(tmp_path_factory.mktemp("cluster"), wheel) as running:
        yield running
