"""GTF, GFF3 and BED against plain Python: every feature kept with its columns, or set aside for its reason."""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats import annotation
from genodl_spark.formats.streams import Split

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def read(path: Path, notes: list[tuple[int, str]] | None = None) -> tuple[list[dict[str, object]], dict[int, str]]:
    """Rows of a file, in one piece, and reasons by line."""
    uri, rows, bad = path.as_uri(), [], {}
    noted = notes if notes is not None else []
    form = annotation.header_of(uri)
    split = Split(0, path.stat().st_size)
    for batch, refused in annotation.read(uri, split, 1, form, "c", path.name, lambda *note: noted.append(note)):
        rows += batch.to_pylist()
        bad |= {line: reason for line, reason, _ in refused}
    return rows, bad


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def attributes(text: str) -> dict[str, str]:
    """Attributes of a GTF by a plain reader."""
    found: dict[str, str] = {}
    for key, quoted, bare in re.findall(r'([^\s;"]+) +(?:"([^"]*)"|([^\s;"]+)) *(?:;|$)', text):
        found[key] = f"{found[key]},{quoted or bare}" if key in found else quoted or bare
    return found


@pytest.mark.parametrize(
    ("name", "types"),
    [
        (
            "chr22_ENST00000319363.gtf",
            {"exon": 13, "CDS": 13, "transcript": 1, "five_prime_utr": 1, "three_prime_utr": 1}
            | {"start_codon": 1, "stop_codon": 1},
        ),
        (
            "mouse.ensembl.81.partial.ENSMUSG00000017167.gtf",
            {"exon": 27, "CDS": 24, "transcript": 2, "UTR": 2, "gene": 1, "start_codon": 1, "stop_codon": 1},
        ),
        ("gencode.ucsc.small.gtf", {"exon": 12, "CDS": 1, "start_codon": 1, "stop_codon": 1}),
        ("refseq.ucsc.small.gtf", {"exon": 16, "CDS": 7, "stop_codon": 1}),
    ],
)
def test_public_gtf_is_read_as_a_plain_reader_reads_it(name: str, types: dict[str, int]) -> None:
    path = SHARED / "gtf_fasta_samples" / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set GENODL_SHARED_DATA to the folder of public data sets")
    rows, bad = read(path)
    assert not bad
    assert Counter(row["type"] for row in rows) == types
    lines = [(n, line.split("\t")) for n, line in enumerate(path.read_text().splitlines(), 1) if line[:1] != "#"]
    assert [row["line"] for row in rows] == [n for n, _ in lines]
    for row, (_, cells) in zip(rows, lines, strict=True):
        assert (row["chrom"], row["start"], row["end"]) == (cells[0], int(cells[3]), int(cells[4]))
        assert dict(row["attributes"]) == attributes(cells[8])
        assert row["phase"] == (None if cells[7] == "." else int(cells[7]))


def test_attributes_of_every_kind_are_read() -> None:
    """Quotes with semicolons in them, bare values, keys that stand twice, comments behind, blanks of any kind."""
    random.seed(3)
    keys = ["gene_id", "tag", "note", "level", "db_xref"]
    texts = []
    for _ in range(200):
        chosen = ["gene_id", *random.choices(keys[1:], k=random.randint(0, 6))]
        cells = [f'{key} "{random.choice(["a;b", "x y", "", "é", "7"])}{i}"' for i, key in enumerate(chosen)]
        cells += ["level 2"] if random.random() < 0.3 else []
        texts.append(random.choice(["; ", ";", " ;  "]).join(cells) + random.choice(["", ";", "; ", "; # see; there"]))
    block = "".join(f"1\ts\texon\t{i + 1}\t{i + 5}\t.\t+\t.\t{text}\n" for i, text in enumerate(texts))
    batch, bad = annotation.parse(block.encode(), 1, "GTF", "c", "f")
    assert not bad
    for text, row in zip(texts, batch.to_pylist(), strict=True):
        known = attributes(text.partition("# see")[0])
        assert dict(row["attributes"]) == known
        assert row["tags"] == (known["tag"].split(",") if "tag" in known else None)


