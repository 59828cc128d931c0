"""Files that tasks wrote and no transaction will have: away with them, also with those that are still being written.

A task whose job has failed is over for Spark before its Python hears of it, which reads, opens and closes files until
it next writes to Spark. So whoever discards the files of a run leaves a mark before it lists them, and a task looks for
the mark as soon as a listing would show its file: on a disk once it is open, on S3 once it is closed. Either the
listing has the file, or the task finds the mark. `genodl maintain` clears marks away with what else is left below
`_staging`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genodl_spark.core import session, storage
from genodl_spark.lake import locks
from genodl_spark.lake.parts import mark
from genodl_spark.lake.schema import Table

if TYPE_CHECKING:
    from genodl_spark.lake.delta import Lake


def discard(
    lake: Lake, run_id: str, tables: Sequence[Table], name: str, new: Sequence[Table] = (), over: bool = False
) -> None:
    """Removes what the tasks of run `run_id`, which failed, wrote to `tables`, files named after `name`, as far as it
    can be reached: none that a version holds. And the folders of tables `new` that it did not get to make, where no
    other run writes. `over`: every task has ended, so that none needs a mark."""
    with contextlib.suppress(Exception):
        _remove(lake, run_id, tables, name, new)  # on a full disk that makes room for the mark
        if over:
            return
        with contextlib.suppress(OSError):
            storage.write_bytes(mark(lake.path(tables[0]), name), b"")
        session.await_tasks(lake.spark)
        _remove(lake, run_id, tables, name, new)


def _remove(lake: Lake, run_id: str, tables: Sequence[Table], name: str, new: Sequence[Table]) -> None:
    alone = locks.oldest(lake.uri, run_id) is None
    for table in tables:
        version = lake.version(table)
        if table in new and version is None and alone:
            storage.remove_directory(lake.path(table))
            continue
        held = {file.uri for file in lake.files(table, version)} if version is not None else set()
        for uri in storage.files_under(lake.path(table)):
            if f"/part-{name}-" in uri and uri not in held:
                with contextlib.suppress(FileNotFoundError):  # its task has found the mark
                    storage.remove_file(uri)
