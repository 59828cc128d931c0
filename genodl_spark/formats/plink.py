"""PLINK 1 files: NAME.bed (packed genotypes), NAME.bim (sites, a line each) and NAME.fam (samples, a line each).

    .bed    bytes 6c 1b 01, then a row for each line of the .bim: 2 bits a sample, the first in the lowest
    .bim    chromosome, identifier, centimorgans, position (1-based), first and second allele; 0 is no allele
    .fam    family, identifier, father, mother, sex (1 male, 2 female), phenotype; 0 is no parent
            a phenotype of 1 or 2 is case or control, then 0 is missing; any other is a number; -9 is missing always

The second allele is REF where no reference says otherwise: PLINK 2 takes it so. A row is packed as it lies (kernel
`bed`), its calls are diploid on every chromosome. Records have the numbers of their lines in the .bim.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError, Refused
from genodl_spark.core.text_values import MISSING, fault_of_name, number, shown
from genodl_spark.formats import delimited, streams
from genodl_spark.formats.delimited import Unreadable
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.formats.sites import (
    AS_REFERENCE,
    HIGHEST,
    PROVISIONAL,
    UNKNOWN,
    GenotypeHeader,
    Orientation,
    Rows,
    header,
)
from genodl_spark.formats.streams import Note, Split
from genodl_spark.genetics import genotypes
from genodl_spark.genome.contigs import numbered_contig
from genodl_spark.genome.reference import Reference

_MAGIC, _BY_SAMPLE = b"\x6c\x1b\x01", b"\x6c\x1b\x00"
_HEAD = len(_MAGIC)
_SUFFIX = re.compile(r"\.bed$", re.IGNORECASE)
_BIM = ("chrom", "id", "cm", "pos", "a1", "a2")
PEOPLE = ("family_id", "father", "mother", "sex", "phenotype")  # columns that a .fam gives `samples`
SEXES = {"1": "male", "2": "female"}
_AT_ONCE = 32 << 20  # bytes of rows
_BASES = r"^(?:[ACGTNacgtn]+|\*|<.+>)$"

Batches = tuple[pa.RecordBatch, pa.RecordBatch]


def is_plink(first: bytes) -> bool:
    """Whether a file with these first bytes is a .bed of genotypes: other files called .bed are text."""
    return first[:_HEAD] in (_MAGIC, _BY_SAMPLE)


def beside(uri: str) -> tuple[str, str]:
    """The .bim and the .fam that belong to a .bed."""
    stem = _SUFFIX.sub("", uri)
    return f"{stem}.bim", f"{stem}.fam"


def header_of(uri: str) -> GenotypeHeader:
    """What the three files say. InputError, with file and line, for one that is absent, a .bed of another size
    than the others say or in sample-major order, a ragged or doubtful line of the .fam."""
    bim, fam = beside(uri)
    if bim == f"{uri}.bim":
        raise InputError("found genotypes of PLINK; expected them in NAME.bed, beside NAME.bim and NAME.fam", uri)
    for one in (bim, fam):
        if not storage.is_file(one):
            raise InputError(
                f"found no {posixpath.basename(one)} beside it; expected .bed, .bim and .fam of one name together", uri
            )
    with storage.open_input(uri) as raw:
        first = raw.read(_HEAD)
    if first == _BY_SAMPLE:
        raise InputError(
            "found genotypes in sample-major order; expected SNP-major: convert it with plink2 --make-bed", uri
        )
    samples, people, notes = _family(fam)
    sites = Counter[str]()
    count = 0
    for block in _bim_blocks(bim):
        count += len(block.line)
        for item in pc.value_counts(block.chrom).to_pylist():
            sites[item["values"]] += item["counts"]
    size = storage.size(uri)
    expected = _HEAD + count * _width(len(samples))
    if size != expected:
        raise InputError(
            f"found {size:,} bytes; expected {expected:,} for {count:,} lines of {posixpath.basename(bim)} and "
            f"{len(samples):,} of {posixpath.basename(fam)}: these files are not of one set, or one is cut off",
            uri,
        )
    if not count:
        raise InputError("found no site; expected a line for each", bim, 1)
    if sites["0"]:
        notes.append(f"{sites['0']} sites have no chromosome (0)")
    return header(samples, sites, people, notes)


def samples_of(uri: str) -> list[str]:
    """Samples of the .bed, by its .fam. InputError as for `header_of`."""
    return _family(beside(uri)[1])[0]


def _width(samples: int) -> int:
    return (samples + 3) // 4


def _family(uri: str) -> tuple[list[str], SampleTable, list[str]]:
    """Samples in order, what the .fam says of each, and what is told of it. A sample is called by its identifier,
    with its family before it where several families have one of that name."""
    rows: list[list[str]] = []
    lines: list[int] = []
    with storage.open_input(uri) as raw:
        for first, block in streams.line_blocks(raw, uri):
            for line, text in enumerate(block.split(b"\n")[:-1], first):
                try:
                    cells = delimited.text_of(text).split()
                except Unreadable as error:
                    raise InputError(str(error), uri, line) from error
                if not cells:
                    continue
                if len(cells) != len(PEOPLE) + 1:
                    raise InputError(
                        f"found {len(cells)} columns; expected 6: family, identifier, father, mother, sex, phenotype",
                        uri,
                        line,
                    )
                rows.append(cells)
                lines.append(line)
    if not rows:
        raise InputError("found no sample; expected a line for each", uri, 1)
    notes = []
    names = [row[1] for row in rows]
    if len(set(names)) < len(names):
        notes.append("samples are called FAMILY_ID, as several families have one of the same identifier")
        names = [f"{row[0]}_{row[1]}" for row in rows]
    seen: dict[str, int] = {}
    for name, line in zip(names, lines, strict=True):
        if (fault := fault_of_name(name)) is not None:
            raise InputError(f"found {fault}; expected the sample's identifier", uri, line)
        if name in seen:
            raise InputError(
                f"sample {name} stands twice, first on line {seen[name]}; expected each once, rename it", uri, line
            )
        seen[name] = line
    whose = dict(zip([(row[0], row[1]) for row in rows], names, strict=True))
    known = [row[5] for row in rows if row[5] not in ("-9", *MISSING)]
    cases = set(known) <= {"0", "1", "2"}
    odd = next((i for i, row in enumerate(rows) if row[5] in known and number(row[5]) is None), None)
    if odd is not None:
        notes.append(f"phenotypes such as {shown(rows[odd][5])} are no numbers, and kept as text")
    if cases and "0" in known:
        notes.append(f"{known.count('0')} phenotypes 0 are missing, as all others are 1 or 2")
    missing = {"-9", *MISSING, *(("0",) if cases else ())}
    table = {
        name: [
            None if row[0] == "0" else row[0],
            *(None if parent == "0" else whose.get((row[0], parent), parent) for parent in row[2:4]),
            SEXES.get(row[4]),
            None if row[5] in missing else row[5],
        ]
        for name, row in zip(names, rows, strict=True)
    }
    return names, SampleTable(list(PEOPLE), table, {}), notes


@dataclass(frozen=True)
class _Sites:
    """Lines of a .bim: columns of text, positions int64 (-1 where there is none), lines from 1; and those that are
    no site, by place."""

    chrom: pa.Array
    id: pa.Array
    pos: np.ndarray
    a1: pa.Array
    a2: pa.Array
    line: np.ndarray
    bad: dict[int, tuple[str, str]]


def _bim_blocks(uri: str, start: int = 0, stop: int | None = None) -> Iterator[_Sites]:
    """Sites `start` to `stop` (not included, from 0) of a .bim. Blank lines are none."""
    at = 0
    with storage.open_input(uri) as raw:
        for first, block in streams.line_blocks(raw, uri):
            if stop is not None and at >= stop:
                return
            sites = _bim_fast(block, first) or _bim_slow(block, first)
            low, high = max(start - at, 0), len(sites.line) if stop is None else min(stop - at, len(sites.line))
            at += len(sites.line)
            if low < high:
                yield _cut(sites, low, high)


def _cut(sites: _Sites, low: int, high: int) -> _Sites:
    if high - low == len(sites.line):
        return sites
    # Copied, as `if_else` of Arrow 14 gives broken offsets for slices.
    chosen = pa.array(np.arange(low, high))
    bad = {place - low: found for place, found in sites.bad.items() if low <= place < high}
    columns = [column.take(chosen) for column in (sites.chrom, sites.id, sites.a1, sites.a2)]
    return _Sites(columns[0], columns[1], sites.pos[low:high], columns[2], columns[3], sites.line[low:high], bad)


def _bim_fast(block: bytes, first: int) -> _Sites | None:
    """All lines by Arrow's reader; None where one is blank, ragged, not UTF-8 or has blanks between columns."""
    if b" " in block or b"\r" in block or b'"' in block or block.startswith(b"\n") or b"\n\n" in block:
        return None
    try:
        table = pacsv.read_csv(
            pa.py_buffer(block),
            pacsv.ReadOptions(use_threads=False, column_names=_BIM, block_size=len(block) + 1),
            pacsv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            pacsv.ConvertOptions(
                column_types={name: pa.string() for name in _BIM} | {"pos": pa.int64()}, strings_can_be_null=False
            ),
        ).combine_chunks()
    except pa.ArrowInvalid:
        return None
    columns = {name: table.column(name).chunk(0) for name in _BIM if table.num_rows}
    pos = columns["pos"].to_numpy()
    if (
        pos.min() < 0
        or pos.max() > HIGHEST
        or any(pc.any(pc.equal(columns[n], "")).as_py() for n in ("chrom", "a1", "a2"))
    ):
        return None
    line = np.arange(first, first + len(pos))
    return _Sites(columns["chrom"], columns["id"], pos, columns["a1"], columns["a2"], line, {})


