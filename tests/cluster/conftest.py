"""One cluster for all cluster tests, and the wheel that jobs are sent with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import ROOT, Cluster, cluster


@pytest.fixture(scope="session")
def wheel() -> Path:
    built = subprocess.run(["bash", "docker/wheel.sh"], cwd=ROOT, check=True, capture_output=True, text=True)
    return ROOT / built.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def two_workers(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Iterator[Cluster]:
    """A master and two workers of one core each: two ranks or tasks at once run on different workers."""
    with cluster(tmp_path_factory.mktemp("cluster"), wheel) as running:
        yield running
