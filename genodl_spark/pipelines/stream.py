"""New files of a folder, or named in the rows of a Delta table, into the lake and scored, as they come.

Spark's Structured Streaming finds them, in batches, and keeps in the lake how far it has come. The verbs ingest and
predict do the rest of a batch, each as a run of its own, before it counts as done. A stream that was killed takes its
last batch again: ingest passes over what the lake has and predict over what is scored, so every row is there once.
"""

from __future__ import annotations

import logging
import posixpath
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genodl_spark import sources, tasks
from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.job.run import Run, fingerprint
from genodl_spark.lake.tables.ingested import QUARANTINE
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.sources.protocol import SourceKind
from genodl_spark.sources.removal import STREAMS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger("genodl")

_GLOB = re.compile(r"([\\\[\]{}*?])")
# What Spark says of a file; its content is not asked for, so none of it is read.
_LISTED = "path string, modificationTime timestamp, length bigint, content binary"
_ATTEMPTS, _PAUSE = 3, 5.0  # of a verb that another run is in the way of; seconds between
Verb = Callable[[str, list[str]], dict[str, Any]]  # runs one in this session; its run report, with `code`


def stream(
    run: Run, source: str, once: bool, cohort: str | None, label: str | None, model: str | None, verb: Verb
) -> None:
    """Ingests and scores what `source` has and the stream has not taken; `once`: then ends, else looks again until
    SIGTERM or SIGINT.

    A file that cannot be read is left out: it stands in `quarantine` with the reason, and in the report. InputError
    for a source that is neither a folder nor a Delta table with a column `path`, and for what is wrong with more than
    one file, such as a model that is missing.
    """
    run.require_lake()
    uri = storage.absolute(source)
    if storage.kind(uri) != "directory":
        raise InputError("no folder there; expected one that files come into, or a Delta table", source)
    kind = _kind(run)
    name = cohort if cohort is not None else run.cohort(None, run.cohorts())
    of = {"task": run.settings.task, "source": uri, "cohort": name, "kind": kind.name}
    of |= {"label": label or "", "model": model or ""}
    checkpoint = storage.join(run.lake.uri, STREAMS, fingerprint(of)[:16])
    asked = ["--cohort", name]
    chosen = [*(["--label", label] if label else []), *(["--model", model] if model else [])]
    taking = _Taking(run, kind, name, verb, [kind.name, *asked], [run.settings.task, *asked, *chosen])
    with run.holding(f"stream {checkpoint}"):
        _follow(run, _found(run, uri, source), checkpoint, taking, once)
    run.report.metrics |= {"batches": taking.batches, "files": taking.files, "refused": taking.refused}
    run.report.status = "done" if taking.batches else "unchanged"
    run.wrote(PREDICTIONS, taking.scored)


def _kind(run: Run) -> SourceKind:
    """The kind of source that the files are of: the one set, else the only one that fills a table of the task."""
    if run.settings.stream.kind:
        return sources.load(run.settings.stream.kind)
    wanted = {table.name for table in tasks.features(run.settings).tables}
    fitting = [kind for name in sources.kinds() if (kind := sources.load(name)).table.name in wanted]
    if len(fitting) != 1:
        names = ", ".join(kind.name for kind in fitting) or "none"
        found = f"found {names} that fill what task {run.settings.task} reads"
        raise InputError(f"{found}; expected one, name the kind of the files", "stream.kind")
    return fitting[0]


def _found(run: Run, uri: str, given: str) -> DataFrame:
    """Paths of files, a row each, as a stream: of a folder and those in it, or the column `path` of a table."""
    at_once = str(run.settings.stream.files)
    if storage.kind(storage.join(uri, "_delta_log")) == "directory":
        reader = run.spark.readStream.format("delta").option("skipChangeCommits", "true")
        rows = reader.option("maxFilesPerTrigger", at_once).load(uri)
        if dict(rows.dtypes).get("path") != "string":
            raise InputError("found a Delta table without a column path; expected a string, where each file is", given)
        return rows.select("path")
    reader = run.spark.readStream.format("binaryFile").option("recursiveFileLookup", "true").schema(_LISTED)
    return reader.option("maxFilesPerTrigger", at_once).load(_GLOB.sub(r"\\\1", uri)).select("path")


