"""The only builder of a SparkSession."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genodl_spark.core import redaction
from genodl_spark.core.errors import Outage

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import DataFrame, SparkSession

SUBMITTED = "PYSPARK_GATEWAY_PORT"  # set by spark-submit, which started the JVM before this process
# How Delta commits to s3a://; set-up compiles it on demand from lake/ConditionalPutLogStore.java.
S3_LOG_STORE = "genodl.ConditionalPutLogStore"
_S3_CREDENTIALS = "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
_ALWAYS = {
    "spark.delta.logStore.s3a.impl": S3_LOG_STORE,
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # Of pages that Spark writes; files that tasks of ours write have a checksum in the log.
    "spark.hadoop.parquet.page.write-checksum.enabled": "true",
    "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
    "spark.sql.variable.substitute": "false",  # a statement's ${env:NAME} would be this process's environment
}

_ASKS_SECONDS = 55  # a little less than the three times 20 that Spark waits for a master's answer
_NOTICE_SECONDS = 10  # a task's Python is killed two seconds after its job has ended
_SHUFFLE = "spark.sql.shuffle.partitions"
_FEWEST, _UNKNOWN = 4, 200

_JAVA_OPTIONS = "spark.driver.extraJavaOptions"
_ON_ONE_MACHINE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.authenticate": "true",  # with a secret that Spark makes up: other users of the machine reach loopback, too
    # A job of a minute spends more on optimising its bytecode and on collector threads than that saves:
    # half the time on 2 cores. A commit on a local disk starts four processes (chmod, readlink): a third faster so.
    _JAVA_OPTIONS: "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC "
    "-Djdk.lang.Process.launchMechanism=VFORK",
}
_CONF_DIR = "SPARK_CONF_DIR"
_OURS = {"base.toml", "local.toml", "cluster.toml", "tasks", "spark", "kubernetes", "airflow", "log4j2.properties"}


@dataclass(frozen=True)
class ClassArchive:
    """Classes of Spark and Delta as a JVM had them in memory when it ended: another that starts from them takes a
    quarter less CPU time for a query. Set-up makes one, beside the JVM's wrapper (docker/classes.py).

    A JVM passes an archive of another JVM, class path or jar over in silence. It takes no class path with a folder in
    it that has files, so `conf_dir` is empty and the file of log settings is named in `options`.
    """

    path: Path
    conf_dir: Path
    options: str

    @classmethod
    def of(cls, path: Path) -> ClassArchive:
        settings = Path(__file__).parents[2] / "conf" / "log4j2.properties"
        quiet = f'-Xlog:cds=off -Xlog:cds+dynamic=off -Xlog:class+path=off "-Dlog4j2.configurationFile={settings}"'
        return cls(path, Path(sys.prefix) / "jre" / "empty", f'"-XX:SharedArchiveFile={path}" {quiet}')

    @classmethod
    @cache
    def found(cls) -> ClassArchive | None:
        """The archive of this installation; None where there is none that is whole, or conf/ is another's or holds
        more than settings of this package."""
        conf = Path(__file__).parents[2] / "conf"
        given = os.environ.get(_CONF_DIR)
        if SUBMITTED in os.environ or given is None or set(' ":,\\') & set(f"{conf}{sys.prefix}"):
            return None
        try:
            if not os.path.samefile(given, conf) or not set(os.listdir(conf)) <= _OURS:
                return None
        except OSError:
            return None
        for path in (Path(sys.prefix) / "jre").glob("classes-*.jsa"):
            if path.stem == f"classes-{path.stat().st_size}":  # a JVM crashes over one that was cut off
                return cls.of(path)
        return None


def build(app: str, settings: Mapping[str, str], master: str | None = None) -> SparkSession:
    """A session for one job. What spark-submit was given wins over `settings`; `master` wins over both.

    Without a master anywhere the session runs on all cores of this machine, with two task slots at least.
    """
    from pyspark.sql import SparkSession

    chosen = _chosen(app, settings, master)
    _start_jvm(chosen)
    builder = SparkSession.builder
    for key, value in chosen.items():
        builder = builder.config(key, value)
    began = time.monotonic()
    try:
        spark = builder.getOrCreate()
    except Exception as error:
        outage = _no_master(chosen["spark.master"], time.monotonic() - began, error)
        if outage is None:
            raise
        raise outage from error
    assert spark._jvm is not None
    # another thread may have built it, and then it is active there
    spark._jvm.SparkSession.setActiveSession(spark._jsparkSession)
    conf = spark.sparkContext._conf  # all of it would be a call to the JVM for each property
    if not conf.contains(_SHUFFLE):
        spark.conf.set(_SHUFFLE, str(shuffle_partitions(conf, task_slots(spark))))
    _ship_package(spark)
    return spark


def _no_master(master: str, seconds: float, error: Exception) -> Outage | None:
    """Why a session of a standalone cluster could not be built, where no master took it: Spark asks for a minute, then
    stops the context under its own constructor, which fails wherever it has come to."""
    stopped = "stopped SparkContext" in str(error) or seconds > _ASKS_SECONDS
    if not (master.startswith("spark://") and stopped):
        return None
    found = f"found no master that answers at {master}"
    return Outage(f"{found}; expected one that runs and knows the same secret, start it and run the same command again")


def start_ahead(app: str, settings: Mapping[str, str], master: str | None = None) -> None:
    """Has the JVM start beside what this thread does before it calls `build` of the same, such as importing libraries.

    What goes wrong goes wrong again in `build`, which tells it.
    """
    import pyspark.sql  # noqa: F401  here: of two threads that import modules which import each other, one may find half of one

    chosen = _chosen(app, settings, master)

    def start() -> None:
        with contextlib.suppress(Exception):
            _start_jvm(chosen)

    threading.Thread(target=start, name="jvm", daemon=True).start()


def _chosen(app: str, settings: Mapping[str, str], master: str | None) -> dict[str, str]:
    """All properties of a session; the environment of its JVM, and what is logged of it,
    are as they should be from then on."""
    from pyspark.logger import PySparkLogger

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    logging.getLogger("py4j").setLevel(logging.ERROR)
    # they print what the exception says again, with its traceback
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        PySparkLogger.getLogger(name).setLevel(logging.CRITICAL)
    submitted = _submitted()
    # two ranks need two slots
    chosen = master or submitted.get("spark.master") or f"local[{max(2, os.cpu_count() or 1)}]"
    settings = {"spark.redaction.regex": redaction.SPARK_PATTERN, **_of_s3(), **settings}
    if chosen.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        archive = ClassArchive.found()
        java = f"{_ON_ONE_MACHINE[_JAVA_OPTIONS]} {'' if archive is None else archive.options}".strip()
        settings = {**_ON_ONE_MACHINE, _JAVA_OPTIONS: java, **settings}
    kept = {
        key: value for key, value in {**settings, **_ALWAYS}.items() if key in _ALWAYS or submitted.get(key) is None
    }
    return {"spark.master": chosen, "spark.app.name": app, **kept}


def _of_s3() -> dict[str, str]:
    """Where Hadoop's S3A finds what all other clients of S3 find in the environment: the store, its region and who
    asks. Credentials themselves are in no property."""
    from genodl_spark.core import storage  # which loads Arrow

    found = {"spark.hadoop.fs.s3a.aws.credentials.provider": _S3_CREDENTIALS}
    endpoint, region = storage.s3_endpoint(), storage.s3_region()
    if endpoint is not None:
        found["spark.hadoop.fs.s3a.endpoint"] = found["spark.executorEnv.AWS_ENDPOINT_URL_S3"] = endpoint
        found["spark.hadoop.fs.s3a.path.style.access"] = "true"  # a bucket is no host of its own there
        found["spark.hadoop.fs.s3a.connection.ssl.enabled"] = str(endpoint.startswith("https:")).lower()
    if region is not None:
        found["spark.hadoop.fs.s3a.endpoint.region"] = found["spark.executorEnv.AWS_REGION"] = region
    return found


def place(master: str | None) -> str:
    """`local` where a session with this `master` runs on this machine alone, else `cluster`: which of conf/local.toml
    and conf/cluster.toml holds."""
    if master is None and SUBMITTED in os.environ:
        master = _submitted().get("spark.master")
    return "local" if master is None or master.startswith("local") else "cluster"


def _submitted() -> SparkConf:
    """What spark-submit was given; nothing where this process was started without it."""
    from pyspark import SparkConf, SparkContext

    if SUBMITTED in os.environ:
        SparkContext._ensure_initialized()  # without it SparkConf does not know
    return SparkConf()


def _start_jvm(settings: Mapping[str, str]) -> None:
    """Starts the JVM, where there is none, with all settings but secrets:
    a session that starts one itself puts them all on its command line, which every user of the machine can read.
    A session hands those over that are left, by the socket that it talks to the JVM through."""
    from pyspark import SparkConf, SparkContext

    if SparkContext._gateway is None:
        conf = SparkConf(loadDefaults=False)
        for key, value in settings.items():
            if redaction.settings(value, key) == value:
                conf.set(key, value)
        archive = ClassArchive.found()
        started_from = archive is not None and archive.options in settings.get(_JAVA_OPTIONS, "")
        with _environment(_CONF_DIR, str(archive.conf_dir)) if archive and started_from else contextlib.nullcontext():
            SparkContext._ensure_initialized(conf=conf)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Processes that are started within find a variable with another value."""
    before = os.environ[name]
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ[name] = before


