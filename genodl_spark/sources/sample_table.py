"""Sample tables: a `sample_id` column and any others (label, split, batch, patient, traits), as text."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import BinaryIO

from genodl_spark.errors import InputError
from genodl_spark.sources.streams import line_blocks

MISSING = {"", "NA", "NaN", "nan", "N/A"}
_UNSTORABLE = re.compile(r"[ ,;{}()\n\t=]+")  # characters that Parquet columns may not hold


@dataclass(frozen=True)
class SampleTable:
    """Rows of a sample table by sample_id; every value text, None where missing. `renamed`: columns stored under another name."""

    columns: list[str]
    rows: dict[str, list[str | None]]
    renamed: dict[str, str]


def column_name(name: str) -> str:
    """The name under which a column of the user is stored."""
    return _UNSTORABLE.sub("_", name.strip())


def read(raw: BinaryIO, file: str) -> SampleTable:
    """Reads TSV or CSV, gzipped or not. InputError, with the line, for no sample_id column, a repeated column or sample, a ragged line."""
    text = b"".join(block for _, block in line_blocks(raw, file))
    try:
        lines = io.StringIO(text.decode("utf-8"), newline="")
    except UnicodeDecodeError as error:
        raise InputError("bytes that are not UTF-8; expected UTF-8 text", file, text[: error.start].count(b"\n") + 1) from error
    head = lines.readline()
    lines.seek(0)
    reader = csv.reader(lines, delimiter="\t" if "\t" in head else ",")
    names = next(reader, [])
    if "sample_id" not in names:
        raise InputError(f"found columns {', '.join(names[:8]) or 'none'}; expected one called sample_id, rename it in the header", file, 1)
    stored = [column_name(name) for name in names]
    folded: set[str] = set()
    for name in stored:
        if not name or name.lower() in folded or (name.lower() == "cohort"):
            raise InputError(f"column {name!r} stands twice, is empty or reserved; expected distinct names, rename it", file, 1)
        folded.add(name.lower())
    key = names.index("sample_id")
    others = [i for i in range(len(names)) if i != key]
    rows: dict[str, list[str | None]] = {}
    for row in reader:
        if not row:
            continue
        if len(row) != len(names):
            raise InputError(f"found {len(row)} columns; expected {len(names)}, as many as the header has", file, reader.line_num)
        sample = row[key]
        if sample in rows or sample in MISSING:
            raise InputError(f"sample_id {sample!r} is missing or stands twice; expected each sample once", file, reader.line_num)
        rows[sample] = [None if row[i] in MISSING else row[i] for i in others]
    if not rows:
        raise InputError("no sample below the header; expected one line per sample", file, 2)
    return SampleTable([stored[i] for i in others], rows, {names[i]: stored[i] for i in others if names[i] != stored[i]})


def check_covers(table: SampleTable, samples: list[str], table_file: str, data_file: str) -> list[str]:
    """Samples of the table that the data lack. InputError when the table lacks a sample of the data."""
    lacking = [sample for sample in samples if sample not in table.rows]
    if lacking:
        raise InputError(
            f"found no row for {len(lacking)} of {len(samples)} samples of {data_file}, {lacking[0]} the first; "
            "expected one row for each, add them or drop them from the data",
            table_file,
        )
    known = set(samples)
    return [sample for sample in table.rows if sample not in known]
