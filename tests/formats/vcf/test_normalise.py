"""Splitting and left-alignment against bcftools norm, record for record, and against
the haplotypes that the records spell."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import pickle
import random
import shutil
import time
from pathlib import Path

import pysam
import pysam.bcftools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError, Refused
from genodl_spark.formats.streams import line_blocks
from genodl_spark.formats.vcf.header import Header, read_header
from genodl_spark.formats.vcf.normalise import Normalised, Normaliser, needs
from genodl_spark.genome.reference import Piece, Reference
from tests.goldens import answer

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
HEAD = """##fileformat=VCFv4.{minor}
##contig=<ID=1>
##contig=<ID=2>
##FILTER=<ID=q10,Description="Low">
##ALT=<ID=NON_REF,Description="Any other">
##INFO=<ID=AF,Number=A,Type=Float,Description="Per ALT">
##INFO=<ID=NAME,Number=A,Type=String,Description="Per ALT">
##INFO=<ID=BOTH,Number=R,Type=Integer,Description="Per allele">
##INFO=<ID=WORD,Number=R,Type=String,Description="Per allele">
##INFO=<ID=GEN,Number=G,Type=Integer,Description="Per genotype">
##INFO=<ID=ANY,Number=.,Type=Integer,Description="Any">
##INFO=<ID=ONE,Number=1,Type=Float,Description="One">
##INFO=<ID=END,Number=1,Type=Integer,Description="Last base">
##INFO=<ID=DB,Number=0,Type=Flag,Description="Flag">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Per allele">
##FORMAT=<ID=VAF,Number=A,Type=Float,Description="Per ALT">
##FORMAT=<ID=PL,Number=G,Type=Integer,Description="Per genotype">
##FORMAT=<ID=GL,Number=G,Type=Float,Description="Per genotype">
##FORMAT=<ID=SA,Number=A,Type=String,Description="Per ALT">
##FORMAT=<ID=SR,Number=R,Type=String,Description="Per allele">
##FORMAT=<ID=HQ,Number=2,Type=Integer,Description="Two">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="One">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"""
# Repeats on either side of 1:19; 2 starts with one.
FASTA = {"1": "ACGTTTTTGCATGCATGCNNNNacgtacgtttttGRATCATCATCGGAAATTT", "2": "ttttttttttCACACACAG"}


def header_of(minor: int = 2, samples: str = "s1 s2 s3") -> str:
    return (
        HEAD.format(minor=minor) + "".join(f"\t{s}" for s in (["FORMAT", *samples.split()] if samples else [])) + "\n"
    )


def tabs(*records: str) -> list[str]:
    return ["\t".join(record.split(" ")) for record in records]


def parsed(text: str) -> tuple[Header, list[str]]:
    header, blocks = read_header(line_blocks(io.BytesIO(text.encode()), "v.vcf"), "v.vcf")
    return header, b"".join(block for _, block in blocks).decode().splitlines()


def fasta(folder: Path, sequences: dict[str, str], name: str = "r.fa") -> str:
    path = folder / name
    path.write_text("".join(f">{contig}\n{sequence}\n" for contig, sequence in sequences.items()))
    return str(path)


def oracle(folder: Path, command: str, text: str, *options: str, older: bool = False) -> list[str]:
    """Records of bcftools COMMAND over the VCF `text`, by pysam; or what an older release said of it."""
    if older:
        inputs = {
            "in.vcf": text.encode(),
            **{Path(option).name: Path(option).read_bytes() for option in options if option.startswith("/")},
        }
        lines = answer(
            [
                "bcftools",
                command,
                "--no-version",
                *(Path(option).name for option in options),
                "-o",
                "out.vcf",
                "in.vcf",
            ],
            inputs,
            "out.vcf",
        )
    else:
        (folder / "in.vcf").write_text(text)
        getattr(pysam.bcftools, command)(
            *options, "-o", str(folder / "out.vcf"), str(folder / "in.vcf"), catch_stdout=False
        )
        lines = (folder / "out.vcf").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def canonical(folder: Path, head: str, records: list[str]) -> list[str]:
    """The records as bcftools writes them: numbers without needless digits, dropped subfields as dots."""
    return oracle(folder, "view", joined(head, records))


