"""What a table is: its columns, types, key, partitioning and checks, rendered for Spark, Arrow and Delta.

Types are written as Spark SQL types.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from genodl_spark.core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Row
    from pyspark.sql.types import StructType

PERSON, SEQUENCE, VARIANT, CELL, SITE = "person", "sequence", "variant", "cell", "site"
ENTITIES = (PERSON, SEQUENCE, VARIANT, CELL, SITE)
OF_TASK = "of task"  # the kind of entity that the row's task is about


# property of a Delta table: what its declaration says beside columns, partitioning and checks
DECLARED = "genodl.table"
_CHECK = "delta.constraints."
# where Delta's schema calls them otherwise
_SPARK_TYPES = {"long": "bigint", "integer": "int", "short": "smallint", "byte": "tinyint"}
_DELTA_TYPES = {spark: delta for delta, spark in _SPARK_TYPES.items()}
_INNER = {"array": ("elementType",), "map": ("keyType", "valueType")}
_MAY_BE_NULL = {"array": "containsNull", "map": "valueContainsNull"}


@dataclass(frozen=True)
class Column:
    """One column: Spark SQL type, what it holds, and whether it may be NULL."""

    name: str
    type: str
    doc: str
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """One table of the lake.

    `key` names the columns that no two rows share. `checks` maps a constraint's name to the SQL condition
    that every row meets. `open` tables take further columns that come with the user's data (strings).
    `clustered_by`: order of the rows within a partition once it is compacted; the key where it is empty.
    Tables that are not `compacted` keep their files as they were written.

    What a row is about, and whom it names: those who trace a row, take a person out or mend a file ask this,
    and know no table by name. `entity`: the column that names what the row is about;
    empty where it is no one column. `kind`: what that is; a column may say so instead, `kind_in`.
    `person`: columns that each name a person whose row this is; the row goes with any of them. `packed_by`: the column
    that names the order (`sample_sets`) by which packed genotypes hold a value of each of several people.
    `file`: the column with the name of the file that the row came from. `made_by`: what brings the rows back, words
    after `genodl`: a verb with its task, or `ingest` with the kind of source where it is one; empty where nothing does.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partitioned_by: tuple[str, ...] = ()
    checks: dict[str, str] = field(default_factory=dict)
    open: bool = False
    clustered_by: tuple[str, ...] = ()
    compacted: bool = True
    entity: str = ""
    kind: str = PERSON
    kind_in: str = ""
    person: tuple[str, ...] = ()
    packed_by: str = ""
    file: str = ""
    made_by: str = ""

    def naming(self, kind: str, name: str) -> list[dict[str, str]]:
        """Values of columns, by name, that rows of an entity have: those of any one of the alternatives.
        None where the table has no such rows."""
        if kind == PERSON:
            return [{column: name} for column in self.person]
        if self.kind_in:
            return [{self.kind_in: kind, self.entity: name}]
        return [{self.entity: name}] if self.entity and self.kind in (kind, OF_TASK) else []

    def beside(self, column: str) -> str:
        """The name under which an open table holds a column of the user's: with a `_` behind,
        where it has one of that name itself."""
        return f"{column}_" if column.lower() in self.column_names else column

    @property
    def order(self) -> list[str]:
        """Columns that rows of a partition are ordered by when they are compacted."""
        return [name for name in (*self.clustered_by, *self.key) if name not in self.partitioned_by]

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    def with_columns(self, names: Iterable[str]) -> Table:
        """An open table with further columns, of text."""
        more = tuple(Column(name, "string", "") for name in names if name not in self.column_names) if self.open else ()
        return replace(self, columns=(*self.columns, *more))

    def delta_schema(self) -> dict[str, Any]:
        """The schema as Delta's log and Spark have it in JSON."""
        fields = [
            {
                "name": c.name,
                "type": _json_type(c.type),
                "nullable": c.nullable,
                "metadata": {"comment": c.doc} if c.doc else {},
            }
            for c in self.columns
        ]
        return {"type": "struct", "fields": fields}

    def spark_schema(self) -> StructType:
        from pyspark.sql.types import StructType

        return StructType.fromJson(self.delta_schema())

    def arrow_schema(self) -> pa.Schema:
        """Rendered without a JVM, so that tasks can ask for it."""
        import pyarrow as pa

        def arrow(type_: str) -> pa.DataType:
            kind, _, inner = type_.removesuffix(">").partition("<")
            if kind == "array":
                return pa.list_(arrow(inner))
            if kind == "map":
                key, value = inner.split(",", 1)
                return pa.map_(arrow(key), arrow(value.strip()))
            if kind == "timestamp":
                return pa.timestamp("us", tz="UTC")
            return pa.type_for_alias(
                {"bigint": "int64", "int": "int32", "boolean": "bool", "tinyint": "int8"}.get(kind, kind)
            )

        return pa.schema([pa.field(c.name, arrow(c.type), c.nullable) for c in self.columns])

    def row(self, found: Mapping[str, Any]) -> Row:
        """A row that was read without Spark, as Spark has it: maps are dictionaries, moments in local time."""
        from pyspark.sql import Row

        def as_spark(name: str, value: Any) -> Any:
            if isinstance(value, datetime):
                return value.astimezone().replace(tzinfo=None)
            return dict(value) if value is not None and types[name].startswith("map<") else value

        types = {column.name: column.type for column in self.columns}
        return Row(**{name: as_spark(name, value) for name, value in found.items()})

    def metadata(self) -> dict[str, Any]:
        """What the log of a new Delta table says of it: schema with comments, partitioning and CHECK constraints."""
        return {
            "id": str(uuid.uuid4()),
            "description": self.doc,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps(self.delta_schema()),
            "partitionColumns": list(self.partitioned_by),
            "configuration": self.properties(),
            "createdTime": int(time.time() * 1000),
        }

    def properties(self) -> dict[str, str]:
        """Properties of the Delta table."""
        return {
            # Petastorm, DuckDB and others read the files themselves: nothing that only Delta's own reader understands.
            "delta.enableDeletionVectors": "false",
            "delta.columnMapping.mode": "none",
            # Models and predictions pin versions for as long as they are there; `genodl maintain` knows which.
            "delta.enableExpiredLogCleanup": "false",
            **{f"{_CHECK}{name}": condition for name, condition in self.checks.items()},
            DECLARED: self._declared(),
        }

    def _declared(self) -> str:
        known = ("name", "doc", "columns", "partitioned_by", "checks")  # the log has these
        return json.dumps({one.name: getattr(self, one.name) for one in fields(self) if one.name not in known})

    @classmethod
    def from_metadata(cls, name: str, metadata: Mapping[str, Any], place: str) -> Table | None:
        """The declaration that a table was made from, by the metadata in its log, so that a table of somebody's
        own needs no code to be read.

        None for a table that was not made from one. InputError, at `place`, where it cannot be read as such.
        """
        properties = metadata.get("configuration", {})
        if DECLARED not in properties:
            return None
        try:
            more: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in json.loads(properties[DECLARED]).items()
            }
            stored = json.loads(metadata["schemaString"])["fields"]
            columns = tuple(
                Column(f["name"], sql_type(f["type"]), f["metadata"].get("comment", ""), f["nullable"]) for f in stored
            )
            checks = {key.removeprefix(_CHECK): value for key, value in properties.items() if key.startswith(_CHECK)}
            made = cls(
                name,
                metadata.get("description") or "",
                columns,
                partitioned_by=tuple(metadata["partitionColumns"]),
                checks=checks,
                **more,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"found a table whose property {DECLARED} is no declaration ({error}); "
                "expected that which it was made with",
                place,
            ) from error
        if not made.key or not {*made.key, *made.clustered_by} <= set(made.column_names):
            raise InputError(
                f"found a table whose property {DECLARED} names columns that it lacks; expected its own", place
            )
        return made


