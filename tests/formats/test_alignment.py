"""BAM and CRAM: headers and counts as htslib has them, reads of a region whole, and what is neither refused."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pyarrow as pa
import pysam
import pysam.samtools
import pytest

import genodl_spark.genome.reference
from genodl_spark.core.errors import InputError
from genodl_spark.formats import alignment
from genodl_spark.formats.alignment import Header
from genodl_spark.genome.reference import Reference
from tests.genetics.calling import sequencing
from tests.genetics.calling.diploid import Genome

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
HEADER = {
    "HD": {"VN": "1.6", "SO": "coordinate"},
    "SQ": [{"SN": "chr1", "LN": 400}, {"SN": "chrM", "LN": 200}],
    "RG": [{"ID": "a", "SM": "s1"}, {"ID": "b", "SM": "s2"}, {"ID": "c", "SM": "s1"}],
}


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    draw = random.Random(1)
    path = tmp_path / "ref.fa"
    path.write_text("".join(f">{sq['SN']}\n{''.join(draw.choices('ACGT', k=sq['LN']))}\n" for sq in HEADER["SQ"]))
    pysam.faidx(str(path))
    return path


def made(path: Path, fasta: Path, index: bool = True, header: dict = HEADER) -> Path:
    """Reads of 10 bases from every 20th base of both contigs, one unmapped beside its mate, one on no contig."""
    cram = {"reference_filename": str(fasta)} if path.suffix == ".cram" else {}
    with (
        pysam.FastaFile(str(fasta)) as bases,
        pysam.AlignmentFile(str(path), (path.suffix[1] == "c" and "wc") or "wb", header=header, **cram) as file,
    ):
        for contig, length in enumerate(file.lengths):
            for n, start in enumerate(range(0, length - 10, 20)):
                read = pysam.AlignedSegment(file.header)
                read.query_name, read.flag, read.reference_id, read.reference_start = (
                    f"r{contig}_{n}",
                    16 * (n % 2),
                    contig,
                    start,
                )
                read.mapping_quality, read.cigarstring = 30 + n % 5, "4M1D6M"
                text = bases.fetch(file.references[contig], start, start + 11)
                read.query_sequence = text[:4] + text[5:]
                read.query_qualities = pysam.qualitystring_to_array("IIIIIFFFFF")
                read.set_tag("RG", "abc"[n % 3])
                file.write(read)
        for contig in (1, -1):
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.flag, read.reference_id = f"u{contig}", 4, contig
            read.reference_start = 190 if contig > 0 else -1
            read.query_sequence = "ACGTACGTAC"
            file.write(read)
    if index:
        pysam.index(str(path))
    return path


@pytest.mark.parametrize("suffix", [".bam", ".cram"])
def test_header_index_and_reads_of_a_region(tmp_path: Path, fasta: Path, suffix: str) -> None:
    path = made(tmp_path / f"a{suffix}", fasta)
    reference = str(fasta) if suffix == ".cram" else None
    header = alignment.header_of(path.as_uri(), reference)
    assert (header.format, header.sort_order) == (suffix[1:].upper(), "coordinate")
    assert dict(zip(header.contigs, header.lengths, strict=True)) == {"chr1": 400, "chrM": 200}
    assert header.samples == {"s1": ["a", "c"], "s2": ["b"]}
    assert header.index == path.as_uri() + (".bai" if suffix == ".bam" else ".crai")
    if suffix == ".bam":
        assert header.counts is not None and header.counts.tolist() == [[20, 0], [10, 1]] and header.unplaced == 1
    else:
        assert header.counts is None and header.unplaced is None
    # bases 31 to 61 of chr1: reads at 21 (to 31), 41 and 61
    rows = pa.Table.from_batches(alignment.reads(path.as_uri(), "1", 31, 61, reference)).to_pylist()
    assert [(row["name"], row["pos"], row["end"], row["flag"]) for row in rows] == [
        ("r0_1", 21, 31, 16),
        ("r0_2", 41, 51, 0),
        ("r0_3", 61, 71, 16),
    ]
    assert rows[0]["cigar"] == "4M1D6M" and rows[0]["read_group"] == "b" and rows[0]["mapq"] == 31
    assert rows[0]["qualities"] == bytes([40] * 5 + [37] * 5)
    with pysam.FastaFile(str(fasta)) as bases:
        assert rows[0]["sequence"] == bases.fetch("chr1", 20, 24) + bases.fetch("chr1", 25, 31)
    forward = list(alignment.reads(path.as_uri(), "chrM", 1, 200, reference, without=16 | 4, batch=2))
    assert [batch.num_rows for batch in forward] == [2, 2, 1]
    assert [n for batch in forward for n in batch.column("name").to_pylist()] == [f"r1_{n}" for n in range(0, 10, 2)]


def test_reads_of_na12878_are_all_there() -> None:
    path = SHARED / "vc_na12878_chr20" / "NA12878.chr20.bam"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set GENODL_SHARED_DATA to the folder of public data sets")
    header = alignment.header_of(path.as_uri())
    assert list(header.samples) == ["NA12878"] and header.counts is not None
    assert (header.counts[:, 0].sum(), header.counts.sum() + header.unplaced) == (26_327, 26_412)
    rows = pa.Table.from_batches(alignment.reads(path.as_uri(), "20", 10_000_001, 10_010_000))
    with pysam.AlignmentFile(str(path)) as file:
        names = [read.query_name for read in file.fetch("chr20", 10_000_000, 10_010_000)]
    assert rows.column("name").to_pylist() == names and len(names) == 4_986


def test_a_file_without_an_index_is_known_but_not_read(tmp_path: Path, fasta: Path) -> None:
    path = made(tmp_path / "a.bam", fasta, index=False)
    header = alignment.header_of(path.as_uri())
    assert header.index is None and header.counts is None and header.contigs == ["chr1", "chrM"]
    with pytest.raises(InputError, match="found no index beside the file"):
        list(alignment.reads(path.as_uri(), "chr1", 1, 10))


@pytest.mark.parametrize("case", ["text", "cut", "sam", "no contigs", "unnamed", "empty", "index", "absent"])
def test_what_is_no_alignment_is_refused(tmp_path: Path, fasta: Path, case: str) -> None:
    header = HEADER
    if case == "unnamed":
        header = HEADER | {"RG": [{"ID": "a", "SM": " s"}]}
    path = made(tmp_path / "a.bam", fasta, header=header)
    if case == "no contigs":
        with pysam.AlignmentFile(str(path), "wb", header={"HD": {"VN": "1.6"}}):
            pass
    elif case == "sam":
        path.write_text("@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:40\n")
    elif case == "text":
        path.write_text("sample_id\tlabel\n")
    elif case == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "index":
        Path(f"{path}.bai").write_text("no index")
    elif case == "absent":
        path.unlink()
    with pytest.raises(InputError, match="; expected ") as refused:
        alignment.header_of(path.as_uri())
    assert refused.value.file == path.as_uri() + (".bai" if case == "index" else "")


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ("@RG\tID:a\tSM:s\n@RG\tID:a\tSM:t\n", "found read group a twice, of sample s and of t; expected each ID once"),
        ("@RG\tID:a\tSM:s\n@RG\tID:a\tSM:s\n", "found read group a twice, of sample s and of s; expected each ID once"),
        ("@RG\tID:a\tSM:s\tSM:t\n", "found 2 samples, s and t, in read group a; expected one SM"),
    ],
)
def test_a_read_group_is_of_one_sample(tmp_path: Path, groups: str, found: str) -> None:
    text = f"@HD\tVN:1.6\n@SQ\tSN:c\tLN:100\n{groups}"
    with pysam.AlignmentFile(str(tmp_path / "a.bam"), "wb", text=text):
        pass
    with pytest.raises(InputError, match=found):
        alignment.header_of((tmp_path / "a.bam").as_uri())


def with_reference(
    folder: Path, contigs: dict[str, str], hashed: bool = True, kept: str = ""
) -> tuple[Header, Reference]:
    """The header of reads aligned to contigs, and the FASTA, of the text `kept` if given."""
    head = sequencing.header(contigs if hashed else {name: len(text) for name, text in contigs.items()}, {"g": "s"})
    path = sequencing.write(folder / "reads.bam", {}, head)
    (folder / "given.fa").write_text(kept or "".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    return alignment.header_of(path.as_uri()), Reference(str(folder / "given.fa"))


BASES = {"chr1": "ACGTTGCAAC" * 30, "chr2": "GGRTTGNNAC" * 20}
MD5 = {name: hashlib.md5(text.encode()).hexdigest() for name, text in BASES.items()}
OTHER = BASES["chr2"].replace("GG", "GT", 1)


@pytest.mark.parametrize(
    "kept",
    [
        "",
        f">2 of another naming\n{BASES['chr2'].lower()}\n>3\nACGT\n",  # case, line lengths and more contigs matter not
        f">one GRCh38_chr1:11-40\n{BASES['chr1'][10:40]}\n",  # a slice has no length or hash of the contig
    ],
)
def test_the_reference_of_reads_is_known_by_its_contigs(tmp_path: Path, kept: str) -> None:
    alignment.check_reference(*with_reference(tmp_path, BASES, kept=kept))


@pytest.mark.parametrize(
    ("kept", "hashed", "found"),
    [
        (">5\nACGT\n", True, "found contigs chr1, chr2, ... and none of them in {path}, a reference with contigs 5"),
        (
            f">chr1\n{BASES['chr1'][:-3]}\n",
            False,
            "found 297 bases of contig chr1 in {path}; expected 300, as the header",
        ),
        (
            f">chr2\n{OTHER}\n",
            True,
            f"found MD5 {hashlib.md5(OTHER.encode()).hexdigest()} of contig chr2 in {{path}}; expected {MD5['chr2']}",
        ),
    ],
)
def test_another_reference_is_refused(tmp_path: Path, kept: str, hashed: bool, found: str) -> None:
    header, reference = with_reference(tmp_path, BASES, hashed, kept)
    with pytest.raises(InputError) as refused:
        alignment.check_reference(header, reference)
    assert found.format(path=reference.path) in str(refused.value)
    assert "the FASTA that the reads were aligned to" in str(refused.value)
    assert refused.value.file == header.uri


def test_hashes_are_those_that_htslib_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genodl_spark.genome.reference, "_HASHED", 7)
    _, reference = with_reference(tmp_path, BASES)
    assert {name: reference.md5(name) for name in BASES} == MD5
    written = pysam.samtools.dict(reference.path)
    assert all(f"M5:{of}" in written for of in MD5.values())


def test_a_cram_without_its_reference_is_refused(tmp_path: Path) -> None:
    drawn = "".join(random.Random(1).choices("ACGT", k=3000))
    genome = Genome("c", drawn, 0, 3000, [])
    (tmp_path / "ref.fa").write_text(f">c\n{drawn}\n")
    reads = {"c": sequencing.sequenced(genome, 1, sequencing.Machine(depth=2))}
    head = sequencing.header({"c": drawn}, {"g": "s"})
    path = sequencing.write(tmp_path / "a.cram", reads, head, tmp_path / "ref.fa")
    assert sum(b.num_rows for b in alignment.reads(path.as_uri(), "c", 1, 3000, str(tmp_path / "ref.fa"))) == len(
        reads["c"]
    )
    for name in ("ref.fa", "ref.fa.fai"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"cannot be decoded.*; expected a whole file, and of a CRAM its reference"):
        list(alignment.reads(path.as_uri(), "c", 1, 3000))
    other = drawn[:1000] + ("A" if drawn[1000] != "A" else "C") + drawn[1001:]
    (tmp_path / "other.fa").write_text(f">c\n{other}\n")
    with pytest.raises(InputError, match=r"cannot be decoded.*; expected a whole file, and of a CRAM its reference"):
        list(alignment.reads(path.as_uri(), "c", 1, 3000, str(tmp_path / "other.fa")))
