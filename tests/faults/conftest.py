"""What the fault tests did and what came out, as a table: build/faults.md, a row for each test, of its latest run.

A test says it by `record_property("done", ...)` and `record_property("came out", ...)`.
"""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import pytest

from tests.cluster.harness import ROOT

_PAGE = ROOT / "build" / "faults.md"
_HERE = Path(__file__).parent.relative_to(ROOT).as_posix()
_HEAD = ["| test | what was done | what came out | s | day |", "|---|---|---|---|---|"]
_rows: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not report.nodeid.startswith(f"{_HERE}/") or (report.when != "call" and report.passed):
        return
    name = report.nodeid[len(_HERE) + 1 :]
    told = dict(report.user_properties)
    if report.skipped:
        came_out = f"not run: {report.longrepr[2] if isinstance(report.longrepr, tuple) else 'skipped'}"
    else:
        came_out = str(told.get("came out", "as it should")) if report.passed else "**failed**"
    done = str(told.get("done", re.sub(r"^.*::test_", "", name).replace("_", " ")))
    cells = [f"`{name}`", done, came_out, f"{report.duration:.0f}", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"]
    _rows[cells[0]] = f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def pytest_sessionfinish() -> None:
    """Rows of tests that were not run this time stay as they are."""
    if not _rows:
        return
    earlier = _PAGE.read_text().splitlines() if _PAGE.exists() else []
    kept = {line.split(" | ")[0][2:]: line for line in earlier if line.startswith("| `")}
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), os.uname().machine)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores of {processor}, {memory:.0f} GiB of memory, Linux {os.uname().release}"
    table = [*_HEAD, *(row for _, row in sorted({**kept, **_rows}.items()))]
    _PAGE.parent.mkdir(exist_ok=True)
    _PAGE.write_text("\n".join([f"`make test-faults` on {machine}.", "", *table, ""]))
