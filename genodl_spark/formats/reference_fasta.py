"""Reference genomes in FASTA to rows of `reference` and `reference_bases`, in one pass, with or without an index.

A sequence is read to its end before its row is made; its bases leave in chunks on the way. Memory holds a block of
lines and a chunk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import character, fault_of_name, shown
from genodl_spark.formats import streams
from genodl_spark.genome.bases import NO_BASE, base_codes
from genodl_spark.genome.builds import build_of
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.genome.reference import Slice, slice_of
from genodl_spark.lake.tables.genomes import CHUNK, REFERENCE, REFERENCE_BASES

FILE_NAME = re.compile(r"\.(fa|fasta|fna)(\.b?gz)?$", re.IGNORECASE)
_HEADING = re.compile(rb"\n>")
_LETTERS = bytes(i for i in range(256) if base_codes(np.array([i], np.uint8))[0] != NO_BASE)
_NO_LETTERS = b"\n\r\t "
_AT_ONCE = 64  # chunks in a batch


def check(uri: str) -> None:
    """InputError where a file does not begin as FASTA."""
    line = streams.first_line(uri)
    if not line.startswith(b">"):
        found = shown(line[:80].decode("utf-8", "replace")) if line else "nothing"
        raise InputError(f"found {found} on the first line; expected FASTA, > and a name", uri, 1)


@dataclass
class _Sequence:
    """A sequence as it is read. `number` among those of the file, from 1; `line` of its heading."""

    number: int
    name: str
    description: str
    line: int
    uri: str
    slice: Slice | None
    length: int = 0
    waiting: bytes = b""  # bases that are no whole chunk yet
    md5: hashlib._Hash = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))

    @property
    def contig(self) -> str:
        return shared_contig(self.name if self.slice is None else self.slice.contig)

    @property
    def first(self) -> int:
        return 1 if self.slice is None else self.slice.first

    @classmethod
    def of(cls, heading: bytes, number: int, line: int, uri: str) -> _Sequence:
        text = heading.decode("utf-8", "replace").removeprefix(">").strip()
        name, _, description = text.partition(" ") if "\t" not in text.split(" ")[0] else text.partition("\t")
        if (fault := fault_of_name(name)) is not None:
            raise InputError(f"found {fault} behind >; expected the name of a sequence", uri, line)
        return cls(number, name, description.strip(), line, uri, slice_of(description.strip()))

    def add(self, text: bytes, line: int) -> Iterator[tuple[int, bytes]]:
        """(Number of bases before it, chunk) of lines, of which `line` is the first."""
        bases = text.translate(None, _NO_LETTERS)
        if bases.translate(None, _LETTERS):
            at = int(np.argmax(base_codes(np.frombuffer(bases, np.uint8)) == NO_BASE))
            row = next(i for i, one in enumerate(text.split(b"\n")) if bases[at : at + 1] in one)
            found = character(bases[at : at + 4].decode("utf-8", "replace")[0])
            expected = "letters of IUPAC, A C G T U R Y S W K M B D H V N"
            raise InputError(
                f"found {found} at base {self.length + at + 1} of {self.name}; expected {expected}",
                self.uri,
                line + row,
            )
        self.md5.update(bases.upper())
        self.waiting += bases
        self.length += len(bases)
        yield from self._chunks(False)

    def end(self) -> Iterator[tuple[int, bytes]]:
        """What is left. InputError for a sequence without bases, or a slice of another length."""
        if not self.length:
            raise InputError(f"found no base below {self.name}; expected its sequence", self.uri, self.line)
        if self.slice is not None and self.slice.length != self.length:
            raise InputError(
                f"found {self.length} bases in {self.name}; expected those of {self.slice.text}, mend its description",
                self.uri,
                self.line,
            )
        yield from self._chunks(True)

    def _chunks(self, to_the_end: bool) -> Iterator[tuple[int, bytes]]:
        at, before = 0, self.length - len(self.waiting)
        while at < len(self.waiting):
            room = CHUNK - (self.first - 1 + before) % CHUNK
            if len(self.waiting) - at < room and not to_the_end:
                break
            yield before, self.waiting[at : at + room]
            at, before = at + room, before + room
        self.waiting = self.waiting[at:]

    def row(self, cohort: str, file: str) -> dict[str, object]:
        build = build_of({self.name: self.length}) if self.slice is None else self.slice.build
        return {
            "cohort": cohort,
            "contig": self.contig,
            "name": self.name,
            "description": self.description or None,
            "first": self.first,
            "last": self.first + self.length - 1,
            "length": self.length,
            "md5": self.md5.hexdigest(),
            "build": build,
            "file": file,
            "line": self.number,
        }


def read(uri: str, cohort: str, file: str) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Rows of `reference` and of `reference_bases`.

    InputError, with the line, for a file that does not begin with a name, a name that stands twice, slices of two
    builds, a sequence without bases, a letter outside IUPAC, and a compressed stream that is not whole.
    """
    current: _Sequence | None = None
    lines_of: dict[str, int] = {}
    builds: dict[str, str] = {}
    done: list[dict[str, object]] = []
    held: list[tuple[_Sequence, int, bytes]] = []

    def batches() -> tuple[pa.RecordBatch, pa.RecordBatch]:
        found = _rows(done), _chunk_rows(held, cohort, file)
        done.clear()
        held.clear()
        return found

    with storage.open_input(uri) as raw:
        for number, block in streams.line_blocks(raw, uri):
            # A search for \n> is a hundred times as fast as one for a > that begins a line.
            heads = [0] * block.startswith(b">") + [match.start() + 1 for match in _HEADING.finditer(block)]
            if current is None and block[: heads[0] if heads else None].strip():
                raise InputError("found text before the first name; expected FASTA, > and a name", uri, number)
            line = number
            for start, end in zip([0, *heads], [*heads, len(block)], strict=True):
                text = block[start:end]
                if text.startswith(b">"):
                    if current is not None:
                        held += [(current, *chunk) for chunk in current.end()]
                        done.append(current.row(cohort, file))
                    heading, _, text = text.partition(b"\n")
                    current = _Sequence.of(heading, len(lines_of) + 1, line, uri)
                    _check_new(current, lines_of, builds)
                    line += 1
                if current is not None:
                    for chunk in current.add(text, line):
                        held.append((current, *chunk))
                        if len(held) >= _AT_ONCE:
                            yield batches()
                line += text.count(b"\n")
    if current is None:
        raise InputError("the file is empty; expected FASTA, > and a name", uri, 1)
    held += [(current, *chunk) for chunk in current.end()]
    done.append(current.row(cohort, file))
    yield batches()


