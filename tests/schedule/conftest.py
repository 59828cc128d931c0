"""Files of three days, and a lake with people whose population is known and a model of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.schedule import nights


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of three days; `chains` is empty."""
    folder = tmp_path_factory.mktemp("schedule")
    for number, day in enumerate(nights.DAYS):
        nights.files_of(folder, day, number)
    (folder / "chains").mkdir()
    return folder


@pytest.fixture(scope="session")
def trained(place: Path) -> Callable[[str], Path]:
    """Makes a lake of a name in that folder."""
    made: list[Path] = []

    def lake(name: str) -> Path:
        if not made:
            steps = [["ingest", *nights.first_files(place)], ["train", "ancestry", "--procs", "1"]]
            steps = [[*step, *nights.small(place)] for step in steps]
            first = nights.chain(place / "first.toml", place / "first", steps)
            done = subprocess.run([nights.GENODL, "nightly", str(first)], capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
            assert [step["status"] for step in json.loads(done.stdout)["metrics"]["steps"]] == ["done", "done"]
            made.append(place / "first")
        shutil.copytree(made[0], place / name)
        return place / name

    return lake