class Properties(Protocol):
    """Spark's properties, of a session or in a dictionary."""

    def get(self, key: str, default: str, /) -> str: ...


def shuffle_partitions(conf: Properties, slots: int) -> int:
    """Partitions of a shuffle where the user has not said how many; adaptive execution joins those that turn out small.

    On one machine as many as `slots`, the tasks at the same time. On a cluster three for every slot that it may have:
    the executors asked for may not be there yet, and where nothing says how many there will be,
    Spark's own 200 at least.
    """
    if conf.get("spark.master", "").startswith("local"):
        return max(_FEWEST, slots)
    dynamic = conf.get("spark.dynamicAllocation.enabled", "false").lower() == "true"
    executors = conf.get("spark.dynamicAllocation.maxExecutors" if dynamic else "spark.executor.instances", "0")
    cores = int(conf.get("spark.cores.max", "0")) or int(executors) * int(conf.get("spark.executor.cores", "1"))
    asked = cores // int(conf.get("spark.task.cpus", "1"))
    return 3 * max(asked, slots) if asked else max(_UNKNOWN, 3 * slots)


def _ship_package(spark: SparkSession) -> None:
    """Puts the wheel that this code was loaded from on the executors' path.

    PySpark sends a wheel of --py-files along, but of archives it puts .zip, .egg and .jar only on their path.
    """
    package = Path(__file__).parents[2].name
    sent = [os.path.basename(path) for path in spark.sparkContext._conf.get("spark.submit.pyFiles", "").split(",")]
    includes = spark.sparkContext._python_includes
    if includes is not None and package in sent and package not in includes:
        includes.append(package)


