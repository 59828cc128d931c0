"""FASTA of short sequences with what their headers say of them.

    >ID                         a sequence without any label
    >ID LABEL     >ID|LABEL     one more word: its label
    >ID KEY=VALUE ...           columns of these names, with blanks or | between them, beside a label or without
    >ID several words           no label can be told from a description: the words are a column `description`

The identifier ends at the first blank or |. A file has one rule: its words are labels only where no header has more
than one. Headers of databases (gi|..., sp|...) begin with what they are a database of and are refused: the identifier
would be the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import streams
from genodl_spark.formats.entity_table import Cells, Header, check_names

DELIMITER = ">"  # of a Header: the file is FASTA
LABEL, DESCRIPTION = "label", "description"
_ID, _SEQUENCE = "id", "sequence"
_HEADING = re.compile(rb"^>(.*)$", re.MULTILINE)
_FIRST_WORD = re.compile(r"[^\s|]*")
_BETWEEN = re.compile(r"[\s|]+")
_PAIR = re.compile(r"([A-Za-z][\w.-]*)=(.*)")
_LONGEST = 64 << 20  # bytes of a sequence with its header
_DATABASES = frozenset({"gi", "gb", "emb", "dbj", "ref", "sp", "tr", "pdb", "lcl", "gnl", "bbs", "pir", "prf"})


def is_fasta(first: bytes) -> bool:
    """Whether a text that begins so is FASTA."""
    return first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b">"


def _parts(heading: str) -> tuple[str, list[str], dict[str, str]]:
    """Identifier, words and pairs of a header, without its >."""
    name = _FIRST_WORD.match(heading)
    assert name is not None  # it may match nothing
    words, pairs = [], {}
    for part in filter(None, _BETWEEN.split(heading[name.end() :])):
        pair = _PAIR.fullmatch(part)
        if pair is None:
            words.append(part)
        else:
            pairs[pair[1]] = pair[2]
    return name[0], words, pairs


def header_of(uri: str) -> Header:
    """Columns that the headers of all its sequences give together. InputError for text before the first header,
    a database's header, and keys that cannot be columns."""
    keys: dict[str, None] = {}
    most = 0
    with storage.open_input(uri) as raw:
        for first, block in streams.line_blocks(raw, uri):
            if first == 1 and not is_fasta(block):
                raise InputError("found text before the first header; expected one, a line that begins with >", uri, 1)
            for heading in _HEADING.finditer(block):
                name, words, pairs = _parts(heading[1].decode("utf-8", "replace"))
                if name.lower() in _DATABASES:
                    line = first + block.count(b"\n", 0, heading.start())
                    raise InputError(
                        f"found {name}| in front of an identifier; expected >ID: rewrite the headers", uri, line
                    )
                keys |= dict.fromkeys(pairs)
                most = max(most, len(words))
    words_are = [] if not most else [LABEL] if most == 1 else [DESCRIPTION]
    columns = [_ID, _SEQUENCE, *words_are, *keys]
    check_names(columns, (_ID, _SEQUENCE), uri)
    return Header(columns, DELIMITER)


def blocks(uri: str, size: int = streams.BLOCK) -> Iterator[tuple[int, bytes]]:
    """(Number of its first line, block) of whole sequences, their headers first. InputError for one that is as long
    as a chromosome."""
    held, number = b"", 1
    with storage.open_input(uri) as raw:
        for _, block in streams.line_blocks(raw, uri, size):
            held += block
            last = held.rfind(b"\n>") + 1
            if last:
                yield number, held[:last]
                number += held.count(b"\n", 0, last)
                held = held[last:]
            if len(held) > _LONGEST:
                raise InputError(
                    f"found a sequence of more than {_LONGEST:,} bytes; expected short ones, not a genome", uri, number
                )
    if held.strip():
        yield number, held


def cells(block: bytes, header: Header) -> Cells:
    """As `entity_table.cells`, of whole sequences: a record's line is that of its header. Blanks within sequences are
    none of them; upper and lower case are alike."""
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == 10)
    starts = np.concatenate([[0], ends[:-1] + 1])
    heads = np.flatnonzero(text[starts] == ord(DELIMITER))
    lines = np.repeat(np.arange(len(starts)), ends - starts + 1)
    record = np.searchsorted(heads, lines, "right") - 1
    own = ~np.isin(lines, heads) & ~np.isin(text, np.frombuffer(b" \t\r\n", np.uint8)) & (record >= 0)
    sizes = np.bincount(record[own], minlength=len(heads))
    columns: dict[str, pa.Array] = {
        _SEQUENCE: packing.binary_array(text[own], np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    }
    cells_: dict[str, list[str]] = {name: [] for name in header.columns if name != _SEQUENCE}
    for start, end in zip(starts[heads].tolist(), ends[heads].tolist(), strict=True):
        name, words, pairs = _parts(block[start + 1 : end].decode("utf-8", "replace"))
        cells_[_ID].append(name)
        said = {LABEL: " ".join(words), DESCRIPTION: " ".join(words), **pairs}
        for column in cells_:
            if column != _ID:
                cells_[column].append(said.get(column, ""))
    columns |= {name: pa.array(values, pa.string()) for name, values in cells_.items()}
    return columns, heads.astype(np.int64), {}
