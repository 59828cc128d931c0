"""Consequences as features: burdens of genes, beside other features too, and what variants with measured effects do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark import tasks
from genodl_spark.core.errors import InputError
from genodl_spark.features import burdens as module
from genodl_spark.features.burdens import BurdenFeatures, burdens
from genodl_spark.features.consequences import FEATURES, encoded
from genodl_spark.features.covariates import WithCovariates
from genodl_spark.features.protocol import ROWS, Choice
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.cohort import Samples
from genodl_spark.job import config
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.learning import DATASETS
from jobs import annotate, ingest, prepare

NAN = float("nan")


def test_called_copies_are_added_up() -> None:
    x = np.array([[0, 1, 2, -1], [-1, -1, 1, -1], [127, 127, 127, 0]], np.int8)
    site, feature = np.array([2, 0, 1, 3, 0]), np.array([4, 0, 0, 2, 4])  # site 0 counts for two features
    expected = [[1, NAN, NAN, NAN, 2], [NAN, NAN, NAN, NAN, 1], [254, NAN, 0, NAN, 254]]
    found = burdens(x, site, feature, 5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert np.isnan(burdens(x, np.zeros(0, int), np.zeros(0, int), 2)).all()


def test_ranges_of_people_and_of_features_meet_at_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random calls of two orders of samples, added up by ranges of 3 people and 2 features, against one by one."""
    monkeypatch.setattr(module, "_PEOPLE", 3)
    monkeypatch.setattr(module, "_FEATURES", 2)
    draw = np.random.default_rng(4)
    people, width, sites = 8, 5, 6
    samples = Samples([f"p{i}" for i in range(people)], {"one": draw.permutation(8), "two": np.array([7, 2, 4])})
    owners = [sorted(draw.choice(width, draw.integers(1, 3), replace=False).tolist()) for _ in range(sites)]
    called = np.full((people, sites), -1)
    rows: list[dict[str, object]] = []
    for sample_set, places in samples.places.items():
        for site in range(sites):
            alleles = draw.integers(-1, 2, (1, len(places), 2)).astype(np.int16)
            (gt,) = genotypes.pack(alleles, np.zeros(alleles.shape, bool)).to_pylist()
            copies = np.where((alleles[0] < 0).any(1), -1, alleles[0].sum(1))
            called[places, site] = np.maximum(called[places, site], copies)
            fixed = {"site": 100 - site, "allele": 1, "sample_set": sample_set, "n_samples": len(places), "gt": gt}
            for bucket in sorted({owner // 2 for owner in owners[site]}):
                rows.append({**fixed, "bucket": bucket, "features": [o for o in owners[site] if o // 2 == bucket]})
    types = {"bucket": pa.int32(), "features": pa.list_(pa.int32()), "allele": pa.int32(), "n_samples": pa.int32()}
    schema = pa.schema([(name, types.get(name, {"site": pa.int64(), "gt": pa.binary()}.get(name, pa.string())))
                        for name in rows[0]])  # fmt: skip
    pieces = pa.Table.from_batches(module._pieces(samples)([pa.RecordBatch.from_pylist(rows, schema)])).to_pandas()
    found = np.full((people, 6), np.nan, np.float32)
    for (_, bucket), some in pieces.groupby(["chunk", "bucket"]):
        for row in module._added(some).itertuples():
            found[row.person, 2 * bucket : 2 * bucket + 2] = np.frombuffer(row.x, np.float32)
    expected = np.full((people, 6), np.nan)
    for person in range(people):
        for feature in range(width):
            copies = [called[person, site] for site in range(sites) if feature in owners[site]]
            known = [one for one in copies if one >= 0]
            expected[person, feature] = sum(known) if known else np.nan
    np.testing.assert_array_equal(found, expected)
    assert {len(some) for some in owners} == {1, 2} and np.isnan(expected[:, :width]).any()


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


def _gene(name: str, symbol: str, first: int) -> str:
    """A transcript ATG AAA CGG TAA, 20 bases of untranslated region on both sides of it."""
    fields = f'gene_id "{name}"; gene_name "{symbol}"; transcript_id "T{name}"; transcript_biotype "protein_coding";'
    parts = [("exon", -20, 31, "."), ("CDS", 0, 8, "0"), ("stop_codon", 9, 11, "0")]
    return "".join(f"20\tx\t{kind}\t{first + a}\t{first + b}\t.\t+\t{phase}\t{fields}\n" for kind, a, b, phase in parts)


def genes(folder: Path) -> tuple[str, str]:
    """A contig 20 and the two genes on it, as FASTA and GTF."""
    genome = bytearray(b"C" * 30_000)
    for first in (10_001, 20_001):
        genome[first - 1 : first + 11] = b"ATGAAACGGTAA"
    (folder / "g.fa").write_text(f">20\n{genome.decode()}\n")
    (folder / "g.gtf").write_text(_gene("G1", "ONE", 10_001) + _gene("G2", "TWO", 20_001))
    return str(folder / "g.fa"), str(folder / "g.gtf")


def vcf(path: Path, people: Iterable[str], records: list[str]) -> str:
    head = ["##fileformat=VCFv4.2", "\t".join(["#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT", *people])]
    lines = [f"chr20\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\tGT\t{calls}" for pos, ref, alt, *rest in map(str.split, records)
             for calls in ["\t".join(rest)]]  # fmt: skip
    path.write_text("\n".join([*head, *lines]) + "\n")
    return str(path)


class _Numbers:
    """A number of each of four people; one of them has no calls."""

    tables, dtype, encoding, entity = (), "float32", None, "person"

    def choose(self, *_: object) -> Choice:
        return Choice(["n"])

    def rows(self, lake: Snapshot, cohort: str, features: list[str]):
        rows = [(name, np.array([i], np.float32).tobytes(), 1) for i, name in enumerate("abce")]
        return lake.spark.createDataFrame(rows, ROWS)


def _filled(rows) -> dict[str, list[float]]:
    """Packed values by entity, -1 where one is missing."""
    return {row.entity_id: np.nan_to_num(np.frombuffer(row.x, np.float32), nan=-1).tolist() for row in rows}


def test_consequences_of_a_cohort_and_of_a_table_of_effects(genodl, lake: Lake, tmp_path: Path) -> None:
    fasta, gtf = genes(tmp_path)
    (tmp_path / "s.tsv").write_text("sample_id\tvalue\na\t1\nb\t2\nc\t3\nd\t4\n")
    joint = [
        "10004 A T,G 0/1 2/2 ./. 0/0",  # AAA of ONE: T a stop, G a missense
        "10008 G A 0/0 0/1 1/1 ./.",  # CGG: CAG, missense
        "10008 G A ./. ./. 0/1 0/1",  # the same site again: what is called counts, once
        "20009 G A 1|1 .|. 0|1 0|0",  # CGG of TWO: CGA, synonymous
    ]
    alone = ["20004 A T 0/1", "20009 G A 1/1"]  # a call set of its own for b, of whom one site was missing
    effects = ["10008 g a LOF", "10009 G A FUNC", "10004 A T LOF", "28000 C T FUNC", "10004 AAA - LOF", "9990 - G FUNC"]
    lines = ["chrom\tpos\tref\talt\tlabel", *("\t".join(["chr20", *line.split()]) for line in effects)]
    (tmp_path / "v.tsv").write_text("\n".join([*lines, ""]))

    def done(verb, *argv: str) -> dict:
        code, report, line = genodl(verb, *argv, "--lake", lake.uri)
        assert code == 0, line
        return report

    done(ingest, "reference", fasta, "--cohort", "a")
    done(ingest, "annotations", gtf, "--cohort", "a")
    samples = ("--samples", str(tmp_path / "s.tsv"), "--cohort", "c")
    done(ingest, "vcf", vcf(tmp_path / "joint.vcf", "abcd", joint), *samples)
    features = BurdenFeatures()
    assert features.cohorts(Snapshot(lake)) == []
    done(annotate)
    done(ingest, "vcf", vcf(tmp_path / "b.vcf", "b", alone), *samples)
    done(ingest, "variants", str(tmp_path / "v.tsv"), "--cohort", "c")
    with pytest.raises(InputError, match="found no consequences of 20:20004:A:T, which cohort c has"):
        features.rows(Snapshot(lake), "c", ["G1:lof"])
    assert done(annotate)["metrics"]["unclear"] == 1

    snapshot, people = Snapshot(lake), ["a", "b", "c", "d"]
    assert (features.cohorts(snapshot), features.entities(snapshot, "c")) == (["c"], people)
    learns = np.array([[True, True, True, True], [False, False, True, True]])
    choice = features.choose(snapshot, "c", people, learns)
    assert choice.names == ["G1:lof", "G1:missense", "G2:lof", "G2:synonymous"]
    assert choice.allowed is not None and choice.allowed.tolist() == [[True] * 4, [False, True, False, True]]
    rows = features.rows(snapshot, "c", [*choice.names, "G2:missense", "TWO:stop_gained", "NONE:lof"]).collect()
    assert {row.missing for row in rows} == {1} and _filled(rows) == {
        "a": [1, 0, -1, 2, 0, -1, -1],
        "b": [0, 3, 1, 2, 0, 1, -1],
        "c": [-1, 2, -1, 1, 0, -1, -1],
        "d": [0, 1, -1, 0, 0, -1, -1],
    }
    both = WithCovariates(_Numbers(), ["burden:ONE:missense", "burden:G1:lof"])
    names = ["n", "covariate:burden:ONE:missense", "covariate:burden:G1:lof"]
    assert both.choose(snapshot, "c", people, learns).names == names
    rows = both.rows(snapshot, "c", names).collect()
    assert {row.entity_id: row.missing for row in rows} == {"a": 1, "b": 1, "c": 1, "e": 3}
    assert _filled(rows) == {"a": [0, 0, 1], "b": [1, 3, 0], "c": [2, 2, -1], "e": [3, -1, -1]}
    for asked, said in (
        ("THREE:lof", "found no gene 'THREE' in the consequences of cohort c: THREE asked for, G1, G2, ONE there"),
        ("ONE:harmful", "found 'harmful' as a class of consequences; expected one of lof, missense, synonymous"),
    ):
        with pytest.raises(InputError, match=said):
            WithCovariates(_Numbers(), [f"burden:{asked}"]).choose(snapshot, "c", ["a"], learns[:, :1])

    asked = ["variants.features=consequences"]
    of_effects = tasks.features(config.load("variant_effect", assignments=asked))
    entities = of_effects.entities(snapshot, "c")
    assert entities == sorted(f"chr20:{line.rsplit(' ', 1)[0].upper().replace(' ', ':')}" for line in effects)
    choice = of_effects.choose(snapshot, "c", entities, np.array([[True] * 6, ["A:T" in name for name in entities]]))
    terms = ["stop_gained", "inframe_deletion", "missense_variant", "synonymous_variant"]
    assert choice.names[:6] == [f"term:{term}" for term in (*terms, "intergenic_variant", "sequence_variant")]
    assert choice.allowed is not None
    assert [name for name, may in zip(choice.names, choice.allowed[1], strict=True) if may] == [
        *("term:stop_gained", "codon_position:1", "amino_acid:K", "becomes:*", "cds_position", "protein_position")
    ]
    names = ["becomes:Q", "term:inframe_deletion", "cds_position", "term:nothing"]
    rows = of_effects.rows(snapshot, "c", names).collect()
    values = _filled(rows)
    assert {row.missing for row in rows} == {1} and values["chr20:10008:G:A"] == [1, 0, 8, -1]
    assert values["chr20:10004:AAA:-"] == [0, 1, 4, -1] and values["chr20:28000:C:T"] == [0, 0, -1, -1]

    asked = ("split.folds=2", "blocks=lof,missense")
    report = done(prepare, "gene_burden", "--label", "value", *(part for one in asked for part in ("--set", one)))
    assert report["rows"]["examples"]["written"] == 4 and "consequences" in report["tables"]["read"]
    (dataset,) = lake.rows(DATASETS, {"cohort": "c"}).to_pylist()
    assert dataset["features"] == ["G1:lof", "G1:missense", "G2:lof"]
    assert "consequences" in dict(dataset["source_versions"])
