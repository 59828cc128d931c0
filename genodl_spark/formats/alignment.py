"""BAM and CRAM files: what their headers and indexes say, and reads of a region on demand, through htslib.

The files stay where they are. Positions are 1-based, intervals closed.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pysam

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import fault_of_name
from genodl_spark.formats import bgzf
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.genome.reference import Reference

FILE_NAME = re.compile(r"\.(bam|cram)$", re.IGNORECASE)
_BATCH = 16_384  # reads
_LOCK = threading.Lock()
_MATE_KNOWN = 1, 8  # flags: paired; mate unmapped
READS = pa.schema(
    [
        pa.field("name", pa.string(), False),
        pa.field("flag", pa.uint16(), False),
        pa.field("contig", pa.string(), False),  # as in the file
        pa.field("pos", pa.int64(), False),  # first aligned base
        pa.field("end", pa.int64(), False),  # last aligned base
        pa.field("mapq", pa.uint8(), False),  # 255: not known
        pa.field("cigar", pa.string()),  # NULL without
        pa.field("mate_contig", pa.string()),  # NULL where the mate is not there or not placed
        pa.field("mate_pos", pa.int64()),
        pa.field("template_length", pa.int32(), False),
        pa.field("sequence", pa.string()),  # on the reference's strand, as stored; NULL without
        pa.field("qualities", pa.binary()),  # a byte for each base, phred scaled; NULL without
        pa.field("read_group", pa.string()),  # NULL without
    ]
)


# The last container of a CRAM, of 30 bytes in version 2.1 and of 38 from 3.0 on, has no reference and the start "EOF".
_END, _END_AT, _ENDS = b"\xff\xff\xff\xff\x0f\xe0EOF", 4, (30, 38)


@dataclass(frozen=True)
class Header:
    """What a file says of itself. `samples`: ID of the read groups of each; empty where no group names one.
    `counts` int64 (contigs, 2): mapped reads and unmapped ones of each contig, and `unplaced` of none, from the index
    of a BAM; None without."""

    uri: str
    format: str
    text: str
    sort_order: str | None
    contigs: list[str]
    lengths: list[int]
    samples: dict[str, list[str]]
    index: str | None
    reference: str | None
    counts: np.ndarray | None
    unplaced: int | None
    known: Any = None  # what is known of its sample (`sources.candidates`)


def header_of(uri: str, reference: str | None = None) -> Header:
    """InputError for a file that is neither BAM nor CRAM, is cut off, has no contigs, a sample without a name or a read
    group that stands twice, and for an index that is none."""
    with _opened(uri, reference) as file:
        if file.is_cram:  # of a BAM htslib looks itself
            _check_end(uri)
        header = file.header.to_dict()
        if not file.references:
            raise InputError("found no contig in the header; expected aligned reads, with @SQ lines", uri)
        samples: dict[str, list[str]] = {}
        _check_groups(str(file.header), uri)
        for group in header.get("RG", []):
            if (name := group.get("SM")) is not None:
                if (fault := fault_of_name(name)) is not None:
                    raise InputError(f"found {fault} as SM of read group {group.get('ID')}; expected a sample", uri)
                samples.setdefault(name, []).append(group.get("ID", ""))
        index = _index(uri, file)
        counts = unplaced = None
        if index is not None and file.is_bam:
            found = file.get_index_statistics()
            counts = np.array([(one.mapped, one.unmapped) for one in found], np.int64).reshape(-1, 2)
            unplaced = int(file.nocoordinate)
        return Header(
            uri,
            "BAM" if file.is_bam else "CRAM",
            str(file.header),
            header.get("HD", {}).get("SO"),
            list(file.references),
            list(file.lengths),
            samples,
            index,
            reference,
            counts,
            unplaced,
        )


def check_reference(header: Header, reference: Reference) -> None:
    """InputError where a FASTA is not what reads were aligned to: it shares no contig with them, or one of another
    length or, where the header has it (M5), another hash. Contigs of either that the other lacks are passed over."""
    hashes = {}
    for line in header.text.splitlines():
        if line.startswith("@SQ\t"):
            tags = dict(tag.split(":", 1) for tag in line.split("\t")[1:] if ":" in tag)
            hashes[tags.get("SN")] = tags.get("M5", "").lower()
    lengths = zip(header.contigs, header.lengths, strict=True)
    shared = [(name, length) for name, length in lengths if name in reference]
    theirs = "the FASTA that the reads were aligned to"
    if not shared:
        said = ", ".join(header.contigs[:3])
        what = f"found contigs {said}, ... and none of them in {reference.path}, {reference.said()}"
        raise InputError(f"{what}; expected {theirs}", header.uri)
    for name, length in shared:
        if (found := reference.length(name)) not in (None, length):
            what = f"found {found} bases of contig {name} in {reference.path}"
            raise InputError(f"{what}; expected {length}, as the header says: give {theirs}", header.uri)
    for name, _ in shared:
        if (expected := hashes.get(name)) and (hashed := reference.md5(name)) not in (None, expected):
            what = f"found MD5 {hashed} of contig {name} in {reference.path}"
            raise InputError(f"{what}; expected {expected}, as the header says: give {theirs}", header.uri)


def _check_groups(text: str, uri: str) -> None:
    """InputError for a read group that stands twice or has two samples: whose its reads are nobody can tell."""
    seen: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("@RG\t"):
            continue
        tags = [tag.split(":", 1) for tag in line.split("\t")[1:] if ":" in tag]
        group = next((value for key, value in tags if key == "ID"), "")
        samples = [value for key, value in tags if key == "SM"]
        if len(samples) > 1:
            what = f"found {len(samples)} samples, {' and '.join(samples)[:80]}, in read group {group}"
            raise InputError(f"{what}; expected one SM: mend the header with samtools reheader", uri)
        sample = samples[0] if samples else "none"
        if group in seen:
            what = f"found read group {group} twice, of sample {seen[group]} and of {sample}"
            raise InputError(f"{what}; expected each ID once: mend the header with samtools reheader", uri)
        seen[group] = sample


def reads(
    uri: str, contig: str, first: int, last: int, reference: str | None = None, without: int = 0, batch: int = _BATCH
) -> Iterator[pa.RecordBatch]:
    """Placed reads that overlap bases [`first`, `last`] of a contig, in the order of the file: batches of READS.

    `contig` may be named with or without chr. `reference`: the FASTA of a CRAM. `without`: reads with any of these
    flags are left out. InputError for a file without an index, a contig that it lacks, and one that is cut off.
    """
    with _opened(uri, reference) as file:
        if _index(uri, file) is None:
            raise InputError(f"found no index beside the file; expected one: samtools index {uri}", uri)
        names = {shared_contig(name): name for name in file.references}
        name = contig if contig in file.references else names.get(shared_contig(contig))
        if name is None:
            known = ", ".join(file.references[:3])
            raise InputError(f"found no contig {contig} in the file; expected one of {known}, ...", uri)
        rows: list[tuple[Any, ...]] = []
        found = file.fetch(name, max(first - 1, 0), max(last, 0)) if last >= max(first, 1) else iter(())
        with _whole(uri):
            for read in found:
                if read.flag & without:
                    continue
                rows.append(_row(read))
                if len(rows) >= batch:
                    yield _batch(rows)
                    rows = []
        yield _batch(rows)


def first_reads(
    uri: str, contigs: Sequence[str], places: Iterable[tuple[str, int]], reference: str | None = None
) -> list[tuple[str, int]]:
    """Of each place, a contig as named in the file and a base of it, 0-based: the first base from there on, in the
    order of `contigs`, over which a read lies; left out where none does."""
    found = []
    with _opened(uri, reference) as file, _whole(uri):
        for contig, start in places:
            rest = [(contig, start), *((other, 0) for other in contigs[contigs.index(contig) + 1 :])]
            for name, first in rest:
                read = next(file.fetch(name, first), None)
                if read is not None:
                    found.append((name, max(int(read.reference_start), first)))
                    break
    return found


def region_bam(
    uri: str,
    contig: str,
    first: int,
    last: int,
    reference: str | None = None,
    groups: Sequence[str] = (),
    without: int = 0,
) -> bytearray:
    """Placed reads that overlap bases [`first`, `last`] of a contig, named as in the file, as an inflated BAM, header
    first: what htslib decodes of BAM or CRAM, without an object for each read.

    `groups`: IDs of the read groups wanted, all if empty. Else as `reads`.
    """
    path = storage.local_path(uri) if storage.is_local(uri) else uri
    asked = ["-u", "-F", str(without)]
    if reference is not None:
        asked += ["-T", reference]
    for group in groups:
        asked += ["-r", group]
    with tempfile.TemporaryDirectory(prefix="genodl-") as folder, _whole(uri):
        made = os.path.join(folder, "reads.bam")
        with _LOCK:  # the command has one set of options in a process
            pysam.samtools.view(*asked, "-o", made, path, f"{{{contig}}}:{first}-{last}", catch_stdout=False)
        with open(made, "rb") as file:
            return bytearray(b"".join(text for _, text in bgzf.blocks(file.read)))


def _row(read: pysam.AlignedSegment) -> tuple[Any, ...]:
    paired = (read.flag & _MATE_KNOWN[0]) and not read.flag & _MATE_KNOWN[1] and read.next_reference_id >= 0
    qualities = read.query_qualities
    return (
        read.query_name,
        read.flag,
        read.reference_name,
        read.reference_start + 1,
        read.reference_end or read.reference_start + 1,
        read.mapping_quality,
        read.cigarstring,
        read.next_reference_name if paired else None,
        read.next_reference_start + 1 if paired else None,
        read.template_length,
        read.query_sequence,
        None if qualities is None else bytes(qualities),
        read.get_tag("RG") if read.has_tag("RG") else None,
    )


def _batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [()] * len(READS)
    arrays = [pa.array(column, one.type) for column, one in zip(columns, READS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=READS)


@contextlib.contextmanager
def _opened(uri: str, reference: str | None) -> Iterator[pysam.AlignmentFile]:
    path = storage.local_path(uri) if storage.is_local(uri) else uri
    verbosity = pysam.set_verbosity(0)
    try:
        file = pysam.AlignmentFile(path, reference_filename=reference, check_sq=False)
    except (OSError, ValueError) as error:
        if storage.kind(uri) == "absent":
            raise InputError("no such file; expected a readable file, check the path", uri) from error
        what = f"found what htslib cannot read ({str(error).splitlines()[0][:120]})"
        raise InputError(f"{what}; expected a whole BAM or CRAM: fetch it again, or convert it", uri) from error
    finally:
        pysam.set_verbosity(verbosity)
    with file:
        if not (file.is_bam or file.is_cram):
            raise InputError("found SAM text; expected BAM or CRAM: samtools view -b makes one", uri)
        yield file


@contextlib.contextmanager
def _whole(uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, pysam.utils.SamtoolsError, bgzf.Broken) as error:
        what = f"found reads that cannot be decoded ({str(error).splitlines()[0][:120]})"
        raise InputError(f"{what}; expected a whole file, and of a CRAM its reference", uri) from error


def _check_end(uri: str) -> None:
    """InputError for a CRAM without the empty container that ends it, from version 2.1 on."""
    fs, path = storage.filesystem(uri)
    with fs.open_input_file(path) as raw:
        version = tuple(raw.read_at(2, len(b"CRAM")))
        last = raw.read_at(_ENDS[-1], max(raw.size() - _ENDS[-1], 0))
    if version >= (2, 1) and all(last[-size:][_END_AT : _END_AT + len(_END)] != _END for size in _ENDS):
        raise InputError("found a CRAM that is cut off, without its last container; expected a whole file", uri)


def _index(uri: str, file: pysam.AlignmentFile) -> str | None:
    """Where the index of a file lies, as htslib looks for it; None without. InputError for one that is none."""
    stem = re.sub(r"\.[^./]*$", "", uri)
    endings = (".bai", ".csi") if file.is_bam else (".crai",)
    found = next((at + end for end in endings for at in (uri, stem) if storage.is_file(at + end)), None)
    if found is not None and not file.has_index():
        raise InputError("found no index in it; expected that of the file beside it, make it again", found)
    return found
