"""BGEN against a writer and a reader that follow the layout value by value, and against a .bed of the same people."""

from __future__ import annotations

import itertools
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgen
from genodl_spark.formats.sites import Rows
from genodl_spark.genetics import genotypes

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
Sample = tuple[int, bool, list[int]]  # ploidy, missing, numbers as stored
COMPRESS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: zlib.compress,
    2: lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def colex(ploidy: int, alleles: int) -> list[list[int]]:
    """Genotypes in the order of the specification: counts of the last allele first."""
    if alleles == 1:
        return [[0] * ploidy]
    return [one + [alleles - 1] * n for n in range(ploidy + 1) for one in colex(ploidy - n, alleles - 1)]


def record(
    samples: list[Sample],
    alleles: list[str],
    bits: int,
    phased: bool,
    compression: int = 1,
    pos: int = 7,
    chrom: str = "01",
    name: str = "rs1",
    tamper: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """One record. Values of samples go in bit by bit."""
    stream = "".join("".join(f"{number:0{bits}b}"[::-1] for number in numbers) for _, _, numbers in samples)
    stream += "0" * (-len(stream) % 8)
    packed = bytes(int(stream[i : i + 8][::-1], 2) for i in range(0, len(stream), 8))
    ploidies = [ploidy for ploidy, _, _ in samples]
    block = struct.pack("<IHBB", len(samples), len(alleles), min(ploidies), max(ploidies))
    block += bytes(ploidy | missing << 7 for ploidy, missing, _ in samples)
    block = tamper(block + bytes([phased, bits]) + packed)
    stored = COMPRESS[compression](block)
    head = b"".join(struct.pack("<H", len(text)) + text.encode() for text in ("v", name, chrom))
    head += struct.pack("<IH", pos, len(alleles))
    head += b"".join(struct.pack("<I", len(allele)) + allele.encode() for allele in alleles)
    size = struct.pack("<II", len(stored) + 4, len(block)) if compression else struct.pack("<I", len(stored))
    return head + size + stored


def write(
    path: Path, records: list[bytes], samples: int, compression: int = 1, names: bool = True, layout: int = 2
) -> str:
    block = b""
    if names:
        each = b"".join(struct.pack("<H", len(n)) + n for n in (f"s{i}".encode() for i in range(samples)))
        block = struct.pack("<II", len(each) + 8, samples) + each
    free = b"free"
    flags = compression | layout << 2 | names << 31
    head = struct.pack("<III4s", 20 + len(free), len(records), samples, b"bgen") + free + struct.pack("<I", flags)
    path.write_bytes(struct.pack("<I", len(head) + len(block)) + head + block + b"".join(records))
    return str(path)


def oracle(
    sample: Sample, alleles: int, bits: int, phased: bool, threshold: float
) -> tuple[list[int], list[float] | None]:
    """The call, and the dosage of every allele but the first."""
    ploidy, missing, numbers = sample
    if missing or not ploidy:
        return [-1] * max(ploidy, 1), None
    most = 2**bits - 1
    if phased:
        haplotypes = [numbers[h * (alleles - 1) : (h + 1) * (alleles - 1)] for h in range(ploidy)]
        shares = [[n / most for n in part] + [(most - sum(part)) / most] for part in haplotypes]
        call = [share.index(max(share)) for share in shares]
        certain = math.prod(max(share) for share in shares)
        dosage = [sum(share[k] for share in shares) for k in range(1, alleles)]
    else:
        share = [n / most for n in numbers] + [(most - sum(numbers)) / most]
        every = colex(ploidy, alleles)
        call = every[share.index(max(share))]
        certain = max(share)
        dosage = [sum(p * one.count(k) for p, one in zip(share, every, strict=True)) for k in range(1, alleles)]
    return (call if certain >= threshold else [-1] * ploidy), dosage


def random_sample(random: np.random.Generator, ploidy: int, alleles: int, bits: int, phased: bool) -> Sample:
    sets = ploidy if phased else 1
    size = alleles if phased else len(colex(ploidy, alleles))
    numbers: list[int] = []
    for _ in range(sets if ploidy else 0):
        share = random.dirichlet([0.1] * size) if random.random() < 0.7 else np.eye(size)[random.integers(size)]
        floor = np.floor(share * (2**bits - 1)).astype(np.int64)
        floor[int(share.argmax())] += 2**bits - 1 - int(floor.sum())
        numbers += floor[:-1].tolist()
    return ploidy, bool(random.random() < 0.1), numbers


def rows_of(
    path: str, threshold: float = 0.9, split: bool = False, reference: str | None = None
) -> tuple[list[dict], list[dict], list[str]]:
    header = bgen.header_of(path)
    of = Rows("c", "d.bgen", 1000, header.samples, True, "vcf")
    told: list[str] = []
    rows, bad = [], []
    for made, refused in bgen.read(path, of, reference, lambda _, what: told.append(what), threshold, split):
        rows += made.to_pylist()
        bad += refused.to_pylist()
    return rows, bad, told


def calls(row: dict) -> list[list[int]]:
    alleles = genotypes.unpack(pa.array([row["gt"]], pa.binary()), row["n_samples"])[0][0].tolist()
    return [[a for a in call if a != genotypes.ABSENT] for call in alleles]


def dosages(row: dict) -> list[list[float] | None]:
    cells = row["fields"].decode().split("\t")
    return [None if cell == "." else [float(x) for x in cell.split(",")] for cell in cells]


@pytest.mark.parametrize("compression", [0, 1, 2])
@pytest.mark.parametrize("bits", [1, 3, 8, 11, 16, 24, 32])
def test_every_form_is_read_as_the_layout_says(bits: int, compression: int, tmp_path: Path) -> None:
    random = np.random.default_rng(bits * 3 + compression)
    shapes = list(itertools.product((False, True), (2, 3), ([2] * 9, [1] * 9, [2, 1, 2, 2, 1, 0, 3, 2, 2])))
    made = []
    for place, (phased, alleles, ploidies) in enumerate([*shapes, *shapes[:3]]):
        samples = [random_sample(random, ploidy, alleles, bits, phased) for ploidy in ploidies]
        made.append(
            (phased, alleles, samples, record(samples, list("ACG")[:alleles], bits, phased, compression, place + 1))
        )
    path = write(tmp_path / "d.bgen", [one[3] for one in made], 9, compression)
    rows, bad, told = rows_of(path)
    assert not bad and not told
    assert [(r["line"], r["pos"], r["contig"], r["chrom"], r["id"]) for r in rows] == [
        (i + 1, i + 1, "1", "01", "rs1") for i in range(len(made))
    ]
    for row, (phased, alleles, samples, _) in zip(rows, made, strict=True):
        expected = [oracle(sample, alleles, bits, phased, 0.9) for sample in samples]
        assert calls(row) == [call for call, _ in expected]
        for found, (_, dosage) in zip(dosages(row), expected, strict=True):
            assert (found is None) == (dosage is None)
            if found is not None and dosage is not None:
                np.testing.assert_allclose(found, dosage, atol=0.5 / bgen.STEPS + 1e-12)
        phases = genotypes.unpack(pa.array([row["gt"]]), 9)[1][0]
        whole = [i for i, call in enumerate(calls(row)) if len(call) > 1 and -1 not in call]
        assert not phases[:, 0].any() and all(bool(phases[i, 1]) == phased for i in whole)


def test_the_threshold_of_a_call(tmp_path: Path) -> None:
    samples: list[Sample] = [(2, False, [0, n]) for n in (229, 230, 0)]  # of 255, one of each allele
    path = write(tmp_path / "d.bgen", [record(samples, ["A", "C"], 8, False)], 3)
    assert calls(rows_of(path)[0][0]) == [[-1, -1], [0, 1], [1, 1]]
    assert calls(rows_of(path, 0.89)[0][0]) == [[0, 1], [0, 1], [1, 1]]
    assert calls(rows_of(path, 230 / 255)[0][0]) == [[-1, -1], [0, 1], [1, 1]]  # which is enough
    assert dosages(rows_of(path)[0][0]) == [[1.102], [1.098], [2.0]]


def test_several_alts_become_a_record_each(tmp_path: Path) -> None:
    every = colex(2, 3)
    samples: list[Sample] = [(2, False, [255 * (i == g) for i in range(5)]) for g in range(6)]
    path = write(tmp_path / "d.bgen", [record(samples, ["A", "C", "GT"], 8, False)], 6)
    first, second = rows_of(path, split=True)[0]
    assert [(r["alts"], r["alt_number"], r["source_alts"]) for r in (first, second)] == [
        (["C"], 1, "C,GT"),
        (["GT"], 2, "C,GT"),
    ]
    for alt, row in ((1, first), (2, second)):
        assert calls(row) == [sorted(int(allele == alt) for allele in one) for one in every]
        assert dosages(row) == [[float(one.count(alt))] for one in every]


def test_a_reference_says_which_allele_is_ref(tmp_path: Path) -> None:
    (tmp_path / "r.fa").write_text(">1\nACGTTT\n")
    samples: list[Sample] = [(2, False, [255, 0]), (2, False, [51, 204]), (1, False, [255]), (2, True, [0, 0])]
    made = [record(samples, pair, 8, False, pos=2) for pair in (["C", "A"], ["A", "C"], ["A", "T"], ["1", "2"])]
    rows, bad, _ = rows_of(write(tmp_path / "d.bgen", made, 4), 0.7, reference=str(tmp_path / "r.fa"))
    assert [(r["ref"], r["alts"], r["info"], calls(r), dosages(r)) for r in rows] == [
        ("C", ["A"], ".", [[0, 0], [0, 1], [0], [-1, -1]], [[0.0], [0.8], [0.0], None]),
        ("C", ["A"], ".", [[1, 1], [0, 1], [1], [-1, -1]], [[2.0], [1.2], [1.0], None]),
    ]
    assert [r["line"] for r in bad] == [3, 4]


def test_damaged_records_are_set_aside(tmp_path: Path) -> None:
    two: list[Sample] = [(2, False, [255, 0]), (2, False, [0, 255])]
    made = [
        record(two, ["A", "C"], 8, False),
        record([(2, False, [200, 200]), two[0]], ["A", "C"], 8, False),
        record(two, ["A", "C"], 8, False, tamper=lambda block: block[:-1]),
        record(two, ["A", "C"], 8, False, tamper=lambda block: b"\3" + block[1:]),
        record(two, ["A", "C"], 8, False)[:-6] + b"\0" * 6,
        record(two, ["A", "C D"], 8, False),
        record(two, ["A", "C"], 8, False, tamper=lambda block: block[:10] + b"\0\0" + block[12:]),
    ]
    rows, bad, _ = rows_of(write(tmp_path / "d.bgen", made, 2))
    assert [r["line"] for r in rows] == [1]
    assert [(r["line"], r["reason"].partition(";")[0].partition("(")[0]) for r in bad] == [
        (2, "found probabilities that add up to more than one"),
        (3, "found 3 bytes of probabilities"),
        (4, "found a block of other samples than the file's"),
        (5, "found corrupt compressed data "),
        (6, "found allele 'C D'"),
        (7, "found 2 alleles, phase 0, 0 bits"),
    ]


def test_a_sample_file_names_and_describes(tmp_path: Path) -> None:
    path = write(tmp_path / "d.bgen", [record([(2, False, [255, 0])] * 2, ["A", "C"], 8, False)], 2, names=False)
    with pytest.raises(InputError, match=r"found no names of samples in it; expected d.sample beside it"):
        bgen.header_of(path)
    (tmp_path / "d.sample").write_text("ID_1 ID_2 missing sex bmi\n0 0 0 D C\nf a 0.1 1 22.5\nf b 0 0 NA\n")
    header = bgen.header_of(path)
    assert header.samples == ["a", "b"] and header.people is not None
    assert (header.people.columns, header.people.rows) == (["sex", "bmi"], {"a": ["male", "22.5"], "b": [None, None]})
    write(tmp_path / "d.bgen", [record([(2, False, [255, 0])] * 2, ["A", "C"], 8, False)], 2)
    with pytest.raises(InputError, match=r"found sample .a. where d\.bgen has .s0.; expected the same samples"):
        bgen.header_of(path)


ONE = record([(2, False, [255, 0])], ["A", "C"], 8, False)
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-3]), "found it cut off within record 1"),
    "of layout 1": (lambda p: write(p, [ONE], 1, layout=1), r"found BGEN of layout 1; expected layout 2 \(BGEN 1.2\)"),
    "without records": (lambda p: write(p, [], 1), "found no record"),
    "with more behind": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "found bytes behind record 1, its last"),
    "head alone": (lambda p: p.write_bytes(p.read_bytes()[:22]), "found it cut off within its header"),
    "no samples": (lambda p: write(p, [ONE], 0), "found 0 samples; expected 1 to"),
    "other names": (
        lambda p: p.write_bytes(p.read_bytes().replace(b"\x02\0s0", b"\x02\0\n0")),
        "found blanks around the name",
    ),
    "sample file of others": (
        lambda p: p.with_suffix(".sample").write_text("ID_1 ID_2\n0 0\na a\nb b\n"),
        "found 2 samples; expected 1",
    ),
    "no sample file": (
        lambda p: p.with_suffix(".sample").write_text("a b\n0 0\ns0 s0\n"),
        "found no columns ID_1 and ID_2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "d.bgen"
    write(path, [ONE], 1)
    change, message = BAD[case]
    change(path)
    with pytest.raises(InputError, match=message) as caught:
        bgen.header_of(str(path))
    assert caught.value.file is not None and Path(caught.value.file).stem == "d"


def test_the_example_of_regenie_has_the_genotypes_of_its_bed() -> None:
    path = SHARED / "gwas_regenie_example" / "example.bgen"
    if not path.exists():
        pytest.skip("no shared data")
    rows, bad, _ = rows_of(str(path))
    assert (len(rows), len(bad)) == (1000, 0)
    data = np.frombuffer(path.with_suffix(".bed").read_bytes()[3:], np.uint8).reshape(1000, 125)
    codes = (data[:, :, None] >> np.array([0, 2, 4, 6]) & 3).reshape(1000, -1)[:, :500]
    second = np.array([0, -1, 1, 2])[codes]  # copies of the second allele of the .bim: the first is this file's REF
    sites = [line.split() for line in path.with_suffix(".bim").read_text().splitlines()]
    assert [(r["id"], r["pos"], r["ref"], *r["alts"]) for r in rows] == [(v[1], int(v[3]), v[4], v[5]) for v in sites]
    found = genotypes.dosages(pa.array([r["gt"] for r in rows], pa.binary()), 500)
    np.testing.assert_array_equal(found, second)
    assert [[-1 if x is None else x[0] for x in dosages(r)] for r in rows[:50]] == second[:50].tolist()
