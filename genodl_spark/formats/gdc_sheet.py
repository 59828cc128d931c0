"""Sample sheets and manifests of the GDC: a line for each file, with what it is called and whose it is;
columns are found by their names, which differ between releases."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import fault_of_name, known, shown
from genodl_spark.formats import barcodes, named_columns
from genodl_spark.formats.gdc_counts import GdcCounts, named_after
from genodl_spark.formats.matrix import MatrixFile, Samples
from genodl_spark.formats.sample_table import SampleTable, column_names
from genodl_spark.formats.streams import line_blocks

_ID = ("File ID", "id", "file_id", "file_uuid")
_NAME = ("File Name", "filename", "file_name")
_SIZE = ("size", "file_size")
_TYPE = ("Data Type", "data_type")
_OF = {
    "aliquot": (
        "Aliquot ID", "aliquot_submitter_id", "aliquot_id", "aliquot_ids", "aliquot", "entity_submitter_id",
        "associated_entities.entity_submitter_id", "cases.samples.portions.analytes.aliquots.submitter_id",
    ),
    "sample": ("Sample ID", "sample_submitter_id", "sample_id", "sample_ids", "cases.samples.submitter_id"),
    "case": ("Case ID", "case_submitter_id", "case_id", "case_ids", "cases.submitter_id"),
}  # fmt: skip
_EXPRESSION = "gene expression quantification"
# Columns about the file, not about whom it is of.
_OF_FILE = (
    "id", "file id", "file_id", "file name", "filename", "file_name", "md5", "size", "file_size", "state",
    "data category", "data_category", "data type", "data_type", "experimental_strategy", "workflow_type", "new_id",
    "new_md5", "new_size",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of a sheet. `of`: aliquot, sample and case as far as it names them; `cells`: all, by their columns."""

    line: int
    id: str
    name: str
    size: int | None
    type: str | None
    of: dict[str, str]
    cells: dict[str, str | None]

    @property
    def about(self) -> dict[str, str | None]:
        """Its columns about whom the file is of."""
        return {name: cell for name, cell in self.cells.items() if name.lower() not in _OF_FILE}


@dataclass(frozen=True)
class Sheet(MatrixFile):
    """A sheet holds no values itself: it names the files that do."""

    uri: str
    rows: list[Row]
    samples: list[str] = field(default_factory=list)

    def described(self) -> str:
        return "a sheet of the GDC"

    def runs(self, uri: str, size: int) -> list[Samples]:  # type: ignore[override]
        return []

    @property
    def expression(self) -> list[Row]:
        """Rows of files with gene expression; all where no column says what they are."""
        return [row for row in self.rows if row.type is None or row.type.lower() == _EXPRESSION]


def recognised(head: list[bytes]) -> bool:
    names = [name.strip() for name in head[0].decode("utf-8", "replace").split("\t")] if head else []
    return named_columns.place(names, _NAME) is not None and named_columns.place(names, _ID) is not None


def read(uri: str) -> Sheet:
    """All lines of a sheet. InputError for a ragged one, a file without a name, and one that stands twice."""
    with storage.open_input(uri) as raw:
        text = b"".join(block for _, block in line_blocks(raw, uri))
    head, _, below = text.partition(b"\n")
    names = named_columns.header(head, uri, 1)
    columns, _, lines = named_columns.read(below, len(names), range(len(names)), [], 2, uri)
    cells = [[known(text) for text in column.to_pylist()] for column in columns]
    at = {what: named_columns.place(names, wanted) for what, wanted in
          {"id": _ID, "name": _NAME, "size": _SIZE, "type": _TYPE, **_OF}.items()}  # fmt: skip
    rows: list[Row] = []
    seen: dict[tuple[str, str], Row] = {}
    for i, line in enumerate(lines.tolist()):

        def cell(what: str, i: int = i) -> str | None:
            place = at[what]
            return None if place is None else cells[place][i]

        name, id_, size = cell("name"), cell("id"), cell("size")
        if name is None or id_ is None:
            raise InputError("found a line without the name or the id of a file; expected both", uri, line)
        of = {}
        for level in barcodes.LEVELS:
            if said := sorted({one.strip() for one in (cell(level) or "").split(",")} - {""}):
                of[level] = ", ".join(said)
        told = {name: cells[j][i] for j, name in enumerate(names) if name}
        row = Row(line, id_, name, None if size is None else named_columns.whole(size), cell("type"), of, told)
        first = seen.setdefault((id_, name), row)
        if first is not row:
            if first.cells != row.cells:
                found = f"file {name} stands twice, first on line {first.line}, with other cells"
                raise InputError(f"{found}; expected each once, remove one", uri, line)
            continue
        rows.append(row)
    if not rows:
        raise InputError("found no file below the header; expected one line per file", uri, 2)
    return Sheet(uri, rows)


@dataclass(frozen=True)
class Change:
    """A file that does not come under the name that it has: `action` is renamed or dropped; `became`: the sample."""

    name: str
    action: str
    became: str
    reason: str
    uri: str


class Aliquot(NamedTuple):
    """A file of a sample: the aliquot that it is of, its name, and what tells it from others, its URI."""

    name: str
    file: str
    uri: str


def standing(
    aliquots: Sequence[Aliquot], sample: str, level: str, order: Sequence[str]
) -> tuple[Aliquot, list[Change]]:
    """The one that stands for a sample, the first by `order` (`barcodes.rank`), then by name; the others, dropped."""
    first, *others = sorted(aliquots, key=lambda one: (*barcodes.rank(one.name, order), one.file, one.uri))
    found = f"{len(aliquots)} files of {level} {sample}, {first.name} stands"
    return first, [
        Change(one.name, "dropped", sample, f"{found}: {barcodes.deciding(first.name, one.name, order)}", one.uri)
        for one in others
    ]


