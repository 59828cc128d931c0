"""BGEN 1.2 (layout 2): probabilities of genotypes as calls and dosages.

    file       offset of the first record, header (records M, samples N, flags), perhaps identifiers of the samples
    record     identifiers, chromosome, position (1-based), K alleles, then a block, plain or compressed (zlib, zstd):
    block      N, K, lowest and highest ploidy, a byte a sample (ploidy in 6 bits, missing in the highest), phased or
               not, bits B of a probability (1 to 32), then the probabilities as whole numbers of 2^B - 1, B bits each,
               the lowest bits first, without the last of each set, which is the rest to one:
               unphased  of the genotypes of a sample, as VCF orders them (its GL); phased  of the alleles, by haplotype

Of each sample a record keeps the call, where its probability is at least `threshold` (phased: the product over its
haplotypes), else a missing one, and the dosages (FORMAT DS): expected copies of each ALT, in steps of 0.0001, where
PLINK 2 has steps of 2^-14. The first allele is REF where no reference says otherwise. Records count from 1.
"""

from __future__ import annotations

import contextlib
import math
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
import pyarrow as pa
from isal import isal_zlib

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError, Refused
from genodl_spark.core.text_values import MISSING, fault_of_name, shown
from genodl_spark.formats import bgzf, delimited, streams
from genodl_spark.formats.delimited import Unreadable
from genodl_spark.formats.plink import SEXES
from genodl_spark.formats.sample_table import SampleTable, column_name
from genodl_spark.formats.sites import HIGHEST, PROVISIONAL, UNKNOWN, GenotypeHeader, Orientation, Rows, Site, header
from genodl_spark.formats.streams import Note
from genodl_spark.genetics import genotypes
from genodl_spark.genome.contigs import numbered_contig
from genodl_spark.genome.reference import Reference
from genodl_spark.native import kernels

STEPS = 10_000  # of a dosage, to one copy
_MAGICS = (b"bgen", b"\0\0\0\0")
_SUFFIX = re.compile(r"\.bgen$", re.IGNORECASE)
_READ, _SHORT = 4 << 20, 1 << 16  # bytes at a time, where blocks are wanted and where not
_VALUES = 1 << 22  # probabilities at a time
_MOST_ALLELES, _MOST_BLOCK = 1 << 10, 1 << 31
Batches = tuple[pa.RecordBatch, pa.RecordBatch]
# Place among the records, number of the ALT (0 where it was not split), site, packed calls, and dosages.
_Row = tuple[int, int, Site, pa.BinaryScalar, pa.BinaryScalar]


def is_bgen(first: bytes) -> bool:
    """Whether a file with these first 20 bytes is BGEN."""
    return len(first) >= 20 and first[16:20] == _MAGICS[0] and int.from_bytes(first[4:8], "little") >= 20


def beside(uri: str) -> list[str]:
    """The sample file of the same name, where it is there."""
    sample = _SUFFIX.sub(".sample", uri)
    return [sample] if sample != uri and storage.is_file(sample) else []


class _Bytes:
    """Numbers and bytes of a file in order. InputError, with the record, where it ends too early."""

    def __init__(self, raw: pa.NativeFile, uri: str, read: int = _READ) -> None:
        self._raw, self._uri, self._read, self._held, self._at = raw, uri, read, b"", 0
        self.record = 0

    def take(self, count: int) -> bytes:
        while len(self._held) - self._at < count:
            more = self._raw.read(max(self._read, count - len(self._held) + self._at))
            if not more:
                place = f"record {self.record}" if self.record else "its header"
                raise InputError(f"found it cut off within {place}; expected a whole BGEN, fetch it again", self._uri)
            self._held, self._at = self._held[self._at :] + more, 0
        self._at += count
        return self._held[self._at - count : self._at]

    def skip(self, count: int) -> None:
        behind = self._at + count - len(self._held)
        if behind <= 0:
            self._at += count
            return
        self._raw.seek(behind - 1, 1)
        self._held, self._at = b"", 0
        self.take(1)  # which is there unless the file is cut off

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self, size: int) -> str:
        """A text behind its length, of `size` bytes."""
        return self.take(self.number(size)).decode("utf-8", "replace")

    def ended(self) -> bool:
        return self._at == len(self._held) and not self._raw.read(1)


@dataclass(frozen=True)
class _Head:
    """`first`: byte of the first record. `names`: of the samples, None where the file has none."""

    first: int
    records: int
    samples: int
    compression: int
    names: list[str] | None