def _bim_slow(block: bytes, first: int) -> _Sites:
    cells: list[list[str]] = []
    line: list[int] = []
    bad: dict[int, tuple[str, str]] = {}
    for number_, raw in enumerate(block.split(b"\n")[:-1], first):
        text = raw.decode("utf-8", "replace")
        found = text.split()
        if not found:
            continue
        fault = None
        if len(found) not in (5, 6):
            fault = f"found {len(found)} columns in the .bim; expected chromosome, id, cM, position and two alleles"
        elif not re.fullmatch(r"[0-9]{1,10}", found[-3]) or int(found[-3]) > HIGHEST:
            fault = f"found position {shown(found[-3])} in the .bim; expected 0 to {HIGHEST:,}"
        elif "\ufffd" in text:
            fault = "found bytes that are not UTF-8 in the .bim; expected UTF-8 text"
        if fault is not None:
            bad[len(line)] = (fault, text)
            found = [".", ".", "0", "-1", "0", "0"]
        cells.append([found[0], found[1], found[-3], found[-2], found[-1]])
        line.append(number_)
    columns = [pa.array([row[i] for row in cells], pa.string()) for i in range(5)]
    pos = np.array([int(row[2]) for row in cells], np.int64)
    return _Sites(columns[0], columns[1], pos, columns[3], columns[4], np.array(line, np.int64), bad)