def planned(spark: SparkSession, plan: Any) -> DataFrame:
    """The rows of a plan that was parsed in the JVM; a command is run at once."""
    from pyspark.sql import DataFrame as Frame

    jvm: Any = spark._jvm
    return Frame(jvm.org.apache.spark.sql.classic.Dataset.ofRows(spark._jsparkSession, plan), spark)


def behind(spark: SparkSession, parsers: Any) -> Any:
    """A session of the JVM, for others to make theirs from (`newSession`):
    it shares with `spark` the cluster and tables alone.

    `parsers`: a scala.Function2 of ours that Spark asks for the parser of each such session,
    given the session and Spark's own parser.
    """
    from pyspark.java_gateway import ensure_callback_server_started

    context, jvm = spark.sparkContext, spark.sparkContext._jvm
    assert jvm is not None
    ensure_callback_server_started(context._gateway)
    extensions = jvm.org.apache.spark.sql.SparkSessionExtensions()
    getattr(jvm, _ALWAYS["spark.sql.extensions"])().apply(extensions)
    extensions.injectParser(parsers)  # last: it stands before the others
    options, nothing = jvm.java.util.HashMap(), jvm.java.util.HashMap()
    for key, value in {**_ALWAYS, "spark.sql.hive.thriftServer.singleSession": "false"}.items():
        options.put(key, value)
    shared = jvm.scala.Some(spark._jsparkSession.sharedState())
    parent = getattr(jvm.scala, "Option$").__getattr__("MODULE$").empty()
    as_map = jvm.org.apache.spark.api.python.PythonUtils.toScalaMap
    return jvm.org.apache.spark.sql.classic.SparkSession(
        context._jsc.sc(), shared, parent, extensions, as_map(options), as_map(nothing)
    )


