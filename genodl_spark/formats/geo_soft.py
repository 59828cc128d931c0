"""SOFT files of GEO: data sets (GDS), families of a series or platform, and single samples (GSM).

`^ENTITY = NAME` begins an entity, `!` lines tell of it, `#` lines of its columns, and a table of it stands between
`!..._table_begin` and `!..._table_end`. A data set has one table of probes x samples, a platform one of its probes,
a sample one of its own values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import fault_of_name, known, shown
from genodl_spark.formats import geo_series, named_columns
from genodl_spark.formats.matrix import MatrixFile, Samples, in_runs
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.formats.streams import line_blocks

_LINE = re.compile(rb"(?m)^[\^!].*$")
_IN_TABLE = re.compile(rb"(?mi)^(\^.*|!\w+_table_(begin|end)[ \t]*)$")
_FIRST = re.compile(rb"\^\w+\s*=", re.IGNORECASE)
SYMBOL = (
    "Gene Symbol",
    "GENE_SYMBOL",
    "Symbol",
    "ILMN_Gene",
    "GeneSymbol",
    "GENE",
    "gene_name",
    "gene_assignment",
    "IDENTIFIER",
)


class _Part(NamedTuple):
    """A line `^` or `!` (key and value), or a table (`text` below its header, whose line is `line`; `rows`)."""

    line: int
    mark: str
    key: str
    value: str = ""
    head: bytes = b""
    text: bytes = b""
    rows: int = 0


def _parts(uri: str, keep: bool) -> Iterator[_Part]:
    """What a file is made of; the text of tables only where it is to be kept. InputError for a table without an
    end, or within another."""
    with storage.open_input(uri) as raw:
        begun = 0  # the line on which a table began
        held: list[bytes] = []
        head, rows, last = b"", 0, 1
        for first, block in line_blocks(raw, uri):
            at, last = 0, first + block.count(b"\n") - 1
            while True:
                found = (_IN_TABLE if begun else _LINE).search(block, at)
                if begun:
                    text = block[at : found.start() if found else len(block)]
                    if text and not head.strip():
                        head, _, text = text.lstrip(b"\n").partition(b"\n")
                    rows += text.count(b"\n")
                    if keep:
                        held.append(text)
                if found is None:
                    break
                line = first + block.count(b"\n", 0, found.start())
                at = min(found.end() + 1, len(block))
                said = found.group().decode("utf-8", "replace").strip()
                key, _, value = said[1:].partition("=")
                key, value = key.strip(), value.strip()
                lower = key.lower()
                if begun:
                    if not lower.endswith("_table_end"):
                        what = "found another table or entity before the end of the table"
                        raise InputError(f"{what} of line {begun}; expected !..._table_end first", uri, line)
                    yield _Part(begun + 1, "table", lower.removesuffix("_table_end"), "", head, b"".join(held), rows)
                    begun, head, rows, held = 0, b"", 0, []
                elif lower.endswith("_table_begin"):
                    begun = line
                else:
                    yield _Part(line, said[0], key, value)
        if begun:
            found_ = "found no !..._table_end up to the file's end"
            raise InputError(f"{found_}; expected it behind the table: fetch the file again", uri, last)


@dataclass(frozen=True)
class GeoSoft(MatrixFile):
    """`of_dataset`: whether the values are in one table, of a data set. `left`: samples without a value."""

    samples: list[str]
    of_dataset: bool
    columns: SampleTable | None = None
    left: list[str] = field(default_factory=list)
    odd = False

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        if not self.left:
            return ()
        return (f"{len(self.left)} samples without a table of values are left out, {self.left[0]} the first",)

    def described(self) -> str:
        return "GEO data set (SOFT)" if self.of_dataset else "GEO samples (SOFT)"

    def runs(self, uri: str, size: int) -> Iterator[Samples]:
        symbols: dict[str, dict[str, str | None]] = {}  # by platform
        entity, platform = "", ""
        last: list[str] = []
        for part in _parts(uri, keep=True):
            if part.mark == "^":
                entity, platform = part.value, part.value if part.key.lower() == "platform" else ""
            elif part.key.lower() == "sample_platform_id":
                platform = part.value
            elif part.mark == "table" and part.key == "platform":
                symbols[entity] = dict(_annotations(part, uri))
            elif part.mark == "table" and part.key == "dataset":
                yield from self._dataset(part, size, uri)
            elif part.mark == "table" and part.key == "sample" and entity in self.samples:
                names = named_columns.header(part.head, uri, part.line)
                id_, value = (_required(names, name, part, uri) for name in ("ID_REF", "VALUE"))
                named, (values,), lines = named_columns.read(part.text, len(names), [id_], [value], part.line + 1, uri)
                features = named[0].to_pylist()
                if features == last:
                    features = last
                _check_names(features, lines, uri)
                last = features
                of = symbols.get(platform)
                yield Samples(
                    [entity],
                    features,
                    named_columns.floats(values)[None, :],
                    None if of is None else [of.get(name) for name in features],
                )

    def _dataset(self, part: _Part, size: int, uri: str) -> Iterator[Samples]:
        names = named_columns.header(part.head, uri, part.line)
        id_ = _required(names, "ID_REF", part, uri)
        texts = [id_] + ([at] if (at := named_columns.place(names, SYMBOL)) is not None else [])
        places = [_required(names, sample, part, uri) for sample in self.samples]
        named, values, lines = named_columns.read(part.text, len(names), texts, places, part.line + 1, uri)
        features = named[0].to_pylist()
        _check_names(features, lines, uri)
        symbols = None if at is None else [known(text) for text in named[1].to_pylist()]
        block = (features, np.stack([named_columns.floats(column) for column in values], axis=1))
        yield from in_runs([block], self.samples, size, uri, symbols)


def _required(names: list[str], name: str, part: _Part, uri: str) -> int:
    at = named_columns.place(names, [name])
    if at is None:
        raise InputError(
            f"found columns {', '.join(map(shown, names[:8]))}; expected {name} among them", uri, part.line
        )
    return at


def _check_names(names: list[str], lines: np.ndarray, uri: str) -> None:
    seen: dict[str, int] = {}
    for name, line in zip(names, lines.tolist(), strict=True):
        fault = fault_of_name(name)
        if fault is None and name in seen:
            fault = f"probe {name} for the second time, first on line {seen[name]}"
        if fault is not None:
            raise InputError(f"found {fault}; expected an identifier of its own, mend it", uri, line)
        seen[name] = line


def _annotations(part: _Part, uri: str) -> Iterator[tuple[str, str | None]]:
    """Symbols of a platform's probes; of `accession // SYMBOL // ...` the second."""
    names = named_columns.header(part.head, uri, part.line)
    at = named_columns.place(names, SYMBOL)
    if at is None or not part.rows:
        return
    id_ = _required(names, "ID", part, uri)
    (ids, symbols), _, _ = named_columns.read(part.text, len(names), [id_, at], [], part.line + 1, uri)
    assigned = names[at].lower() == "gene_assignment"
    for probe, text in zip(ids.to_pylist(), symbols.to_pylist(), strict=True):
        if assigned:
            text = text.split(" // ")[1] if text.count(" // ") else ""
        symbol = known(text)
        yield probe, None if symbol == "---" else symbol


