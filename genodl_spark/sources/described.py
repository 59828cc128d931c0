"""What a page says of a cohort's data, whatever kinds of source brought it: files and rows, records set aside, what
became of names, what is known of its entities; and what each kind says of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import input_error_within
from genodl_spark.lake.entities import table_about
from genodl_spark.lake.schema import ENTITIES, PERSON
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.summaries import Reading
from genodl_spark.lake.tables.ingested import QUARANTINE, SOURCES
from genodl_spark.lake.tables.portals import HARMONISATION
from genodl_spark.report.content import several
from genodl_spark.report.facts import Facts, Listing
from genodl_spark.report.measures import Columns
from genodl_spark.sources import kinds, load

# what differs from one record to the next within a reason: what is quoted, and numbers
_PARTICULAR = r"'[^']*'|\"[^\"]*\"|[0-9]+(?:[.,][0-9]+)*"
_LISTED, _DAYS, _COLUMNS, _LEVELS = 25, 31, 60, 6
_REASONS = 2000  # that are told apart; what comes after is counted together
OTHERS = "other reasons"


@dataclass
class Described:
    """Of one cohort. `columns`: kind of entity -> column -> entity -> value, of the entities in clouds."""

    files: int
    rows: int
    sources: list[str]
    facts: list[Facts]
    columns: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def described(lake: Snapshot, cohort: str, also: Sequence[Facts] = ()) -> Described:
    """What the lake has of a cohort, with what others say of it. What a kind cannot read is a warning, and hides
    nothing else."""
    manifest = lake.rows(SOURCES, {"cohort": cohort}).select(
        ["source", "block", "file", "records", "quarantined", "bytes", "ingested_at"]
    )
    manifest = manifest.filter(pc.not_equal(manifest.column("source"), ""))
    names = sorted(set(manifest.column("source").to_pylist()))
    made = Described(manifest.num_rows, int(pc.sum(manifest.column("records")).as_py() or 0), names, [])
    made.facts.append(_files(manifest))
    for name in names:
        if name in kinds():  # the code of a user's own kind is not in the lake
            try:
                kind = load(name)
                found = kind.facts(lake, cohort)
                if not found and not kind.adds:
                    found = [
                        Facts(name.capitalize(), [f"There is nothing to be shown of {name} beside the counts above."])
                    ]
                made.facts += found
            except Exception as error:
                wrong = input_error_within(error)  # tasks tell theirs as text
                if wrong is None:
                    raise
                made.warnings.append(f"{cohort}, {name}: left out: {wrong}")
                made.facts.append(Facts(name.capitalize(), [f"Left out: {wrong}"]))
    made.facts += also
    of_harmonisation = ["source", "reason", "file", "action", "what", "name", "became"]
    for table, facts, columns in (
        (QUARANTINE, _set_aside, ["source", "reason", "file", "line"]),
        (HARMONISATION, _harmonised, of_harmonisation),
    ):
        made.facts += facts(Reading(table, {"cohort": cohort}, columns).summarise(lake, Reasons()))
    drawn = {
        entity: [i for one in made.facts for cloud in one.clouds if cloud.kind == entity for i in cloud.ids]
        for entity in ENTITIES
    }
    for entity, ids in drawn.items():
        told = _columns(lake, cohort, entity, sorted(set(ids)))
        if told.rows:
            made.columns[entity] = told.of
            made.facts.insert(1, _known(entity, told))
    return made


def _files(manifest: pa.Table) -> Facts:
    of_block = manifest.group_by(["source", "block"]).aggregate(
        [("file", "count"), ("records", "sum"), ("quarantined", "sum"), ("bytes", "sum"), ("ingested_at", "max")]
    )
    rows = [
        [
            r["source"] + (f", block {r['block']}" if r["block"] else ""),
            r["file_count"],
            r["records_sum"],
            r["quarantined_sum"],
            f"{r['bytes_sum'] / 1e6:,.1f}",
            f"{r['ingested_at_max']:%Y-%m-%d %H:%M}",
        ]
        for r in sorted(of_block.to_pylist(), key=lambda r: (r["source"], r["block"]))
    ]
    days = manifest.append_column("day", pc.strftime(manifest.column("ingested_at"), "%Y-%m-%d"))
    of_day = days.group_by(["day", "source"]).aggregate([("file", "count"), ("records", "sum"), ("quarantined", "sum")])
    by_day = [
        [r["day"], r["source"], r["file_count"], r["records_sum"], r["quarantined_sum"]]
        for r in sorted(of_day.to_pylist(), key=lambda r: (r["day"], r["source"]), reverse=True)
    ]
    header = ["Source", "Files", "Rows", "Set aside", "MB", "Newest, UTC"]
    listings = [Listing("By source", header, rows)] if rows else []
    if len({row[0] for row in by_day}) > 1:
        note = f"The newest {_DAYS} of {len(by_day)}." if len(by_day) > _DAYS else ""
        listings.append(Listing("By day", ["Day", "Source", "Files", "Rows", "Set aside"], by_day[:_DAYS], note))
    return Facts("Files and rows", [] if rows else ["No file is known of this cohort."], [], listings)


class Reasons:
    """How many rows of `quarantine` or `harmonisation` there are for each reason, without what is particular in it; and
    the first of them, by file and text. A row of `harmonisation` also says what was done, and to what."""

    def __init__(self) -> None:
        self.rows = 0
        self.counts: dict[tuple[str, ...], int] = {}
        self.first: dict[tuple[str, ...], tuple[Any, ...]] = {}
        self.files: dict[tuple[str, ...], set[str]] = {}

    def add(self, rows: pa.RecordBatch) -> None:
        alike = pc.replace_substring_regex(rows.column("reason"), _PARTICULAR, "…")
        told = rows.schema.names
        keys = [rows.column("source"), *(rows.column(name) for name in ("action", "what") if name in told), alike]
        names = [f"k{i}" for i in range(len(keys))]
        rest = [name for name in ("file", "line", "name", "became", "reason") if name in told]
        table = pa.Table.from_arrays([*keys, *(rows.column(name) for name in rest)], [*names, *rest])
        grouped = table.group_by(names, use_threads=False).aggregate(
            [("file", "count"), ("file", "distinct"), *((name, "first") for name in rest)]
        )
        for row in grouped.to_pylist():
            key = tuple(row[name] for name in names)
            self._count(key, row["file_count"], set(row["file_distinct"]), tuple(row[f"{name}_first"] for name in rest))

    def merge(self, other: Reasons) -> None:
        for key, count in other.counts.items():
            self._count(key, count, other.files[key], other.first[key])

    def _count(self, key: tuple[str, ...], count: int, files: set[str], first: tuple[Any, ...]) -> None:
        if key not in self.counts and len(self.counts) >= _REASONS:
            key = (*key[:-1], OTHERS)
        self.rows += count
        self.counts[key] = self.counts.get(key, 0) + count
        self.files[key] = self.files.get(key, set()) | files
        self.first[key] = min(self.first.get(key, first), first, key=str)

    @property
    def ordered(self) -> list[tuple[str, ...]]:
        return sorted(self.counts, key=lambda key: (-self.counts[key], key))


def _set_aside(found: Reasons) -> list[Facts]:
    if not found.rows:
        return [Facts("Records set aside", ["None: every record that was read is stored."])]
    rows = []
    for key in found.ordered[:_LISTED]:
        file, line, reason = found.first[key]
        rows.append([key[-1], key[0], found.counts[key], len(found.files[key]), f"{file}:{line}: {reason}"])
    said = [f"In quarantine: {several(found.rows, 'record')}, for {several(len(found.counts), 'reason')}."]
    listing = Listing("By reason", ["Reason", "Source", "Records", "Files", "For example"], rows, _left(found))
    return [Facts("Records set aside", said, [], [listing])]


def _harmonised(found: Reasons) -> list[Facts]:
    if not found.rows:
        return []
    rows = []
    for key in found.ordered[:_LISTED]:
        file, name, became, _ = found.first[key]
        source, action, what, reason = key
        example = f"{name} → {became}" if became else name
        rows.append([reason, action, what, source, found.counts[key], f"{example} ({file})"])
    actions: dict[str, int] = {}
    for key, count in found.counts.items():
        actions[key[1]] = actions.get(key[1], 0) + count
    said = [f"{', '.join(f'{count:,} {action}' for action, count in sorted(actions.items()))}."]
    header = ["Reason", "Action", "Name of", "Source", "Names", "For example"]
    return [Facts("What became of names", said, [], [Listing("By reason", header, rows, _left(found))])]


def _left(found: Reasons) -> str:
    left = len(found.counts) - _LISTED
    return f"{left:,} less frequent reasons are left out." if left > 0 else ""


def _columns(lake: Snapshot, cohort: str, kind: str, ids: list[str]) -> Columns:
    """What tables say of the entities of a kind, and for some of them each."""
    table = table_about(kind)
    where: Mapping[str, str] = {"cohort": cohort, table.kind_in: kind} if table.kind_in else {"cohort": cohort}
    reading, empty = Reading(table, where), Columns(table.entity, ids, table.column_names)
    return reading.summarise(lake, empty) if lake.version(table) is not None else empty


def _known(kind: str, told: Columns) -> Facts:
    word = "samples" if kind == PERSON else f"{kind}s"
    rows: list[list[Any]] = []
    filled = sorted(name for name in told.values if told.known[name])  # others are of other cohorts
    for name in filled[:_COLUMNS]:
        values = told.values[name]
        if values is None:
            rows.append([name, told.known[name] / told.rows, None, "too many to list"])
            continue
        ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
        if len(ordered) == told.known[name] > _LEVELS:
            rows.append([name, told.known[name] / told.rows, len(ordered), "all different"])
            continue
        listed = ", ".join(f"{value} ({count:,})" for value, count in ordered[:_LEVELS])
        rows.append(
            [name, told.known[name] / told.rows, len(ordered), listed + (" …" if len(ordered) > _LEVELS else "")]
        )
    rows = [[name, f"{share:.1%}", *rest] for name, share, *rest in rows]
    said = [f"What sample tables and files say of {told.rows:,} {word}."]
    left = len(filled) - _COLUMNS
    note = f"{left:,} more columns are left out." if left > 0 else ""
    header = ["Column", "Filled", "Different values", "Most frequent, and how many"]
    return Facts(f"Columns of {word}", said, [], [Listing("Values", header, rows, note)] if rows else [])
