"""What kinds of source say of a cohort's data: figures as they were planted, of a lake that older code wrote,
and without a JVM."""

from __future__ import annotations

import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.core import packing
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.cohort import Samples, samples_of
from genodl_spark.lake.schema import Table
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.stored import StoredLake
from genodl_spark.lake.summaries import Reading
from genodl_spark.lake.tables.genomes import ALIGNMENTS, ANNOTATIONS, REFERENCE
from genodl_spark.lake.tables.ingested import (
    CELLS,
    FEATURES,
    LABELS,
    QUARANTINE,
    SEQUENCES,
    SOURCES,
    VARIANT_EFFECTS,
    VARIANTS,
)
from genodl_spark.lake.tables.portals import HARMONISATION, MUTATIONS
from genodl_spark.learning.preprocessing import Chain
from genodl_spark.registry import treated
from genodl_spark.report import data_page
from genodl_spark.report.clouds import colourings
from genodl_spark.report.facts import Cloud, Facts, Listing
from genodl_spark.report.measures import Picked
from genodl_spark.sources import described, genotype_facts
from genodl_spark.sources.cell_facts import CellSums, _Dense
from genodl_spark.sources.genome_facts import Contigs, Tallies
from genodl_spark.sources.genotype_facts import Rates, Thinned
from genodl_spark.sources.labelled_facts import Composition, Values
from genodl_spark.sources.matrix_facts import MatrixSums
from tests.frozen.make import GONE, LAKE
from tests.report.test_data_page import in_parts
from tests.report.test_page import EVIL


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("frozen")
    with tarfile.open(LAKE) as archive:
        archive.extractall(folder, filter="data")
    return Snapshot(StoredLake(str(folder / "lake"), lambda: None))  # type: ignore[arg-type, return-value]


def put(folder: Path, table: Table, rows: list[dict[str, Any]]) -> None:
    """Rows as a table of a lake; what they do not say is 0 or empty, or NULL where it may be."""
    usual = {"string": "", "bigint": 0, "int": 0, "double": 0.0, "timestamp": datetime(2026, 1, 2, tzinfo=UTC)}
    filled = [{c.name: None if c.nullable else usual.get(c.type, []) for c in table.columns} | row for row in rows]
    more = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in table.column_names]
    schema = table.with_columns(more).arrow_schema()
    deltalake.write_deltalake(
        folder / table.name, pa.Table.from_pylist(filled, schema), partition_by=list(table.partitioned_by) or None
    )


def listing(facts: Facts, title: str) -> Listing:
    return next(one for one in facts.listings if one.title == title)


def test_a_lake_of_several_kinds(frozen: Snapshot, tmp_path: Path) -> None:
    found = described.described(frozen, "people")
    assert (found.files, found.rows, found.warnings) == (5, 160, [])
    of = {one.title: one for one in found.facts}
    assert list(of) == [
        "Files and rows",
        "Columns of samples",
        "Expression, block mirna",
        "Expression, block mrna",
        "Methylation",
        "Genotypes",
        "Records set aside",
    ]
    assert [row[:4] for row in listing(of["Files and rows"], "By source").rows] == [
        ["expression, block mirna", 1, 25, 0],
        ["expression, block mrna", 1, 25, 0],
        ["methylation", 1, 25, 0],
        ["samples", 1, 25, 0],
        ["vcf", 1, 60, 1],
    ]
    known = {row[0]: row[1:] for row in listing(of["Columns of samples"], "Values").rows}
    assert known["status"] == ["100.0%", 2, "normal (12), tumor (12)"] and known["age"] == [
        "95.8%",
        23,
        "all different",
    ]
    assert "label" not in known  # a column of other cohorts
    mrna = of["Expression, block mrna"]
    assert mrna.said[0].startswith("24 samples of 8 features, 0.5% of the values missing.")
    assert listing(mrna, "Samples that lack most values").rows == [["SUBJ0005", "12.5%"]]
    (cloud,) = mrna.clouds
    assert len(cloud.ids) == 24 and set(found.columns["person"]["status"]) == set(cloud.ids)
    # of the tables of quality control
    people = of["Genotypes"]
    assert people.said[1].startswith("Frequencies and missing calls are those of genodl qc, of 2026-11-")
    assert listing(people, "Samples that lack most calls").rows[0] == ["SUBJ0015", "12.7%"]
    assert len(people.clouds[0].ids) == 24
    # and the same where there are none
    samples = samples_of(frozen, "people")
    thinned = genotype_facts._thinned(frozen, "people", samples, 60)
    assert thinned.records == 60 and thinned.rates(samples).worst_samples.rows[0] == ("SUBJ0015", pytest.approx(7 / 60))
    made = thinned.cloud(samples, 60)
    assert made is not None and (np.diff(np.sign(made.points[:, 0])) != 0).all()  # two groups, in turn
    assert [row[:4] for row in listing(of["Records set aside"], "By reason").rows] == [
        ["found POS …; expected a whole number, … or more", "vcf", 1, 1]
    ]
    assert GONE not in repr(found)  # who withdrew
    html = data_page.render("people", "lake", [mrna], found.columns, ["status"], "index.html")
    assert "SUBJ0005" in html
    assert "coloured by status, which explains 75% of PC1" in html