@dataclass
class Named:
    """Files of counts under the names of their samples: one of each sample. `columns`: what sheets say of these."""

    headers: dict[str, GdcCounts] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    columns: SampleTable | None = None


def beside(sheet: Sheet) -> list[str]:
    """URIs where the files of a sheet that was given alone are: in a folder of their id as the GDC's client has it,
    or beside the sheet. InputError for one that is not there."""
    folder = posixpath.dirname(sheet.uri)
    found = []
    for row in sheet.expression:
        places = [storage.join(folder, row.id, row.name), storage.join(folder, row.name)]
        uri = next((place for place in places if storage.is_file(place)), None)
        if uri is None:
            raise InputError(
                f"found no file {row.name} in {row.id}/ or beside the sheet; expected the files that it names: "
                "fetch them, or name the folder with them as well",
                sheet.uri,
                row.line,
            )
        found.append(uri)
    return found


def named(files: Mapping[str, GdcCounts], sheets: Sequence[Sheet], level: str, order: Sequence[str]) -> Named:
    """Files by URI under the names that sheets give them: of aliquots, samples or cases, as `level` says.

    Of several files of one sample one stands (`standing`). InputError for a file that sheets do not name or name as no
    sample, or whose size is another than they say.
    """
    made = Named()
    ids = {(row.id, row.name): (sheet, row) for sheet in sheets for row in sheet.rows}
    times = Counter(row.name for sheet in sheets for row in sheet.rows)
    by_name = {row.name: (sheet, row) for sheet in sheets for row in sheet.rows}
    groups: dict[str, list[Aliquot]] = {}
    rows_of: dict[str, Row] = {}
    for uri, header in files.items():
        folder, base = posixpath.basename(posixpath.dirname(uri)), posixpath.basename(uri)
        names = (base, base.removesuffix(".gz"), f"{base}.gz")
        found = next((ids[folder, name] for name in names if (folder, name) in ids), None) or next(
            (by_name[name] for name in names if times[name] == 1), None
        )
        if sheets and found is None:
            raise InputError(
                f"found no line for the file {base}; expected one that says whose it is, or leave the file out",
                sheets[0].uri,
            )
        sample, own = _name(header, found, level)
        if found is not None:
            rows_of[uri] = found[1]
            if found[1].name == base:
                _check_size(uri, *found)
        groups.setdefault(sample, []).append(Aliquot(own, base, uri))
    about: dict[str, dict[str, str | None]] = {}
    for sample, aliquots in groups.items():
        first, dropped = standing(aliquots, sample, level, order)
        made.headers[first.uri] = files[first.uri].named(sample)
        if first.uri in rows_of:
            about[sample] = rows_of[first.uri].about
        if first.name != sample:
            reason = f"the {level} that the {'sheet names' if first.uri in rows_of else 'barcode is of'}"
            made.changes.append(Change(first.name, "renamed", sample, reason, first.uri))
        made.changes += dropped
    made.headers = {uri: made.headers[uri] for uri in files if uri in made.headers}
    if about:
        columns = list(dict.fromkeys(name for cells in about.values() for name in cells))
        stored = column_names(columns)
        rows = {sample: [cells.get(name) for name in columns] for sample, cells in about.items()}
        made.columns = SampleTable(list(stored.values()), rows, {})
    if lost := [row for sheet in sheets for row in sheet.expression]:
        given = {
            name
            for uri in files
            for base in [posixpath.basename(uri)]
            for name in (base, base.removesuffix(".gz"), f"{base}.gz")
        }
        lost = [row for row in lost if row.name not in given]
        if lost:
            made.notes.append(
                f"{len(lost)} files of expression that sheets name were not given, {lost[0].name} the first"
            )
    if other := sum(len(sheet.rows) - len(sheet.expression) for sheet in sheets):
        made.notes.append(f"{other} lines of sheets are about files of other data than gene expression")
    return made


def _check_size(uri: str, sheet: Sheet, row: Row) -> None:
    size = storage.size(uri)
    if row.size is not None and size != row.size:
        found = f"found {size:,} bytes; expected {row.size:,}, as {posixpath.basename(sheet.uri)} says"
        raise InputError(f"{found}: fetch the file again", uri)


def _name(header: GdcCounts, found: tuple[Sheet, Row] | None, level: str) -> tuple[str, str]:
    """What the sample of a file is called, and the aliquot or what else is known best of it."""
    if found is None:
        own = header.samples[0]
        return barcodes.cut(own, level), own
    sheet, row = found
    own = next((row.of[one] for one in ("aliquot", "sample", "case") if one in row.of), named_after(row.name))
    said = row.of.get(level)
    if said is None:
        finer = [row.of[one] for one in barcodes.LEVELS[barcodes.LEVELS.index(level) + 1 :] if one in row.of]
        said = next((cut for name in finer if (cut := barcodes.cut(name, level)) != name), None)
    if said is None and level == "sample" and not row.of:
        said = row.id  # a manifest tells of files alone
    if said is None or "," in said or fault_of_name(said) is not None:
        what = f"{shown(said)} as the {level}" if said else f"no {level}"
        raise InputError(
            f"found {what} of the file {row.name}; expected one name: --set ingest.gdc_name=aliquot, sample or case "
            "says which column names samples",
            sheet.uri,
            row.line,
        )
    return said, own
