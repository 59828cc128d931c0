"""Consequences as features of variants with measured effects: by hand, and of an annotated table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from genodl_spark.features.consequences import FEATURES, ConsequenceFeatures, encoded
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from jobs import annotate, ingest, prepare


def test_consequences_as_numbers() -> None:
    rows = [
        (["missense_variant", "splice_region_variant"], 8, 3, "cGg/cAg", "R/Q"),
        (["synonymous_variant"], 3, 1, "atG/atA", "M"),
        (["stop_gained"], 1, 1, "Aaa/Taa", "K/*"),
        (["intron_variant"], None, None, None, None),
        (["frameshift_variant", "of_another_time"], 9, 3, "cggGTt/cgT", "RV/X"),
        (["inframe_insertion"], 4, 2, "-/ACG", "-/T"),
    ]
    schema = pa.schema(
        [
            ("terms", pa.list_(pa.string())),
            ("cds_position", pa.int64()),
            ("protein_position", pa.int64()),
            ("codons", pa.string()),
            ("amino_acids", pa.string()),
        ]
    )
    batch = pa.RecordBatch.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    x = encoded(batch)
    assert x.dtype == np.float32
    numbers = [FEATURES.index(name) for name in ("cds_position", "protein_position")]
    np.testing.assert_array_equal(x[:, numbers], [[8, 3], [3, 1], [1, 1], [np.nan, np.nan], [9, 3], [4, 2]])
    x[:, numbers] = 0
    assert [[FEATURES[i] for i in np.flatnonzero(row)] for row in x] == [
        [
            *("term:missense_variant", "term:splice_region_variant", "codon_position:2"),
            *("amino_acid:R", "becomes:Q"),
        ],
        ["term:synonymous_variant", "codon_position:3", "amino_acid:M", "becomes:M"],
        ["term:stop_gained", "codon_position:1", "amino_acid:K", "becomes:*"],
        ["term:intron_variant"],
        ["term:frameshift_variant"],
        ["term:inframe_insertion", "codon_position:3"],
    ]
    assert set(np.unique(x)) == {0, 1}


def test_a_table_of_effects_is_annotated_and_prepared(genodl, lake: Lake, tmp_path: Path) -> None:
    genome = "C" * 200 + "ATGAAACGGTAA" + "A" * 9_000
    (tmp_path / "g.fa").write_text(f">20\n{genome}\n")
    fields = 'gene_id "G1"; gene_name "ONE"; transcript_id "T1"; transcript_biotype "protein_coding";'
    parts = [("exon", 151, 260, "."), ("CDS", 201, 209, "0"), ("stop_codon", 210, 212, "0")]
    gtf = "".join(f"20\tx\t{kind}\t{a}\t{b}\t.\t+\t{phase}\t{fields}\n" for kind, a, b, phase in parts)
    (tmp_path / "g.gtf").write_text(gtf)
    variants = ["208 g a LOF", "209 G A FUNC", "204 A T LOF", "9000 A T FUNC", "204 AAA - LOF", "170 - G FUNC"]
    lines = ["chrom\tpos\tref\talt\tlabel", *("\t".join(["chr20", *line.split()]) for line in variants)]
    (tmp_path / "v.tsv").write_text("\n".join([*lines, ""]))
    at = ("--lake", lake.uri)
    assert genodl(ingest, "reference", str(tmp_path / "g.fa"), "--cohort", "a", *at)[0] == 0
    assert genodl(ingest, "annotations", str(tmp_path / "g.gtf"), "--cohort", "a", *at)[0] == 0
    assert genodl(ingest, "variants", str(tmp_path / "v.tsv"), "--cohort", "e", *at)[0] == 0
    code, report, _ = genodl(annotate, *at)
    assert code == 0 and report["metrics"]["unclear"] == 1 and report["rows"]["consequences"]["written"] == 6
    features, snapshot = ConsequenceFeatures(), Snapshot(lake)
    entities = features.entities(snapshot, "e")
    assert entities == sorted(f"chr20:{line.rsplit(' ', 1)[0].upper().replace(' ', ':')}" for line in variants)
    learns = np.array([[True] * 6, ["A:T" in name for name in entities]])
    choice = features.choose(snapshot, "e", entities, learns)
    terms = ["stop_gained", "inframe_deletion", "missense_variant", "synonymous_variant"]
    assert choice.names[:6] == [f"term:{term}" for term in (*terms, "intergenic_variant", "sequence_variant")]
    assert choice.allowed is not None
    assert [name for name, may in zip(choice.names, choice.allowed[1], strict=True) if may] == [
        *("term:stop_gained", "term:intergenic_variant", "codon_position:1", "amino_acid:K", "becomes:*"),
        *("cds_position", "protein_position"),
    ]
    names = ["becomes:Q", "term:inframe_deletion", "cds_position", "term:nothing"]
    rows = {row.entity_id: row for row in features.rows(snapshot, "e", names).collect()}
    assert {row.missing for row in rows.values()} == {1}
    values = {name: np.nan_to_num(np.frombuffer(row.x, np.float32), nan=-1).tolist() for name, row in rows.items()}
    assert values["chr20:208:G:A"] == [1, 0, 8, -1]
    assert values["chr20:204:AAA:-"] == [0, 1, 4, -1] and values["chr20:9000:A:T"] == [0, 0, -1, -1]
    code, report, _ = genodl(prepare, "variant_effect", "--set", "split.folds=2", *at)
    assert code == 0 and report["rows"]["examples"]["written"] == 6