def test_a_lake_of_the_other_kinds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.poisson(0.5, (40, 12))
    x[::2, :4] += 6
    names = [f"gene{i}" for i in range(12)]
    key = {"cohort": "c", "source": "cells", "feature_set": "a"}
    put(tmp_path, FEATURES, [{**key, "position": i, "feature_id": name} for i, name in enumerate(names)])
    put(tmp_path, CELLS, [{"cohort": "c", **row} for row in cells(x).to_pylist()])
    of_cell = {"cohort": "c", "entity": "cell", "file": "f"}
    told = [{**of_cell, "entity_id": f"c{i:03d}", "batch": f"b{i % 2}", "label": "T"} for i in range(40)]
    effects = [
        {"cohort": "c", "entity": "variant", "entity_id": f"1:{i}:A:C", "value": str(i % 4), "element": f"E{i % 2}"}
        for i in range(20)
    ]
    of_another = [{**row, "cohort": "d"} for row in told]  # in the same file
    put(tmp_path, LABELS, told + of_another + effects)
    put(tmp_path, VARIANT_EFFECTS, [{"cohort": "c", "variant_id": "1:0:A:C", "ref": "A", "alt": "C"}])
    put(tmp_path, REFERENCE, [{"cohort": "c", "name": "chr1", "length": 1000, "build": "GRCh38"}])
    put(tmp_path, ANNOTATIONS, [{"cohort": "c", "contig": "1", "type": kind} for kind in ("gene", "exon", "exon")])
    reads = {"contigs": ["chr1"], "lengths": [1000], "mapped": [90], "unmapped": [0], "unplaced": 10}
    put(tmp_path, ALIGNMENTS, [{"cohort": "c", "sample_id": "s", "file": "a.bam", **reads}])
    found = [{"cohort": "c", "sample_id": f"s{i % 3}", "gene": "TP53", "type": "SNP", "line": i} for i in range(7)]
    put(tmp_path, MUTATIONS, found)
    put(tmp_path, HARMONISATION, [{"cohort": "c", "action": "dropped", "what": "sample", "name": "A", "reason": EVIL}])
    kinds = ["alignments", "annotations", "cells", "expression", "mutations", "reference", "sequences", "variants"]
    first = datetime(2026, 1, 1, tzinfo=UTC)
    manifest = [{"cohort": "c", "source": kind, "file": kind, "records": 5, "bytes": 10**6} for kind in kinds]
    put(tmp_path, SOURCES, [{**manifest[0], "file": "older", "ingested_at": first}, *manifest])
    lake = Snapshot(StoredLake(str(tmp_path), lambda: None))  # type: ignore[arg-type, return-value]
    made = described.described(lake, "c")
    of = {one.title: one for one in made.facts}
    assert list(of) == [
        "Files and rows",
        "Columns of cells",
        "Columns of variants",
        "Alignments",
        "Annotation",
        "Cells",
        "Expression",
        "Mutations",
        "Reference",
        "Sequences",
        "Measured values of variants",
        "Records set aside",
        "What became of names",
    ]
    by_day = listing(of["Files and rows"], "By day").rows
    assert len(by_day) == 9 and by_day[-1] == ["2026-01-01", "alignments", 1, 5, 0]
    assert of["Expression"].said == ["There is nothing to be shown of expression beside the counts above."]
    assert of["Columns of cells"].said == ["What sample tables and files say of 40 cells."]
    assert of["Cells"].bars[0].title == "Counts per cell" and len(of["Cells"].clouds[0].ids) == 40
    (best, *_) = colourings(of["Cells"].clouds[0], columns_of(made, of["Cells"].clouds[0]), [])
    assert best.column == "batch" and best.explained[0] > 0.5
    assert [row[:3] for row in listing(of["Measured values of variants"], "By element").rows] == [
        ["E0", 10, 1.0],
        ["E1", 10, 2.0],
    ]
    assert of["Mutations"].said[0].startswith("7 mutations of 3 samples")
    assert listing(of["Annotation"], "By type").rows == [["exon", 2], ["gene", 1]]
    assert listing(of["Reference"], "The longest contigs").rows == [["chr1", 1000]]
    assert of["Alignments"].bars[1].alt.startswith("Reads that are not mapped: Median 10.")
    html = data_page.render("c", "lake", made.facts[-2:], made.columns, [], "index.html")
    assert EVIL not in html and "1 dropped." in html


