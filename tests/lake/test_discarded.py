"""Files of a run that failed: none is left, whenever a task that has not heard of it opens and ends one."""

from __future__ import annotations

import pyarrow as pa
import pytest

from genodl_spark.core import session, storage
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.parts import PartWriter
from genodl_spark.lake.tables.ingested import SEQUENCES

NAME, OTHER = "0123456789ab", "f" * 12
ENDED = "is for has ended"


def rows(cohort: str) -> pa.RecordBatch:
    row = {"cohort": cohort, "sequence_id": "s", "codes": b"\0\1", "length": 2, "file": "f", "line": 1}
    return pa.RecordBatch.from_pylist([row], schema=SEQUENCES.arrow_schema())


def writer(lake: Lake, task: int = 0, name: str = NAME, far: bool = False) -> PartWriter:
    made = PartWriter(SEQUENCES, lake.path(SEQUENCES), f"{name}-{task:05d}")
    made._far = far
    return made


def there(lake: Lake) -> set[str]:
    return {uri for uri in storage.files_under(lake.path(SEQUENCES)) if "/_delta_log/" not in uri}


@pytest.mark.parametrize("far", [False, True], ids=["disk", "store"])
def test_no_file_is_left(lake: Lake, far: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`far`: a task looks for the mark once it has closed a file, as where one that is open cannot be seen."""
    lake.create(SEQUENCES)
    committed, ended, under_way, late = (writer(lake, task, far=far) for task in range(4))
    other = writer(lake, name=OTHER)
    for one in (committed, ended, under_way, other):
        one.write(rows("a"))
    lake.commit(SEQUENCES, committed.close(), {"cohort": "a"})
    ended.close()
    stay = {uri for uri in there(lake) if OTHER in uri} | {f.uri for f in lake.files(SEQUENCES, 1)}
    assert (len(there(lake)), len(stay)) == (4, 2)

    def a_task_goes_on(spark: object) -> None:
        if far:
            late.write(rows("b"))
        else:
            with pytest.raises(RuntimeError, match=ENDED):
                late.write(rows("b"))

    monkeypatch.setattr(session, "await_tasks", a_task_goes_on)
    discard(lake, "r", [SEQUENCES], NAME)
    if far:
        for one in (under_way, late):
            with pytest.raises(RuntimeError, match=ENDED):
                one.close()
    else:
        under_way.close()
    other.close()
    assert there(lake) == stay


def test_a_table_that_was_not_made_leaves_no_folder(lake: Lake) -> None:
    writer(lake).write(rows("a"))
    discard(lake, "r", [SEQUENCES], NAME, [SEQUENCES])
    assert storage.kind(lake.path(SEQUENCES)) == "absent" and not there(lake)


def test_no_mark_is_left_where_all_tasks_have_ended(lake: Lake) -> None:
    lake.create(SEQUENCES)
    ended = writer(lake)
    ended.write(rows("a"))
    ended.close()
    discard(lake, "r", [SEQUENCES], NAME, over=True)
    assert not there(lake) and not storage.files_under(storage.join(lake.uri, "_staging"))
