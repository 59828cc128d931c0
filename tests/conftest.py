"""The wheel that jobs are sent to a cluster with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster.harness import ROOT


@pytest.fixture(scope="session")
def wheel() -> Path:
    built = subprocess.run(["bash", "docker/wheel.sh"], cwd=ROOT, check=True, capture_output=True, text=True)
    return ROOT / built.stdout.strip().splitlines()[-1]