@pytest.mark.parametrize(
    ("written_as", "stable", "version"),
    [
        ("ENSG00000223972.5", "ENSG00000223972", "5"),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378_PAR_Y", "15"),
        ("ENSG00000223972.5_2", "ENSG00000223972", "5_2"),
        ("NM_000546.6", "NM_000546", "6"),
        ("AT1G01010.1", "AT1G01010.1", None),
        ("MSTRG.1", "MSTRG.1", None),
        ("FBgn0000008", "FBgn0000008", None),
    ],
)
def test_a_version_stands_beside_the_identifier(written_as: str, stable: str, version: str | None) -> None:
    line = f'chrM\ts\texon\t1\t5\t.\t+\t.\tgene_id "{written_as}";\n'
    (row,) = annotation.parse(line.encode(), 1, "GTF", "c", "f")[0].to_pylist()
    assert (row["gene_id"], row["gene_version"], row["contig"], row["chrom"]) == (stable, version, "MT", "chrM")


GFF3 = """##gff-version 3
# children may come first
1\ts\texon\t1\t10\t.\t+\t.\tParent=transcript:T1,transcript:T2;rank=1
1\ts\tmRNA\t1\t50\t.\t+\t.\tID=transcript:T1;Parent=gene:G1;version=4;biotype=protein_coding;tag=basic,CCDS
1\ts\tmRNA\t1\t40\t.\t+\t.\tID=transcript:T2;Parent=gene:G1;transcript_id=T2x;version=2
1\ts\tgene\t1\t50\t.\t+\t.\tID=gene:G1;Name=ABC%3B1;gene_id=G1x;version=9;biotype=protein_coding;Note=a%2Cb,c
1\ts\tCDS\t3\t10\t.\t+\t0\tID=CDS:P1;Parent=transcript:T1;protein_id=P1
###
1\ts\tCDS\t60\t80\t.\t-\t0\tParent=gene:G2
1\ts\tpseudogene\t60\t90\t.\t-\t.\tID=gene:G2
1\ts\ttRNA\t100\t190\t.\t?\t.\tID=rna-x
1\ts\texon\t100\t190\t.\t?\t.\tParent=rna-x
1\ts\tchromosome\t1\t1000\t.\t.\t.\tID=chromosome:1
1\ts\texon\t5\t9\t.\t+\t.\tParent=nowhere
##FASTA
>1
ACGT
"""


def test_features_of_gff3_belong_to_the_genes_and_transcripts_above_them(tmp_path: Path) -> None:
    notes: list[tuple[int, str]] = []
    rows, bad = read(written(tmp_path, "a.gff3", GFF3), notes)
    assert not bad and notes == [(14, "name a Parent that the file lacks")]
    columns = ("line", "part", "type", "gene_id", "gene_version", "transcript_id", "transcript_version")
    assert [tuple(row[c] for c in columns) for row in rows] == [
        (3, 0, "exon", "G1x", "9", "T1", "4"),
        (3, 1, "exon", "G1x", "9", "T2x", "2"),
        (4, 0, "mRNA", "G1x", "9", "T1", "4"),
        (5, 0, "mRNA", "G1x", "9", "T2x", "2"),
        (6, 0, "gene", "G1x", "9", None, None),
        (7, 0, "CDS", "G1x", "9", "T1", "4"),
        (9, 0, "CDS", "G2", None, None, None),
        (10, 0, "pseudogene", "G2", None, None, None),
        (11, 0, "tRNA", None, None, "x", None),
        (12, 0, "exon", None, None, "x", None),
        (13, 0, "chromosome", None, None, None, None),
        (14, 0, "exon", None, None, None, None),
    ]
    by_line = {row["line"]: row for row in rows}
    assert {row["gene_name"] for row in rows if row["gene_id"] == "G1x"} == {"ABC;1"}
    assert by_line[4]["tags"] == ["basic", "CCDS"] and by_line[3]["exon_number"] == 1
    assert dict(by_line[6]["attributes"])["Note"] == "a%2Cb,c"
    assert (by_line[7]["transcript_biotype"], by_line[7]["protein_id"], by_line[7]["phase"]) == (
        "protein_coding",
        "P1",
        0,
    )
    assert by_line[11]["strand"] == "?" and by_line[13]["strand"] is None


def test_transcripts_that_name_each_other_as_parents_are_read(tmp_path: Path) -> None:
    text = "1\ts\tmRNA\t1\t9\t.\t+\t.\tID=a;Parent=b\n1\ts\tmRNA\t1\t9\t.\t+\t.\tID=b;Parent=a\n"
    rows, _ = read(written(tmp_path, "a.gff3", text))
    assert [row["gene_id"] for row in rows] == [None, None]