def changed(text: str, split: bool, reference: str | None) -> list[Normalised]:
    header, records = parsed(text)
    normaliser = Normaliser(header, split, None if reference is None else Reference(reference))
    return [one for record in records for one in normaliser.lines(record.encode())]


def texts(normalised: list[Normalised]) -> list[str]:
    return [one.text.decode() for one in normalised]


def joined(head: str, records: list[str]) -> str:
    return head + "".join(record + "\n" for record in records)


def expected_of(
    folder: Path, head: str, records: list[str], split: bool, reference: str | None, older: bool = False
) -> list[str]:
    options = [*(["-m", "-any"] if split else []), *(["-f", reference] if reference else [])]
    return sorted(oracle(folder, "norm", joined(head, records), *options, older=older))


def agree(
    folder: Path, head: str, records: list[str], split: bool, reference: str | None, older: bool = False
) -> list[Normalised]:
    """Ours and bcftools' records are the same text, in any order: of the records as bcftools
    writes them, and as they are."""
    expected = expected_of(folder, head, records, split, reference, older)
    raw = changed(joined(head, records), split, reference)
    assert sorted(canonical(folder, head, texts(raw))) == expected
    ours = changed(joined(head, canonical(folder, head, records)), split, reference)
    assert sorted(texts(ours)) == expected
    return ours


SPLIT = tabs(
    "1 1 rs1;x A C,G 1.50 PASS AF=0.10,2e-3;NAME=a,b;BOTH=1,2,3;WORD=x,y,z;GEN=0,1,2,3,4,5;ANY=7,8;ONE=1.0;DB "
    "GT:AD:VAF:PL:SA:SR:HQ:DP 1/2:1,2,3:.5,.25:0,1,2,3,4,5:a,b:x,y,z:1,2:7 2|. ./1:.:.:.:.:.:.:.",
    "1 1 . A C,G . q10 AF=.,0.1;BOTH=.,.,3;GEN=.,1,.,3,.,5 GT:AD:VAF:PL 1:1,.,3:.,3:0,1,2 2:.:.,2:. ./1/2",
    "1 1 . A C,G . . . GT:PL 1:1,2,3 2:1,2,3,4,5,6 ./1:.",
    "1 1 . A C,G,T . . AF=1,2,3; GT:AD:PL 1/3:.:. 2/2:.:. 3|0:.:.",
    "1 1 . A C,G,T,*,<NON_REF> . . AF=1,2,3,4,5 GT:AD 5/4:1,2,3,4,5,6 3|2:1,2,3,4,5,. 0/1:.,2,3,4,5,6",
    "1 1 . A C,C . . . GT 1/2 2|1 0/0",
    "1 1 . A C,G . . WORD=.;NAME=a,b AD:DP . 1,2,3 1,2,3:2",
    "1 1 . A C,G . . . GT:GL 0/0:-0.1,-1.5,-2,-3,-4e-05,-5 1:-1,-2,-3 ./.:.",
    "1 1 . A C,G . . . . . . .",
    "1 1 . A C 5 PASS AF=0.5 GT 0/1 1|1 1",
    "1 1 . A . 5 PASS . GT 0/0 0|0 .",
)


def test_split_as_bcftools(tmp_path: Path) -> None:
    ours = agree(tmp_path, header_of(), SPLIT, True, None)
    assert [(one.source_pos, one.source_ref, one.source_alts, one.alt_number) for one in ours[:2]] == [
        (1, "A", "C,G", 1),
        (1, "A", "C,G", 2),
    ]
    assert [one.alt_number for one in ours[-2:]] == [0, 0]
    assert texts(ours)[:2] == tabs(
        "1 1 rs1;x A C 1.5 PASS AF=0.1;NAME=a;BOTH=1,2;WORD=x,y;GEN=0,1,2;ANY=7,8;ONE=1;DB "
        "GT:AD:VAF:PL:SA:SR:HQ:DP 1/0:1,2:0.5:0,1,2:a:x,y:1,2:7 0|.:.,.:.:.:.:.:.:. ./1:.,.:.:.:.:.:.:.",
        "1 1 rs1;x A G 1.5 PASS AF=0.002;NAME=b;BOTH=1,3;WORD=x,z;GEN=0,3,5;ANY=7,8;ONE=1;DB "
        "GT:AD:VAF:PL:SA:SR:HQ:DP 0/1:1,3:0.25:0,3,5:b:x,z:1,2:7 1|.:.,.:.:.:.:.:.:. ./0:.,.:.:.:.:.:.:.",
    )


