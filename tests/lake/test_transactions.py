"""Which errors say that another run came first, what is tried again, and the lock of a folder."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.lake import transactions
from genodl_spark.lake.transactions import LostRace, alone, first_came, require_safe_commits, retried


class Java:
    """An exception of the JVM, as py4j hands it over."""

    def __init__(self, name: str, message: str, cause: Java | None = None) -> None:
        self._name, self._message, self._cause = name, message, cause

    def getClass(self) -> Java:
        return self

    def getSimpleName(self) -> str:
        return self._name

    def getMessage(self) -> str:
        return self._message

    def getCause(self) -> Java | None:
        return self._cause


def raised(java: Java, attribute: str = "java_exception") -> Exception:
    error = RuntimeError("An error occurred while calling o1.commit")
    setattr(error, attribute, java)
    return error


class ConcurrentAppendException(Exception):
    """As delta-spark converts it, which keeps no exception of the JVM."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            raised(Java("ConcurrentDeleteReadException", "[DELTA] one file\nmore")),
            "ConcurrentDeleteReadException: [DELTA] one file",
        ),
        (
            raised(Java("SparkException", "job", Java("MetadataChangedException", "columns")), "_origin"),
            "MetadataChangedException: columns",
        ),
        (raised(Java("ProtocolChangedException", "")), "ProtocolChangedException"),
        (ConcurrentAppendException("files were added"), "ConcurrentAppendException: files were added"),
        (
            raised(Java("FileAlreadyExistsException", "/lake/t/_delta_log/00000000000000000001.json")),
            "FileAlreadyExistsException: ",
        ),
        (raised(Java("FileAlreadyExistsException", "/lake/_staging/x")), None),
        (raised(Java("SparkException", "ConcurrentAppendException")), None),
        (ValueError("Concurrent"), None),
    ],
)
def test_errors_of_a_lost_race(error: Exception, expected: str | None) -> None:
    found = first_came(error)
    assert found == expected or (found is not None and expected is not None and found.startswith(expected))


def test_only_a_lost_race_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "_LONGEST_WAIT", 0.0)
    outcomes: list[Exception | int] = [LostRace("a"), LostRace("b"), 3]

    def work() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert retried(work) == 3 and outcomes == []
    outcomes[:] = [Conflict("looked at an older version"), 3]
    with pytest.raises(Conflict, match="older version"):
        retried(work)
    assert outcomes == [3]
    outcomes[:] = [LostRace(str(i)) for i in range(20)]
    with pytest.raises(LostRace, match="11"):
        retried(work)
    assert len(outcomes) == 8


def test_one_commit_at_a_time_on_a_local_disk(tmp_path: Path) -> None:
    folder, order = tmp_path / "a lake, 100% odd", list[str]()
    folder.mkdir()

    def second() -> None:
        with alone(f"file://{folder}"):
            order.append("second")

    with alone(f"file://{folder}"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    with alone(f"file://{folder}/absent"), alone("s3a://bucket/lake"):
        pass


def test_a_lake_on_s3_needs_safe_commits() -> None:
    def session_with(log_store: str | None, there: bool) -> Any:
        def found(*_: Any) -> None:
            if not there:
                raise ValueError("java.lang.ClassNotFoundException")

        jvm: Any = SimpleNamespace(Utils=SimpleNamespace(classForName=found))
        for package in ("util", "spark", "apache", "org"):
            jvm = SimpleNamespace(**{package: jvm})
        context = SimpleNamespace(getConf=lambda: {"spark.delta.logStore.s3a.impl": log_store})
        return SimpleNamespace(sparkContext=context, _jvm=jvm)

    ours = "genodl.ConditionalPutLogStore"
    require_safe_commits(session_with(ours, True), "s3a://b/lake")
    require_safe_commits(session_with(None, False), "/lake")
    for other in (None, "io.delta.storage.S3SingleDriverLogStore"):
        with pytest.raises(InputError, match=r"does not commit to S3 by conditional puts; expected .* to be genodl"):
            require_safe_commits(session_with(other, True), "s3a://b/lake")
    with pytest.raises(
        InputError, match="found no way from Spark to S3; expected its jars beside Spark's, run: make object-store"
    ):
        require_safe_commits(session_with(ours, False), "s3a://b/lake")
