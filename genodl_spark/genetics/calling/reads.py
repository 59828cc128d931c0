"""Aligned reads of a stretch of a genome, as the records of a BAM and where each of them begins.

Bases, qualities and CIGARs stay in the bytes that htslib wrote; kernels read them there. Positions are 0-based,
intervals half-open.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.native import kernels

_MAGIC = b"BAM\x01"
_LENGTH = struct.Struct("<i")
_CUT_OFF = "found a header of a BAM that is cut off; expected a whole file"
_LEAST_RECORD = 36  # bytes of a record without a name, and the length before it
REVERSE = 0x10
SURE = 60  # mapping quality of a read whose place the aligner does not doubt: that of bwa where it is unique
UNMAPPED, SECONDARY, FAILED, DUPLICATE, SUPPLEMENTARY = 0x4, 0x100, 0x200, 0x400, 0x800
LEFT_OUT = UNMAPPED | SECONDARY | FAILED | DUPLICATE | SUPPLEMENTARY  # flags of reads that calls are not made of


@dataclass(frozen=True)
class Reads:
    """Reads in the order of the file. `data` uint8: records (SAM specification, section 4.2); `at` int64 (R): where
    each begins in it; `pos`, `end` int32 (R): the reference that it covers; `flag` uint16, `mapq` uint8, `name` uint64
    (R): a hash of its name, which mates share."""

    data: np.ndarray
    at: np.ndarray
    pos: np.ndarray
    end: np.ndarray
    flag: np.ndarray
    mapq: np.ndarray
    name: np.ndarray

    def __len__(self) -> int:
        return len(self.at)

    def only(self, kept: np.ndarray) -> Reads:
        """Some of them: a mask or their numbers; the records stay."""
        columns = (
            np.ascontiguousarray(c[kept]) for c in (self.at, self.pos, self.end, self.flag, self.mapq, self.name)
        )
        return Reads(self.data, *columns)

    def overlapping(self, start: int, end: int, longest: int) -> np.ndarray:
        """Numbers of those that overlap [start, end); they are in the order of their positions, none is longer."""
        before = int(np.searchsorted(self.pos, end))
        after = int(np.searchsorted(self.pos, start - longest))
        return after + np.flatnonzero(self.end[after:before] > start)


def of_bam(bam: bytes | bytearray, least_mapq: int = 0, without: int = LEFT_OUT) -> Reads:
    """Reads of an inflated BAM, header first, that have none of the flags `without` and at least that mapping quality
    (255: not known, is taken as 0). Qualities where mates overlap are changed, so that a molecule counts once.

    InputError for bytes that are no whole BAM.
    """
    data = np.frombuffer(bytearray(bam) if isinstance(bam, bytes) else bam, np.uint8)
    start = _records_start(data)
    room = max((len(data) - start) // _LEAST_RECORD, 1)
    at, pos, end = np.empty(room, np.int64), np.empty(room, np.int32), np.empty(room, np.int32)
    flag, mapq, name = np.empty(room, np.uint16), np.empty(room, np.uint8), np.empty(room, np.uint64)
    n = kernels.call("records", data, len(data), start, room, at, pos, end, flag, mapq, name)
    if n < 0:
        raise InputError("found records that are none; expected those of a BAM, whole")
    mapq[mapq == 255] = 0
    reads = Reads(data, *(column[:n] for column in (at, pos, end, flag, mapq, name)))
    reads = reads.only(((reads.flag & without) == 0) & (reads.mapq >= least_mapq) & (reads.end > reads.pos))
    _one_molecule(reads)
    return reads


def _records_start(data: np.ndarray) -> int:
    """Where the header of a BAM ends."""
    if data[:4].tobytes() != _MAGIC:
        raise InputError("found no header of a BAM; expected one")
    at = 8 + _number(data, 4, least=0)
    contigs = _number(data, at, least=0)
    at += 4
    for _ in range(contigs):
        at += 8 + _number(data, at, least=1)
    if at > len(data):
        raise InputError(_CUT_OFF)
    return at


def _number(data: np.ndarray, at: int, least: int) -> int:
    if at + _LENGTH.size > len(data) or (found := int(_LENGTH.unpack_from(data.data, at)[0])) < least:
        raise InputError(_CUT_OFF)
    return found


def _one_molecule(reads: Reads) -> None:
    """Where two reads of one name overlap, a base counts once: see the kernel `mates`."""
    order = np.lexsort((np.arange(len(reads)), reads.name))
    same = reads.name[order[:-1]] == reads.name[order[1:]] if len(order) else np.zeros(0, bool)
    first, second = order[:-1][same], order[1:][same]
    low = np.maximum(reads.pos[first], reads.pos[second])
    high = np.minimum(reads.end[first], reads.end[second])
    over = high > low
    first, second = first[over], second[over]
    args = [np.ascontiguousarray(x) for x in (reads.at[first], reads.at[second], low[over], high[over])]
    if kernels.call("mates", reads.data, *args, len(first)) < 0:
        raise MemoryError
