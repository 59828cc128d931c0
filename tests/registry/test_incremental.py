"""Rows brought up to date: other runs that come first, and the numbers that say how far a cohort is done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from genodl_spark.core.errors import Conflict
from genodl_spark.job.run import fingerprint
from genodl_spark.lake.tables.ingested import FEATURES, SEQUENCES
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.registry.incremental import Marks, attempted

MODEL: Any = SimpleNamespace(row=SimpleNamespace(model_id="m1"), features=SimpleNamespace(tables=(SEQUENCES, FEATURES)))


@pytest.mark.parametrize("lost", [0, 2, 3])
def test_another_run_comes_first(lost: int) -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        if len(tries) <= lost:
            raise Conflict("the other one was first")

    if lost < 3:
        attempted(PREDICTIONS, MODEL, work)
        assert len(tries) == lost + 1
        return
    expected = "found another run that keeps changing the predictions of model m1; expected one at a time, run it again"
    with pytest.raises(Conflict, match=f"^{expected}$"):
        attempted(PREDICTIONS, MODEL, work)
    assert len(tries) == 3


def test_another_error_is_no_race() -> None:
    with pytest.raises(ZeroDivisionError):
        attempted(PREDICTIONS, MODEL, lambda: 1 // 0)


def test_numbers_are_read_by_what_they_say() -> None:
    where = {"task": "t", "cohort": "c", "model_id": "m1"}
    marks = Marks.of(PREDICTIONS, "scored", where, MODEL)
    of = f"scored {fingerprint(where)}"
    assert list(marks.names) == [f"{of} sequences", f"{of} features", f"{of} settings"]
    lake = SimpleNamespace(marked=lambda table, names: {f"{of} settings": 7, f"{of} sequences": 3})
    run: Any = SimpleNamespace(lake=lake)
    assert marks.read(run) == {"settings": 7, "sequences": 3}
