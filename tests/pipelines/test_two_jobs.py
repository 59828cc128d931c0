"""Two jobs on one new lake at the same time, each a process of its own; tests/faults has more pairs,
and more rounds of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.test_kill import contents, finish
from tests.faults.test_two_jobs import assert_keys, both, vcf


@pytest.mark.timeout(600)
def test_two_chromosomes_into_one_new_cohort(tmp_path: Path) -> None:
    commands = [vcf(tmp_path, "1"), vcf(tmp_path, "2")]
    lake = tmp_path / "lake"
    assert [(code, report["rows"]["variants"]["written"]) for code, report in both(lake, *commands)] == [
        (0, 49),
        (0, 49),
    ]
    assert_keys(lake)
    found = contents(lake)
    assert {name: len(rows) for name, rows in found.items()} == {
        "quarantine": 2,
        "sample_sets": 2,
        "samples": 2,
        "sources": 2,
        "variants": 98,
    }
    assert [finish(argv, lake)["status"] for argv in commands[:1]] == ["unchanged"]