def columns_of(made: described.Described, cloud: Cloud) -> dict[str, list[str | None]]:
    return {name: [told.get(one) for one in cloud.ids] for name, told in made.columns[cloud.kind].items()}


def test_rows_are_read_evenly_and_of_one_cohort(frozen: Snapshot) -> None:
    class Count:
        def __init__(self) -> None:
            self.rows, self.columns = 0, set[str]()

        def add(self, rows: pa.RecordBatch) -> None:
            self.rows += rows.num_rows
            self.columns |= set(rows.schema.names)

        def merge(self, other: Count) -> None:
            self.rows += other.rows

    def count(*args: object, **more: object) -> Count:
        return Reading(*args, **more).summarise(frozen, Count())  # type: ignore[arg-type]

    assert count(SEQUENCES, {"cohort": "bound"}, ["sequence_id", "cohort"]).rows == 40
    assert count(QUARANTINE, {"cohort": "bound"}, ["reason"]).rows == 1  # of a table that cohorts do not part
    assert count(QUARANTINE, {"cohort": "none"}, ["reason"]).rows == 0
    files = len(Reading(VARIANTS, {"cohort": "people"}).files(frozen))
    few = count(VARIANTS, {"cohort": "people"}, ["pos", "cohort"], most=10)
    assert 0 < few.rows <= 20 * files < 60 * files and few.columns == {"pos", "cohort"}


def test_nothing_is_said_of_what_is_not_there(frozen: Snapshot) -> None:
    found = described.described(frozen, "nobody")
    assert [one.title for one in found.facts] == ["Files and rows", "Records set aside"]
    assert found.facts[0].said == ["No file is known of this cohort."]
    assert found.facts[1].said == ["None: every record that was read is stored."]


