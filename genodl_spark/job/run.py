"""What every job has in common: its lake, settings and run report."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import pkgutil
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from genodl_spark.core import own_code, redaction, session, source_hash, storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.output import as_json
from genodl_spark.job.config import Settings, own_names, stored
from genodl_spark.lake import locks
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.locks import Lease
from genodl_spark.lake.schema import Table
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.stored import StoredLake
from genodl_spark.lake.tables.ingested import LABELS, SAMPLES
from genodl_spark.lake.tables.operations import RUNS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

log = logging.getLogger("genodl")


@dataclass
class Report:
    """The run report: what a job read, wrote, measured and noticed."""

    job: str
    status: str = "done"
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    result: Any = None
    error: str | None = None
    breached: list[str] = field(default_factory=list)  # a line for each threshold: exit code 3, though the job is done
    started: float = field(default_factory=time.time)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            log.warning("%s", text)
            self.warnings.append(text)

    def count(self, table: Table, written: int, total: int, quarantined: int = 0) -> None:
        self.rows[table.name] = {"written": written, "total": total, "quarantined": quarantined}

    def as_dict(self) -> dict[str, Any]:
        """The report without secrets."""
        document: dict[str, Any] = {
            "job": self.job,
            "status": self.status,
            "seconds": round(time.time() - self.started, 3),
            "rows": self.rows,
            "tables": {"read": self.read, "written": self.written},
            "metrics": self.metrics,
            "warnings": self.warnings,
        }
        document = redaction.document(document)
        if self.result is not None:  # rows of tables, as they are
            document["result"] = self.result
        if self.error is not None:
            document["error"] = self.error
        return document


PINS = "pins.json"


@dataclass
class Run:
    """One job run: the arguments of its command line, the effective settings, and the report under way.

    The Spark session starts at the first use of `spark` or `lake`, so that what is wrong
    with the arguments shows before.
    """

    report: Report
    settings: Settings
    lake_uri: str
    master: str | None = None
    arguments: list[str] = field(default_factory=list)
    assigned: tuple[str, ...] = ()  # keys given with --set
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    lease: Lease | None = None  # on the lake, of a run that writes to it
    # leases of what this run keeps to itself until its end
    kept: dict[str, AbstractContextManager[Lease]] = field(default_factory=dict)

    @cached_property
    def spark(self) -> SparkSession:
        return session.build(*self._session)

    def start_ahead(self) -> None:
        """Has the JVM start while this thread does something else."""
        session.start_ahead(*self._session)

    @property
    def _session(self) -> tuple[str, dict[str, str], str | None]:
        return f"genodl {self.report.job}", self.settings.spark, self.master

    @cached_property
    def lake(self) -> Lake:
        return Lake(self.spark, self.lake_uri, None if self.lease is None else self.lease.check)

    @cached_property
    def stored(self) -> StoredLake:
        """The lake to be read without a session; one starts where that is not enough."""
        return StoredLake(self.lake_uri, lambda: self.spark)

    def under(self, settings: Settings, report: Report | None = None) -> Run:
        """The same run, its session, lake and snapshot, under other settings;
        `report`: one apart for what is done there."""
        other = copy.copy(self)
        other.settings = settings
        other.report = report or self.report
        return other

    def require_lake(self) -> None:
        """InputError where the lake's URI leads nowhere, so that reading makes no empty one."""
        if storage.kind(storage.absolute(self.lake_uri)) != "directory":
            raise InputError("no lake there; expected a directory with tables, ingest something first", self.lake_uri)

    @cached_property
    def sources(self) -> Snapshot:
        """The tables that ingest fills, at the versions of this run; they stand in the report."""
        snapshot = Snapshot(self.lake)
        self.report.read = snapshot.versions
        return snapshot

    def pin(self, staging: str) -> None:
        """Leaves beside what this run has under way which table versions it reads:
        `maintain` keeps them as long as it is."""
        storage.write_json(storage.join(staging, PINS), self.sources.versions)

    def holding(self, what: str, patience: float = 1) -> AbstractContextManager[Lease]:
        """Keeps something in the lake to this run for a block; Conflict where another has it for `patience`
        times as long as runs wait."""
        name = hashlib.sha256(what.encode()).hexdigest()[:32]
        return locks.held(
            self.lake_uri, self.report.job, self.run_id, wait=patience * self.settings.lock.wait_seconds, of=name
        )

    def keep(self, what: str) -> None:
        """As `holding`, until `let_go`. Waits for longer: this run has its work done, and the other
        is about to commit its own."""
        if what not in self.kept:
            held = self.holding(what, 10)
            held.__enter__()
            self.kept[what] = held

    def let_go(self) -> None:
        while self.kept:
            self.kept.popitem()[1].__exit__(None, None, None)

    def wrote(self, table: Table, written: int, total: int | None = None, quarantined: int = 0) -> None:
        version = self.lake.version(table)
        if version is not None:
            self.report.written[table.name] = version
        self.report.count(table, written, self.lake.count(table) if total is None else total, quarantined)

    def frame(self, table: Table, rows: list[dict[str, Any]]) -> pa.Table:
        """A few rows given as dictionaries, as a declared table; absent columns are NULL."""
        import pyarrow as pa

        schema = table.arrow_schema()
        columns = ([row.get(field.name) for row in rows] for field in schema)
        arrays = [
            pa.array(
                [None if v is None else list(v.items()) for v in values] if pa.types.is_map(field.type) else values,
                field.type,
            )
            for field, values in zip(schema, columns, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    def cohort(self, named: str | None, among: list[str], what: str = "samples") -> str:
        """The cohort to work on: the one named, else the only one that has `what`.
        InputError when there is none, or a choice."""
        if named is not None:
            if named not in among:
                raise InputError(
                    f"cohort {named} has no {what}; expected one of "
                    f"{', '.join(sorted(among)[:5]) or 'none: ingest some first'}",
                    "--cohort",
                )
            return named
        if len(among) == 1:
            return among[0]
        found = "no cohort" if not among else f"{len(among)} cohorts ({', '.join(sorted(among)[:5])})"
        advice = "ingest some first" if not among else "name it with --cohort"
        raise InputError(f"found {found} with {what} in the lake; expected one, {advice}", "--cohort")

    def cohorts(self) -> list[str]:
        found = (self.lake.rows(table, {}, columns=["cohort"]).column("cohort") for table in (SAMPLES, LABELS))
        return sorted({cohort for column in found for cohort in column.unique().to_pylist()})

    def record(self) -> None:
        """Adds this run to the `runs` table, where there is a lake."""
        rows = self.frame(RUNS, [self.row()])
        if self.lease is None or "lake" not in self.__dict__:  # it needs no session for this, nor waits for Delta's
            with contextlib.suppress(ValueError):
                return self.stored.append_few(RUNS, rows)
        self.lake.append(RUNS, rows)

    def row(self) -> dict[str, Any]:
        """This run's row of `runs`. What a query answered is no part of it."""
        document = {name: value for name, value in self.report.as_dict().items() if name != "result"}
        return {
            "run_id": self.run_id,
            "job": self.report.job,
            "status": self.report.status,
            "started_at": datetime.fromtimestamp(self.report.started, UTC),
            "seconds": document["seconds"],
            "arguments": json.dumps(redaction.arguments(self.arguments)),
            "settings": stored(self.settings),
            "report": as_json(document),
            "code": source_hash.of_package(),
        }


def now() -> datetime:
    return datetime.now(UTC)


def fingerprint(*parts: Any) -> str:
    """SHA-256 (hex) of JSON-able values, independent of the order of dictionaries."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def code_of(
    stage: str, settings: Settings | None = None, network: bool = True, own: Mapping[str, str] | None = None
) -> str:
    """Hash of the code that shapes what a stage, a module of this package, makes: all that it imports,
    and under `settings` the task, the network, and burdens where covariates are some.

    `own`: hashes of the user's own files by name, in place of those that the settings bring.
    """
    if settings is None:
        return source_hash.of_modules(stage)
    from genodl_spark.learning import encodings, losses, preprocessing

    names = own_names(settings.model_dump(include={"implementation", "model", "quality", "train"}))
    if network:
        names.setdefault("model.kind", "mlp")
    else:
        for key in ("model.kind", "train.loss"):
            names.pop(key, None)
    # which of their files a dataset means is known only when it is made
    rooms = [encodings, losses, preprocessing] if network else [encodings]
    found_by_name = [f"{room.__name__}.{kind.name}" for room in rooms for kind in pkgutil.iter_modules(room.__path__)]
    for key, folder in (("implementation", "tasks"), ("model.kind", "learning.models")):
        if key in names and not own_code.is_own(names[key]):
            found_by_name.append(f"{source_hash.PACKAGE}.{folder}.{names[key]}")
    if any(name.startswith(preprocessing.BURDEN) for name in settings.covariates):
        found_by_name.append(f"{source_hash.PACKAGE}.features.burdens")
    ours = source_hash.of_modules(stage, *found_by_name)
    if own is None:
        own = {
            name: own_code.sha256(content) for name, content in settings.own_code().items() if name in names.values()
        }
    return fingerprint(ours, dict(own))[:16] if own else ours
