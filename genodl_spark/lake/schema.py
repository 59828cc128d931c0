"""What a table is: its columns, types, key, partitioning and checks, rendered for Spark, Arrow and Delta.

Types are written as Spark SQL types.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from genodl_spark.core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType

PERSON, SEQUENCE, SITE = "person", "sequence", "site"
ENTITIES = (PERSON, SEQUENCE, "variant", "cell", SITE)
OF_TASK = "of task"  # the kind of entity that the row's task is about


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

    `key` names the columns that no two rows share. `checks` maps a constraint's name to the SQL condition that every row
    meets. `open` tables take further columns that come with the user's data (strings). `clustered_by`: order of the rows within a partition
    once it is compacted; the key where it is empty. Tables that are not `compacted` keep their files as they were written.

    What a row is about, and whom it names: those who trace a row, take a person out or mend a file ask this, and know no table by name.
    `entity`: the column that names what the row is about; empty where it is no one column. `kind`: what that is; a column may say so instead,
    `kind_in`. `person`: columns that each name a person whose row this is; the row goes with any of them. `packed_by`: the column that names
    the order (`sample_sets`) by which packed genotypes hold a value of each of several people. `file`: the column with the name of the file
    that the row came from. `made_by`: what brings the rows back, words after `genodl`: a verb with its task, or `ingest` with the kind of
    source where it is one; empty where nothing does.
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
        """Values of columns, by name, that rows of an entity have: those of any one of the alternatives. None where the table has no such rows."""
        if kind == PERSON:
            return [{column: name} for column in self.person]
        if self.kind_in:
            return [{self.kind_in: kind, self.entity: name}]
        return [{self.entity: name}] if self.entity and self.kind in (kind, OF_TASK) else []

    def beside(self, column: str) -> str:
        """The name under which an open table holds a column of the user's: with a `_` behind, where it has one of that name itself."""
        return f"{column}_" if column.lower() in self.column_names else column

    @property
    def order(self) -> list[str]:
        """Columns that rows of a partition are ordered by when they are compacted."""
        return [name for name in (*self.clustered_by, *self.key) if name not in self.partitioned_by]

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    def spark_schema(self) -> StructType:
        from pyspark.sql.types import StructField, StructType, _parse_datatype_string

        fields = []
        for column in self.columns:
            parsed = _parse_datatype_string(f"c {column.type}")
            assert isinstance(parsed, StructType)
            fields.append(StructField(column.name, parsed.fields[0].dataType, column.nullable, {"comment": column.doc}))
        return StructType(fields)

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
            return pa.type_for_alias({"bigint": "int64", "int": "int32", "boolean": "bool", "tinyint": "int8"}.get(kind, kind))

        return pa.schema([pa.field(c.name, arrow(c.type), c.nullable) for c in self.columns])

    def ddl(self, path: str) -> str:
        """CREATE TABLE for a Delta table at `path`, with comments, partitioning and CHECK constraints."""
        columns = ",\n  ".join(f"{identifier(c.name)} {c.type}{'' if c.nullable else ' NOT NULL'} COMMENT {literal(c.doc)}" for c in self.columns)
        partitioning = ", ".join(identifier(name) for name in self.partitioned_by)
        properties = {
            # Petastorm, DuckDB and others read the files themselves: nothing that only Delta's own reader understands.
            "delta.enableDeletionVectors": "false",
            "delta.columnMapping.mode": "none",
            # Models and predictions pin versions for as long as they are there; `genodl maintain` knows which.
            "delta.enableExpiredLogCleanup": "false",
            **{f"delta.constraints.{name}": condition for name, condition in self.checks.items()},
        }
        return (
            f"CREATE TABLE IF NOT EXISTS delta.{identifier(path)} (\n  {columns}\n) USING delta"
            + (f" PARTITIONED BY ({partitioning})" if partitioning else "")
            + f" COMMENT {literal(self.doc)} TBLPROPERTIES ("
            + ", ".join(f"{literal(k)} = {literal(v)}" for k, v in properties.items())
            + ")"
        )


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
        raise InputError(f"{found}; expected {_FOLDER_NAME} bytes at most, where each beyond ASCII counts as three: shorten it", place or column)
    return folder


def required(name: str, type_: str, doc: str) -> Column:
    return Column(name, type_, doc, nullable=False)


COHORT = required("cohort", "string", "Name of the cohort that the row belongs to")
TASK = required("task", "string", "Task name: that of its TOML")
LABEL_COLUMN = required("label_column", "string", "Column that holds the label, as named in `samples` or `labels`")