def splits(uri: str, target: int) -> list[Split]:
    """Pieces of whole rows, of about `target` bytes."""
    size, width = storage.size(uri), _width(len(samples_of(uri)))
    rows = (size - _HEAD) // width
    pieces = max(1, min(round(size / target), rows))
    ends = [_HEAD + rows * i // pieces * width for i in range(1, pieces)]
    return [Split(start, end) for start, end in zip([0, *ends], [*ends, size], strict=True)]


def _span(split: Split, width: int) -> tuple[int, int]:
    """Rows of a piece, from 0."""
    return max(split.start - _HEAD, 0) // width, (split.end - _HEAD) // width


def length(uri: str, split: Split) -> int:
    """Rows of a piece."""
    start, end = _span(split, _width(len(samples_of(uri))))
    return end - start


def read(uri: str, split: Split, of: Rows, reference: str | None, note: Note) -> Iterator[Batches]:
    """Rows of `variants` and of `quarantine` for a piece of the .bed."""
    bim, _ = beside(uri)
    width = _width(len(of.samples))
    start, end = _span(split, width)
    orientation = None if reference is None else Orientation(Reference(reference), note)
    fs, path = storage.filesystem(uri)
    step = max(1, _AT_ONCE // width)
    with fs.open_input_file(path) as raw:
        for sites in _bim_blocks(bim, start, end):
            for low in range(0, len(sites.line), step):
                part = _cut(sites, low, min(low + step, len(sites.line)))
                data = raw.read_at(len(part.line) * width, _HEAD + start * width)
                start += len(part.line)
                packed = np.frombuffer(data, np.uint8)
                if len(packed) != len(part.line) * width:
                    raise InputError(f"found it cut off at row {start}; expected a whole file, fetch it again", uri)
                yield _batches(part, packed.reshape(-1, width), of, orientation, note)


def _batches(sites: _Sites, packed: np.ndarray, of: Rows, orientation: Orientation | None, note: Note) -> Batches:
    n = len(sites.line)
    bad = {place: (reason, text) for place, (reason, text) in sites.bad.items()}
    ref, alt, pos = sites.a2, sites.a1, sites.pos
    exchanged = np.zeros(n, bool)
    info = pa.repeat(pa.scalar(PROVISIONAL), n)
    if orientation is None:
        unknown = pa.array(sorted(UNKNOWN))
        lacking = pc.is_in(ref, unknown)
        exchanged = lacking.to_numpy(zero_copy_only=False).copy()  # the one allele that is known is everybody's
        ref, alt = pc.if_else(lacking, alt, ref), pc.if_else(lacking, ref, alt)
    else:
        ref, alt, pos, exchanged, info = _oriented(sites, of, orientation, bad)
    gt = genotypes.from_bed(packed, len(of.samples), exchanged)
    absent = pc.is_in(alt, pa.array(sorted(UNKNOWN)))
    _check_absent(sites, ref, absent, gt, len(of.samples), bad)
    _tell_alleles(sites, ref, alt, absent, bad, note)
    alts = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(~absent.to_numpy(zero_copy_only=False))]).astype(np.int32)),
        alt.filter(pc.invert(absent)),
    )
    ids = pc.if_else(pc.is_in(sites.id, pa.array(["", "."])), pa.scalar(None, pa.string()), sites.id)
    more = {}
    if orientation is not None:
        a1 = pc.if_else(pc.is_in(sites.a1, pa.array(sorted(UNKNOWN))), ".", sites.a1)
        same = pc.and_(pc.equal(ref, sites.a2), pc.equal(pa.array(pos), pa.array(sites.pos)))
        for name, column in (("pos", pa.array(sites.pos)), ("ref", sites.a2), ("alts", a1)):
            more[f"source_{name}"] = pc.if_else(same, pa.scalar(None, column.type), column)
    made = of.batch(
        sites.chrom,
        pos,
        ref,
        id=ids,
        alts=alts,
        info=info,
        format=pa.repeat(pa.scalar("GT"), n),
        gt=gt,
        line=pa.array(sites.line),
        **more,
    )
    if bad:
        made = made.filter(pa.array(~np.isin(np.arange(n), list(bad))))
    return made, of.aside((int(sites.line[place]), *found) for place, found in bad.items())