def test_blocks_of_bed_are_rows_of_their_own(tmp_path: Path) -> None:
    text = (
        'track name="x"\nchr1\t100\t200\tn1\t5\t-\t110\t190\t0,0,0\t2\t10,20,\t0,80,\n'
        "chr1\t100\t200\tn2\t5\t-\t110\t190\t0,0,0\t2\t10,20,\t0,90\nchr1\t0\t9\t.\t.\t.\t0\t9\t0\t1\t9\t0\n"
    )
    rows, bad = read(written(tmp_path, "a.bed", text))
    columns = ("line", "part", "type", "start", "end", "strand", "id", "parents")
    assert [tuple(row[c] for c in columns) for row in rows] == [
        (2, 0, "region", 101, 200, "-", "n1", None),
        (2, 1, "block", 101, 110, "-", None, ["n1"]),
        (2, 2, "block", 181, 200, "-", None, ["n1"]),
        (4, 0, "region", 1, 9, None, None, None),
        (4, 1, "block", 1, 9, None, None, None),
    ]
    assert list(bad) == [3] and dict(rows[0]["attributes"])["thickStart"] == "110"


LINE = '1\ts\texon\t5\t9\t.\t+\t.\tgene_id "a";'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('1\ts\texon\t9\t5\t.\t+\t.\tgene_id "a";', "found start '9' and end '5'"),
        ('1\ts\texon\t0\t5\t.\t+\t.\tgene_id "a";', "found start '0'"),
        ('1\ts\texon\t-3\t5\t.\t+\t.\tgene_id "a";', "found start '-3'"),
        ('1\ts\texon\t5\t9\t.\tx\t.\tgene_id "a";', "found strand 'x'"),
        ('1\ts\tCDS\t5\t9\t.\t+\t3\tgene_id "a";', "found phase '3'"),
        ('1\ts\tCDS\t5\t9\tlow\t+\t0\tgene_id "a";', "found score 'low'"),
        ('\ts\tCDS\t5\t9\t.\t+\t0\tgene_id "a";', "found no contig"),
        ('1\ts\t.\t5\t9\t.\t+\t0\tgene_id "a";', "found no type"),
        ('1\ts\texon\t5\t9\t.\t+\t.\ttag "a";', "found no gene_id"),
        ('1\ts\texon\t5\t9\t.\t+\t.\tgene_id "a; x "b"', "found quotes that do not end"),
        ("1\ts\texon\t5\t9\t.\t+\t.\tgene_id;", "found attribute 'gene_id' without a value"),
        ("1\ts\texon\t5\t9\t.\t+", "found 7 columns"),
    ],
)
def test_a_line_that_is_no_feature_is_set_aside(line: str, reason: str) -> None:
    batch, bad = annotation.parse(f"# head\n{LINE}\n{line}\n\n{LINE}\t \n".encode(), 10, "GTF", "c", "f")
    assert [(number, text) for number, _, text in bad] == [(12, line)] and bad[0][1].startswith(reason)
    assert batch.column("line").to_pylist() == [11, 14]


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("", None, "found no feature in the file"),
        ("# only\n# comments\n", None, "found no feature in the file"),
        ("#\n1\t2\n", 2, "found 2 columns between tabs"),
        ("chr1 100 200\n", 1, "found 1 columns between tabs"),
        ("1\ts\texon\t5\t9\t.\t+\t.\t\n", 1, "found 8 columns between tabs"),
        ("1\ts\texon\t5\t9\t.\t+\t.\t;;\n", 1, "found attributes ';;'"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, line: int | None, found: str) -> None:
    path = written(tmp_path, "a.gtf", text)
    with pytest.raises(InputError, match=found) as refused:
        annotation.header_of(path.as_uri())
    assert (refused.value.file, refused.value.line) == (path.as_uri(), line)


def test_pieces_of_a_gtf_give_the_rows_of_the_whole(tmp_path: Path) -> None:
    text = "".join(f'{i % 3}\ts\texon\t{i + 1}\t{i + 9}\t.\t+\t.\tgene_id "g{i}"; # c\n' for i in range(500))
    path = written(tmp_path, "a.gtf", text)
    size, rows, first = len(text), [], 1
    for start in range(0, size, 1777):
        split = Split(start, min(start + 1777, size))
        for batch, bad in annotation.read(path.as_uri(), split, first, "GTF", "c", "a.gtf"):
            assert not bad
            rows += batch.to_pylist()
        first = len(rows) + 1
    assert rows == read(path)[0] and len(rows) == 500
