"""Upkeep of the lake: tables of older contracts upgraded, small files compacted, files and versions
that nothing needs any more removed.

Needed are the newest version of every table, versions that a registered model, a prediction or a training under way was
made of, and what was needed until less than `maintain.retention_hours` ago; and, however short that is, all that has
been written since the oldest of the runs that write to the lake at this time began: no commit may know of it yet.
"""

from __future__ import annotations

import contextlib
import json
import logging
import posixpath
import time
from typing import Any

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.job.run import PINS, Run
from genodl_spark.lake import locks, table_log, vacuum
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.learning import DATASETS, MODELS, PREDICTIONS

log = logging.getLogger("genodl")


def maintain(run: Run, dry_run: bool) -> None:
    """Does all of it, or says what it would do."""
    run.require_lake()
    s, before = run.settings.maintain, time.time() - 3600 * run.settings.maintain.retention_hours
    oldest = locks.oldest(run.lake.uri, run.run_id)
    before = before if oldest is None else min(before, oldest)
    removed, found = _unused_staging(run, before), {}
    for uri in [] if dry_run else removed:
        storage.remove_directory(uri)
    if not dry_run:
        for table in run.lake.existing():  # first, as all that follows reads them as declared
            added = run.lake.upgrade(table)
            if added:
                log.info("%s: added %s", table.name, ", ".join(added))
                found[table.name] = {"columns_added": added}
    kept = pins(run, dry_run)
    for table in run.lake.existing():
        done = {**found.get(table.name, {}), **_compacted(run, table, dry_run, s.small_bytes, s.fewest)}
        pinned = kept.get(table.name, set())
        unused = vacuum.unused_files(run.lake, table, _known(run, table, pinned), before)
        for uri, _ in [] if dry_run else unused:
            with contextlib.suppress(FileNotFoundError):
                storage.remove_file(uri)
        if unused:
            done.update({"files_removed": len(unused), "bytes_removed": sum(size for _, size in unused)})
        entries = table_log.unneeded(run.lake.log_path(table), pinned, before)
        if entries.versions >= s.log_versions:
            if not dry_run:
                vacuum.shorten_log(run.lake, table, entries)
            done.update(
                {"versions_removed": entries.versions, "log_bytes_removed": sum(size for _, size in entries.files)}
            )
        if done:
            found[table.name] = done
    run.report.metrics.update(
        {
            "dry_run": dry_run,
            "tables": found,
            "staging_removed": [posixpath.basename(uri) for uri in removed],
            "pinned": {name: sorted(versions) for name, versions in sorted(kept.items())},
        }
    )
    run.report.written = {
        t.name: v
        for t in run.lake.existing()
        if (v := run.lake.version(t)) is not None and t.name in found and not dry_run
    }
    if not found and not removed:
        run.report.status = "unchanged"


def pins(run: Run, dry_run: bool = False) -> dict[str, set[int]]:
    """Versions of each table that a model, a dataset, a prediction or a run under way was made of."""
    from pyspark.sql import functions as F

    found: dict[str, set[int]] = {}
    for table in (MODELS, DATASETS, PREDICTIONS):
        if not run.lake.exists(table):
            continue
        try:
            rows = run.lake.read(table)
        except InputError:
            if not dry_run:
                raise
            continue  # a table of an older contract, which this run would have upgraded
        pairs = rows.select(F.explode("source_versions").alias("name", "version")).distinct().collect()
        for pair in pairs:
            found.setdefault(pair.name, set()).add(int(pair.version))
    for uri in storage.files_under(_staging(run), f"/{PINS}"):
        for name, version in storage.read_json(uri).items():
            found.setdefault(name, set()).add(int(version))
    return found


def _known(run: Run, table: Table, versions: set[int]) -> set[int]:
    """Those of `versions` whose log entries are there."""
    entries = {
        posixpath.basename(uri)
        for uri in storage.files_under(storage.join(run.lake.path(table), "_delta_log"), ".json")
    }
    return {version for version in versions if f"{version:020}.json" in entries}


def _staging(run: Run) -> str:
    return storage.join(run.lake.uri, "_staging")


def _unused_staging(run: Run, before: float) -> list[str]:
    """Folders below `_staging` in which nothing was written since then: of runs that were given up."""
    last: dict[str, float] = {}
    root = _staging(run)
    for uri, modified, _ in storage.listing(root):
        folder = storage.join(root, uri[len(root) :].strip("/").split("/")[0])
        last[folder] = max(last.get(folder, 0.0), modified)
    return sorted(folder for folder, modified in last.items() if modified < before)


def _compacted(run: Run, table: Table, dry_run: bool, small: int, fewest: int) -> dict[str, Any]:
    groups = run.lake.small_files(table, small, fewest)
    count = sum(map(len, groups))
    if not groups:
        return {}
    if dry_run:
        return {"files_compacted": count, "into": len(groups)}
    log.info("%s: compacting %d files", table.name, count)
    try:
        return {"files_compacted": count, "into": run.lake.compact(table, groups)}
    except Conflict as error:
        run.report.warn(
            f"{table.name} was written meanwhile and is not compacted; run maintain again "
            f"({json.dumps(str(error))[:120]})"
        )
        return {}
