"""Packed genotypes, the column `gt` of `variants`: every call of a record without loss,
in the form that suits the record.

A record holds few distinct calls. They are its palette, and a sample is the index (code) of its call:

    byte 0    form in the low half: 0 sparse, 1, 2, 4 or 8 bits a sample, 15 plain; palette in the high half:
              0 stated, 1 = 0|0 1|0 0|1 1|1, 2 = the same where the first allele has a phase (VCF 4.4
              and later), 3 = 0/0 0/1 1/1 ./.
    stated    ploidy, bytes per value (1 or 2), number of calls (each one byte), then the calls as BCF2 values
    sparse    the code of most samples, then for each other sample a varint (LEB128):
              (samples passed over since the last one listed) * (calls - 1) + its code, counted without the common one
    bits      codes of all samples, the first in the lowest bits of the first byte
    plain     ploidy, bytes per value, 0, then the BCF2 values of all samples:
              more than 255 distinct calls, or ploidy above 4

BCF2 values (VCF specification, section 6.3.3) are little-endian integers (allele + 1) << 1 | phased,
where `phased` belongs to the separator before the allele; a missing allele is 0 before the shift,
the end-of-vector value pads calls of lower ploidy. Rare variants are sparse, common ones 2 bits a diploid sample.
The number of samples is the record's `n_samples`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.core.errors import MEND, Damaged, InputError
from genodl_spark.genetics.genotype_text import ABSENT, HIGHEST_ALLELE, MISSING
from genodl_spark.native import kernels

_END_OF_VECTOR = -32767
_PALETTE_PLOIDY = 4
_MOST_BYTES = 2**31 - 1  # that Arrow's offsets reach


MOST_SAMPLES = 1 << 27  # of a record: a few bytes may claim any number
_NO_ROOM, _DAMAGED = -1, -256
_HIGH_DOSAGE, _NO_MEMORY, _TOO_MANY = 6, 8, 9
# As numbered in kernels.c.
_WRONG = {
    1: "a first byte or palette that is none",
    2: "a body of another size",
    3: "a call that its palette lacks",
    4: "calls of more samples",
    5: "an allele that is none",
    7: "calls of a higher ploidy than before",
}


def _checked(result: int, samples: int) -> None:
    record, wrong = result >> 8, result & 255
    if wrong == _HIGH_DOSAGE:
        raise InputError(
            f"found more than 127 copies of an allele in a call of record {record} of the batch; "
            "ask for alleles instead of a dosage"
        )
    if wrong == _NO_MEMORY:
        raise MemoryError(f"no memory for the calls of {samples} samples")
    if wrong == _TOO_MANY:
        raise InputError(
            f"found {samples} as a number of samples; expected 0 to {MOST_SAMPLES}, the record's n_samples"
        )
    if wrong:
        raise Damaged(
            f"found {_WRONG[wrong]} in record {record} of the batch; expected packed genotypes "
            f"of {samples} samples, {MEND}"
        )


def pack(alleles: np.ndarray, phased: np.ndarray) -> pa.BinaryArray:
    """Packed records from calls: `alleles` int16 (V, S, P), -1 missing, -2 absent at the end;
    `phased` bool (V, S, P)."""
    records, samples, ploidy = alleles.shape
    if alleles.min(initial=0) < ABSENT or alleles.max(initial=0) > HIGHEST_ALLELE[2]:
        raise ValueError(f"alleles from {alleles.min()} to {alleles.max()}; expected {ABSENT} to {HIGHEST_ALLELE[2]}")
    if ploidy <= _PALETTE_PLOIDY:
        out = np.empty(records * (64 + 16 * samples), np.uint8)
        offsets = np.empty(records + 1, np.int64)
        if not kernels.call(
            "pack",
            np.ascontiguousarray(alleles, np.int16),
            np.ascontiguousarray(phased, np.uint8),
            records,
            samples,
            ploidy,
            out,
            offsets,
        ):
            if offsets[-1] > _MOST_BYTES:
                raise ValueError(f"{offsets[-1]} bytes of packed genotypes; expected fewer records at a time")
            return packing.binary_array(out[: offsets[-1]].copy(), offsets.astype(np.int32))
        if records > 1:
            return pa.concat_arrays([pack(alleles[r : r + 1], phased[r : r + 1]) for r in range(records)])
    return pa.array([_plain(a, p) for a, p in zip(alleles, phased, strict=True)], pa.binary())


def from_bed(rows: np.ndarray, samples: int, exchanged: np.ndarray) -> pa.BinaryArray:
    """Packed records from rows of a PLINK .bed, uint8 (V, ceil(S / 4)) in SNP-major order: 0/0 0/1 1/1 or ./. of each
    sample, and the bytes that `pack` makes of these.

    REF is the second allele of the .bim; the first where `exchanged` bool (V,).
    """
    room = 2 * rows.shape[1] + 16
    if len(rows) * room > _MOST_BYTES and len(rows) > 1:
        half = len(rows) // 2
        parts = (slice(None, half), slice(half, None))
        return pa.concat_arrays([from_bed(rows[part], samples, exchanged[part]) for part in parts])
    out, offsets = np.empty(len(rows) * room, np.uint8), np.empty(len(rows) + 1, np.int32)
    turned = np.ascontiguousarray(exchanged, np.uint8)
    _checked(kernels.call("bed", np.ascontiguousarray(rows), len(rows), samples, turned, out, offsets), samples)
    return packing.binary_array(out[: offsets[-1]].copy(), offsets)


def _plain(alleles: np.ndarray, phased: np.ndarray) -> bytes:
    width = 1 if alleles.max(initial=0) <= HIGHEST_ALLELE[1] else 2
    values = ((alleles.astype(np.int32) + 1) << 1) | phased
    values = np.where(alleles == ABSENT, -127 if width == 1 else _END_OF_VECTOR, values)
    return bytes([15, alleles.shape[1], width, 0]) + values.astype("<i1" if width == 1 else "<i2").tobytes()


def unpack(gt: pa.BinaryArray, samples: int, chosen: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Calls of packed records: alleles int16 (V, n, P), -1 missing, -2 absent, and phased bool (V, n, P);
    P the highest ploidy of all.

    `chosen` int (n,): positions of the samples wanted, in this order; all without it.
    Damaged as for all functions here.
    """
    data, offsets = packing.binary(gt)
    ploidies = np.empty(len(gt), np.int32)
    _checked(kernels.call("ploidy", data, offsets, len(gt), samples, ploidies), samples)
    ploidy = int(ploidies.max(initial=1))
    wanted, n = _chosen(chosen, samples)
    values = np.empty((len(gt), n, ploidy), np.int16)
    _checked(kernels.call("values", data, offsets, len(gt), samples, wanted, n, ploidy, values), samples)
    absent = values == _END_OF_VECTOR
    return np.where(absent, ABSENT, (values >> 1) - 1).astype(np.int16), (values & 1).astype(bool) & ~absent