def test_splitting_keeps_numbers_as_they_were_written() -> None:
    (one, other) = texts(changed(header_of() + SPLIT[0] + "\n", True, None))
    assert one.split("\t")[5:8:2] == ["1.50", "AF=0.10;NAME=a;BOTH=1,2;WORD=x,y;GEN=0,1,2;ANY=7,8;ONE=1.0;DB"]
    assert other.split("\t")[9] == "0/1:1,3:.25:0,3,5:b:x,z:1,2:7"


ALIGN = tabs(
    "1 8 . T TT . . END=8",
    "1 7 . TT T . . END=8;ONE=2",
    "1 7 . TT T . . ONE=2;END=80;ANY=1",
    "1 32 . tt t . . END=33",
    "1 34 . tG t . . .",  # nothing to do: case stays
    "1 20 . NN N . . .",
    "1 12 . TGCATG TG . . .",
    "1 40 . ATC A . . .",
    "1 46 . GGAAAT GGAAAC . . .",
    "1 46 . GGAAAT GGTAAC . . END=51",
    "1 46 . ggaaat ggtaac . . .",
    "1 46 . GG . . . END=47",
    "1 46 . G . . . END=50",
    "1 46 . G . . . END=50;ONE=.",
    "1 46 . GGA * . . .",
    "1 46 . GGA <NON_REF> . . .",
    "1 46 . GGA TGA,A,GGGA . . AF=1,2,3",
    "1 46 . GGA GA,* . . AF=1,2",
    "1 46 . GGA GA,<NON_REF> . . AF=1,2",
    "1 1 . AC C,ACC . . .",
    "2 10 . t tt . . .",
    "2 10 . tC ttC,C . . .",
    "2 1 . tttt t . . END=4",
    "2 17 . CAG G . . .",
    "2 19 . G GCACAG,GG . . .",
)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("older", [False, True])
def test_alignment_as_bcftools(tmp_path: Path, split: bool, older: bool) -> None:
    agree(tmp_path, header_of(samples=""), ALIGN, split, fasta(tmp_path, FASTA), older)


def one_line(record: str, reference: str | None, split: bool = True, minor: int = 2, samples: str = "") -> list[str]:
    return [
        text.replace("\t", " ")
        for text in texts(changed(header_of(minor, samples) + "\t".join(record.split(" ")) + "\n", split, reference))
    ]


def test_case_codes_and_breakends(tmp_path: Path) -> None:
    """Bases that come from the reference have its case, those of the record are upper where it changes;
    R of the reference is A."""
    reference = fasta(tmp_path, FASTA)
    assert one_line("1 32 . tt t . . END=33", reference) == ["1 29 . gt g . . END=30"]
    assert one_line("2 10 . tC t . . .", reference) == ["2 10 . tC t . . ."]
    assert one_line("1 39 . CATC C . . .", reference) == ["1 36 . AATC A . . ."]
    agree(tmp_path, header_of(samples=""), tabs("1 39 . CATC C . . .", "1 35 . GA GAA . . ."), True, reference)
    for alt in ("T[1:40[", "]1:40]T", "T.", ".T", "<DEL>", "T<ctg>"):
        assert one_line(f"2 3 . t {alt} . . END=9", reference) == [f"2 3 . t {alt} . . END=9"]
    assert one_line("2 0 . N .[1:9[ . . .", reference) == ["2 0 . N .[1:9[ . . ."]