def test_a_matrix_with_a_sample_that_lacks_a_third() -> None:
    random = np.random.default_rng(0)
    x = random.poisson(30, (200, 10)).astype(np.float32)
    x[random.random(x.shape) < 0.01] = np.nan
    x[7, :3] = np.nan
    x[3, 0] = 80
    names = [f"s{i:03d}" for i in range(200)]
    batch = pa.RecordBatch.from_arrays([pa.array(names), packing.column(x)], ["entity_id", "x"])
    for sums in in_parts(MatrixSums(10), [(batch.slice(0, 77),), (batch.slice(77),)]):
        assert sums.rows == 200 and sums.linear and sums.values.missing == int(np.isnan(x).sum())
        assert sums.worst.rows[0] == ("s007", pytest.approx(0.3))
        assert sums.most_varied.tolist() == list(range(10))
        picked = Picked(sums.drawn.sorted, sums.most_varied, 10)
        picked.add(batch)
        found = sums.facts("Expression", [f"g{i}" for i in range(10)], picked.x)
        assert [one.title for one in found.bars[:2]] == ["Values as ingested", "Sum of each sample"]
        assert found.clouds[0].about.startswith("All samples and all 10 features; asinh of the values")
    empty = MatrixSums(2)
    empty.add(
        pa.RecordBatch.from_arrays([pa.array(["a"]), packing.column(np.full((1, 2), np.nan, np.float32))], ["e", "x"])
    )
    assert empty.facts("E", ["g", "h"], np.zeros((1, 0))).said == ["1 sample of 2 features; all values are missing."]