def _chosen(chosen: np.ndarray | None, samples: int) -> tuple[np.ndarray | None, int]:
    if chosen is None:
        return None, samples
    wanted = np.ascontiguousarray(chosen, np.int32)
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < samples):
        raise ValueError(f"positions must be below {samples}")
    return wanted, len(wanted)


def _per_record(value: int | np.ndarray, records: int) -> np.ndarray:
    # No record has an allele beyond these ends, so that what lies there is as well the end.
    return np.ascontiguousarray(np.broadcast_to(np.clip(value, -1, HIGHEST_ALLELE[2] + 1).astype(np.int32), (records,)))


def counts(
    gt: pa.BinaryArray, samples: int, allele: int | np.ndarray = 1, mask: np.ndarray | None = None
) -> np.ndarray:
    """What a record's calls are, int64 (V, 7), without taking them apart where the form allows.

    Columns: copies of `allele` (one, or one per record), called alleles, whole calls (no allele missing), of them
    all-reference, heterozygous and other homozygous (a haploid call is homozygous), and calls with a missing allele.
    `mask` bool (S,): only these samples.
    """
    data, offsets = packing.binary(gt)
    out = np.empty((len(gt), 7), np.int64)
    wanted = None if mask is None else np.ascontiguousarray(mask, np.uint8)
    assert wanted is None or len(wanted) == samples
    _checked(
        kernels.call("counts", data, offsets, len(gt), samples, _per_record(allele, len(gt)), wanted, out), samples
    )
    return out


