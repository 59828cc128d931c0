"""Where the entities of a cohort lie on a genome: by their columns chrom, start and end, else by their names."""

from __future__ import annotations

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import known
from genodl_spark.genome import loci
from genodl_spark.genome.loci import Loci
from genodl_spark.lake.entities import all_rows_about
from genodl_spark.lake.schema import SEQUENCE, VARIANT
from genodl_spark.lake.snapshot import Snapshot

COLUMNS = ("chrom", "start", "end")
CHROMOSOME, LOCUS = ("chromosome", "chrom"), "locus"  # groups of a split that follow from places
_NAMED = {SEQUENCE: loci.window, VARIANT: loci.variant}


def places_of(lake: Snapshot, kind: str, cohort: str, entities: list[str]) -> Loci:
    """Of entities of a kind, in their order: by columns where these say a window, else by names, else the contig that a
    column says. Those that nothing places are not known."""
    from pyspark.sql import functions as F

    named = _NAMED.get(kind, lambda name: None)
    rows = all_rows_about(lake, kind, cohort)
    if COLUMNS[0] not in rows.columns:
        return Loci.of(map(named, entities))
    there = [F.col(name) if name in rows.columns else F.lit(None).cast("string") for name in COLUMNS]
    table = rows.select("entity_id", *(column.alias(f"c{i}") for i, column in enumerate(there))).toArrow()
    texts = zip(*(column.to_pylist() for column in table.columns), strict=True)
    told = {entity: [None if text is None else known(text) for text in of] for entity, *of in texts}

    def place(entity: str) -> tuple[str, int, int] | None:
        chrom, start, end = told.get(entity, [None] * len(COLUMNS))
        if chrom and start and end and start.isdecimal() and end.isdecimal():
            return chrom, int(start), int(end)
        return named(entity) or ((chrom, 0, 1) if chrom else None)

    return Loci.of(map(place, entities))


def groups_of(lake: Snapshot, kind: str, cohort: str, entities: list[str], group: str, distance: int) -> list[str]:
    """The chromosome of each entity, or the locus: neighbours with at most `distance` bases between one and the next.
    One whose place is not known is a group by itself; InputError where that is so of all."""
    places = places_of(lake, kind, cohort, entities)
    if not places.known.any():
        where = f"in columns {', '.join(COLUMNS)} or the names of {len(entities)} {kind}s, such as {min(entities)!r}"
        text = f"found no column {group!r}, and no place on a genome {where}"
        raise InputError(f"{text}; expected one of the three, a name is chr1:1000-1200 or 1:1000:A:G", "split.group")
    if group == LOCUS:
        number = loci.neighbours(places, distance)
        rows = np.flatnonzero(places.known)
        first, last = np.full(number.max() + 1, np.iinfo(np.int64).max), np.zeros(number.max() + 1, np.int64)
        np.minimum.at(first, number[rows], places.start[rows] + 1)
        np.maximum.at(last, number[rows], places.end[rows])
        named = [f"{contig}:{first[n]}-{last[n]}" for contig, n in zip(places.contig, number, strict=True)]
    else:
        named = places.contig.tolist()
    there = zip(named, places.known.tolist(), entities, strict=True)
    return [name if is_known else f"\0{entity}" for name, is_known, entity in there]
