"""A reference genome in FASTA: its sequences by name, and windows of them."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pysam

from genodl_spark.core.errors import InputError, Refused

# Section 1.6.1 item 4: an ambiguity code of the reference stands for the first of its bases.
_REDUCED = bytes.maketrans(b"RYMKWSBDHVrymkwsbdhv", b"ACAGACCAAAacagaccaaa")
_SLICE = re.compile(r"([^_\s]+)_([^:\s]+):([0-9]+)-([0-9]+)")
_NO_BUILD = ""
_EXAMPLES = 5
_SMALL, _LARGEST = 4 << 20, 64 << 20  # bytes of a file that is read whole, as stored and as text
_WINDOW = 1 << 16  # bases kept from the last read: records mostly come in order
_HEADER_BLOCK = 1 << 17
_HASHED = 1 << 24  # bases of a contig that are hashed at a time


@dataclass(frozen=True)
class Piece:
    """What a sequence of a FASTA holds of its chromosome: bases [start, end), 0-based. A whole contig starts at 0."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Slice:
    """The part of a chromosome that the description of a sequence says it is: bases `first` to `last`, 1-based, closed.
    `text`: how it says so."""

    build: str
    contig: str
    first: int
    last: int
    text: str

    @property
    def length(self) -> int:
        """Bases; none where they are not numbered from 1."""
        return self.last - self.first + 1 if self.first > 0 else 0


def slice_of(description: str) -> Slice | None:
    """The slice that a description begins with as BUILD_CHROM:START-END; None where it does not."""
    match = _SLICE.match(description)
    return None if match is None else Slice(match[1], match[2], int(match[3]), int(match[4]), match.group())


class Reference:
    """A FASTA, plain or bgzipped, with its .fai (.gzi): made beside it where it is not there,
    so open it once before many workers do. A small one without is read whole, gzipped or not, and nothing is made.

    Contigs answer to their name with and without chr, M to MT.
    A sequence whose description begins BUILD_CHROM:START-END (1-based, both included) is that slice of the chromosome;
    it answers to its own name from 1 on as well, unless that is the chromosome's.
    InputError for a file that cannot be read, a slice of another length, slices of two builds, unless one is asked for:
    then those of others are not there. Pickles as its path.
    """

    def __init__(self, path: str, build: str | None = None) -> None:
        self.path, self.build = path, build
        verbosity = pysam.set_verbosity(0)
        self._fasta: pysam.FastaFile | _Held
        try:
            self._fasta = _held(path) or pysam.FastaFile(path)
        except (OSError, ValueError) as error:
            found = "no FASTA that can be read" if Path(path).exists() else "no such file"
            what = (
                f"found {found}; expected FASTA text, plain or bgzipped, with the index "
                f"that samtools faidx makes beside it (of up to {_SMALL >> 20} MiB none is needed)"
            )
            raise InputError(what, path) from error
        finally:
            pysam.set_verbosity(verbosity)
        self._pieces: dict[str, list[Piece]] = {}
        self._exact: dict[str, Piece] = {}
        builds = set()
        for name, description in self._descriptions():
            length = self._fasta.get_reference_length(name)
            described = slice_of(description)
            chromosome = None if described is None else _plain(described.contig)
            if described is not None and build not in (None, described.build):
                continue
            if described is not None and chromosome is not None:
                builds.add(described.build)
                if described.length != length:
                    raise InputError(
                        f"found {length} bases in {name}; expected those of {described.text}, mend its description",
                        path,
                    )
                self._pieces.setdefault(chromosome, []).append(Piece(name, described.first - 1, described.last))
            if chromosome != _plain(name):
                self._exact[name] = Piece(name, 0, length)
        if len(builds) > 1:
            raise InputError(
                f"found slices of {' and '.join(sorted(builds))}; expected those of one build, keep one in a file", path
            )
        self._said_build = next(iter(builds), None)
        for pieces in self._pieces.values():
            pieces.sort(key=lambda piece: piece.start)
        for name, piece in self._exact.items():
            self._pieces.setdefault(_plain(name), [piece])
        self._held: tuple[str, int, bytes] = ("", 0, b"")

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        return (Reference, (self.path, self.build))

    @staticmethod
    def builds(path: str) -> list[str]:
        """Builds that slices of a FASTA are said to be of, sorted; none for chromosomes."""
        open_ = Reference(path, _NO_BUILD)
        found = (_SLICE.match(description) for _, description in open_._descriptions())
        return sorted({one.group(1) for one in found if one is not None})

    def said(self) -> str:
        """Its build and first contigs, for a message."""
        names = sorted(self._pieces)
        more = ", ..." if len(names) > _EXAMPLES else ""
        return f"{self._said_build or 'a reference'} with contigs {', '.join(names[:_EXAMPLES])}{more}"

    @property
    def reaches(self) -> dict[str, tuple[int, bool]]:
        """By contig, without chr: the last base that is there (1-based), and whether the contig ends with it, as none
        does of which there are slices."""
        return {
            contig: (max(piece.end for piece in pieces), self._exact.get(pieces[0].name) is pieces[0])
            for contig, pieces in self._pieces.items()
        }

    def __contains__(self, contig: str) -> bool:
        return contig in self._exact or _plain(contig) in self._pieces

    def piece(self, contig: str, start: int, end: int) -> Piece:
        """The sequence that holds [start, end) of `contig`. Refused where none does."""
        pieces = [self._exact[contig]] if contig in self._exact else self._pieces.get(_plain(contig))
        if pieces is None:
            raise Refused(f"found CHROM {contig[:40]!r}, which the reference lacks; expected one of its contigs")
        for piece in pieces:
            if piece.start <= start and end <= piece.end:
                return piece
        held = ", ".join(f"{piece.start + 1}-{piece.end}" for piece in pieces[:3]) + (
            ", ..." if len(pieces) > 3 else ""
        )
        raise Refused(
            f"found REF at {start + 1}-{end}; expected it within what the reference holds of {contig[:40]}: {held}"
        )

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """Bases [start, end) of `contig`, case as in the file, ambiguity codes reduced to a base.
        Refused where they are not all there."""
        return self.bases(self.piece(contig, start, end), start, end)

    def length(self, contig: str) -> int | None:
        """Bases of a contig that is there; None where there are slices of it."""
        last, whole = self.reaches[_plain(contig)]
        return last if whole else None

    def md5(self, contig: str) -> str | None:
        """Hash of a whole contig as @SQ lines of reads have it (M5; SAM specification, section 1.3.2): upper case, with
        its ambiguity codes. None for a contig of which there are slices."""
        length = self.length(contig)
        if length is None:
            return None
        name, found = self._pieces[_plain(contig)][0].name, hashlib.md5(usedforsecurity=False)
        for start in range(0, length, _HASHED):
            try:
                text = self._fasta.fetch(name, start, min(start + _HASHED, length))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"found {name} unreadable; expected a whole FASTA, fetch it again", self.path
                ) from error
            found.update(text.upper().encode("ascii", "replace"))
        return found.hexdigest()

    def around(self, contig: str, start: int, end: int, flank: int) -> tuple[bytes, bytes]:
        """The `flank` bases before [start, end) and those behind it, as `fetch` has them; fewer where the sequence that
        holds it ends. Refused as by `fetch`."""
        piece = self.piece(contig, start, end)
        first, last = max(piece.start, start - flank), min(piece.end, end + flank)
        found = self.bases(piece, first, last)
        return found[: start - first], found[end - first :]

    def bases(self, piece: Piece, start: int, end: int) -> bytes:
        """As `fetch`, within `piece`."""
        first, last = start - piece.start, end - piece.start
        name, at, held = self._held
        if name != piece.name or first < at or last > at + len(held):
            at = max(0, first - _WINDOW // 8)
            try:
                text = self._fasta.fetch(piece.name, at, min(max(last, at + _WINDOW), piece.end - piece.start))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"found {piece.name} unreadable; expected a whole FASTA, fetch it again", self.path
                ) from error
            held = text.encode("ascii", "replace").translate(_REDUCED)
            if last > at + len(held):
                raise InputError(
                    f"found {piece.name} shorter than its index says; expected all its bases, index it again", self.path
                )
            self._held = (piece.name, at, held)
        return held[first - at : last - at]

    def _descriptions(self) -> Iterator[tuple[str, str]]:
        """(name, the rest of its line) of every sequence: read from the gaps that the index leaves between
        sequences, as pysam gives none."""
        if isinstance(self._fasta, _Held):
            yield from ((name, text) for name, (text, _) in self._fasta.sequences.items())
            return
        read = _reader(self.path)
        end = 0
        for line in Path(self.path + ".fai").read_text().splitlines():
            name, *numbers = line.split("\t")
            length, offset, bases, width = map(int, numbers[:4])
            heading = read(end, offset).strip().removeprefix(b">").decode("utf-8", "replace")
            yield name, heading[len(name) :].strip()
            rows, rest = divmod(length, bases) if bases else (0, 0)
            end = offset + rows * width + rest