def histogram(gt: pa.BinaryArray, samples: int) -> np.ndarray:
    """Calls that are all-reference, heterozygous, homozygous for another allele, and not whole: int64 (V, 4)."""
    return counts(gt, samples)[:, 3:]


def dosages(
    gt: pa.BinaryArray,
    samples: int,
    allele: int | np.ndarray = 1,
    exchanged: np.ndarray | None = None,
    chosen: np.ndarray | None = None,
) -> np.ndarray:
    """Copies of `allele` per record and sample, int8 (V, n); -1 where any allele of the call is missing.
    Haploid calls count 0 or 1. InputError for more than 127 copies, which int8 lacks.

    `exchanged` bool (V,): copies of all other alleles instead, for sites whose REF and ALT stand the other way round.
    `chosen`: as for `unpack`.
    """
    data, offsets = packing.binary(gt)
    wanted, n = _chosen(chosen, samples)
    out = np.empty((len(gt), n), np.int8)
    swap = None if exchanged is None else np.ascontiguousarray(exchanged, np.uint8)
    _checked(
        kernels.call("copies", data, offsets, len(gt), samples, _per_record(allele, len(gt)), swap, wanted, n, out),
        samples,
    )
    return out


def sample_text(
    gt: bytes | None, fields: bytes | None, samples: int, first_phased: bool, chosen: np.ndarray | None = None
) -> bytes:
    """Sample columns of one record as in a VCF: packed calls `gt` and the other subfields `fields`,
    either of which may be missing.

    `first_phased`: the file is VCF 4.4 or later, where the first allele has a phase, stated unless implied.
    """
    wanted, n = _chosen(chosen, samples)
    room = 4096 + 40 * n + (len(gt) if gt else 0) + (len(fields) if fields else 0)
    while True:
        out = np.empty(room, np.uint8)
        size = kernels.call(
            "sample_text", gt, len(gt or b""), fields, len(fields or b""), samples, wanted, n, first_phased, out, room
        )
        if size <= _DAMAGED:
            _checked(_DAMAGED - size, samples)
        if size != _NO_ROOM:
            return out[:size].tobytes()
        room *= 2


def without(gt: pa.BinaryArray, samples: int, position: int) -> pa.BinaryArray:
    """Packed records without one sample's calls; `position` from 0."""
    return pack(*unpack(gt, samples, np.delete(np.arange(samples), position)))


def fields_without(fields: pa.BinaryArray, samples: int, position: int) -> pa.BinaryArray:
    """Sample columns as text (the column `fields`; NULL stays) without one sample's;
    `position` from 0, of more than one sample."""
    valid = fields.is_valid().to_numpy(zero_copy_only=False)
    data, ends = packing.binary(fields.drop_null())
    data, ends = data[ends[0] : ends[-1]], (ends - ends[0]).astype(np.int64)
    tabs = np.flatnonzero(data == 9)
    if len(tabs) != (samples - 1) * (len(ends) - 1):
        raise Damaged(
            f"found records whose text has not {samples} sample columns; expected as many as n_samples, {MEND}"
        )
    tabs = tabs.reshape(len(ends) - 1, samples - 1)
    first = ends[:-1] if position == 0 else tabs[:, position - 1]
    last = ends[1:] if position == samples - 1 else tabs[:, position]  # with a tab before or behind it, not both
    if position == 0:
        last = last + 1
    marks = np.zeros(len(data) + 1, np.int8)
    np.add.at(marks, first, 1)
    np.add.at(marks, last, -1)
    kept = data[np.cumsum(marks[:-1]) == 0]
    offsets = np.zeros(len(fields) + 1, np.int64)
    offsets[1:][valid] = np.diff(ends) - (last - first)
    return packing.binary_array(kept, np.cumsum(offsets).astype(np.int32), valid)