def cells(x: np.ndarray, key: str = "a", start: int = 0) -> pa.RecordBatch:
    rows, places = np.nonzero(x)
    counts = np.bincount(rows, minlength=len(x))
    columns = {
        "block": pa.array([""] * len(x)),
        "cell_id": pa.array([f"c{start + i:03d}" for i in range(len(x))]),
        "feature_set": pa.array([key] * len(x)),
        "x": packing.sparse_column(counts, places, x[rows, places].astype(np.float32)),
        "n_values": pa.array(counts.astype(np.int32)),
        "n_features": pa.array(np.full(len(x), x.shape[1], np.int32)),
        "total": pa.array(x.sum(1).astype(np.float64)),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def test_cells_of_two_orders_of_genes() -> None:
    random = np.random.default_rng(0)
    x = random.poisson(0.4, (90, 30)) * (np.arange(30) != 11)  # g11 is 0 in every cell
    order = random.permutation(30)
    targets = {"a": np.arange(30), "b": order}
    batches = [cells(x[:50]), cells(x[50:][:, order], "b", 50)]
    logs = np.log1p(x / np.maximum(x.sum(1), 1)[:, None] * 1e4)
    names = [f"g{i}" for i in range(30)]
    for sums in in_parts(CellSums(targets, 30), [(one,) for one in batches]):
        assert (sums.genes.n, sums.genes.high, sums.totals.high) == (90, (x > 0).sum(1).max(), x.sum(1).max())
        assert np.array_equal(sums.cells, (x > 0).sum(0))
        assert sums.logs.variance == pytest.approx(logs.var(0))
        columns = sums.logs.most_varied(5, 90)
        assert sorted(columns) == sorted(np.argsort(-logs.var(0), kind="stable")[:5])
        drawn = sums.drawn.sorted[::2]
        picked = Picked(drawn, np.arange(5), 5)
        for rows in _Dense(targets, columns, drawn, 30)(batches):
            picked.add(rows)
        assert picked.x == pytest.approx(logs[::2][:, columns].astype(np.float32))
        found = sums.facts("Cells", names, picked.x)
        assert "1 features are 0 in every cell" in found.said[0]
        most = int((x > 0).sum(0).argmax())
        assert listing(found, "Features found in most cells").rows[0] == [f"g{most}", f"{(x > 0).mean(0)[most]:.1%}"]


def test_genotypes_without_quality_control() -> None:
    random = np.random.default_rng(0)
    group = random.integers(0, 2, 40)
    frequency = np.where(random.random((300, 1)) < 0.5, 0.5 + 0.4 * (2 * group - 1), random.random((300, 1)))
    calls = (random.random((300, 40, 2)) < frequency[:, :, None]).astype(np.int16)
    calls[random.random((300, 40)) < 0.02] = -1
    calls[:, 6][random.random(300) < 0.3] = -1
    calls[9, :12] = -1
    columns = {
        "contig": pa.array(["1"] * 300),
        "pos": pa.array(np.arange(300) + 1),
        "ref": pa.array(["A"] * 300),
        "alts": pa.array([["C"]] * 299 + [[]], pa.list_(pa.string())),
        "gt": genotypes.pack(calls, np.zeros(calls.shape, bool)),
        "n_samples": pa.array(np.full(300, 40, np.int32)),
        "sample_set": pa.array(["set"] * 300),
    }
    rows = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    samples = Samples([f"s{i:02d}" for i in range(40)], {"set": np.arange(40)[::-1].copy()})
    empty = Thinned(samples.places, np.arange(40), 40)
    for made in in_parts(empty, [(rows.slice(0, 120),), (rows.slice(120),)]):
        assert made.records == 299  # a record without an alternative allele has no frequency
        cloud = made.cloud(samples, 299)
        rates = made.rates(samples)
        lacking = (calls[:299] < 0).any(2).mean(0)
        assert rates.worst_samples.rows[0] == ("s33", pytest.approx(lacking[6]))  # the set has them the other way round
        assert rates.worst_variants.rows[0] == ("1:10:A:C", pytest.approx((calls[9] < 0).any(1).mean()))
        assert int(rates.frequencies.sum()) + rates.single == 299
        assert cloud is not None and cloud.ids == samples.names
        ones = cloud.points[:, 0][group[::-1] == 0], cloud.points[:, 0][group[::-1] == 1]
        assert ones[0].max() < ones[1].min() or ones[1].max() < ones[0].min()
    few = Rates()
    few.add_variants(pa.array(["a", "b", "c"]), np.zeros(3), np.array([0.0, 0.03, 0.89]))
    assert few.shown()[0] == ["2 of 3 alleles vary; 0.0% of these are below 2%.", "No call is missing."]
    assert few.shown()[1][0].histogram.counts.nonzero()[0].tolist() == [1, 5]  # .89 is .11 of the rarer


def test_sequences_and_measured_values() -> None:
    codes = [[0, 1, 2, 3], [1, 1, 2, -1], [-1, -1], [3] * 8]
    data = np.concatenate(codes).astype(np.int8).view(np.uint8)
    ends = np.concatenate([[0], np.cumsum([len(one) for one in codes])]).astype(np.int32)
    rows = pa.RecordBatch.from_arrays([packing.binary_array(data, ends)], ["codes"])
    for made in in_parts(Composition(), [(rows.slice(0, 1),), (rows.slice(1),)]):
        assert (made.lengths.n, made.lengths.low, made.lengths.high) == (4, 2, 8)
        assert (made.gc.n, made.gc.missing, made.gc.high, made.gc.low) == (3, 1, 1.0, 0.0)
        assert (made.other.zeros, made.other.high) == (2, 1.0)
    told = {
        "entity_id": ["a", "b", "c", "d", "e"],
        "value": ["1", "-2.5e1", ".5", "high", None],
        "element": ["E1", "E1", "E2", "E2", "E2"],
        "id": [str(i) for i in range(5)],
    }
    labels = pa.RecordBatch.from_pydict({k: pa.array(v, pa.string()) for k, v in told.items()})
    for values in in_parts(Values(), [(labels.slice(0, 3),), (labels.slice(3),)]):
        assert (values.all.n, values.all.missing, values.all.low) == (3, 2, -25)
        assert [row[:3] for row in values.listing("element").rows] == [["E1", 2, -12.0], ["E2", 1, 0.5]]
        assert values.listing("element").rows[0][3] == pytest.approx(13.0)


def test_reasons_without_what_is_particular() -> None:
    reasons = ["found 'x' in column 3", "found 'it' in column 12", "no value", f"found {'<script>'} here"]
    columns = {
        "source": ["vcf"] * 4,
        "reason": reasons,
        "file": ["b.vcf", "a.vcf", "a.vcf", "a.vcf"],
        "line": [5, 7, 1, 2],
    }
    rows = pa.RecordBatch.from_pydict(columns)
    for made in in_parts(described.Reasons(), [(rows.slice(0, 1),), (rows.slice(1),)]):
        (facts,) = described._set_aside(made)
        table = listing(facts, "By reason").rows
        assert table[0] == ["found … in column …", "vcf", 2, 2, "a.vcf:7: found 'it' in column 12"]
        assert [row[2] for row in table] == [2, 1, 1] and facts.said == ["In quarantine: 4 records, for 3 reasons."]
        html = data_page.render("c", "lake", [facts], {}, [], "index.html")
        assert "<script" not in html and "&lt;script&gt; here" in html
    names = pa.RecordBatch.from_pydict(
        {
            "source": ["expression"] * 3,
            "reason": ["version 3 left out", "version 12 left out", "another aliquot of it stands"],
            "file": ["f"] * 3,
            "action": ["renamed", "renamed", "dropped"],
            "what": ["feature", "feature", "sample"],
            "name": ["ENSG1.3", "ENSG2.12", "A-02"],
            "became": ["ENSG1", "ENSG2", None],
        }
    )
    made = described.Reasons()
    made.add(names)
    (facts,) = described._harmonised(made)
    assert facts.said == ["1 dropped, 2 renamed."]
    assert listing(facts, "By reason").rows == [
        ["version … left out", "renamed", "feature", "expression", 2, "ENSG1.3 → ENSG1 (f)"],
        ["another aliquot of it stands", "dropped", "sample", "expression", 1, "A-02 (f)"],
    ]


def test_tallies_and_contigs() -> None:
    rows = pa.RecordBatch.from_pydict({"type": ["SNP", "SNP", None], "gene": ["A", "B", "B"]})
    for made in in_parts(Tallies("type", "gene"), [(rows.slice(0, 1),), (rows.slice(1),)]):
        assert made.listing("type", "By type", "Mutations").rows == [["SNP", 2], [None, 1]]
        assert made.rows == 3
    same = {"build": "GRCh38", "contigs": ["chr1", "chr2"], "lengths": [900, 100]}
    files = [
        {**same, "file": "a.bam", "mapped": [60, 20], "unmapped": [0, 0], "unplaced": 20},
        {**same, "file": "a.bam", "mapped": [60, 20], "unmapped": [0, 0], "unplaced": 20},  # another sample of it
        {**same, "file": "b.cram", "mapped": None, "unmapped": None, "unplaced": None},
    ]
    found = Contigs()
    found.add(pa.RecordBatch.from_pylist(files))
    assert (len(found.files), found.unknown, found.built) == (2, 1, "GRCh38")
    assert found.reads.high == 100 and found.unmapped.high == pytest.approx(0.2)
    assert found.listing(["Contig", "Bases", "Mapped reads"]).rows == [["chr1", 900, 60], ["chr2", 100, 20]]


def test_values_before_and_after_what_a_model_does_to_them() -> None:
    random = np.random.default_rng(0)
    counts = random.poisson(100, (60, 20)).astype(np.float32)
    counts[:, 3] = 0
    x = np.column_stack([counts, np.arange(60) % 2]).astype(np.float32)
    names = [*(f"g{i}" for i in range(20)), "covariate:lab=a"]
    chain = Chain(["low_variance", "log2"], {}, names, "lab")
    fitted = chain.fit(x)
    ids = [f"s{i:02d}" for i in range(60)]
    found = treated.facts(
        "t", ids, x, names, chain.entries, lambda x: chain.apply(x, fitted.tensors), ("none", np.asarray), 600
    )
    assert found.said[0].startswith("60 of 600 rows, drawn by chance") and "1 features are left out" in found.said[1]
    assert [one.title for one in found.bars] == ["Before", "After low_variance, log2"]
    before, after = (one.histogram for one in found.bars)
    assert before.counts.sum() == pytest.approx(1200) and after.counts.sum() == pytest.approx(1140)
    assert after.edges[0] == pytest.approx(np.log2(counts[:, [i for i in range(20) if i != 3]].min() + 1), abs=0.01)
    assert found.clouds[0].points.shape == (60, 4)
    plain = treated.facts("t", ids, x, names, [], None, ("asinh", np.arcsinh), 60)
    assert [one.title for one in plain.bars] == ["Before", "After asinh"] and not plain.clouds
    assert treated.facts("t", ids, x, names, [], None, ("none", np.asarray), 60).said[-1].startswith("Nothing else")