def test_keys_that_the_header_does_not_declare() -> None:
    """bcftools drops them from split records; here they stay, and those that the specification reserves
    are split by its numbers."""
    split = one_line("1 1 . A C,G . . AC=1,2;X=1,2;CIGAR=1M,1X GT:EC:Y 0/1:1,2:1,2", None, samples="s1")
    assert split == [
        "1 1 . A C . . AC=1;X=1,2;CIGAR=1M GT:EC:Y 0/1:1:1,2",
        "1 1 . A G . . AC=2;X=1,2;CIGAR=1X GT:EC:Y 0/0:2:1,2",
    ]


def genotypes(alleles: int, ploidy: int) -> list[tuple[int, ...]]:
    """In the order of the specification: by the highest allele, then the next."""
    return sorted(itertools.combinations_with_replacement(range(alleles), ploidy), key=lambda genotype: genotype[::-1])


@pytest.mark.parametrize("ploidy", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("n_alts", [2, 3, 5])
def test_genotype_vectors_of_any_ploidy(ploidy: int, n_alts: int) -> None:
    names = ["".join(map(str, genotype)) for genotype in genotypes(n_alts + 1, ploidy)]
    alts = ",".join("A" * n for n in range(2, n_alts + 2))
    call = "/".join(["0"] * ploidy)
    for number, line in enumerate(
        one_line(f"1 1 . A {alts} . . . GT:GL {call}:{','.join(names)}", None, samples="s1"), 1
    ):
        expected = ["".join(map(str, genotype)).replace("1", str(number)) for genotype in genotypes(2, ploidy)]
        assert line.split(" ")[9] == f"{call}:{','.join(expected)}"


def test_calls_in_forms_of_later_versions() -> None:
    assert one_line("1 1 . A C,G . . . GT |1/2", None, minor=4, samples="s1") == [
        "1 1 . A C . . . GT |1/0",
        "1 1 . A G . . . GT |0/1",
    ]
    assert one_line("1 1 . A C,G . . . GT:AD 1:", None, minor=5, samples="s1") == [
        "1 1 . A C . . . GT:AD 1:",
        "1 1 . A G . . . GT:AD 0:",
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("1 2 . A T . . . GT 0/1", "found REF 'A'; expected 'C', as the reference has it"),
        ("1 2 . cg C . . . GT 0/1", None),
        ("1 2 . CA C . . . GT 0/1", "found REF 'CA'; expected 'CG'"),
        ("7 2 . CA C . . . GT 0/1", "found CHROM '7', which the reference lacks"),
        ("1 53 . TA T . . . GT 0/1", "found REF at 53-54; expected it within what the reference holds of 1: 1-53"),
        ("1 0 . A AT . . . GT 0/1", "found POS 0 with bases in ALT"),
        ("1 2 . C T,c . . . GT 0/1", "found REF 'C' in ALT as well"),
        ("1 2 . C T,G . . AF=1 GT 0/1", "found 1 values in INFO 'AF=1'; expected 2 (Number=A)"),
        ("1 2 . C T,G . . BOTH=1,2 GT 0/1", "found 2 values in INFO 'BOTH=1,2'; expected 3 (Number=R)"),
        ("1 2 . C T,G . . GEN=1,2,3 GT 0/1", "found 3 values in INFO 'GEN=1,2,3'; expected 6 (Number=G)"),
        ("1 2 . C T,G . . AF=. GT 0/1", None),
        ("1 2 . C T,G . . . GT:AD 0/1:1,2", "found 2 values in AD; expected 3 (Number=R)"),
        ("1 2 . C T,G . . . GT:VAF 0/1:1", "found 1 values in VAF; expected 2 (Number=A)"),
        ("1 2 . C T,G . . . GT:PL 0/1:1,2,3,4", "found 4 values in PL; expected 6 (Number=G)"),
        ("1 2 . C T,G . . . GT 0/3", "found allele 3 in GT; expected at most 2"),
        ("1 2 . C T,G . . . GT 0/x", "found a malformed GT"),
        ("1 2 . C T,G . . . GT:DP 0/1:1:2", "found more subfields than the 2 keys of FORMAT"),
        ("1 2 . C T,G . . . GT:LAA:DP 0/1:1:2", "found LAA, which counts local alleles, and several ALT"),
    ],
)
def test_refusals(tmp_path: Path, record: str, reason: str | None) -> None:
    reference = fasta(tmp_path, FASTA)
    if reason is None:
        assert one_line(record, reference, samples="s1")
        return
    with pytest.raises(Refused) as refused:
        one_line(record, reference, samples="s1")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "record",
    [
        "1",
        "1 2 . C T,G . .",
        "1 2 . C T,G . . .",
        "1 2 . C T,G . . . GT 0/1 0/1",
        "1 x . C T,G . . . GT 0/1",
        "1 2 . R T,G . . . GT 0/1",
        "1 2 . C T, . . . GT 0/1",
        "1 2 . C R,T . . . GT 0/1",
        "1 2 . C <A,T . . . GT 0/1",
    ],
)
def test_what_cannot_be_read_is_left_to_the_reader(tmp_path: Path, record: str) -> None:
    assert one_line(record, fasta(tmp_path, FASTA), samples="s1") == [record]