def alike(batch: pa.RecordBatch, calls: int = 1 << 62) -> Iterator[tuple[np.ndarray, pa.RecordBatch, int, str]]:
    """Records of a batch of `variants` that have the same samples: row numbers, records, number of samples, sample set.

    `calls`: about how many calls come together at most, for who takes them apart.
    """
    sets, sizes = batch.column("sample_set").dictionary_encode(), batch.column("n_samples").to_numpy().astype(np.int64)
    names, codes = sets.dictionary.to_pylist(), sets.indices.to_numpy().astype(np.int64)
    kinds, of = np.unique(codes << 32 | sizes, return_inverse=True)
    for kind, (code, samples) in enumerate(zip((kinds >> 32).tolist(), (kinds & 0xFFFFFFFF).tolist(), strict=True)):
        rows = np.flatnonzero(of == kind)
        size = max(calls // max(samples, 1), 1)
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            together = some[-1] - some[0] + 1 == len(some)  # then nothing is copied
            yield (
                some,
                batch.slice(some[0], len(some)) if together else batch.take(pa.array(some)),
                samples,
                names[code],
            )


__all__ = [
    "ABSENT",
    "MISSING",
    "Damaged",
    "alike",
    "counts",
    "dosages",
    "fields_without",
    "from_bed",
    "histogram",
    "pack",
    "sample_text",
    "unpack",
    "without",
]


_FEW_CODES = 1 << 20


def call_texts(values: np.ndarray, phased: np.ndarray) -> pa.StringArray:
    """Text of calls, V * n: alleles int (V, n, P) and phased bool alike, as `genotypes.unpack` gives them.
    Each distinct call is written once.

    The phase of the first allele (VCF 4.4 and later) is stated only where it is phased and not all others are.
    """
    ploidy = values.shape[2]
    calls, phases = values.reshape(-1, ploidy), phased.reshape(-1, ploidy)
    width = 2 * (int(values.max(initial=0)) - ABSENT + 1)
    if width**ploidy <= _FEW_CODES:
        codes = np.zeros(len(calls), np.int32)
        for p in range(ploidy):
            codes *= width
            codes += (calls[:, p].astype(np.int32) - ABSENT) * 2 + phases[:, p]
        table = np.full(width**ploidy, -1, np.int32)
        table[codes] = np.arange(len(codes), dtype=np.int32)
        first = table[table >= 0]
        table[table >= 0] = np.arange(len(first))
        which = table[codes]
    else:  # many alleles or a high ploidy
        _, first, which = np.unique(
            np.concatenate([calls, phases], axis=1), axis=0, return_index=True, return_inverse=True
        )
    texts = [_call_text(call, phase) for call, phase in zip(calls[first].tolist(), phases[first].tolist(), strict=True)]
    return pa.array(texts, pa.string()).take(pa.array(which.reshape(-1)))


def _call_text(call: list[int], phases: list[bool]) -> str:
    present: list[tuple[int, Any]] = [
        (allele, phase) for allele, phase in zip(call, phases, strict=True) if allele != ABSENT
    ]
    stated = "|" if present[0][1] and not all(phase for _, phase in present[1:]) else ""
    return stated + "".join(
        ("" if i == 0 else "|" if phase else "/") + ("." if allele == MISSING else str(allele))
        for i, (allele, phase) in enumerate(present)
    )
