"""One person in every kind of source that holds people: their rows are traced to files, and when they withdraw nothing
of them is left in any file of the lake, and the others are as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pysam

from genodl_spark.core import storage
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.genomes import ALIGNMENTS
from genodl_spark.lake.tables.ingested import EXPRESSION, LABELS, METHYLATION, SAMPLES, VARIANTS
from genodl_spark.lake.tables.portals import HARMONISATION, MUTATIONS, PORTAL_FILES, PROBES, UNITS
from jobs import forget, ingest, lineage
from tests.formats import test_bgen, test_plink
from tests.formats.test_portal_matrices import ALIQUOTS, SERIES, portal, sheet
from tests.formats.test_portal_tables import BARCODE, HEAD, ROWS, XML
from tests.pipelines.test_ingest_cells import folder

OF_WHO, OF_OTHER = ALIQUOTS[:2]
WHO, OTHER = OF_WHO[:16], OF_OTHER[:16]


def inputs(at: Path) -> list[list[str]]:
    """Arguments of `ingest` for a file of each kind, with both people in it."""
    portal(at / "gdc", names=[OF_WHO, OF_OTHER])
    (at / "bare").mkdir()
    for i, name in enumerate((OF_WHO, OF_OTHER)):
        (at / "bare" / f"{name}.htseq.counts").write_text(f"ENSG00000000003.13\t{i}\nENSG00000000005.5\t7\n")
    (at / "series.txt").write_text(SERIES.replace("GSM1", WHO).replace("GSM2", OTHER))
    (at / "clinical.xml").write_text(XML)
    both = f"id9\tall.maf\tMasked Somatic Mutation\t{WHO[:12]}, {OTHER[:12]}\t{WHO}, {OTHER}\t{OF_WHO}, {OF_OTHER}\n"
    (at / "files.tsv").write_text(sheet([OF_WHO, OF_OTHER]) + both)
    (at / "a.maf").write_text(HEAD + ROWS.replace(BARCODE, OF_WHO) + ROWS.replace(BARCODE, OF_OTHER))
    (at / "beta.tsv").write_text(f"cpg\t{WHO}\t{OTHER}\ncg00000029\t.5\t1\ncg00000108\t0\tNA\n")
    cells = folder(at / "cells", {"a": "x", "b": "y"}, np.array([[1, 0], [3, 4]]))
    (at / "cells" / "cells.tsv").write_text(f"cell_id\tdonor\na\t{WHO}\nb\t{OTHER}\n")
    header = {
        "SQ": [{"SN": "1", "LN": 99}],
        "RG": [{"ID": "r1", "SM": WHO, "PU": OF_WHO}, {"ID": "r2", "SM": OTHER}],
        "PG": [{"ID": "p", "CL": f"caller --sample {WHO} {OF_WHO}.fq.gz"}],
    }
    with pysam.AlignmentFile(str(at / "reads.bam"), "wb", header=header):
        pass
    fam = f"f {WHO} 0 0 1 2\nf {OTHER} {WHO} 0 2 1\n".encode()
    bed = test_plink.files(at, b"1 a 0 5 C A\n", fam, np.array([[0, 2]]))
    one: list[test_bgen.Sample] = [(2, False, [255, 0]), (2, False, [0, 255])]
    bgen = test_bgen.write(at / "e.bgen", [test_bgen.record(one, ["A", "C"], 8, False, pos=5)], 2, names=False)
    (at / "e.sample").write_text(f"ID_1 ID_2 missing\n0 0 0\n{WHO} {WHO} 0\n{OTHER} {OTHER} 0\n")
    return [
        ["expression", str(at / "gdc")], ["expression", str(at / "bare"), "--block", "bare"],
        ["expression", str(at / "series.txt"), "--block", "array"], ["methylation", str(at / "beta.tsv")],
        ["phenotypes", str(at / "clinical.xml"), str(at / "files.tsv")], ["mutations", str(at / "a.maf")],
        ["cells", cells], ["alignments", str(at / "reads.bam")], ["vcf", bed, bgen],
    ]  # fmt: skip


def rows(lake: Lake) -> dict[str, list[Any]]:
    """What the lake has of the other person, but for what it says of the first."""
    found: dict[str, list[Any]] = {}
    for table in (EXPRESSION, METHYLATION, MUTATIONS, SAMPLES, ALIGNMENTS):
        mine = lake.read(table).where(f"sample_id = '{OTHER}'").drop("header", "father")
        found[table.name] = sorted(map(str, mine.collect()))
    whose = lake.read(HARMONISATION).where(f"what = 'sample' AND became = '{OTHER}'")
    found["names"] = sorted(map(str, whose.collect()))
    found["features"] = sorted(map(str, lake.read(HARMONISATION).where("what = 'feature'").drop("file").collect()))
    found["probes"] = sorted(map(str, lake.read(PROBES).drop("file").collect()))
    return found


def test_a_person_in_every_kind_of_source(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    (tmp_path / "in").mkdir()
    for argv in inputs(tmp_path / "in"):
        code, _, line = genodl(ingest, *argv, "--cohort", "c", *at)
        assert code == 0, line
    for (table, key), files in {
        ("expression", WHO): {"f0.tsv": {}, f"{OF_WHO}.htseq.counts": {}, "series.txt": {}},
        ("methylation", WHO): {"beta.tsv": {}},
        ("mutations", WHO): {"a.maf": {"line": 3}},
        ("alignments", WHO): {"reads.bam": {}},
        ("variants", "1:5:A:C"): {"d.bed": {"line": 1}, "e.bgen": {}},
        ("cells", "a"): {"cells/matrix.mtx": {"line": 1}},
        ("labels", "a"): {"cells/matrix.mtx": {"line": 1}},
        ("portal_files", "id0"): {"files.tsv": {"line": 2}},
        ("harmonisation", WHO): {"f0.tsv": {}},
        ("probes", "ENSG00000000003"): {},  # one of the two files that have the same genes
        ("samples", WHO): {
            "clinical.xml": {}, "series.txt": {"column": WHO}, "a.maf": {"records": 2}, "d.bed": {"records": 1}
        },
    }.items():  # fmt: skip
        code, report, line = genodl(lineage, table, "--key", key, *at)
        assert code == 0, line
        found = {one["file"]: one for traced in report["result"] for one in traced["sources"]}
        assert found, table
        for file, place in files.items():
            assert len(found[file]["sha256"]) == 64 and place.items() <= found[file].items(), (table, found[file])
    before = rows(lake)
    assert all(before.values())
    code, report, line = genodl(forget, "--cohort", "c", "--sample", WHO, *at)
    assert code == 0, line
    assert report["metrics"]["files_with_the_identifier"] == [] and report["metrics"]["files_with_the_word"] == 0
    assert rows(lake) == before
    left = []
    for uri in storage.files_under(lake.uri):
        table = pq.read_table(storage.local_path(uri)).to_pydict() if uri.endswith(".parquet") else None
        if WHO.encode() in storage.read_bytes(uri) or WHO in str(table):
            left.append(uri)
    assert left == []
    (reads,) = lake.read(ALIGNMENTS).collect()
    assert f"SM:{OTHER}" in reads.header and "caller --sample withdrawn withdrawn.fq.gz" in reads.header
    donors = {row.entity_id: row.donor for row in lake.read(LABELS).collect()}
    assert donors["b"] == OTHER and donors["a"].startswith("withdrawn-")
    (sample,) = lake.read(SAMPLES).collect()
    assert sample.sample_id == OTHER and sample.father.startswith("withdrawn-")
    assert {row.n_samples for row in lake.read(VARIANTS).collect()} == {1}
    assert {(row.block, row.file) for row in lake.read(UNITS).collect()} >= {("bare", f"{OF_OTHER}.htseq.counts")}
    listed = {row.file_id: row.aliquot for row in lake.read(PORTAL_FILES).collect()}
    assert listed == {"id1": OF_OTHER, "id9": f"withdrawn, {OF_OTHER}"}