def _text(sites: _Sites, place: int) -> str:
    cells = (sites.chrom, sites.id, sites.pos, sites.a1, sites.a2)
    return "\t".join(str(cell if isinstance(cell, np.int64) else cell.as_py()) for cell in (c[place] for c in cells))


def _oriented(
    sites: _Sites, of: Rows, orientation: Orientation, bad: dict[int, tuple[str, str]]
) -> tuple[pa.Array, pa.Array, np.ndarray, np.ndarray, pa.Array]:
    """REF, ALT, positions, whether REF is the first allele, and INFO; sites that the reference refuses go to `bad`."""
    n = len(sites.line)
    ref, alt = sites.a2.to_pylist(), sites.a1.to_pylist()
    pos, exchanged, info = sites.pos.copy(), np.zeros(n, bool), [AS_REFERENCE] * n
    contigs = [numbered_contig(name, of.human) for name in sites.chrom.to_pylist()]
    for place in range(n):
        if place in bad:
            continue
        try:
            site = orientation.site(int(sites.line[place]), contigs[place], int(pos[place]), [ref[place], alt[place]])
        except Refused as refused:
            bad[place] = (str(refused), _text(sites, place))
            continue
        pos[place], ref[place], exchanged[place], info[place] = site.pos, site.ref, site.order[0] == 1, site.info
        alt[place] = site.alts[0] if site.alts else "0"
    return pa.array(ref, pa.string()), pa.array(alt, pa.string()), pos, exchanged, pa.array(info, pa.string())


def _check_absent(
    sites: _Sites, ref: pa.Array, absent: pa.Array, gt: pa.Array, samples: int, bad: dict[int, tuple[str, str]]
) -> None:
    """Sets aside sites with calls of an allele that was not written down."""
    places = np.flatnonzero(absent.to_numpy(zero_copy_only=False))
    nameless = pc.is_in(ref, pa.array(sorted(UNKNOWN))).to_numpy(zero_copy_only=False)
    for place in np.flatnonzero(nameless).tolist():
        bad.setdefault(place, ("found two alleles 0 in the .bim; expected one at least", _text(sites, place)))
    if len(places):
        copies = genotypes.counts(gt.take(pa.array(places)), samples)[:, 0]
        for place, found in zip(places.tolist(), copies.tolist(), strict=True):
            if found and place not in bad:
                reason = f"found {found} copies of allele 0 in the .bed; expected none of an allele that has no name"
                bad[place] = (reason, _text(sites, place))


def _tell_alleles(
    sites: _Sites, ref: pa.Array, alt: pa.Array, absent: pa.Array, bad: dict[int, tuple[str, str]], note: Note
) -> None:
    named = pc.and_(
        pc.match_substring_regex(ref, _BASES), pc.or_(absent, pc.match_substring_regex(alt, _BASES))
    ).to_numpy(zero_copy_only=False)
    for place in np.flatnonzero(~named).tolist():
        if place not in bad:
            note(int(sites.line[place]), "have alleles that are no bases, which are kept as they are")
