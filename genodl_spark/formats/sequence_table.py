"""Sequence tables, `id`, `sequence` and any other columns (label or value, split, group columns), and FASTA,
to base codes and text, in Arrow batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing, storage
from genodl_spark.core.text_values import character, fault_of_name
from genodl_spark.formats import delimited, entity_table, fasta, streams
from genodl_spark.formats.entity_table import Batches, Header
from genodl_spark.formats.streams import Note, Split
from genodl_spark.genome import bases
from genodl_spark.lake.tables.ingested import SEQUENCES

SOURCE = "sequences"
FILE_NAME = re.compile(r"\.(tsv|csv|fa|fasta|fna)(\.b?gz)?$", re.IGNORECASE)
ID, SEQUENCE = "id", "sequence"
_LONGEST_CHARACTER = 4  # bytes of UTF-8


def header_of(uri: str) -> Header:
    """The header of the table or FASTA at `uri`. InputError as for `entity_table.header_of` and `fasta.header_of`."""
    if fasta.is_fasta(streams.first_line(uri)):
        return fasta.header_of(uri)
    return entity_table.header_of(uri, (ID, SEQUENCE))


def splits(uri: str, header: Header, target: int) -> list[Split]:
    """Pieces of about `target` stored bytes; FASTA is one, as a sequence may have any number of lines."""
    return [Split(0, storage.size(uri))] if header.delimiter == fasta.DELIMITER else streams.splits(uri, target)


def read(
    uri: str, split: Split, first: int, header: Header, cohort: str, file: str, note: Note = lambda line, what: None
) -> Iterator[Batches]:
    """Rows of `sequences`, of `labels` (those of the header) and of `quarantine` for a piece of a file, block by block.

    `first`: the number of its first line, from 1. The rows of the first two are of the same records.
    In quarantine are records of another number of columns than the header's, without an id or a sequence, with a letter
    outside IUPAC, or not in UTF-8; blank lines are passed over, blanks around values go, and `note` is told of these.
    InputError for a compressed stream that is not whole.
    """
    whole = header.delimiter == fasta.DELIMITER
    for number, block in fasta.blocks(uri) if whole else entity_table.blocks(uri, split, first):
        yield parse(block, number, header, cohort, file, note)


def parse(
    block: bytes, number: int, header: Header, cohort: str, file: str, note: Note = lambda line, what: None
) -> Batches:
    """One block of whole lines, of which `number` is the first, as `read` gives it."""
    whole = header.delimiter == fasta.DELIMITER
    columns, lines, bad = fasta.cells(block, header) if whole else entity_table.cells(block, header, (SEQUENCE,))
    codes = pa.array([], pa.binary())
    if len(lines):
        codes, broken = encoded(columns[SEQUENCE])
        for row in np.flatnonzero(delimited.odd_names(columns[ID]).to_numpy(zero_copy_only=False)):
            bad[int(lines[row])] = (
                f"found {fault_of_name(columns[ID][row].as_py())} as id; expected a name for the sequence, mend it"
            )
        for row, reason in broken.items():
            bad[int(lines[row])] = reason
        if bad:
            columns, lines = entity_table.kept({**columns, SEQUENCE: codes}, lines, bad)
            codes = columns[SEQUENCE]
    n = len(lines)
    cohorts, files = (pa.repeat(pa.scalar(value, pa.string()), n) for value in (cohort, file))
    places = [files, pa.array(lines + number, pa.int64())]
    rows = [cohorts, columns[ID], codes, pc.binary_length(codes), *places]
    named = [cohorts, pa.repeat(pa.scalar(SEQUENCES.kind), n), columns[ID], *places]
    return (
        pa.RecordBatch.from_arrays(rows, schema=SEQUENCES.arrow_schema()),
        entity_table.labels(header, columns, named, number, lines, note),
        entity_table.set_aside(block, number, bad, cohort, SOURCE, file),
    )


def encoded(sequences: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Base codes of sequences (binary to binary, the same lengths), and what is wrong with some of them, by row."""
    text, ends = packing.binary(sequences)
    text, ends = text[ends[0] : ends[-1]], ends - ends[0]
    codes = bases.base_codes(text)
    broken = {int(row): "found an empty sequence; expected its bases" for row in np.flatnonzero(np.diff(ends) == 0)}
    places = np.flatnonzero(codes == bases.NO_BASE)
    rows = np.searchsorted(ends, places, "right") - 1
    for row, first in zip(*np.unique(rows, return_index=True), strict=True):
        at, end = places[first], ends[row + 1]
        letter = text[at : min(at + _LONGEST_CHARACTER, end)].tobytes().decode("utf-8", "replace")[0]
        broken[int(row)] = (
            f"found {character(letter)} at base {at - ends[row] + 1}; expected letters of IUPAC, "
            "A C G T U R Y S W K M B D H V N"
        )
    return packing.binary_array(codes.view(np.uint8), ends), broken
