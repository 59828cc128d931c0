"""What is told of a full disk, wherever it was met."""

from __future__ import annotations

import errno
import pickle
import platform
import sqlite3

import pytest

from genodl_spark.core.errors import Conflict, InputError, Outage, input_error_within, outage_within

HERE = platform.node()
TASK = (
    "Job aborted due to stage failure: Task 1 in stage 3.0 failed 4 times, most recent failure: Lost task 1.3 in stage "
    "3.0 (TID 12) (10.0.0.7 executor 2): "
)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x.bin"), f"{HERE} for /tmp/x.bin;"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), f"{HERE};"),
        (OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"), f"{HERE};"),
        (RuntimeError(f"{TASK}java.io.IOException: No space left on device\n\tat java.base/x"), "10.0.0.7;"),
        (
            RuntimeError(f"{TASK}Traceback\nOSError: [Errno 28] No space left on device: '/scratch/a b'\n\n\tat x"),
            "10.0.0.7 for /scratch/a b;",
        ),
        (sqlite3.OperationalError("database or disk is full"), f"{HERE};"),
    ],
)
def test_a_full_disk_is_one_line(error: Exception, found: str) -> None:
    told = outage_within(error)
    advice = "expected some, make room and run the same command again"
    assert str(told) == f"found no space left on a disk of {found} {advice}"
    assert str(pickle.loads(pickle.dumps(told))) == str(told) and input_error_within(error) is None


def test_what_led_to_an_error_counts() -> None:
    failed = RuntimeError("a rank failed")
    failed.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/a")
    assert " for /a;" in str(outage_within(failed))
    assert outage_within(Outage("found no master")).args == ("found no master",)


def test_other_errors_are_none() -> None:
    for error in (OSError(errno.EIO, "Input/output error"), InputError("found no space"), Conflict("x"), ValueError()):
        assert outage_within(error) is None
