"""The lake's views behind Spark's Thrift server, for JDBC and ODBC: read-only, on loopback.

The server hands every statement to the parser of the client's session. That parser is ours:
it has Spark's own parse it, judges the plan as `query` does, and makes the views that it names,
as the lake is at that moment, the session's. A statement that is refused, or that cannot be judged for whatever reason,
becomes one that does nothing but raise the refusal; where this process is gone there is no parser at all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from genodl_spark.core import session
from genodl_spark.core.errors import InputError
from genodl_spark.core.output import printable
from genodl_spark.job.run import Report, Run
from genodl_spark.lake import statements, views
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import literal
from genodl_spark.lake.tables.operations import RUNS
from genodl_spark.registry.sql import FUNCTIONS, provide

log = logging.getLogger("genodl")

HOST = "127.0.0.1"
_KEPT_WITHIN = 5.0  # seconds until a statement stands in `runs`
_PORT, _BIND, _MODE = "hive.server2.thrift.port", "hive.server2.thrift.bind.host", "hive.server2.transport.mode"
# What the server sets in every session of a client; any other setting would be the client's.
_SET_BY_SERVER = (
    *(_PORT, _BIND, _MODE, "hive.server2.thrift.resultset.default.fetch.size"),
    *("spark.sql.datetime.java8API.enabled", "spark.sql.hive.version"),
)


def serve(run: Run, port: int) -> None:
    """Serves until SIGTERM or SIGINT. Statements, answered or refused, become rows of `runs`,
    without what they answered."""
    run.require_lake()
    stopped = threading.Event()
    asked = Asked(run)
    # Only now: Spark's own handler comes with its session.
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with server(run, asked, port) as listening:
            print(
                f"genodl serve: jdbc:hive2://{HOST}:{listening}/default serves {printable(run.lake.uri)}",
                file=sys.stderr,
                flush=True,
            )
            while not stopped.wait(_KEPT_WITHIN):
                asked.keep()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    asked.keep()
    run.report.metrics.update({"answered": asked.answered, "refused": asked.refused})


@contextlib.contextmanager
def server(run: Run, asked: Asked, port: int) -> Iterator[int]:
    """A server that listens within the block; its port. InputError where the port is taken."""
    port = _free(port)
    jvm: Any = run.spark._jvm
    settings = {
        _PORT: str(port),
        _BIND: HOST,
        _MODE: "binary",
        # Hive keeps a catalog of its own, which would leave a log in the working directory
        "derby.stream.error.file": os.devnull,
    }
    properties = jvm.java.lang.System
    before = {name: properties.setProperty(name, value) for name, value in settings.items()}
    try:
        doors = _Doors(run, asked)
        behind = session.behind(run.spark, doors)
        doors.settings = _settings(behind.newSession())
        running = jvm.org.apache.spark.sql.hive.thriftserver.HiveThriftServer2.startWithContext(behind.sqlContext())
        try:
            yield port
        finally:
            running.stop()
    finally:
        for name, value in before.items():
            properties.clearProperty(name) if value is None else properties.setProperty(name, value)


def _free(port: int) -> int:
    """`port`, or one that the system chooses for 0. InputError where another program listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"found port {port} taken or not to be had ({error}); expected a free one, or 0 for any", "--port"
            ) from error
        return int(probe.getsockname()[1])


def _settings(jvm_session: Any) -> Any:
    """Settings of a session in the JVM, a scala.Map, without those that the server makes."""
    found = jvm_session.sessionState().conf().getAllConfs()
    for name in _SET_BY_SERVER:
        found = found.removed(name)
    return found


class Asked:
    """Statements on their way to `runs`: they come from the threads of clients, and are written together."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.answered = self.refused = 0
        self._waiting: list[tuple[Report, str]] = []
        self._lock = threading.Lock()

    def add(self, statement: str, started: float, refused: str | None) -> None:
        report = Report("serve", "done" if refused is None else "failed", error=refused, started=started)
        with self._lock:
            self.answered += refused is None
            self.refused += refused is not None
            self._waiting.append((report, statement))

    def keep(self) -> None:
        """Writes those that have come. Where that cannot be, it is told, and the server goes on."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = [
            Run(report, self.run.settings, self.run.lake_uri, arguments=[statement]).row()
            for report, statement in waiting
        ]
        try:
            if self.run.lake.exists(RUNS):
                self.run.lake.append(RUNS, self.run.frame(RUNS, rows))
        except Exception as error:  # whatever Spark raises
            self.run.report.warn(
                "statements are missing from table runs, their rows could not be written: "
                f"{str(error).strip().splitlines()[0]}"
            )