@pytest.mark.parametrize(
    ("ref", "alt", "expected"),
    [
        ("A", "C", False),
        ("A", ".", False),
        ("A", "*", False),
        ("A", "a", True),
        ("AT", ".", True),
        ("AT", "*", False),
        ("A", "<DEL>", False),
        ("A", "A[1:3[", False),
        ("A", "A.", False),
        ("A", ".A", False),
        ("A", "C,G", True),
        ("A", "AC", True),
        ("AC", "A", True),
        ("AC", "GT", True),
        ("A", "C,<NON_REF>", True),
    ],
)
def test_needs(tmp_path: Path, ref: str, alt: str, expected: bool) -> None:
    assert needs(ref.encode(), alt.encode()) == expected
    if not expected:
        reference = fasta(tmp_path, {"1": "NN" + ref})
        assert one_line(f"1 3 . {ref} {alt} . . END=3", reference) == [f"1 3 . {ref} {alt} . . END=3"]


MOTIFS = ["A", "C", "G", "T", "CA", "GT", "ATC", "N", "a", "ca", "gata", "AAAAC"]
sequences = st.lists(st.tuples(st.sampled_from(MOTIFS), st.integers(1, 9)), min_size=1, max_size=8).map(
    lambda runs: "".join(m * n for m, n in runs)
)


@st.composite
def records_over(draw: st.DrawFn, contigs: dict[str, str]) -> list[str]:
    """Records whose alleles are rearrangements of the reference, so that they often can move; REF is never an ALT."""
    records = []
    for _ in range(draw(st.integers(1, 12))):
        contig = draw(st.sampled_from(sorted(contigs)))
        sequence = contigs[contig]
        start = draw(st.integers(0, len(sequence) - 1))
        ref = sequence[start : start + draw(st.integers(1, 9))]
        if draw(st.booleans()):
            ref = ref.upper()
        alts = []
        for _ in range(draw(st.integers(1, 4))):
            kind = draw(st.integers(0, 9))
            a, b = sorted((draw(st.integers(0, len(ref))), draw(st.integers(0, len(ref)))))
            if kind < 4:
                alt = ref[:a] + ref[b:]
            elif kind < 8:
                alt = ref[:a] + draw(st.sampled_from([ref, *MOTIFS])) * draw(st.integers(1, 3)) + ref[b:]
            else:
                alt = ["*", "<NON_REF>"][kind - 8]
            if alt and alt.upper() != ref.upper():
                alts.append(alt)
        alts = alts or ["<NON_REF>"]
        n = len(alts)

        def vector(count: int) -> str:
            return ",".join(draw(st.lists(st.sampled_from(["0", "7", "31", "."]), min_size=count, max_size=count)))

        alleles = st.sampled_from([".", *map(str, range(n + 1))])
        info = ";".join(
            entry
            for entry in (
                f"AF={vector(n)}",
                f"BOTH={vector(n + 1)}",
                "DB",
                f"GEN={vector((n + 1) * (n + 2) // 2)}",
                f"END={start + len(ref)}",
                "ANY=1,2",
            )
            if draw(st.booleans())
        )
        samples = []
        for _ in range(2):
            ploidy = draw(st.sampled_from([1, 2, 2]))
            call = draw(alleles) if ploidy == 1 else draw(alleles) + draw(st.sampled_from("/|")) + draw(alleles)
            genotypes = (n + 1) * (n + 2) // 2 if ploidy == 2 else n + 1
            # One missing value in a vector of others: bcftools takes a vector of n + 1 for a haploid one.
            subfields = [call, *(draw(st.sampled_from([".", vector(count)])) for count in (n + 1, n, genotypes))]
            kept = draw(st.integers(1, 4))
            samples.append(":".join(subfields[:kept]))
        columns = [
            contig,
            str(start + 1),
            ".",
            ref,
            ",".join(alts),
            "9.50",
            "PASS",
            info or ".",
            "GT:AD:VAF:PL",
            *samples,
        ]
        records.append("\t".join(columns))
    return records