def _follow(run: Run, found: DataFrame, checkpoint: str, taking: _Taking, once: bool) -> None:
    """Runs the stream until it ends or is asked to; raises what went wrong in a batch."""
    stopped = threading.Event()
    numbers = () if threading.current_thread() is not threading.main_thread() else (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        writer = found.writeStream.foreachBatch(taking.take).option("checkpointLocation", checkpoint)
        every = f"{run.settings.stream.every_seconds} seconds"
        query = (writer.trigger(availableNow=True) if once else writer.trigger(processingTime=every)).start()
        try:
            while query.isActive and not (stopped.is_set() and not query.status["isTriggerActive"]):
                time.sleep(0.2)  # also once it is to stop: the batch under way is ended
        finally:
            query.stop()
        error = query.exception()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if taking.failure is not None:
        raise taking.failure
    if error is not None:
        raise error


@dataclass
class _Taking:
    """Takes batch by batch, and keeps count."""

    run: Run
    kind: SourceKind
    cohort: str
    verb: Verb
    ingest: list[str]
    predict: list[str]
    batches: int = 0
    files: int = 0
    scored: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    failure: Exception | None = None

    def take(self, rows: DataFrame, number: int) -> None:
        """For foreachBatch, in a thread of its own. What is raised here ends the stream; the batch is not done then."""
        try:
            # paths alone, stream.files of them at most
            self._take(sorted({storage.absolute(row.path) for row in rows.collect() if row.path}), number)
        except Exception as error:
            self.failure = error
            raise

    def _take(self, uris: list[str], number: int) -> None:
        fitting = {uri for uri in uris if self.kind.fits(uri)}
        # the index of a file has its name and one suffix more
        ours = [uri for uri in uris if uri in fitting and posixpath.splitext(uri)[0] not in fitting]
        log.info(
            "batch %d: %d files, and %d that are not of %s", number, len(ours), len(uris) - len(ours), self.kind.name
        )
        taken = self._bring(ours) if ours else 0
        if taken:
            report = self._run("predict", self.predict)
            if report["code"]:
                raise _failure(report)
            self.scored += report["rows"].get(PREDICTIONS.name, {}).get("written", 0)
        self.batches, self.files = self.batches + 1, self.files + taken

    def _bring(self, uris: list[str]) -> int:
        """Ingests files at once, or where that is refused those that can be; returns how many."""
        report = self._run("ingest", [self.ingest[0], *uris, *self.ingest[1:]])
        if not report["code"]:
            return len(uris)
        if report["code"] != 2:
            raise _failure(report)
        if len(uris) > 1:
            half = len(uris) // 2
            return self._bring(uris[:half]) + self._bring(uris[half:])
        name = posixpath.basename(uris[0])
        if name not in report["error"]:  # what is wrong is not this file
            raise _failure(report)
        self._set_aside(name, report["error"])
        return 0

    def _set_aside(self, name: str, reason: str) -> None:
        """A row of `quarantine` for a file, until an ingest takes it."""
        self.run.report.warn(f"{name} was left out: {reason}")
        self.refused[name] = reason
        place = re.search(rf"{re.escape(name)}:(\d+): ", reason)
        where = {"cohort": self.cohort, "source": self.kind.name, "file": name}
        row = {**where, "line": int(place[1]) if place else 0, "reason": reason, "text": ""}
        self.run.lake.replace(QUARANTINE, self.run.frame(QUARANTINE, [row]), where)

    def _run(self, verb: str, arguments: list[str]) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            report = self.verb(verb, arguments)
            if report["code"] != 4:
                break
            if attempt < _ATTEMPTS - 1:
                time.sleep(_PAUSE)
        return report


def _failure(report: dict[str, Any]) -> Exception:
    """What a verb that failed has said, as the stream's own."""
    kinds: dict[int, type[Exception]] = {2: InputError, 4: Conflict}
    return kinds.get(report["code"], RuntimeError)(report["error"])