def rank_environment(spark: SparkSession) -> dict[str, str]:
    """PYTHONPATH for the processes that Spark tasks start, such as Horovod's ranks: what was sent along,
    as the tasks themselves have it.

    Executors keep it in the directory that they run in; a local session keeps it in the driver's.
    """
    from pyspark import SparkFiles

    folder = SparkFiles.getRootDirectory() if is_local(spark) else ""
    names = [os.path.join(folder, name) for name in spark.sparkContext._python_includes or []]
    return {"PYTHONPATH": os.pathsep.join(names)} if names else {}


class _JvmStderr(io.TextIOBase):
    """Standard error of the JVM, a line at a time; this process's own where the JVM is gone."""

    def __init__(self) -> None:
        self._held = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        whole, newline, self._held = (self._held + text).rpartition("\n")
        if newline:
            self._print(whole + newline)
        return len(text)

    def flush(self) -> None:
        held, self._held = self._held, ""
        if held:
            self._print(held)

    def _print(self, text: str) -> None:
        from pyspark import SparkContext

        try:
            assert SparkContext._jvm is not None
            SparkContext._jvm.java.lang.System.err.print(text)
        except Exception:
            sys.__stderr__.write(text)  # type: ignore[union-attr]


def separate_stderr() -> None:
    """Under spark-submit, which joins a Python driver's standard error to its standard output,
    takes them apart again."""
    if SUBMITTED in os.environ and not isinstance(sys.stderr, _JvmStderr):
        from pyspark import SparkContext

        SparkContext._ensure_initialized()
        sys.stderr = _JvmStderr()


def task_slots(spark: SparkSession) -> int:
    """Tasks that this application can run at the same time."""
    return int(spark.sparkContext.defaultParallelism)


def is_local(spark: SparkSession) -> bool:
    """Whether all tasks run on this machine."""
    return (spark.sparkContext.master or "").startswith("local")


def live_slots(spark: SparkSession) -> int:
    """Tasks that the executors alive at this moment can run at the same time;
    `task_slots` does not know of executors that were lost."""
    context = spark.sparkContext
    if is_local(spark):
        return task_slots(spark)
    conf = context.getConf()
    executors = len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1  # the driver is one of them
    return executors * (int(conf.get("spark.executor.cores", "1")) // int(conf.get("spark.task.cpus", "1")))


def await_tasks(spark: SparkSession) -> None:
    """Returns once no task runs, or some seconds later: those of a job that has failed go on until they notice."""
    until = time.monotonic() + _NOTICE_SECONDS
    tracker: Any = spark.sparkContext._jsc.sc().statusTracker()
    while any(one.numRunningTasks() for one in tracker.getExecutorInfos()) and time.monotonic() < until:
        time.sleep(0.1)


_sharers = 0


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Jobs that run within share one session: `stop` does nothing until the outermost block ends."""
    global _sharers
    _sharers += 1
    try:
        yield
    finally:
        _sharers -= 1


def stop() -> None:
    """Stops the active session, when there is one and nobody shares it."""
    if "pyspark.sql" not in sys.modules:  # nothing has started one
        return
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession() or SparkSession._instantiatedSession  # another thread may have built it
    if active is not None and not _sharers:
        active.stop()
