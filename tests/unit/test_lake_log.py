"""Which files a change of rows concerns, by their statistics alone."""

from __future__ import annotations

from typing import Any

import pytest

from genodl_spark.lake import StoredFile, _holding, _same
from genodl_spark.tables import QC_STEPS, VARIANT_QC


def stored(name: str, cohort: str = "c", **statistics: Any) -> StoredFile:
    return StoredFile(f"/t/{name}", name, {"cohort": cohort}, 1, statistics)


def steps(low: str, high: str, nulls: int | None = 0) -> dict[str, Any]:
    found = {"minValues": {"cohort": "c", "step": low}, "maxValues": {"cohort": "c", "step": high}}
    return found | ({} if nulls is None else {"nullCount": {"cohort": 0, "step": nulls}})


@pytest.mark.parametrize(
    ("statistics", "held", "mixed"),
    [
        (steps("samples", "samples"), True, False),
        (steps("pruning", "samples"), False, True),
        (steps("components", "pruning"), False, False),
        (steps("samples", "samples", 1), False, True),  # a row without a step stands there too
        (steps("samples", "samples", None), False, True),
        ({}, False, True),
    ],
)
def test_a_file_is_held_whole_only_if_its_statistics_say_so(statistics: dict[str, Any], held: bool, mixed: bool) -> None:
    file = stored("f", **statistics)
    assert _holding(QC_STEPS, [file], {"cohort": "c", "step": "samples"}) == ([file] if held else [], [file] if mixed else [])


def test_a_partition_needs_no_statistics() -> None:
    mine, other = stored("a"), stored("b", "d")
    assert _holding(VARIANT_QC, [mine, other], {"cohort": "c"}) == ([mine], [])
    assert _holding(VARIANT_QC, [mine, other], {"cohort": ["c", "d"]}) == ([mine, other], [])
    assert _holding(VARIANT_QC, [mine, other], {}) == ([mine, other], [])


def test_whether_a_column_is_filled() -> None:
    assert stored("f", numRecords=3, nullCount={"gt": 2}).filled("gt") is True
    assert stored("f", numRecords=3, nullCount={"gt": 3}).filled("gt") is False
    assert stored("f", numRecords=3).filled("gt") is None


def test_rows_are_the_same_but_for_time_stamps_and_the_order_of_maps() -> None:
    row = {"a": 1, "metrics": [("x", 1.0), ("y", float("nan"))], "list": ["p", "q"], "made_at": 1}
    assert _same(row, {**row, "metrics": [("y", float("nan")), ("x", 1.0)], "made_at": 2})
    assert not _same(row, {**row, "list": ["q", "p"]})
    assert not _same(row, {**row, "metrics": [("x", 1.0), ("y", 0.0)]})
    assert not _same(row, {**row, "a": None})
