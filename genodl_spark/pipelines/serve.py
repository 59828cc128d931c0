"""The lake's views behind Spark's Thrift server, for JDBC and ODBC: read-only, with passwords, on loopback unless told.

The server hands every statement to the parser of the client's session. That parser is ours:
it has Spark's own parse it, judges the plan as `query` does, and makes the views that it names,
as the lake is at that moment, the session's. A statement that is refused, or that cannot be judged for whatever reason,
becomes one that does nothing but raise the refusal; where this process is gone there is no parser at all.

Logins come to this process, too: the server makes an object of a class that it is given the name of, and asks that.
No Java runtime has a compiler, so Janino, which Spark brings for code of its own, compiles the class.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from genodl_spark.core import passwords, session
from genodl_spark.core.errors import InputError
from genodl_spark.core.output import printable
from genodl_spark.core.passwords import Passwords, private_text
from genodl_spark.job.run import Report, Run
from genodl_spark.lake import statements, views
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import literal
from genodl_spark.lake.tables.operations import RUNS
from genodl_spark.registry.sql import FUNCTIONS, provide

log = logging.getLogger("genodl")

HOST = "127.0.0.1"
KEYSTORE_PASSWORD = "GENODL_KEYSTORE_PASSWORD"  # of the environment
_KEPT_WITHIN = 5.0  # seconds until a statement stands in `runs`
_LOGINS = "hive.server2.custom.authentication.class"
# Of the environment: Hive has them go over its settings.
_ELSEWHERE = ("HIVE_SERVER2_THRIFT_BIND_HOST", "HIVE_SERVER2_THRIFT_PORT")
# What the server sets in every session of a client; any other setting would be the client's.
_SET_BY_SERVER = (
    *(_LOGINS, "hive.server2.thrift.resultset.default.fetch.size"),
    *("spark.sql.datetime.java8API.enabled", "spark.sql.hive.version"),
)


@dataclass(frozen=True)
class Door:
    """Where a server listens and whom it lets in: everybody without `names`. `address`: of `host`.
    `keystore`: file and password of a certificate and its key."""

    host: str
    address: str
    port: int
    names: Passwords | None = None
    keystore: tuple[str, str] | None = None

    @classmethod
    def of(
        cls,
        port: int,
        host: str = HOST,
        passwords_file: str | None = None,
        keystore: str | None = None,
        keystore_password: str | None = None,
    ) -> Door:
        """Files are named by their paths. InputError where the port is taken, a file is not as it should be,
        or anybody's password would cross a network that others can read."""
        names = None if passwords_file is None else Passwords(passwords_file)
        key = None if keystore is None else (keystore, _keystore_password(keystore_password))
        address = _address(host)
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            missing = [option for option, given in (("--passwords", names), ("--keystore", key)) if given is None]
            if missing:
                raise InputError(
                    f"found {printable(host)}, which other machines reach, without {' and '.join(missing)}; "
                    f"expected passwords and a certificate, or {HOST}",
                    "--host",
                )
        return cls(host, address, _free(address, port), names, key)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"jdbc:hive2://{host}:{self.port}/default{';ssl=true' if self.keystore else ''}"


def _keystore_password(path: str | None) -> str:
    found = os.environ.get(KEYSTORE_PASSWORD, "") if path is None else private_text(path).rstrip("\r\n")
    if not found:
        raise InputError(
            f"found no password of the keystore; expected it in the environment variable {KEYSTORE_PASSWORD}, "
            "or in the file of --keystore-password",
            "--keystore",
        )
    return found


def _address(host: str) -> str:
    """The address of a host that clients try first: of IPv4 where it has one. InputError where it has none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return str(min(found, key=lambda one: one[0] != socket.AF_INET)[4][0])
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"found {printable(host)} ({error}); expected a name or address of this machine", "--host"
        ) from error


def _free(address: str, port: int) -> int:
    """`port`, or one that the system chooses for 0.
    InputError where the address is not of this machine, or another program listens there."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"found port {port} of {address} taken or not to be had ({error}); expected a free one, or 0 for any",
                "--port",
            ) from error
        return int(probe.getsockname()[1])


