"""PLINK files against PLINK 2's own counts, and against the definition of a .bed written out call by call."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats import plink
from genodl_spark.formats.sites import GenotypeHeader, Rows
from genodl_spark.genetics import genotypes
from tests.goldens import answer

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
# Two bits of a .bed as copies of the first allele; -1 missing.
FIRST_COPIES = {0: 2, 1: -1, 2: 1, 3: 0}


def files(folder: Path, bim: bytes, fam: bytes, codes: np.ndarray, name: str = "d") -> str:
    """Writes a set of files of two-bit codes (V, S); returns where the .bed is."""
    rows = [
        [sum(int(code) << 2 * i for i, code in enumerate(row[s : s + 4])) for s in range(0, len(row), 4)]
        for row in codes
    ]
    (folder / f"{name}.bed").write_bytes(b"\x6c\x1b\x01" + b"".join(map(bytes, rows)))
    (folder / f"{name}.bim").write_bytes(bim)
    (folder / f"{name}.fam").write_bytes(fam)
    return str(folder / f"{name}.bed")


def family(samples: int) -> bytes:
    return "".join(f"0 s{i} 0 0 {i % 3} -9\n" for i in range(samples)).encode()


def read(
    bed: str, reference: str | None = None, target: int = 1 << 20
) -> tuple[GenotypeHeader, list[dict], list[dict], Counter[str]]:
    """Header, rows of `variants` and of `quarantine` over all pieces, and how often each thing was told."""
    header = plink.header_of(bed)
    of = Rows("c", "d.bed", 1000, header.samples, header.human, "vcf")
    told: Counter[str] = Counter()
    rows, bad = [], []
    pieces = plink.splits(bed, target)
    assert (pieces[0].start, pieces[-1].end) == (0, Path(bed).stat().st_size)
    for piece in pieces:
        for made, refused in plink.read(bed, piece, of, reference, lambda _, what: told.update([what])):
            assert made.num_rows + refused.num_rows <= plink.length(bed, piece)
            rows += made.to_pylist()
            bad += refused.to_pylist()
    return header, rows, bad, told


def copies(row: dict) -> list[int]:
    """Copies of ALT, -1 missing."""
    return genotypes.dosages(pa.array([row["gt"]], pa.binary()), row["n_samples"])[0].tolist()


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 31, 32, 33, 64, 131, 700])
def test_rows_are_packed_as_calls_are(samples: int) -> None:
    random = np.random.default_rng(samples)
    calls = np.array([[1, 1], [-1, -1], [0, 1], [0, 0]], np.int16)  # by code, of the second allele as 0
    for shares in (
        [0.25] * 4,
        [0.98, 0.01, 0.01, 0],
        [0, 0.01, 0.01, 0.98],
        [0.01, 0.98, 0, 0.01],
        [0.02, 0, 0.97, 0.01],
    ):
        codes = random.choice(4, (20, samples), p=shares)
        codes[:4] = np.arange(4)[:, None]
        exchanged = random.random(20) < 0.5
        behind = random.integers(4)  # what stands behind the last sample counts for nobody
        padded = np.pad(codes, ((0, 0), (0, -samples % 4)), constant_values=behind).reshape(20, -1, 4)
        rows = (padded << np.array([0, 2, 4, 6])).sum(2).astype(np.uint8)
        expected = calls[codes]
        expected = np.sort(np.where(exchanged[:, None, None] & (expected >= 0), 1 - expected, expected), axis=2)
        packed = genotypes.from_bed(rows, samples, exchanged)
        np.testing.assert_array_equal(genotypes.unpack(packed, samples)[0], expected)
        assert packed.equals(genotypes.pack(expected, np.zeros(expected.shape, bool)))


def test_counts_are_those_of_plink2(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    codes = random.choice(4, (60, 45), p=[0.2, 0.05, 0.3, 0.45])
    codes[7], codes[8] = 3, 1
    bim = "".join(f"{1 + i // 30}\tv{i}\t0\t{100 + i}\t{'CG'[i % 2]}\tA\n" for i in range(60)).encode()
    bed = files(tmp_path, bim, family(45), codes)
    inputs = {name: (tmp_path / name).read_bytes() for name in ("d.bed", "d.bim", "d.fam")}
    command = ["plink2", "--bfile", "d", "--threads", "1", "--memory", "800", "--geno-counts", "--out", "o"]
    golden = [line.split() for line in answer(command, inputs, "o.gcount") if not line.startswith("#")]
    _, rows, bad, _ = read(bed, target=200)
    assert not bad
    found = []
    for row in rows:
        of = Counter(copies(row))
        found.append(
            [
                row["contig"],
                row["id"],
                row["ref"],
                row["alts"][0],
                *(str(of[n]) for n in (0, 1, 2)),
                "0",
                "0",
                str(of[-1]),
            ]
        )
    assert found == golden
    assert [row["line"] for row in rows] == list(range(1, 61))


def test_chromosomes_alleles_and_samples(tmp_path: Path) -> None:
    bim = (
        b"23 a 0 5 C A\n24\tb 0 6 C\tA\n\n25 c 0 7 0 A\n26 d 0 8 T 0\nchr9 e 0 9 I D\n0 . 0 0 G GT\n"
        b"7 f 0 ten C A\n7 g 0 9 0 A\n7 h 0 -3 C A\n7 i 3 0 G A extra\n01 j 11 G A\n"
    )
    codes = np.full((11, 3), 3)
    codes[:, 0], codes[3] = 2, 0
    codes[2] = codes[7] = 3
    codes[7, 1] = 0
    fam = b"f1 x 0 0 1 2\nf2 x f y 2 1\nf2\ty  x  0 0 0\r\n"
    header, rows, bad, told = read(files(tmp_path, bim, fam, codes))
    assert header.samples == ["f1_x", "f2_x", "f2_y"]
    assert header.people is not None and header.people.rows == {
        "f1_x": ["f1", None, None, "male", "2"],
        "f2_x": ["f2", "f", "f2_y", "female", "1"],
        "f2_y": ["f2", "f2_x", None, None, None],
    }
    assert header.notes == (
        "samples are called FAMILY_ID, as several families have one of the same identifier",
        "1 phenotypes 0 are missing, as all others are 1 or 2",
        "1 sites have no chromosome (0)",
    )
    assert [
        (r["line"], r["chrom"], r["contig"], r["pos"], r["end"], r["id"], r["ref"], r["alts"], copies(r)) for r in rows
    ] == [
        (1, "23", "X", 5, 5, "a", "A", ["C"], [1, 0, 0]),
        (2, "24", "Y", 6, 6, "b", "A", ["C"], [1, 0, 0]),
        (4, "25", "XY", 7, 7, "c", "A", [], [0, 0, 0]),
        (5, "26", "MT", 8, 8, "d", "T", [], [0, 0, 0]),
        (6, "chr9", "9", 9, 9, "e", "D", ["I"], [1, 0, 0]),
        (7, "0", "0", 0, 1, None, "GT", ["G"], [1, 0, 0]),
        (12, "01", "1", 11, 11, "j", "A", ["G"], [1, 0, 0]),
    ]
    assert {r["info"] for r in rows} == {"PR"}
    assert [(r["line"], r["reason"].partition(";")[0]) for r in bad] == [
        (8, "found position 'ten' in the .bim"),
        (9, "found 2 copies of allele 0 in the .bed"),
        (10, "found position '-3' in the .bim"),
        (11, "found 7 columns in the .bim"),
    ]
    assert told == {"have alleles that are no bases, which are kept as they are": 1}
    _, rows, _, _ = read(files(tmp_path, b"23 a 0 5 C A\n29 b 0 5 C A\n", fam, codes[:2], "cow"))
    assert [r["contig"] for r in rows] == ["23", "29"]


def test_quantitative_phenotypes_keep_zero(tmp_path: Path) -> None:
    fam = b"0 x 0 0 1 0\n0 y 0 0 1 2.5\n0 z 0 0 1 -9\n"
    header = plink.header_of(files(tmp_path, b"1 a 0 1 C A\n", fam, np.full((1, 3), 3)))
    assert header.people is not None and [row[4] for row in header.people.rows.values()] == ["0", "2.5", None]


def test_a_reference_says_which_allele_is_ref(tmp_path: Path) -> None:
    #            1234567890123456
    (tmp_path / "r.fa").write_text(">1\nACGTTTACCGATTTGA\n")
    bim = (
        b"1 kept 0 2 A C\n1 turned 0 2 C A\n1 other 0 2 A T\n1 strand 0 3 A C\n1 at 0 1 A T\n1 nobody 0 2 0 A\n"
        b"1 insertion 0 9 C CA\n1 deletion 0 14 TT T\n1 both 0 4 T TT\n1 beyond 0 99 A C\n1 numbers 0 2 1 2\n"
    )
    codes = np.tile([0, 1, 2, 3], (11, 1))
    codes[5] = [3, 1, 3, 3]
    _, rows, bad, told = read(files(tmp_path, bim, family(4), codes), str(tmp_path / "r.fa"))
    found = {
        r["id"]: (r["pos"], r["ref"], r["alts"], r["info"], copies(r), r["source_ref"], r["source_alts"]) for r in rows
    }
    assert found == {
        "kept": (2, "C", ["A"], ".", [2, -1, 1, 0], None, None),
        "turned": (2, "C", ["A"], ".", [0, -1, 1, 2], "A", "C"),
        "at": (1, "A", ["T"], ".", [0, -1, 1, 2], "T", "A"),
        "nobody": (2, "C", ["A"], ".", [2, -1, 2, 2], "A", "."),
        "insertion": (9, "C", ["CA"], ".", [0, -1, 1, 2], "CA", "C"),
        "both": (3, "GT", ["G"], "PR", [2, -1, 1, 0], "TT", "T"),
    } | {"deletion": found["deletion"]}
    assert found["deletion"] == (14, "T", ["TT"], ".", [2, -1, 1, 0], None, None) or found["deletion"][0] == 11
    reasons = {r["text"].split("\t")[1]: r["reason"] for r in bad}
    assert reasons.keys() == {"other", "strand", "beyond", "numbers"}
    assert reasons["strand"].endswith(
        "expected one to be G there, as in the reference: they may be of the other strand, turn them round"
    )
    assert reasons["other"].endswith("as in the reference, check the build")
    assert told["have alleles A and T or C and G, taken to be of the reference's strand"] == 1


BAD = {
    "no fam": (None, b"1 a 0 1 C A\n", None, "found no d.fam beside it", None),
    "no bim": (b"0 x 0 0 1 2\n", None, None, "found no d.bim beside it", None),
    "sample-major": (
        b"0 x 0 0 1 2\n",
        b"1 a 0 1 C A\n",
        b"\x6c\x1b\x00\x03",
        "found genotypes in sample-major order",
        None,
    ),
    "cut off": (
        b"0 x 0 0 1 2\n",
        b"1 a 0 1 C A\n1 b 0 2 C A\n",
        b"\x6c\x1b\x01\x03",
        "found 4 bytes; expected 5",
        None,
    ),
    "another fam": (b"0 x 0 0 1 2\n" * 5, b"1 a 0 1 C A\n", None, "sample 0_x stands twice", ("d.fam", 2)),
    "ragged fam": (b"0 x 0 0 1\n", b"1 a 0 1 C A\n", None, "found 5 columns; expected 6", ("d.fam", 1)),
    "empty fam": (b"", b"1 a 0 1 C A\n", None, "found no sample", ("d.fam", 1)),
    "empty bim": (b"0 x 0 0 1 2\n", b"", b"\x6c\x1b\x01", "found no site", ("d.bim", 1)),
    "text in UTF-16": (b"\xff\xfe0\0", b"1 a 0 1 C A\n", None, "found text in UTF-16", ("d.fam", 1)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_their_place(case: str, tmp_path: Path) -> None:
    fam, bim, bed, message, place = BAD[case]
    path = files(tmp_path, bim or b"", fam or b"", np.full((1, 1), 3))
    if bed is not None:
        Path(path).write_bytes(bed)
    for name, content in (("d.fam", fam), ("d.bim", bim)):
        if content is None:
            (tmp_path / name).unlink()
    with pytest.raises(InputError, match=message) as caught:
        plink.header_of(path)
    name, line = place or ("d.bed", None)
    assert caught.value.file is not None and (Path(caught.value.file).name, caught.value.line) == (name, line)


def test_the_example_of_regenie() -> None:
    bed = SHARED / "gwas_regenie_example" / "example.bed"
    if not bed.exists():
        pytest.skip("no shared data")
    header, rows, bad, told = read(str(bed), target=40_000)
    assert (len(header.samples), len(rows), len(bad)) == (500, 1000, 0)
    assert told == {"have alleles that are no bases, which are kept as they are": 1000}
    lines = [line.split() for line in (bed.parent / "example.bim").read_text().splitlines()]
    assert [(r["id"], r["ref"], *r["alts"]) for r in rows] == [(v[1], v[5], v[4]) for v in lines]
    data = np.frombuffer(bed.read_bytes()[3:], np.uint8).reshape(1000, 125)
    codes = (data[:, :, None] >> np.array([0, 2, 4, 6]) & 3).reshape(1000, -1)[:, :500]
    expected = np.array([FIRST_COPIES[code] for code in range(4)])[codes]
    np.testing.assert_array_equal([copies(row) for row in rows], expected)