def _head(data: _Bytes, uri: str) -> _Head:
    offset, size = data.number(4), data.number(4)
    records, samples = data.number(4), data.number(4)
    magic = data.take(4)
    if magic not in _MAGICS or not 20 <= size <= offset:
        raise InputError("found no header of BGEN; expected BGEN 1.2, check the file", uri)
    data.take(size - 20)
    flags = data.number(4)
    compression, layout = flags & 3, flags >> 2 & 15
    if layout != 2 or compression == 3:
        found = f"layout {layout}" if layout != 2 else "an unknown compression"
        raise InputError(f"found BGEN of {found}; expected layout 2 (BGEN 1.2): write it anew, as qctool does", uri)
    if not samples or samples > genotypes.MOST_SAMPLES:
        raise InputError(f"found {samples:,} samples; expected 1 to {genotypes.MOST_SAMPLES:,}", uri)
    names, read = None, size
    if flags >> 31:
        block, named = data.number(4), data.number(4)
        if named != samples or size + block > offset:
            raise InputError(f"found names of {named:,} samples; expected {samples:,}, as its header says", uri)
        names = [data.text(2) for _ in range(named)]
        read += 8 + sum(2 + len(name.encode()) for name in names)
    if read > offset:
        raise InputError(f"found a header that ends behind its first record, byte {offset + 4}; expected less", uri)
    data.take(offset - read)
    return _Head(offset + 4, records, samples, compression, names)


@dataclass(frozen=True)
class _Record:
    number: int
    id: str
    chrom: str
    pos: int
    alleles: list[str]
    block: bytes
    size: int | None  # of the block once it is inflated; None where it is plain

    @property
    def text(self) -> str:
        return "\t".join([self.chrom, str(self.pos), self.id, *self.alleles])


def _records(data: _Bytes, head: _Head, uri: str, blocks: bool = True) -> Iterator[_Record]:
    """All records; those without their blocks where these are not wanted are read past them."""
    for number in range(1, head.records + 1):
        data.record = number
        first, second, chrom = data.text(2), data.text(2), data.text(2)
        pos, count = data.number(4), data.number(2)
        if count > _MOST_ALLELES:
            raise InputError(f"found {count} alleles in record {number}; expected {_MOST_ALLELES} at most", uri)
        alleles = [data.text(4) for _ in range(count)]
        length = data.number(4)
        size = data.number(4) if head.compression else None
        if length > _MOST_BLOCK or (size or 0) > _MOST_BLOCK or (size is not None and length < 4):
            raise InputError(f"found a block of {length:,} bytes in record {number}; expected a whole BGEN", uri)
        stored = length if size is None else length - 4
        block = data.take(stored) if blocks else b""
        if not blocks:
            data.skip(stored)
        yield _Record(number, second if second not in ("", ".") else first, chrom, pos, alleles, block, size)
    if not data.ended():
        raise InputError(f"found bytes behind record {head.records:,}, its last; expected none: is it whole?", uri)


def header_of(uri: str) -> GenotypeHeader:
    """What the file and the sample file beside it say. InputError for one that is no BGEN 1.2 or is cut off, samples
    without a name or named twice, a sample file of others."""
    with _opened(uri, _SHORT) as data:
        head = _head(data, uri)
        if not head.records:
            raise InputError("found no record; expected one at least", uri)
        chromosomes = list(dict.fromkeys(record.chrom for record in _records(data, head, uri, blocks=False)))
    names, people = _people(uri, head)
    return header(names, chromosomes, people)


def samples_of(uri: str) -> list[str]:
    """Samples of the file, in order. InputError as for `header_of`."""
    with _opened(uri, _SHORT) as data:
        return _people(uri, _head(data, uri))[0]


@contextlib.contextmanager
def _opened(uri: str, read: int = _READ) -> Iterator[_Bytes]:
    fs, path = storage.filesystem(uri)
    with fs.open_input_file(path) as raw:
        yield _Bytes(raw, uri, read)


def _people(uri: str, head: _Head) -> tuple[list[str], SampleTable | None]:
    """Names of the samples, and what a sample file says of them."""
    names, people, place = head.names, None, uri
    if found := beside(uri):
        listed, people = _sample_file(found[0], head.samples, names, uri)
        names, place = names or listed, uri if names else found[0]
    if names is None:
        stem = posixpath.basename(_SUFFIX.sub("", uri))
        raise InputError(f"found no names of samples in it; expected {stem}.sample beside it", uri)
    seen: set[str] = set()
    for name in names:
        fault = fault_of_name(name) or (f"sample {shown(name)} twice" if name in seen else None)
        if fault is not None:
            raise InputError(f"found {fault}; expected distinct names of samples", place)
        seen.add(name)
    return names, people


