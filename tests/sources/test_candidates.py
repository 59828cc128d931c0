"""Candidates with labels as tasks write them, without Spark: how tiles are dealt out does not matter, labels are those
of the truth, and added errors make candidates that are none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam
import pytest

from genodl_spark.formats import alignment
from genodl_spark.genetics.calling.gap_errors import fitted_gaps, gathered
from genodl_spark.genetics.settings import Calling
from genodl_spark.lake.parts import Part
from genodl_spark.sources import candidates
from genodl_spark.sources.candidates import Known
from genodl_spark.sources.engine import SourceFile
from tests.genetics.calling.labelled_reads import SAMPLE, written

LENGTH, SURE = 4_000, (600, 3_400)
ASKED = Calling(depths=[6], added_errors=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("candidates")
    written(made, LENGTH, 20, SURE)
    return made


@pytest.fixture(scope="module")
def of(folder: Path) -> Known:
    reads = str(folder / "reads.bam")
    header = alignment.header_of(reads)
    return candidates.known(
        {reads: header}, str(folder / "truth.vcf.gz"), str(folder / "sure.bed"), str(folder / "ref.fa")
    )


def tiles_of(folder: Path, of: Known) -> list[candidates._Tile]:
    uri = str(folder / "reads.bam")
    return list(candidates._tiles(SourceFile(uri, "reads.bam", "", 0), alignment.header_of(uri), of))


def brought(folder: Path, of: Known, shards: int, gaps: dict, place: Path) -> dict[str, pa.Table]:
    tiles = tiles_of(folder, of)
    numbers: Iterator[pa.RecordBatch] = iter([pa.RecordBatch.from_arrays([pa.array(range(shards))], ["id"])])
    uris = (str(place / "pileups"), str(place / "labels"))
    dealt = [tiles[part::shards] for part in range(shards)]
    write = partial(candidates._write, truths=of.truths, reference=str(folder / "ref.fa"), asked=ASKED, cohort="c")
    found: dict[str, list[pa.Table]] = {}
    for batch in write(numbers, shards=dealt, uris=uris, name="r", gaps=gaps):
        for row in batch.to_pylist():
            path = place / row["table"] / unquote(Part.from_json(row["part"]).path)
            found.setdefault(row["table"], []).append(pq.read_table(path, partitioning=None))
    keys = {"pileups": "variant_id", "labels": "entity_id"}
    return {name: pa.concat_tables(tables).sort_by(keys[name]) for name, tables in found.items()}


@pytest.fixture(scope="module")
def gaps(folder: Path, of: Known) -> dict[tuple[str, int], np.ndarray]:
    tiles = tiles_of(folder, of)
    numbers = iter([pa.RecordBatch.from_arrays([pa.array(range(len(tiles)))], ["id"])])
    batches = list(candidates._count_gaps(numbers, tiles, of.truths, str(folder / "ref.fa"), ASKED))
    rows = np.concatenate([np.column_stack([c.to_numpy() for c in batch.columns]) for batch in batches])
    assert set(rows[:, 0]) == set(range(len(tiles)))
    return {
        ("reads.bam", times): fitted_gaps(gathered([rows[rows[:, 1] == times, 2:]]))
        for times in (0, ASKED.added_errors)
    }


@pytest.fixture(scope="module")
def rows(folder: Path, of: Known, gaps: dict, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    return brought(folder, of, 1, gaps, tmp_path_factory.mktemp("one"))


def test_how_tiles_are_dealt_out_does_not_matter(
    folder: Path, of: Known, gaps: dict, rows: dict[str, pa.Table], tmp_path: Path
) -> None:
    again = brought(folder, of, 3, gaps, tmp_path)
    assert again["pileups"].equals(rows["pileups"])
    assert again["labels"].equals(rows["labels"])
    assert rows["pileups"].column("variant_id").equals(rows["labels"].column("entity_id"))


def test_labels_are_copies_of_the_truth(folder: Path, rows: dict[str, pa.Table]) -> None:
    told = dict(zip(*(rows["labels"].column(name).to_pylist() for name in ("entity_id", "label")), strict=True))
    with pysam.VariantFile(str(folder / "truth.vcf.gz")) as file:
        truth = {
            (record.chrom, record.pos, record.ref, record.alts[0]): record.samples[SAMPLE]["GT"].count(1)
            for record in file
            if len(record.alts) == 1 and SURE[0] < record.pos < SURE[1] - 30
        }
    seen, right = set(), []
    for row in rows["pileups"].drop_columns(["x"]).to_pylist():
        place = (row["chrom"], row["pos"], row["ref"], row["alt"])
        label = int(told[row["variant_id"]])
        assert SURE[0] < row["pos"] and row["pos"] + len(row["ref"]) - 1 <= SURE[1]
        if place in truth:
            assert label == truth[place]
        if row["thinned"] == row["added_errors"] == 0:
            seen |= {place} & truth.keys()
            right.append(int(np.argmax(row["likelihood"])) == label)
    assert len(seen) >= 0.97 * len(truth) > 40
    assert np.mean(right) > 0.97


def test_added_errors_make_candidates_that_are_none(rows: dict[str, pa.Table]) -> None:
    labels = rows["labels"].select(["added_errors", "depth", "label"]).to_pylist()
    none = {
        (row["added_errors"], row["depth"]): sum(
            other["label"] == "0" for other in labels if {**other, "label": ""} == {**row, "label": ""}
        )
        for row in labels
    }
    assert set(none) == {(times, depth) for times in ("0", "4") for depth in ("0", "6")}
    assert none["4", "6"] > 1.5 * none["0", "6"] > 0
    depth = {row["thinned"]: [] for row in rows["pileups"].select(["thinned"]).to_pylist()}
    for row in rows["pileups"].select(["thinned", "depth"]).to_pylist():
        depth[row["thinned"]].append(row["depth"])
    assert np.mean(depth[6]) == pytest.approx(0.3 * np.mean(depth[0]), rel=0.2)


def test_intervals_hold_spans() -> None:
    sure = np.array([[10, 20], [20, 25], [30, 40]])
    spans = np.array([[10, 11], [19, 20], [19, 21], [9, 11], [29, 31], [30, 40], [39, 41], [50, 51]])
    found = candidates._inside(spans, sure)
    assert found.tolist() == [True, True, False, False, False, True, False, False]
