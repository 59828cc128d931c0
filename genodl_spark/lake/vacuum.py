"""Files and log entries of a table that no version needs any more, found and removed: what Delta calls VACUUM, a log
made shorter, and a table without any but its newest version."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from genodl_spark.core import storage
from genodl_spark.lake import table_log
from genodl_spark.lake.schema import Table
from genodl_spark.lake.transactions import delta_log

if TYPE_CHECKING:
    from genodl_spark.lake.delta import Lake


def unused_files(lake: Lake, table: Table, versions: Iterable[int], before: float) -> list[tuple[str, int]]:
    """Parquet files (URI, bytes) that neither the newest version holds nor any of `versions`,
    that no commit since `before` (seconds of the epoch) took away, and that were written before then:
    those of runs that were interrupted among them."""
    newest = lake.version(table)
    if newest is None:
        return []
    kept = {file.uri for version in {newest, *versions} for file in lake.files(table, version)}
    for version in table_log.recent(lake.log_path(table), before):
        taken = (
            action["remove"]["path"]
            for action in table_log.actions(lake.log_path(table), version)
            if "remove" in action
        )
        kept |= {storage.join(lake.path(table), unquote(path)) for path in taken}
    found = [
        one for one in storage.listing(lake.path(table)) if one[0].endswith(".parquet") and "/_delta_log/" not in one[0]
    ]
    return [(uri, size) for uri, modified, size in found if uri not in kept and modified < before]


def shorten_log(lake: Lake, table: Table, unneeded: table_log.Unneeded) -> None:
    """Removes what `table_log.unneeded` has found, once the versions that stay have what they are read from without it.

    Runs beside others: those commit after the newest version, and hold themselves against
    newer ones than they have read.
    """
    if not unneeded.files:
        return
    log, nothing = delta_log(lake.spark, lake.path(table))
    for version in unneeded.checkpoints:
        log.writeCheckpointFiles(log.getSnapshotAt(version, nothing, nothing), nothing)
    if not table_log.announces(lake.log_path(table), unneeded.base):
        log.checkpoint(log.getSnapshotAt(unneeded.base, nothing, nothing), nothing)
    for uri, _ in unneeded.files:
        with contextlib.suppress(FileNotFoundError):
            storage.remove_file(uri)


def purge(lake: Lake, table: Table, since: float | None = None) -> tuple[int, list[str]]:
    """Removes all that the newest version does not need: older versions, their files and their part of the log.

    Nobody may write to the table meanwhile. A file that was written after `since` (seconds
    of the epoch) all the same, and is in no log, is left: its commit may be under way.
    Returns the number of files removed, and those left.
    """
    version = lake.version(table)
    assert version is not None
    log, nothing = delta_log(lake.spark, lake.path(table))
    log.checkpoint(log.getSnapshotAt(version, nothing, nothing), nothing)
    gone, left = 0, list[str]()
    stored = [(uri, modified) for uri, modified, _ in storage.listing(lake.path(table))]
    entries = {
        uri: int(entry.group(1))
        for uri in storage.files_under(lake.log_path(table))
        if (entry := table_log.OF_VERSION.search(uri))
    }
    # A row of `runs` may have been added by now, as a query holds no lease.
    later = [uri for uri, number in entries.items() if number > version and table_log.ENTRY.search(uri)]
    kept = {file.uri for file in lake.files(table, version)} | {
        uri for entry in later for uri in _named(lake, table, entry, ["add"])
    }
    young = {uri for uri, modified in stored if since is not None and modified >= since}
    logged = {
        uri
        for entry in entries
        if entry in young and table_log.ENTRY.search(entry)
        for uri in _named(lake, table, entry, ["add", "remove"])
    }
    for uri in (uri for uri, number in entries.items() if number < version):
        storage.remove_file(uri)
        gone += 1
    for uri, _ in stored:
        if uri.endswith(".parquet") and "/_delta_log/" not in uri and uri not in kept:
            if uri in young and uri not in logged:
                left.append(uri)
                continue
            storage.remove_file(uri)
            gone += 1
    return gone, left


def _named(lake: Lake, table: Table, entry: str, actions: Sequence[str]) -> list[str]:
    """URIs of the files that a commit adds or removes; `entry`: URI of its log entry."""
    lines = map(json.loads, storage.read_bytes(entry).decode().splitlines())
    return [
        storage.join(lake.path(table), unquote(line[action]["path"]))
        for line in lines
        for action in actions
        if action in line
    ]