def _sample_file(uri: str, samples: int, names: list[str] | None, bgen: str) -> tuple[list[str], SampleTable]:
    """Names by the sample file, and what its other columns say of those that the BGEN names (the same, where it
    names none). First line: names of columns, ID_1 and ID_2 first; second: their types; then a line a sample."""
    with storage.open_input(uri) as raw:
        text = b"".join(block for _, block in streams.line_blocks(raw, uri))
    rows: list[list[str]] = []
    for line, cells in enumerate(text.split(b"\n")[:-1], 1):
        try:
            row = delimited.text_of(cells).split()
        except Unreadable as error:
            raise InputError(str(error), uri, line) from error
        if row and rows and len(row) != len(rows[0]):
            raise InputError(f"found {len(row)} columns; expected {len(rows[0])}, as in the first line", uri, line)
        rows += [row] if row else []
    if len(rows) < 2 or len(rows[0]) < 2 or [name.upper() for name in rows[0][:2]] != ["ID_1", "ID_2"]:
        raise InputError("found no columns ID_1 and ID_2; expected these first, types on line 2", uri, 1)
    head, body = rows[0], rows[2:]
    if len(body) != samples:
        raise InputError(f"found {len(body):,} samples; expected {samples:,}, as {posixpath.basename(bgen)} has", uri)
    own = [row[1] for row in body]
    if len(set(own)) < len(own):
        own = [f"{row[0]}_{row[1]}" for row in body]
    for name, row in zip(names or [], body, strict=bool(names)):
        if name not in (row[0], row[1], f"{row[0]}_{row[1]}"):
            raise InputError(
                f"found sample {shown(row[1])} where {posixpath.basename(bgen)} has {shown(name)}; "
                "expected the same samples in the same order",
                uri,
            )
    others = [i for i in range(2, len(head)) if head[i].lower() != "missing"]
    columns = [column_name(head[i]) for i in others]
    if len({name.lower() for name in columns} | {"cohort", "sample_id"}) < len(columns) + 2:
        raise InputError("found a column twice, or one called cohort or sample_id; expected others", uri, 1)

    def value(i: int, cell: str) -> str | None:
        return SEXES.get(cell, None) if head[i].lower() == "sex" else None if cell in MISSING else cell

    table = {name: [value(i, row[i]) for i in others] for name, row in zip(names or own, body, strict=True)}
    return own, SampleTable(columns, table, {})


@dataclass(frozen=True)
class _Block:
    """A block taken apart. `ploidy` uint8 and `missing` bool of each sample, `values` uint64 of all."""

    phased: bool
    bits: int
    alleles: int
    ploidy: np.ndarray
    missing: np.ndarray
    body: bytes


def _block(record: _Record, samples: int, compression: int) -> _Block:
    """Refused where the block does not hold what its record says."""
    data = record.block
    if record.size is not None:
        try:
            if compression == 1:
                data = isal_zlib.decompressobj().decompress(data, record.size + 1)
            else:
                data = pa.decompress(data, decompressed_size=record.size, codec="zstd", asbytes=True)
        except (bgzf.InflateError, OSError, ValueError) as error:
            raise Refused(f"found corrupt compressed data ({error}); expected a whole block") from error
        if len(data) != record.size:
            raise Refused(f"found a block of {len(data):,} bytes; expected {record.size:,}, as it says")
    head = 10 + samples
    if len(data) < head or int.from_bytes(data[:4], "little") != samples:
        raise Refused("found a block of other samples than the file's; expected all of them")
    count, phased, bits = int.from_bytes(data[4:6], "little"), data[head - 2], data[head - 1]
    if count != len(record.alleles) or phased > 1 or not 1 <= bits <= 32 or not count:
        found = f"found {count} alleles, phase {phased}, {bits} bits"
        raise Refused(f"{found}; expected {len(record.alleles)}, 0 or 1, and 1 to 32")
    flags = np.frombuffer(data, np.uint8, samples, 8)
    made = _Block(bool(phased), bits, count, flags & 63, flags >= 128, data[head:])
    values = int(sum(_width(made, z) * n for z, n in zip(*np.unique(made.ploidy, return_counts=True), strict=True)))
    if len(made.body) != (values * bits + 7) // 8:
        found = f"{len(made.body):,} bytes of probabilities"
        raise Refused(f"found {found}; expected {(values * bits + 7) // 8:,} for {values:,} of {bits} bits")
    return made


