"""Mutated VCF records: what the compiled kernels accept must be what the record rules alone make of the same lines."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa

from genodl_spark.formats.vcf import reader as vcf
from genodl_spark.formats.vcf.header import Header, read_header

HEAD = """##fileformat=VCFv4.{minor}
##INFO=<ID=MY,Number=1,Type=Integer,Description="One">
##INFO=<ID=PER,Number=A,Type=Float,Description="One per ALT">
##INFO=<ID=ON,Number=0,Type=Flag,Description="Flag">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Depths">
##FORMAT=<ID=PL,Number=G,Type=Integer,Description="Likelihoods">
##FORMAT=<ID=C,Number=1,Type=Character,Description="Letter">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"""
RECORDS = [
    "1 10 rs1 A C 30 PASS MY=3;PER=0.5;ON GT 0|0 0|1 1|1 0|0 0|1",
    "1 11 . AC A,G . . . GT:AD:PL 0/1:1,2,3:1,2,3,4,5,6 1/2:.:. ./.:0,0,0:. 0:1,1,1:1,2,3 2/2",
    "1 12 a;b A C 1e3 q1;q2 END=40 GT:C 0|0:x 0/1:y 1:. .:z 1|1",
    "2 13 . A <DEL> . PASS END=99;PER=. AD 1,2 1,2 . 3,4 5,6",
    "2 14 . A * 9 . ON;MY=. GT:AD 0/0/1:1,2 0/1/1/1:3,4 0|1 .|.|. 1",
    "X 15 . A C . . . GT 0|0 0|0 0|0 0|0 1|0",
]
PIECES = [
    b"\t",
    b":",
    b",",
    b";",
    b"=",
    b".",
    b"/",
    b"|",
    b"\n",
    b"\r",
    b"\0",
    b"99999999999999999999",
    b"\xff",
    b"-",
    b"<",
    b"*",
    b"0",
    b"END=",
    b"GT",
]


class Ruled(vcf.Reader):
    """A reader that leaves every record to the rules."""

    def _certain(self, number: int, text: np.ndarray, starts: np.ndarray, flags: np.ndarray) -> pa.RecordBatch:
        flags[flags == 0] = 1
        return super()._certain(number, text, starts, flags)


def head(minor: int, samples: int) -> Header:
    columns = "".join(f"\t{name}" for name in ["FORMAT", *(f"s{i}" for i in range(samples))]) if samples else ""
    block = (HEAD.format(minor=minor) + columns + "\n").encode()
    return read_header(iter([(1, block)]), "v.vcf")[0]


def mutated(random_: random.Random, samples: int) -> bytes:
    lines = []
    for _ in range(random_.randrange(1, 5)):
        columns = random_.choice(RECORDS).split(" ")
        lines.append("\t".join(columns[: 9 + samples] if samples else columns[:8]))
    text = bytearray(("\n".join(lines) + random_.choice(("\n", ""))).encode())
    for _ in range(random_.choice((0, 1, 1, 2, 5))):
        at, kind = random_.randrange(len(text) + 1), random_.randrange(5)
        if kind == 0 and at < len(text):
            text[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            text[at:at] = random_.choice(PIECES)
        elif kind == 2:
            del text[at : at + random_.choice((1, 1, 3, 20))]
        elif kind == 3:
            text[at : at + 1] = random_.choice(PIECES)
        else:
            other = random_.randrange(len(text) + 1)
            text[at:at] = text[min(at, other) : max(at, other)][:40]
    return bytes(text)


def run(n: int, seed: int) -> tuple[int, int]:
    """Holds the kernels against the rules on `n` mutated blocks; records that were read and set aside.
    AssertionError where they differ."""
    random_ = random.Random(seed)
    readers = []
    for minor in (1, 2, 3, 4, 5):
        for samples in (0, 1, 2, 5):
            header = head(minor, samples)
            readers.append((samples, vcf.Reader(header, "c", "v.vcf"), Ruled(header, "c", "v.vcf")))
    read = aside = 0
    for i in range(n):
        samples, ours, rules = random_.choice(readers)
        text, most = mutated(random_, samples), random_.choice((1, 1000, 1000))
        found, expected = (list(reader.batches(1, text, most)) for reader in (ours, rules))
        for (rows, bad), (ruled_rows, ruled_bad) in zip(found, expected, strict=True):
            if rows.to_pylist() != ruled_rows.to_pylist() or bad.to_pylist() != ruled_bad.to_pylist():
                raise AssertionError(
                    f"block {i} of seed {seed}, {samples} samples, VCF 4.{ours.header.minor}: {text!r}"
                )
            read += rows.num_rows
            aside += bad.num_rows
    return read, aside
