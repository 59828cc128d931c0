"""Every table of the lake, declared once: columns, types, units, key, partitioning, checks and what a row means.

Spark schema, Arrow schema, Delta DDL, constraints and documentation are rendered from these declarations.
Types are written as Spark SQL types. Coordinates are 1-based and closed. Timestamps are UTC.
"""

from __future__ import annotations

from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables import (
    calls,
    cells,
    consequences,
    genetics,
    genomes,
    ingested,
    learning,
    operations,
    portals,
)

_FILES = (ingested, portals, genomes, learning, genetics, consequences, calls, cells, operations)
TABLES: dict[str, Table] = {
    table.name: table for file in _FILES for table in vars(file).values() if isinstance(table, Table)
}