def recognised(head: list[bytes]) -> bool:
    return next((bool(_FIRST.match(line)) for line in head if line.strip()), False)


def read_header(uri: str) -> GeoSoft:
    """Samples that have values, and what is said of them. InputError where there are none, or a sample twice."""
    said: dict[str, dict[str, list[str]]] = {}
    subset: dict[str, str] = {}
    entity = kind = ""
    with_values: list[str] = []
    line_of: dict[str, int] = {}
    dataset: _Part | None = None

    def close_subset() -> None:
        for sample in filter(None, map(str.strip, subset.get("subset_sample_id", "").split(","))):
            values = said.setdefault(sample, {})
            values.setdefault(subset.get("subset_type", "subset"), []).append(subset.get("subset_description", ""))
        subset.clear()

    for part in _parts(uri, keep=False):
        if part.mark == "^":
            close_subset()
            kind, entity = part.key.lower(), part.value
            if kind == "sample":
                if entity in line_of:
                    first = f"first on line {line_of[entity]}"
                    raise InputError(f"sample {entity} stands twice, {first}; expected each once", uri, part.line)
                if (fault := fault_of_name(entity)) is not None:
                    raise InputError(f"found {fault}; expected the sample's accession", uri, part.line)
                line_of[entity] = part.line
                said[entity] = {}
        elif part.mark == "table":
            if part.key == "sample" and part.rows:
                if entity in with_values:
                    raise InputError(f"found a second table of sample {entity}; expected one", uri, part.line - 1)
                with_values.append(entity)
            elif part.key == "dataset":
                if dataset is not None:
                    raise InputError("found a second table of the data set; expected one", uri, part.line - 1)
                dataset = part
        elif kind == "subset":
            subset[part.key.lower()] = part.value
        elif kind == "sample":
            geo_series.add(said[entity], re.sub("^sample_", "", part.key, flags=re.IGNORECASE), part.value)
    close_subset()
    if dataset is not None:
        if not dataset.rows:
            raise InputError("found a table without a row; expected values of probes", uri, dataset.line)
        names = named_columns.header(dataset.head, uri, dataset.line)
        samples = [name for name in names if name in said] if said else [n for n in names if n.startswith("GSM")]
        if lacking := sorted(set(said) - set(samples)):
            raise InputError(
                f"found no column of {len(lacking)} samples, {lacking[0]} the first, that subsets name; "
                "expected one for each: fetch the file again",
                uri,
                dataset.line,
            )
    else:
        samples = with_values
    if not samples:
        found = f"found {len(line_of)} samples, none with a table of values" if line_of else "found no sample"
        raise InputError(f"{found}; expected values: series of sequencing have theirs in supplementary files", uri, 1)
    left = [] if dataset is not None else [sample for sample in line_of if sample not in with_values]
    return GeoSoft(samples, dataset is not None, geo_series.table_of(said, samples), left)