def _width(block: _Block, ploidy: int) -> int:
    """Probabilities that are stored of a sample."""
    k, z = block.alleles, int(ploidy)
    return z * (k - 1) if block.phased else math.comb(z + k - 1, k - 1) - 1


def _numbers(body: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Whole numbers of `bits` bits each, the lowest first, of rows of bytes uint8 (V, n): float64 (V, count)."""
    if bits in (8, 16, 32):
        return body.view(f"<u{bits // 8}")[:, :count].astype(np.float64)
    flat = np.unpackbits(body, axis=1, bitorder="little")[:, : count * bits].reshape(len(body), count, bits)
    return flat @ (2.0 ** np.arange(bits))


@lru_cache(64)
def _genotypes(ploidy: int, alleles: int) -> np.ndarray:
    """Alleles of each unphased genotype, in the order in which VCF and BGEN have them: int16 (G, ploidy)."""
    every = sorted(combinations_with_replacement(range(alleles), ploidy), key=lambda one: one[::-1])
    return np.array(every, np.int16).reshape(len(every), ploidy)


def _called(
    numbers: np.ndarray, missing: np.ndarray, ploidy: int, alleles: int, phased: bool, bits: int, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calls int16 (V, S, ploidy), -1 missing, and dosages float64 (V, S, alleles), NaN missing, of samples of one
    ploidy; and which records have probabilities that add up to more than one, bool (V,).

    `numbers` (V, S, width) as stored, `missing` bool (V, S).
    """
    most = 2.0**bits - 1
    records, samples = missing.shape
    if phased:
        parts = numbers.reshape(records, samples, ploidy, alleles - 1)
        rest = most - parts.sum(3, keepdims=True)
        parts = np.concatenate([parts, rest], 3) / most
        calls = parts.argmax(3).astype(np.int16)
        certain = parts.max(3, initial=0).prod(2)
        dosage = parts.sum(2)
    else:
        every = _genotypes(ploidy, alleles)
        rest = most - numbers.sum(2, keepdims=True)
        parts = np.concatenate([numbers, rest], 2) / most
        calls = every[parts.argmax(2)]
        certain = parts.max(2)
        dosage = parts @ (every[:, :, None] == np.arange(alleles)).sum(1).astype(np.float64)
    over = (rest.reshape(records, samples, -1) < 0).any(2) & ~missing
    calls[missing | (certain < threshold)] = genotypes.MISSING
    dosage[missing] = np.nan
    return calls, dosage, over.any(1)


@dataclass
class _Decoded:
    """Records of the same shape: `calls` int16 (V, S, P), `dosage` float64 (V, S, K)."""

    places: list[int]
    calls: np.ndarray
    dosage: np.ndarray
    phased: bool


def _decoded(blocks: dict[int, _Block], threshold: float) -> tuple[list[_Decoded], dict[int, str]]:
    """All blocks, by their places, those that are alike together; and what is wrong with some."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, block in blocks.items():
        alike.setdefault((block.phased, block.bits, block.alleles, block.ploidy.tobytes()), []).append(place)
    made, bad = [], {}
    for places in alike.values():
        block = blocks[places[0]]
        body = np.frombuffer(b"".join(blocks[p].body for p in places), np.uint8).reshape(len(places), -1)
        missing = np.stack([blocks[p].missing for p in places])
        widths = np.array([_width(block, z) for z in range(64)])[block.ploidy]
        numbers = _numbers(body, block.bits, int(widths.sum()))
        starts = np.cumsum(widths) - widths
        highest = max(int(block.ploidy.max()), 1)
        calls = np.full((*missing.shape, highest), genotypes.ABSENT, np.int16)
        dosage = np.full((*missing.shape, block.alleles), np.nan)
        over = np.zeros(len(places), bool)
        for ploidy in np.unique(block.ploidy).tolist():
            of = np.flatnonzero(block.ploidy == ploidy)
            if not ploidy:
                calls[:, of, 0] = genotypes.MISSING
                continue
            chosen = (starts[of, None] + np.arange(_width(block, ploidy))).reshape(-1)
            some = numbers if len(of) == len(widths) else numbers[:, chosen]
            shape = (len(places), len(of), -1) if some.size else (len(places), len(of), 0)
            calls[:, of, :ploidy], dosage[:, of], wrong = _called(
                some.reshape(shape), missing[:, of], ploidy, block.alleles, block.phased, block.bits, threshold
            )
            over |= wrong
        for i in np.flatnonzero(over).tolist():
            bad[places[i]] = "found probabilities that add up to more than one; expected one at most"
        kept = np.flatnonzero(~over)
        made.append(_Decoded([places[i] for i in kept], calls[kept], dosage[kept], block.phased))
    return made, bad


@lru_cache(8)
def _texts(highest: int) -> tuple[np.ndarray, np.ndarray]:
    """Text of every dosage up to `highest` copies, in steps, and of a missing one, each thrice: as it is, with a comma
    and with a tab behind it. Bytes uint8, and where each ends int32, the first number being where the first starts."""
    plain = [f"{step / STEPS:.4f}".rstrip("0").rstrip(".") for step in range(highest * STEPS + 1)] + ["."]
    every = [text + end for end in ("", ",", "\t") for text in plain]
    ends = np.concatenate([[0], np.cumsum([len(text) for text in every])]).astype(np.int32)
    return np.frombuffer("".join(every).encode(), np.uint8), ends


def _dosage_texts(dosage: np.ndarray, ploidy: int) -> pa.Array:
    """Sample columns DS of dosages of the ALTs, float64 (V, S, A), NaN missing."""
    records, samples, alts = dosage.shape
    text, ends = _texts(ploidy)
    each = (len(ends) - 1) // 3
    lacking = np.isnan(dosage)
    which = np.where(lacking, each - 1, np.rint(np.where(lacking, 0, dosage) * STEPS)).astype(np.int32)
    if alts > 1:
        # a sample without any has one dot
        whole = lacking.all(2)
        which[:, :, :-1] += each
    which[:, :-1, -1] += 2 * each
    which = which.reshape(-1)
    if alts > 1 and whole.any():
        kept = ~np.repeat(whole.reshape(-1), alts) | (np.arange(len(which)) % alts == alts - 1)
        sizes = kept.reshape(records, -1).sum(1)
        which = which[kept]
    else:
        sizes = np.full(records, samples * alts)
    starts, stops = ends[which], ends[which + 1]
    out, offsets = np.empty(int((stops - starts).sum()), np.uint8), np.empty(len(which) + 1, np.int32)
    kernels.call("gather", text, len(which), starts, stops, 1, out, offsets)
    return packing.binary_array(out, np.ascontiguousarray(offsets[np.concatenate([[0], np.cumsum(sizes)])]))


def read(
    uri: str, of: Rows, reference: str | None, note: Note, threshold: float, split_alleles: bool
) -> Iterator[Batches]:
    """Rows of `variants` and of `quarantine`. A record of several ALTs becomes one for each with `split_alleles`."""
    orientation = None if reference is None else Orientation(Reference(reference), note)
    with _opened(uri) as data:
        head = _head(data, uri)
        some: list[_Record] = []
        size = 0
        for record in _records(data, head, uri):
            some.append(record)
            size += head.samples * max(len(record.alleles), 1)
            if size >= _VALUES:
                yield _batches(some, head, of, orientation, note, threshold, split_alleles)
                some, size = [], 0
        if some:
            yield _batches(some, head, of, orientation, note, threshold, split_alleles)


def _site(record: _Record, of: Rows, orientation: Orientation | None, note: Note) -> Site:
    """Refused for a site that the table cannot hold, or the reference does not know."""
    odd = next((one for one in record.alleles if one in ("", *UNKNOWN) or re.search(r"[\s,\ufffd]", one)), None)
    if odd is not None or len(record.alleles) < 1:
        raise Refused(f"found allele {shown(odd or '')}; expected text without blanks and commas")
    if record.pos > HIGHEST:
        raise Refused(f"found position {record.pos}; expected {HIGHEST:,} at most")
    if orientation is not None:
        contig = numbered_contig(record.chrom, of.human)
        return orientation.site(record.number, contig, record.pos, record.alleles)
    if any(not re.fullmatch(r"[ACGTNacgtn]+|\*|<.+>", one) for one in record.alleles):
        note(record.number, "have alleles that are no bases, which are kept as they are")
    return Site(record.pos, record.alleles[0], record.alleles[1:], list(range(len(record.alleles))), PROVISIONAL)


def _batches(
    records: list[_Record],
    head: _Head,
    of: Rows,
    orientation: Orientation | None,
    note: Note,
    threshold: float,
    split_alleles: bool,
) -> Batches:
    blocks: dict[int, _Block] = {}
    sites: dict[int, Site] = {}
    bad: dict[int, str] = {}
    for place, record in enumerate(records):
        try:
            sites[place] = _site(record, of, orientation, note)
            blocks[place] = _block(record, head.samples, head.compression)
        except Refused as refused:
            bad[place] = str(refused)
    decoded, faults = _decoded(blocks, threshold)
    bad |= faults
    made: list[_Row] = []
    for group in decoded:
        made += _rows(group, sites, split_alleles)
    made.sort(key=lambda row: row[:2])
    return _batch(made, records, of), of.aside(
        (records[place].number, reason, records[place].text) for place, reason in bad.items()
    )


def _rows(
    group: _Decoded, sites: dict[int, Site], split_alleles: bool
) -> Iterator[tuple[int, int, Site, pa.Array, pa.Array]]:
    ploidy = group.calls.shape[2]
    phased = np.zeros(group.calls.shape, bool)
    phased[:, :, 1:] = group.phased
    phased &= group.calls >= 0
    by_order: dict[tuple[int, ...], list[int]] = {}
    for i, place in enumerate(group.places):
        by_order.setdefault(tuple(sites[place].order), []).append(i)
    for order, which in by_order.items():
        alleles = group.dosage.shape[2]
        named = np.full(alleles + 2, -3, np.int16)  # by the file's number, from -2 on
        named[-2:] = genotypes.ABSENT, genotypes.MISSING
        named[list(order)] = np.arange(len(order))
        calls, dosage = named[group.calls[which]], group.dosage[which][:, :, list(order[1:])]
        if not group.phased:
            calls = _sorted(calls)
        parts: Sequence[int] = range(1, len(order)) if split_alleles and len(order) > 2 else (0,)
        for alt in parts:
            own = calls if not alt else np.where(calls > 0, (calls == alt).astype(np.int16), calls)
            gt = genotypes.pack(own if group.phased else _sorted(own), phased[which])
            ds = _dosage_texts(dosage if not alt else dosage[:, :, alt - 1 : alt], ploidy)
            for i, row in enumerate(which):
                yield group.places[row], alt, sites[group.places[row]], gt[i], ds[i]


def _sorted(calls: np.ndarray) -> np.ndarray:
    """Unphased calls with their alleles in order; those that are absent stay last."""
    return np.where(calls < 0, calls, np.sort(np.where(calls < 0, np.int16(32767), calls), axis=2))


def _batch(made: list[_Row], records: list[_Record], of: Rows) -> pa.RecordBatch:
    named = [records[place] for place, *_ in made]
    alts = [site.alts if not alt else [site.alts[alt - 1]] for _, alt, site, *_ in made]
    changed = [
        bool(alt) or (site.pos, [site.ref, *site.alts]) != (record.pos, record.alleles)
        for (_, alt, site, *_), record in zip(made, named, strict=True)
    ]
    source = [(r.pos, r.alleles[0], ",".join(r.alleles[1:]) or ".") for r in named]
    more = {
        name: pa.array([one[i] if new else None for one, new in zip(source, changed, strict=True)], type_)
        for i, (name, type_) in enumerate(
            (("source_pos", pa.int64()), ("source_ref", pa.string()), ("source_alts", pa.string()))
        )
    }
    return of.batch(
        pa.array([record.chrom for record in named], pa.string()),
        np.array([site.pos for _, _, site, *_ in made], np.int64),
        pa.array([site.ref for _, _, site, *_ in made], pa.string()),
        id=pa.array([record.id if record.id not in ("", ".") else None for record in named], pa.string()),
        alts=pa.array(alts, pa.list_(pa.string())),
        info=pa.array([site.info for _, _, site, *_ in made], pa.string()),
        format=pa.array(["GT:DS"] * len(made), pa.string()),
        gt=pa.array([gt.as_py() for *_, gt, _ in made], pa.binary()),
        fields=pa.array([ds.as_py() for *_, ds in made], pa.binary()),
        alt_number=pa.array([alt for _, alt, *_ in made], pa.int32()),
        line=pa.array([record.number for record in named], pa.int64()),
        **more,
    )