class _Doors:
    """Makes the parser of a session; Spark calls it once for each."""

    def __init__(self, run: Run, asked: Asked) -> None:
        self.run = run
        self.asked = asked
        self.settings: Any = None  # of a session that no client has touched

    def apply(self, jvm_session: Any, parser: Any) -> _Door:
        return _Door(self, jvm_session, parser)

    class Java:
        implements = ("scala.Function2",)


class _Door:
    """The parser of one client's session."""

    def __init__(self, doors: _Doors, jvm_session: Any, parser: Any) -> None:
        self._doors = doors
        self._session = jvm_session
        self._parser = parser
        self._checked = False
        self._own: Run | None = None

    def parsePlan(self, text: str) -> Any:
        started = time.time()
        try:
            plan = self._judged(text)
        except BaseException as error:
            if not isinstance(error, InputError):
                log.error("a statement could not be judged", exc_info=error)
            refused = (
                str(error)
                if isinstance(error, InputError)
                else "SQL: the statement could not be judged, the server's log says why"
            )
            self._doors.asked.add(text, started, refused)
            return self._parser.parsePlan(f"SELECT raise_error({literal(printable(refused))})")
        self._doors.asked.add(text, started, None)
        return plan

    def _judged(self, text: str) -> Any:
        from pyspark.errors import AnalysisException

        if self._own is None:
            self._check_settings()
            own = self._of_session()
            # A client lists what there is before it asks.
            views.register(own.lake, [name.lower() for name in views.names(own.lake)], held=False)
            self._own = own
        jvm: Any = self._own.spark._jvm
        statement = statements.judged(jvm, self._parser, text, FUNCTIONS)
        named = provide(self._own, statement)
        with contextlib.suppress(AnalysisException):  # which the server is going to tell
            self._own.lake.hold_plan(session.planned(self._own.spark, statement.plan), named)
        return statement.plan

    def _check_settings(self) -> None:
        """InputError where the client brought settings with its connection: they could send reads elsewhere.

        Once, before anything is read in the session: Delta makes settings of its own then.
        """
        if self._checked:
            return
        changed = _settings(self._session).toSet().diff(self._doors.settings.toSet()).iterator()
        names = []
        while changed.hasNext():
            names.append(str(changed.next()._1()))
        if names:
            raise InputError(
                f"found settings that came with the connection ({', '.join(sorted(names))}); expected none", "SQL"
            )
        self._checked = True

    def _of_session(self) -> Run:
        """This run within the client's session."""
        from pyspark.sql import SparkSession as Session

        run = self._doors.run
        own = run.under(run.settings, Report("serve"))
        own.__dict__["spark"] = Session(run.spark.sparkContext, self._session)
        own.__dict__["lake"] = Lake(own.spark, run.lake_uri)
        return own

    # Parts of statements, which Spark and Delta parse for themselves.
    def parseExpression(self, text: str) -> Any:
        return self._parser.parseExpression(text)

    def parseTableIdentifier(self, text: str) -> Any:
        return self._parser.parseTableIdentifier(text)

    def parseFunctionIdentifier(self, text: str) -> Any:
        return self._parser.parseFunctionIdentifier(text)

    def parseMultipartIdentifier(self, text: str) -> Any:
        return self._parser.parseMultipartIdentifier(text)

    def parseQuery(self, text: str) -> Any:
        return self._parser.parseQuery(text)

    def parseRoutineParam(self, text: str) -> Any:
        return self._parser.parseRoutineParam(text)

    def parseTableSchema(self, text: str) -> Any:
        return self._parser.parseTableSchema(text)

    def parseDataType(self, text: str) -> Any:
        return self._parser.parseDataType(text)

    class Java:
        implements = ("org.apache.spark.sql.catalyst.parser.ParserInterface",)
