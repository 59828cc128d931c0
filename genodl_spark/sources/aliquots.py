"""Files of counts of samples that a cohort has already from another aliquot: one of them stands for the sample, by the
rule that holds for the files of one command, whichever command brought it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from genodl_spark.formats.gdc_counts import UNITS as OF_GDC
from genodl_spark.formats.gdc_counts import GdcCounts
from genodl_spark.formats.gdc_sheet import Aliquot, Change, standing
from genodl_spark.formats.matrix import MatrixFile
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.portals import HARMONISATION, UNITS
from genodl_spark.sources.engine import SourceFile

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass
class Settled:
    """`left`: samples whose file does not come, as a stored aliquot stands for them; `replaced`: names of stored files
    whose data goes, as one that comes stands; `changes`: what was dropped, the stored ones by their files' names."""

    left: set[str] = field(default_factory=set)
    replaced: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


def settled(
    coming: Mapping[str, Aliquot], stored: Mapping[str, Collection[Aliquot]], level: str, order: Sequence[str]
) -> Settled:
    """Which aliquots stand, of those that come (by sample) and those of the same samples that are stored."""
    made = Settled()
    for sample, own in coming.items():
        if not (others := stored.get(sample)):
            continue
        first, dropped = standing([own, *others], sample, level, order)
        if first is own:
            made.replaced += [one.uri for one in dropped]
            made.changes += dropped
        else:
            made.left.add(sample)
            made.changes += [one for one in dropped if one.uri == own.uri]
    return made


def coming(files: Mapping[SourceFile, MatrixFile], changes: Sequence[Change]) -> dict[str, Aliquot]:
    """Files of counts by their sample. `changes`: how samples were called in the files."""
    names = {change.uri: change.name for change in changes if change.action == "renamed"}
    return {
        header.samples[0]: Aliquot(names.get(file.uri, header.samples[0]), file.name, file.uri)
        for file, header in files.items()
        if isinstance(header, GdcCounts)
    }


def stored(
    run: Run, whose: Mapping[str, str], rows: DataFrame, samples: Collection[str], fresh: Collection[str]
) -> dict[str, list[Aliquot]]:
    """Files of counts that a block of a cohort (`whose`) has of some samples, but for those that come `fresh`; their
    names are their URIs. `rows`: of the block."""
    from pyspark.sql import functions as F

    units = run.lake.rows(UNITS, whose).select(["file", "unit"]).to_pylist()
    counts = {row["file"] for row in units if row["unit"] in OF_GDC.values()}.difference(fresh)
    if not counts or not samples:
        return {}
    told = run.lake.rows(HARMONISATION, {**whose, "what": "sample", "action": "renamed", "file": sorted(counts)})
    names = {row["file"]: row["name"] for row in told.select(["file", "name"]).to_pylist()}
    wanted = run.spark.createDataFrame(pa.table({"sample_id": pa.array(sorted(samples))}))
    held = rows.join(F.broadcast(wanted), "sample_id", "left_semi").select(
        "sample_id", F.coalesce("files", F.array("file")).alias("files")
    )
    return {
        row.sample_id: found
        for row in held.collect()
        if (found := [Aliquot(names.get(one, row.sample_id), one, one) for one in row.files if one in counts])
    }