def set_password(path: str | None, name: str) -> None:
    """Gives a name of a file of passwords one that is typed twice at the terminal, or is a line of standard input."""
    if path is None:
        raise InputError("found no --passwords; expected the file to write to", "--set-password")
    if sys.stdin.isatty():
        given = getpass.getpass(f"password of {printable(name)}: ")
        if getpass.getpass("again: ") != given:
            raise InputError("found another password the second time; expected the same", "--set-password")
    else:
        given = sys.stdin.readline().rstrip("\r\n")
    passwords.set_password(path, name, given)


def serve(
    run: Run,
    port: int,
    host: str = HOST,
    passwords_file: str | None = None,
    keystore: str | None = None,
    keystore_password: str | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT. Statements, answered or refused, become rows of `runs`,
    without what they answered. Files are named by their paths, as `Door.of` takes them."""
    run.require_lake()
    door = Door.of(port, host, passwords_file, keystore, keystore_password)
    stopped = threading.Event()
    asked = Asked(run)
    logins = None if door.names is None else Logins(door.names)
    if logins is None:
        log.warning("without --passwords everybody who has an account on this machine may ask")
    # Only now: Spark's own handler comes with its session.
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with server(run, asked, door, logins):
            print(f"genodl serve: {printable(door.url)} serves {printable(run.lake.uri)}", file=sys.stderr, flush=True)
            while not stopped.wait(_KEPT_WITHIN):
                asked.keep()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    asked.keep()
    run.report.metrics.update({"answered": asked.answered, "refused": asked.refused})
    if logins is not None:
        run.report.metrics["refused_logins"] = logins.refused


@contextlib.contextmanager
def server(run: Run, asked: Asked, door: Door, logins: Logins | None = None) -> Iterator[None]:
    """A server that listens within the block.
    InputError where it would listen elsewhere, or cannot use its keystore."""
    jvm: Any = run.spark._jvm
    for name in _ELSEWHERE:
        if jvm.java.lang.System.getenv(name) is not None:
            raise InputError("found a value in the environment; expected none, see --host and --port", name)
    if door.keystore is not None:
        _check_keystore(jvm, *door.keystore)
    with contextlib.ExitStack() as undone:
        parsers = _Parsers(run, asked, logins is not None)
        behind = session.behind(run.spark, parsers)
        undone.enter_context(_properties(jvm, {_LOGINS: _PROVIDER}))  # looked up at every login
        if logins is not None:
            undone.enter_context(_asking(jvm, logins))
        parsers.settings = _settings(behind.newSession())
        settings = _hive_settings(door)
        # Hive takes the settings of an earlier server over, where this thread has started one.
        jvm.org.apache.hadoop.hive.ql.session.SessionState.detachSession()
        # The server copies them when it starts. What stays would come to be in every client's session.
        with _properties(jvm, settings):
            running = jvm.org.apache.spark.sql.hive.thriftserver.HiveThriftServer2.startWithContext(behind.sqlContext())
        undone.callback(running.stop)
        _check_running(running.getHiveConf(), settings)
        parsers.running = running
        yield


def _check_running(running: Any, settings: dict[str, str]) -> None:
    """InputError where a server runs under other settings of who may ask: a site's files may have the last word,
    and so may spark.hadoop.hive.*, which go over properties of Java."""
    other = [name for name, value in settings.items() if name.startswith("hive.") and running.get(name) != value]
    if other:
        raise InputError(
            f"found other values of {', '.join(other)} in Spark's or Hive's own settings; expected none there", "serve"
        )


def _hive_settings(door: Door) -> dict[str, str]:
    """Properties of Java that Hive takes for its settings, over what a hive-site.xml says: all of who may ask."""
    settings = {
        "hive.server2.thrift.port": str(door.port),
        "hive.server2.thrift.bind.host": door.address,
        "hive.server2.transport.mode": "binary",
        "hive.server2.authentication": "NONE" if door.names is None else "CUSTOM",
        "hive.server2.use.SSL": "false" if door.keystore is None else "true",
        # Who has logged in asks under no other name, and files are read as this process, whatever the name.
        "hive.server2.allow.user.substitution": "false",
        "hive.server2.enable.doAs": "false",
        # Hive keeps a catalog of its own, which would leave a log in the working directory
        "derby.stream.error.file": os.devnull,
    }
    if door.keystore is not None:
        path, password = door.keystore
        settings |= {"hive.server2.keystore.path": os.path.abspath(path), "hive.server2.keystore.password": password}
    return settings


@contextlib.contextmanager
def _properties(jvm: Any, settings: dict[str, str]) -> Iterator[None]:
    properties = jvm.java.lang.System
    before = {name: properties.setProperty(name, value) for name, value in settings.items()}
    try:
        yield
    finally:
        for name, value in before.items():
            properties.clearProperty(name) if value is None else properties.setProperty(name, value)


def _check_keystore(jvm: Any, path: str, password: str) -> None:
    """InputError where the server could not use it: that would show only when a client comes."""
    from py4j.protocol import Py4JJavaError

    expected = "expected a keystore (PKCS12 or JKS) with a private key, and its password"
    if not os.path.isfile(path):
        raise InputError(f"found no file; {expected}", path)
    hadoop = jvm.org.apache.hadoop.conf.Configuration(False)  # it hands a password over as Java's keystores take it
    hadoop.set("password", password)
    try:
        keys = jvm.java.security.KeyStore.getInstance(jvm.java.io.File(path), hadoop.getPassword("password"))
        if any(keys.isKeyEntry(alias) for alias in jvm.java.util.Collections.list(keys.aliases())):
            return
        found = "no private key"
    except Py4JJavaError as error:
        found = str(error.java_exception.getMessage())
    raise InputError(f"found {printable(found)}; {expected}", path)


_PROVIDER = "org.apache.hive.service.auth.GenodlLogins"
_PROVIDER_SOURCE = """
    package org.apache.hive.service.auth;

    public class GenodlLogins implements PasswdAuthenticationProvider {
        public static volatile java.util.function.BiPredicate accepted;

        public void Authenticate(String name, String password) throws javax.security.sasl.AuthenticationException {
            java.util.function.BiPredicate asked = accepted;
            if (asked == null || !asked.test(name, password))
                throw new javax.security.sasl.AuthenticationException("the name or the password is wrong");
        }
    }
"""


@contextlib.contextmanager
def _asking(jvm: Any, logins: Logins) -> Iterator[None]:
    """Within the block the server's class for logins asks `logins`; else it refuses all."""
    accepted = _provider(jvm).getField("accepted")
    accepted.set(None, logins)
    try:
        yield
    finally:
        accepted.set(None, None)


def _provider(jvm: Any) -> Any:
    """The server's class for logins, which is made once in a JVM.

    It stands beside Hive's own, where all threads of the server find it: those that have run a statement
    look for classes elsewhere than those that have not.
    """
    from py4j.protocol import Py4JJavaError

    forName = jvm.java.lang.Class.forName
    try:
        return forName(_PROVIDER)
    except Py4JJavaError:  # ClassNotFoundException
        beside = forName("org.apache.hive.service.auth.PasswdAuthenticationProvider")
        compiler = jvm.org.codehaus.janino.SimpleCompiler()
        compiler.setParentClassLoader(beside.getClassLoader())
        compiler.cook(_PROVIDER_SOURCE)
        handles = jvm.java.lang.invoke.MethodHandles
        return handles.privateLookupIn(beside, handles.lookup()).defineClass(compiler.getBytecodes()[_PROVIDER])


class Logins:
    """Says whether a login is right. Wrong ones are counted, and told without the password;
    nor is a name told that nobody has, as people type a password in its place."""

    def __init__(self, names: Passwords) -> None:
        self.refused = 0
        self._names = names
        self._lock = threading.Lock()

    def test(self, name: str, password: str) -> bool:
        # The server takes each byte for a character, and a byte above 127 for a negative number.
        given = [bytes(ord(character) & 0xFF for character in text) for text in (name, password)]
        known = given[0].decode("ascii", "replace")
        try:
            if self._names.accepts(known, given[1]):
                return True
            who = known if known in self._names.names() else "a name that is not in the file of passwords"
            log.warning("refused a login as %s", who)
        except InputError as error:
            log.error("refused a login: %s", error)
        with self._lock:
            self.refused += 1
        return False

    class Java:
        implements = ("java.util.function.BiPredicate",)


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
        self._waiting: list[tuple[Report, list[str]]] = []
        self._lock = threading.Lock()

    def add(self, statement: str, started: float, refused: str | None, user: str | None = None) -> None:
        """`user`: who has proven to be that."""
        report = Report("serve", "done" if refused is None else "failed", error=refused, started=started)
        with self._lock:
            self.answered += refused is None
            self.refused += refused is not None
            self._waiting.append((report, [statement] if user is None else [statement, "--user", user]))

    def keep(self) -> None:
        """Writes those that have come. Where that cannot be, it is told, and the server goes on."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = [
            Run(report, self.run.settings, self.run.lake_uri, arguments=arguments).row()
            for report, arguments in waiting
        ]
        try:
            if self.run.lake.exists(RUNS):
                self.run.lake.append(RUNS, self.run.frame(RUNS, rows))
        except Exception as error:  # whatever Spark raises
            self.run.report.warn(
                "statements are missing from table runs, their rows could not be written: "
                f"{str(error).strip().splitlines()[0]}"
            )


class _Parsers:
    """Makes the parser of a session; Spark calls it once for each. `known`: whether clients have proven their names."""

    def __init__(self, run: Run, asked: Asked, known: bool) -> None:
        self.run = run
        self.asked = asked
        self.known = known
        self.settings: Any = None  # of a session that no client has touched
        self.running: Any = None  # the server

    def apply(self, jvm_session: Any, parser: Any) -> _Parser:
        return _Parser(self, jvm_session, parser)

    def user(self, jvm_session: Any) -> str | None:
        """Who has opened a session; None where that is not proven, or not known yet."""
        if not self.known or self.running is None:
            return None
        services = (
            inner
            for outer in self.running.getServices()
            if _is(outer, "SparkSQLCLIService")
            for inner in outer.getServices()
        )
        sessions = next(service for service in services if _is(service, "SparkSQLSessionManager"))
        entries = sessions.getOperationManager().sessionToContexts().entrySet().iterator()
        while entries.hasNext():
            entry = entries.next()
            if entry.getValue().sessionState().equals(jvm_session.sessionState()):
                return str(sessions.getSession(entry.getKey()).getUserName())
        return None

    class Java:
        implements = ("scala.Function2",)


def _is(service: Any, name: str) -> bool:
    return bool(service.getClass().getSimpleName() == name)


class _Parser:
    """The parser of one client's session."""

    def __init__(self, parsers: _Parsers, jvm_session: Any, parser: Any) -> None:
        self._parsers = parsers
        self._session = jvm_session
        self._parser = parser
        self._checked = False
        self._own: Run | None = None
        self._user: str | None = None

    def parsePlan(self, text: str) -> Any:
        started = time.time()
        try:
            self._user = self._user or self._parsers.user(self._session)
            plan = self._judged(text)
        except BaseException as error:
            if not isinstance(error, InputError):
                log.error("a statement could not be judged", exc_info=error)
            refused = (
                str(error)
                if isinstance(error, InputError)
                else "SQL: the statement could not be judged, the server's log says why"
            )
            self._parsers.asked.add(text, started, refused, self._user)
            return self._parser.parsePlan(f"SELECT raise_error({literal(printable(refused))})")
        self._parsers.asked.add(text, started, None, self._user)
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
        changed = _settings(self._session).toSet().diff(self._parsers.settings.toSet()).iterator()
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

        run = self._parsers.run
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