def haplotype(sequence: str, pos: str, ref: str, alt: str) -> str:
    start = int(pos) - 1
    return (sequence[:start] + alt + sequence[start + len(ref) :]).upper()


@settings(max_examples=12, deadline=None)
@given(st.data(), st.tuples(sequences, sequences))
def test_random_records_become_those_of_bcftools(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, pair: tuple[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("norm")
    contigs = dict(zip("12", pair, strict=True))
    reference = fasta(folder, contigs)
    head = header_of(samples="s1 s2")
    records = data.draw(records_over(contigs))
    as_written = canonical(folder, head, records)
    for split, aligned in ((True, reference), (False, reference), (True, None)):
        ours = changed(joined(head, as_written), split, aligned)
        assert sorted(texts(ours)) == expected_of(folder, head, records, split, aligned)
        again = changed(joined(head, texts(ours)), split, aligned)
        assert [one.text for one in again] == [one.text for one in ours]
        for one in ours:
            contig, pos, _, ref, alts, *_ = one.text.decode().split("\t")
            sources = one.source_alts.split(",")
            kept = sources if one.alt_number == 0 else [sources[one.alt_number - 1]]
            for alt, source in zip(alts.split(","), kept, strict=True):
                if source.isalpha():  # the record still spells the same sequence
                    sequence = contigs[contig]
                    assert haplotype(sequence, pos, ref, alt) == haplotype(
                        sequence, str(one.source_pos), one.source_ref, source
                    )
    for record in records:  # split records together tell the whole of the calls
        columns = record.split("\t")
        parts = texts(changed(head + record + "\n", True, None))
        assert [part.split("\t")[4] for part in parts] == columns[4].split(",")
        for place in (9, 10):
            separator = "|" if "|" in columns[place] else "/"
            calls = [part.split("\t")[place].split(":")[0].split(separator) for part in parts]
            if len(parts) > 1:
                whole = [
                    "." if "." in column else str(sum(n for n, allele in enumerate(column, 1) if allele == "1"))
                    for column in zip(*calls, strict=True)
                ]
                assert separator.join(whole) == columns[place].split(":")[0]


def data(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


def chosen(path: Path, most: int) -> tuple[str, list[str]]:
    """Header of a file, and the first of its records that may change, and of the others."""
    head, picked, others = [], [], []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if line.startswith("#"):
                head.append(line)
                continue
            columns = line.split("\t", 5)
            may = needs(columns[3].encode(), columns[4].encode())
            if len(picked if may else others) < most:
                (picked if may else others).append(line.rstrip("\n"))
            elif may:
                break
    kept = picked + others[: most // 4]
    declared = [line for line in head if line.startswith("##contig=")]
    missing = {record.split("\t", 1)[0] for record in kept} if not declared else ()  # bcftools asks for them
    return "".join([head[0], *(f"##contig=<ID={name}>\n" for name in sorted(missing)), *head[1:]]), kept


@pytest.mark.parametrize(
    ("file", "reference", "most"),
    [
        ("vcf_ceu_exon_seqarray/CEU_Exon.vcf.gz", None, 300),
        ("vcf_hail_sample/sample.vcf.gz", None, 300),
        ("vcf_hail_sample/sample2.vcf.gz", None, 100),
        ("gvcf_bio2zarr/1kg_2020_chrM.vcf.gz", None, 300),
        ("gvcf_bio2zarr/CEUTrio.20.21.gatk3.4.g.vcf.bgz", None, 600),
        ("gvcf_bio2zarr/NA12878.prod.chr20snippet.g.vcf.gz", None, 400),
        ("gvcf_bio2zarr/chr22.vcf.gz", None, 300),
        ("gvcf_1kg_chr22_hail/HG00187.hg38.g.vcf.gz", None, 400),
        (
            "ref_grch38_chr20_21_10M/cohort-chr20_100k.vcf.gz",
            "ref_grch38_chr20_21_10M/grch38.chr20_and_21_10M.fa.gz",
            2000,
        ),
        ("vc_na12878_chr20/truth.vcf.gz", "vc_na12878_chr20/ucsc.hg19.chr20.unittest.fasta.gz", 2000),
    ],
)
def test_real_files_as_bcftools(tmp_path: Path, file: str, reference: str | None, most: int) -> None:
    head, records = chosen(data(*file.split("/")), most)
    against = None if reference is None else str(data(*reference.split("/")))
    agree(tmp_path, head, records, True, against)
    if against is not None:
        agree(tmp_path, head, records, False, against)


def test_moved_indels_of_a_real_chromosome(tmp_path: Path) -> None:
    """Deletions and insertions put anywhere in repeats of chr20 come to where bcftools puts them;
    their own form comes back unchanged."""
    path = str(data("ref_grch38_chr20_21_10M", "grch38.chr20_and_21_10M.fa.gz"))
    with pysam.FastaFile(path) as file:
        sequence = file.fetch("chr20", 60_000, 160_000).upper()
    draw = random.Random(4)
    records = []
    for _ in range(500):
        start, size = draw.randrange(1000, 99_000), draw.choice([1, 1, 2, 2, 3, 4, 6, 12, 40])
        ref = sequence[start : start + draw.randint(1, 3) + size]
        alt = ref[:1] + ref[1 + size :] if draw.random() < 0.5 else ref + ref[-size:]
        records.append(f"20\t{60_001 + start}\t.\t{ref}\t{alt}\t.\t.\tEND={60_000 + start + len(ref)}")
    head = header_of(samples="").replace("<ID=1>", "<ID=chr20>")
    with_chr = ["chr" + record for record in records]
    ours = agree(tmp_path, head, with_chr, False, path)
    assert sum(one.text.split(b"\t")[1] != b"%d" % one.source_pos for one in ours) > 100
    plain = changed(joined(head, records), False, path)  # 20 is chr20
    assert ["chr" + text for text in texts(plain)] == texts(ours)


def test_slices_of_chromosomes(tmp_path: Path) -> None:
    """A slice gives what the chromosome gives; beyond it, or where an indel may move out of it,
    the record is refused."""
    sequence = "GATTACA" * 3 + "CAGTTTTTTTTTTGCCAGAGAGAGATC" + "GATTACA" * 3
    whole = fasta(tmp_path, {"chr7": sequence}, "whole.fa")
    (tmp_path / "slices.fa").write_text(
        f">exon2 hg19_chr7:11-30 second\n{sequence[10:30]}\n>exon1|x hg19_chr7:33-55\n{sequence[32:45]}\n"
        f"{sequence[45:55]}\n>chrM\nACGT\n"
    )
    slices = Reference(str(tmp_path / "slices.fa"))
    assert slices.piece("7", 32, 40) == slices.piece("chr7", 54, 55) == Piece("exon1|x", 32, 55)
    assert slices.fetch("chr7", 14, 20) == sequence[14:20].encode()
    assert slices.fetch("exon2", 0, 4) == sequence[10:14].encode()
    assert ("MT" in slices, "chrMT" in slices, "chr7" in slices, "8" in slices) == (True, True, True, False)
    record = "7 43 . GAG G . . END=45"
    assert one_line(record, str(tmp_path / "slices.fa")) == one_line(record, whole) == ["7 37 . CAG C . . END=39"]
    for refused in ("7 32 . TG T . . .", "7 9 . TT T . . .", "7 30 . TT T . . .", "7 55 . GG G . . ."):
        with pytest.raises(Refused, match=r"expected it within what the reference holds of 7: 11-30, 33-55"):
            one_line(refused, str(tmp_path / "slices.fa"))
    with pytest.raises(Refused, match="moves left past 11, where the reference's slice starts"):
        one_line(f"7 12 . {sequence[11:19]} {sequence[11]} . . .", str(tmp_path / "slices.fa"))


def test_slices_of_real_assays(tmp_path: Path) -> None:
    with (
        gzip.open(data("varimpact_brca1_sge_findlay", "regions.fa.gz"), "rb") as source,
        (tmp_path / "r.fa").open("wb") as target,
    ):
        shutil.copyfileobj(source, target)
    reference = Reference(str(tmp_path / "r.fa"))
    assert reference.fetch("17", 41276029, 41276039) == b"TTACCAGATN"
    assert "chr17" in reference and "chr1" not in reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (">a hg19_chr1:5-9\nACGT\n", "found 4 bases in a; expected those of hg19_chr1:5-9"),
        (">a hg19_chr1:5-8\nACGT\n>b hg38_chr1:50-53\nACGT\n", "found slices of hg19 and hg38"),
        ("", "found no FASTA that can be read"),
        (None, "found no such file"),
    ],
)
def test_references_that_are_at_fault(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "r.fa"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as fault:
        Reference(str(path))
    assert fault.value.file == str(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_reference_of_many_sequences(tmp_path: Path, zipped: bool) -> None:
    """Descriptions are found in any block of a bgzipped file, bases across windows; it pickles as its path."""
    draw = random.Random(1)
    contents = {f"s{n}": "".join(draw.choices("ACGT", k=draw.choice([1, 59, 60, 61, 50_000]))) for n in range(25)}
    contents["chrX"] = "".join(draw.choices("ACGTacgtRN", k=100_000))
    starts = {name: 1000 * n + 1 for n, name in enumerate(contents)}
    path = tmp_path / "r.fa"
    with path.open("w") as file:
        for name, bases in contents.items():
            about = "" if name == "chrX" else f" b_c{name}:{starts[name]}-{starts[name] + len(bases) - 1}"
            file.write(f">{name}{about}\n" + "".join(bases[at : at + 60] + "\n" for at in range(0, len(bases), 60)))
    if zipped:
        pysam.tabix_compress(str(path), str(path) + ".gz")
        path = tmp_path / "r.fa.gz"
    reference = pickle.loads(pickle.dumps(Reference(str(path))))
    for name, bases in contents.items():
        contig, first = ("X", 0) if name == "chrX" else (f"c{name}", starts[name] - 1)
        for _ in range(5):
            a, b = sorted(draw.choices(range(len(bases) + 1), k=2))
            assert reference.fetch(contig, first + a, first + b) == bases[a:b].replace("R", "A").encode()
        with pytest.raises(Refused, match="expected it within"):
            reference.fetch(contig, first, first + len(bases) + 1)


def test_time_is_linear_in_the_length_of_a_repeat(tmp_path: Path) -> None:
    size = 300_000
    reference = fasta(tmp_path, {"1": "C" + "N" * size + "A"})
    began = time.monotonic()
    assert one_line(f"1 {size} . NN N . . .", reference) == ["1 1 . CN C . . ."]
    long = "N" * (size - 1)
    assert one_line(f"1 2 . N{long} N . . .", reference)[0][:8] == "1 1 . CN"
    assert time.monotonic() - began < 2
