"""The cron form: the line of docs/operations.md in a shell that has nothing in its environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cluster.harness import ROOT
from tests.schedule.harness import send
from tests.schedule.nights import NEW, chain, files, files_of, small

pytestmark = pytest.mark.timeout(600)
_LINE = re.compile(r"^0 2 \* \* \*  (.*)$", re.MULTILINE)


def line(folder: Path) -> list[str]:
    """What cron starts, as documented, with our installation, and chain and log of a folder."""
    (text,) = _LINE.findall((ROOT / "docs" / "operations.md").read_text())
    for theirs, ours in {
        "/srv/genodl/.venv": f"{ROOT}/.venv",
        "/srv/genodl/nightly.toml": f"'{folder}/nightly.toml'",
        "/var/log/genodl.log": f"'{folder}/genodl.log'",
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    return ["/usr/bin/env", "-i", "/bin/sh", "-c", text]


def test_the_documented_line(place: Path, trained: Callable[[str], Path], tmp_path: Path) -> None:
    """A night; a second one beside it, which finds it under way; the same night again; no chain."""
    lake = trained("of cron")
    for day in (datetime.now(UTC) - timedelta(days=1), datetime.now(UTC)):  # should midnight pass
        files_of(tmp_path, day.date().isoformat(), 7)
    own = ["--set", "lock.wait_seconds=1", *small(place)]
    new = ["ingest", "vcf", f"{tmp_path}/incoming/{{date}}", "--cohort", "mine", "--may-be-empty"]
    steps = [[*new, *own], ["predict", "ancestry", "--cohort", "mine", *own]]
    chain(tmp_path / "nightly.toml", lake, steps)
    night = subprocess.Popen(line(tmp_path), start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not [*(lake / "_locks").glob("*/holding-*.json")]:
            assert night.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        send(night.pid, signal.SIGSTOP)
        assert subprocess.run(line(tmp_path)).returncode == 4
        said = (tmp_path / "genodl.log").read_text().splitlines()[-1]
        named = re.match(r"genodl: error: ingest: found genodl ingest on \S+, process (\d+), since ", said)
        assert named and os.getpgid(int(named[1])) == night.pid
        send(night.pid, signal.SIGCONT)
        assert night.wait(timeout=300) == 0
    finally:
        send(night.pid, signal.SIGKILL)
    report = json.loads((tmp_path / "genodl.log").read_text().splitlines()[-1])
    assert report["job"] == "nightly" and report["metrics"]["steps"][1]["rows"]["predictions"]["written"] == 40 + NEW

    before = files(lake)
    assert subprocess.run(line(tmp_path)).returncode == 0
    report = json.loads((tmp_path / "genodl.log").read_text().splitlines()[-1])
    assert report["status"] == "unchanged" and files(lake) == before
    shutil.move(tmp_path / "nightly.toml", tmp_path / "moved.toml")
    assert subprocess.run(line(tmp_path)).returncode == 2
    assert (tmp_path / "genodl.log").read_text().splitlines()[-1].endswith("a TOML as conf/airflow/nightly.toml is one")
