"""Errors of reads, counted and added: by rates that are planted, and by loops over pysam's reads."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pysam
import pytest

from genodl_spark.formats.alignment import region_bam
from genodl_spark.genetics.calling import errors
from genodl_spark.genetics.calling.alleles import piled
from genodl_spark.genetics.calling.errors import Errors
from genodl_spark.genetics.calling.reads import Reads, of_bam
from genodl_spark.native import kernels
from tests.genetics.calling import diploid, sequencing
from tests.genetics.calling.diploid import Rates
from tests.genetics.calling.sequencing import Machine

LENGTH = 20_000
# mates do not overlap, so that qualities stay those of the file
APART = Machine(depth=20, length=80, insert=400, spread=20, levels=(30, 20, 10))


@pytest.fixture(scope="module")
def letters() -> np.ndarray:
    random = np.random.default_rng(1)
    text = "".join(base * int(random.integers(1, 7)) for base in random.choice(list("ACGT"), LENGTH))
    return np.frombuffer(text[:LENGTH].encode(), np.uint8)


@pytest.fixture(scope="module")
def bam(letters: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = letters.tobytes().decode()
    genome = diploid.genome("c", text, 500, LENGTH - 500, 1, Rates(snv=0, indel=1 / 500, clusters=0))
    path = tmp_path_factory.mktemp("errors") / "reads.bam"
    return sequencing.write(path, {"c": sequencing.sequenced(genome, 2, APART)}, sequencing.header({"c": text}, {}))


@pytest.fixture(scope="module")
def reads(bam: Path) -> Reads:
    return of_bam(region_bam(str(bam), "c", 1, LENGTH))


def test_errors_are_counted_as_in_a_loop(bam: Path, reads: Reads, letters: np.ndarray) -> None:
    sure = np.random.default_rng(0).random(LENGTH) < 0.7
    text = letters.tobytes().decode()
    found = np.zeros((errors.QUALITIES, 2), np.int64), np.zeros((errors.RUNS, 2), np.int64)
    args = (letters, 0, LENGTH, sure.view(np.uint8))
    assert kernels.call("errors", reads.data, reads.at, len(reads), *args, *found) == 0
    runs, at = [], 0
    for _, group in groupby(text):
        runs.append((at, len(list(group))))
        at += runs[-1][1]
    bases, slips = (np.zeros_like(one) for one in found)
    with pysam.AlignmentFile(str(bam)) as file:
        for read in file:
            assert read.query_sequence is not None
            for base, place in read.get_aligned_pairs(matches_only=True):
                if sure[place]:
                    bases[read.query_qualities[base]] += (1, read.query_sequence[base] != text[place])
            changed, place = set(), read.reference_start
            for kind, size in read.cigartuples:
                changed |= {place} if kind in (sequencing.INSERTION, sequencing.DELETION) else set()
                place += size * (kind in (sequencing.MATCH, sequencing.DELETION))
            for first, size in runs:
                if read.reference_start < first and first + size < read.reference_end and sure[first]:
                    slips[size] += (1, bool(changed & set(range(first, first + size))))
    assert np.array_equal(found[0], bases)
    assert np.array_equal(found[1], slips)
    assert slips[:, 1].sum() > 20


def test_as_many_errors_are_added_as_are_asked_for(reads: Reads, letters: np.ndarray) -> None:
    sure = np.ones(LENGTH, bool)
    planted = Errors(np.full(errors.QUALITIES, 0.01), 0.002 * np.arange(errors.RUNS))
    before = errors.fitted(reads, letters, 0, sure)
    after = errors.fitted(errors.added(reads, letters, 0, planted, 2, 1), letters, 0, sure)
    for quality in (10, 20, 30):
        expected = before.bases[quality] * (1 - 0.02 / 3 - 0.02) + 0.02
        assert after.bases[quality] == pytest.approx(expected, rel=0.15)
    for size in (2, 4, 6):  # runs at the ends of a read stay as they are: not all can slip
        assert 0.7 < (after.slips[size] - before.slips[size]) / (0.004 * size) < 1.1


def test_reads_stay_records_and_each_goes_its_own_way(reads: Reads, letters: np.ndarray) -> None:
    planted = Errors(np.full(errors.QUALITIES, 0.05), np.full(errors.RUNS, 0.1))
    found = errors.added(reads, letters, 0, planted, 1, 7)
    room = len(reads)
    columns = [np.empty(room, kind) for kind in (np.int64, np.int32, np.int32, np.uint16, np.uint8, np.uint64)]
    assert kernels.call("records", found.data, len(found.data), 0, room, *columns) == room
    assert np.array_equal(columns[0], found.at)
    for got, column in zip(columns[1:], (reads.pos, reads.end, reads.flag, reads.mapq, reads.name), strict=True):
        assert np.array_equal(got, column)
    assert not np.array_equal(piled(found, letters, 0, 5).counts, piled(reads, letters, 0, 5).counts)
    some = errors.added(reads.only(np.arange(5, room, 3)), letters, 0, planted, 1, 7)
    for number, one in zip(range(5, room, 3), range(len(some)), strict=True):
        size = int.from_bytes(some.data[some.at[one] : some.at[one] + 4].tobytes(), "little") + 4
        assert some.data[some.at[one] :][:size].tobytes() == found.data[found.at[number] :][:size].tobytes()
    again = errors.added(reads, letters, 0, planted, 1, 8)
    assert again.data.tobytes() != found.data.tobytes()


def test_none_are_added_of_none(reads: Reads, letters: np.ndarray) -> None:
    nothing = Errors(np.zeros(errors.QUALITIES), np.zeros(errors.RUNS))
    same = errors.added(reads, letters, 0, nothing, 1, 7)
    one, other = piled(same, letters, 0, 10), piled(reads, letters, 0, 10)
    assert np.array_equal(one.counts, other.counts)
    assert np.array_equal(one.where, other.where)