def _check_new(sequence: _Sequence, lines_of: dict[str, int], builds: dict[str, str]) -> None:
    """Remembers a sequence. InputError where it does not go with those before it."""
    if sequence.name in lines_of:
        found = f"sequence {sequence.name} stands twice, first on line {lines_of[sequence.name]}"
        raise InputError(f"{found}; expected each once, rename or remove one", sequence.uri, sequence.line)
    lines_of[sequence.name] = sequence.line
    if sequence.slice is not None:
        builds.setdefault(sequence.slice.build, sequence.name)
        if len(builds) > 1:
            found = f"slices of {' and '.join(sorted(builds))}"
            raise InputError(
                f"found {found}; expected those of one build, keep one in a file", sequence.uri, sequence.line
            )


def _rows(rows: list[dict[str, object]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=REFERENCE.arrow_schema())


def _chunk_rows(held: list[tuple[_Sequence, int, bytes]], cohort: str, file: str) -> pa.RecordBatch:
    rows = [
        {
            "cohort": cohort,
            "contig": sequence.contig,
            "name": sequence.name,
            "chunk": (sequence.first - 1 + before) // CHUNK,
            "first": sequence.first + before,
            "last": sequence.first + before + len(bases) - 1,
            "bases": bases,
            "file": file,
        }
        for sequence, before, bases in held
    ]
    return pa.RecordBatch.from_pylist(rows, schema=REFERENCE_BASES.arrow_schema())
