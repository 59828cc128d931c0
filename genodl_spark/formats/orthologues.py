"""Orthologues of a protein in FASTA: the protein first, as HGVS p. names it, and behind it that of each other species.
To rows of `orthologues`, each of which is a residue of the first one and what the others have there.

Gaps of a file that is aligned already, and a stop at an end, are left out: all are aligned to the first one here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import fault_of_name, shown
from genodl_spark.formats import fasta
from genodl_spark.formats.streams import Note
from genodl_spark.genome.orthologues import BEYOND, GAP, LETTERS, LONGEST, aligned
from genodl_spark.lake.tables.genomes import ORTHOLOGUES

FILE_NAME = re.compile(r"\.(fa|fasta|faa)(\.b?gz)?$", re.IGNORECASE)
_BETWEEN = str.maketrans("", "", " \t\r-.")
_LEAST = 0.3  # of a protein's residues that an orthologue should have too
Bad = list[tuple[int, str, str]]  # number of a record, what is wrong, the record


def _records(uri: str) -> Iterator[tuple[int, str, str]]:
    """Number (from 1), name and residues of each sequence. InputError for text before the first header."""
    number = 0
    for line, block in fasta.blocks(uri):
        if line == 1 and not fasta.is_fasta(block):
            raise InputError("found text before the first header; expected one, a line that begins with >", uri, 1)
        for record in ("\n" + block.decode("utf-8", "replace").lstrip("\ufeff")).split("\n>")[1:]:
            heading, _, text = record.partition("\n")
            number += 1
            name = (heading.split() or [""])[0]
            yield number, name, "".join(text.split("\n")).translate(_BETWEEN).upper().removesuffix("*")


def _fault(name: str, text: str) -> str | None:
    if (found := fault_of_name(name)) is not None:
        return f"found {found} behind >; expected the name of a protein"
    if not 0 < len(text) <= LONGEST:
        return f"found {len(text):,} residues; expected 1 to {LONGEST:,}"
    odd = sorted(set(text) - set(LETTERS))
    return f"found {shown(odd[0])} in a protein; expected letters of amino acids" if odd else None


def header_of(uri: str) -> str:
    """The name of the first protein, without version. InputError where there is none, or it is none."""
    for number, name, text in _records(uri):
        if (fault := _fault(name, text)) is not None:
            raise InputError(fault, uri, number)
        return re.sub(r"\.[0-9]+$", "", name)
    raise InputError("the file is empty; expected FASTA, a protein and its orthologues", uri, 1)


def read(uri: str, cohort: str, file: str, note: Note) -> tuple[pa.RecordBatch, Bad]:
    """Rows of `orthologues`, and records that are no protein. InputError where no orthologue is left."""
    protein, bad = header_of(uri), Bad()
    own, columns = np.zeros(0, np.uint8), list[np.ndarray]()
    for number, name, text in _records(uri):
        if (fault := _fault(name, text)) is not None:
            bad.append((number, fault, f">{name}\n{text}"))
            continue
        letters = np.frombuffer(text.encode(), np.uint8)
        if not columns:
            own = letters
            columns.append(letters)
            continue
        found = aligned(own, letters)
        if (found == own).sum() < _LEAST * min(len(own), len(letters)):
            note(number, f"have fewer than {_LEAST:.0%} of their residues in common with {protein}")
        columns.append(found)
    if len(columns) < 2:
        raise InputError("found one protein; expected its orthologues behind it", uri, bad[0][0] if bad else 1)
    n = len(own)
    others = np.stack(columns[1:], 1)
    rows = [
        pa.repeat(pa.scalar(cohort), n),
        pa.repeat(pa.scalar(protein), n),
        pa.array(np.arange(1, n + 1), pa.int32()),
        pa.array([chr(letter) for letter in own.tolist()]),
        pa.array([bytes(row).decode() for row in others]),
        pa.array(((others != GAP) & (others != BEYOND)).sum(1), pa.int32()),
        pa.repeat(pa.scalar(file), n),
        pa.repeat(pa.scalar(1, pa.int64()), n),
    ]
    return pa.RecordBatch.from_arrays(rows, schema=ORTHOLOGUES.arrow_schema()), bad