class _Held:
    """A small FASTA in memory, asked as pysam's is. `sequences`: description and bases by name."""

    def __init__(self, text: str) -> None:
        self.sequences: dict[str, tuple[str, str]] = {}
        for record in text.split("\n>"):
            heading, _, bases = record.removeprefix(">").partition("\n")
            name, *rest = heading.split(None, 1)
            if name in self.sequences:
                raise ValueError(f"sequence {name} stands twice")
            self.sequences[name] = (rest[0].strip() if rest else "", "".join(bases.split()))

    def fetch(self, name: str, start: int, end: int) -> str:
        return self.sequences[name][1][start:end]

    def get_reference_length(self, name: str) -> int:
        return len(self.sequences[name][1])


def _held(path: str) -> _Held | None:
    """A small FASTA that has no index; None for any other. OSError, ValueError for what cannot be read."""
    if Path(f"{path}.fai").exists() or not 0 < Path(path).stat().st_size <= _SMALL:
        return None
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        with gzip.open(path) as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            return None
    if not content.startswith(b">") or content[1:2].isspace():
        raise ValueError("no FASTA")
    return _Held(content.decode("ascii", "replace").replace("\r\n", "\n"))


def _plain(contig: str) -> str:
    name = contig.removeprefix("chr")
    return "MT" if name == "M" else name


def _reader(path: str) -> Callable[[int, int], bytes]:
    """Reads bytes [start, end) of the text of a file, bgzipped or plain."""
    index = Path(path + ".gzi")
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    blocks = np.zeros((1, 2), np.uint64)  # compressed and plain offset of each block
    if zipped and index.exists():
        blocks = np.concatenate([blocks, np.fromfile(index, "<u8")[1:].reshape(-1, 2)])
    at, held = 0, b""

    def read(start: int, end: int) -> bytes:
        nonlocal at, held
        if start < at or end > at + len(held):
            packed, plain = (int(offset) for offset in blocks[np.searchsorted(blocks[:, 1], start, "right") - 1])
            at = plain if zipped else start
            with open(path, "rb") as file:
                file.seek(packed if zipped else start)
                size = max(end - at, _HEADER_BLOCK)
                held = gzip.GzipFile(fileobj=file).read(size) if zipped else file.read(size)
        return held[start - at : end - at]

    return read