def sql_type(type_: Any) -> str:
    """A type of Delta's schema, as its JSON has it, as Spark SQL writes it, without blanks."""
    if isinstance(type_, str):
        return _SPARK_TYPES.get(type_, type_)
    if type_["type"] == "struct":
        return f"struct<{','.join(f['name'] + ':' + sql_type(f['type']) for f in type_['fields'])}>"
    return f"{type_['type']}<{','.join(sql_type(type_[key]) for key in _INNER[type_['type']])}>"


def _json_type(type_: str) -> Any:
    """A type of Spark SQL's as Delta's schema has it."""
    kind, _, inner = type_.removesuffix(">").partition("<")
    if kind not in _INNER:
        return _DELTA_TYPES.get(type_, type_)
    parts = inner.split(",", 1) if kind == "map" else [inner]
    return {
        "type": kind,
        **{key: _json_type(part.strip()) for key, part in zip(_INNER[kind], parts, strict=True)},
        _MAY_BE_NULL[kind]: True,
    }


def identifier(name: str) -> str:
    """`name` quoted as a Spark SQL identifier."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """`text` quoted as a Spark SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_FOLDER_NAME = 255  # bytes that a file system takes, as a rule


def partition_folder(column: str, value: str, place: str | None = None) -> str:
    """The folder of a partition, percent-encoded. InputError, at `place`, where the value is too long for one."""
    folder = f"{column}={quote(value, safe='')}"
    if len(folder) > _FOLDER_NAME:
        found = f"found a name of {len(value)} characters, {len(folder)} bytes as the folder {folder[:40]}..."
        raise InputError(
            f"{found}; expected {_FOLDER_NAME} bytes at most, where each beyond ASCII counts as three: shorten it",
            place or column,
        )
    return folder


def required(name: str, type_: str, doc: str) -> Column:
    return Column(name, type_, doc, nullable=False)


COHORT = required("cohort", "string", "Name of the cohort that the row belongs to")
TASK = required("task", "string", "Task name: that of its TOML")
LABEL_COLUMN = required("label_column", "string", "Column that holds the label, as named in `samples` or `labels`")
