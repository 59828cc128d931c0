"""GCT matrices, versions 1.2 and 1.3: two lines of version and counts, then features x samples with columns,
and in 1.3 also rows, that describe them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import MISSING, fault_of_name, known, shown
from genodl_spark.formats import delimited, named_columns
from genodl_spark.formats.delimited import Unreadable
from genodl_spark.formats.matrix import MatrixFile, Samples, in_runs
from genodl_spark.formats.sample_table import SampleTable, column_names
from genodl_spark.formats.streams import line_blocks

SYMBOL = ("pr_gene_symbol", "gene_symbol", "symbol", "genesymbol", "description")


@dataclass(frozen=True)
class Gct(MatrixFile):
    """`above`: lines up to the first feature; `features`: how many the file says that it has; `names`: of the columns;
    `id`, `values`: places of the features' names, and of the samples."""

    samples: list[str]
    version: str
    above: int
    features: int
    names: list[str]
    id: int
    values: list[int]
    columns: SampleTable | None = None
    odd = False

    def described(self) -> str:
        return f"GCT {self.version}"

    def runs(self, uri: str, size: int) -> Iterator[Samples]:
        others = [i for i in range(len(self.names)) if i != self.id and i not in self.values]
        at = named_columns.place([self.names[i] for i in others], SYMBOL)
        symbols: list[str | None] = []

        def blocks() -> Iterator[tuple[list[str], np.ndarray]]:
            lines_of: dict[str, int] = {}
            with storage.open_input(uri) as raw:
                for first, block in _below(line_blocks(raw, uri), self.above):
                    texts = [self.id] if at is None else [self.id, others[at]]
                    named, values, lines = named_columns.read(block, len(self.names), texts, self.values, first, uri)
                    names = named[0].to_pylist()
                    for name, line in zip(names, lines.tolist(), strict=True):
                        fault = fault_of_name(name)
                        if fault is None and name in lines_of:
                            fault = f"feature {name} for the second time, first on line {lines_of[name]}"
                        if fault is not None:
                            raise InputError(f"found {fault}; expected an identifier of its own, mend it", uri, line)
                        lines_of[name] = line
                    if at is not None:
                        symbols.extend(known(text) for text in named[1].to_pylist())
                    yield names, np.stack([named_columns.floats(column) for column in values], axis=1)
            if len(lines_of) != self.features:
                found = f"found {len(lines_of)} features, where line 2 says {self.features}"
                raise InputError(f"{found}; expected as many: fetch the file again", uri, 2)

        yield from in_runs(blocks(), self.samples, size, uri, symbols if at is not None else None)


def _below(blocks: Iterator[tuple[int, bytes]], above: int) -> Iterator[tuple[int, bytes]]:
    """Blocks without the first lines."""
    for first, block in blocks:
        while first <= above and block:
            block, first = block.partition(b"\n")[2], first + 1
        if block:
            yield first, block


def recognised(head: list[bytes]) -> bool:
    return bool(head) and head[0].rstrip().lower() in (b"#1.2", b"#1.3")


def read_header(uri: str) -> Gct:
    """The lines of a GCT before its features. InputError where they contradict each other."""
    with storage.open_input(uri) as raw:
        lines = (line for _, block in line_blocks(raw, uri) for line in block.split(b"\n")[:-1])
        version = next(lines).rstrip().decode()[1:]
        counts = [named_columns.whole(text) for text in next(lines, b"").decode("utf-8", "replace").split("\t") if text]
        expected = 2 if version == "1.2" else 4
        if len(counts) != expected or None in counts:
            what = (
                "features and samples" if expected == 2 else "features, samples, columns of features, rows of samples"
            )
            raise InputError(f"found no {expected} counts; expected the numbers of {what} between tabs", uri, 2)
        features, samples, more, rows = [int(count or 0) for count in [*counts, 0, 0][:4]]
        names = named_columns.header(next(lines, b""), uri, 3)
        if version == "1.2":
            found = [named_columns.place(names, [name]) for name in ("Name", "Description")]
            if None in found:
                raise InputError(
                    f"found columns {', '.join(map(shown, names[:5]))}; expected Name and Description among them",
                    uri,
                    3,
                )
            id_ = found[0] or 0
            values = [i for i in range(len(names)) if i not in found]
        else:
            id_, values = 0, list(range(1 + more, len(names)))
        if len(values) != samples:
            raise InputError(
                f"found {len(values)} samples, where line 2 says {samples}; expected as many: fetch the file again",
                uri,
                3,
            )
        of = [names[i] for i in values]
        for name in of:
            fault = fault_of_name(name) or (f"a word for a missing value, {shown(name)}" if name in MISSING else None)
            if fault is not None:
                raise InputError(f"found {fault} in the header; expected a sample identifier, mend it", uri, 3)
        table: dict[str, list[str | None]] = {}
        for number, line in zip(range(4, 4 + rows), lines, strict=False):
            try:
                cells = delimited.cells(line, "\t")
            except Unreadable as error:
                raise InputError(str(error), uri, number) from error
            if len(cells) < len(names):
                raise InputError(
                    f"found {len(cells)} columns; expected {len(names)}, as many as the header has", uri, number
                )
            table[cells[0].strip()] = [known(cells[i]) for i in values]
    columns = None
    if table:
        stored = column_names(table)
        rows_of = dict(zip(of, map(list, zip(*table.values(), strict=True)), strict=True))
        columns = SampleTable(list(stored.values()), rows_of, {a: b for a, b in stored.items() if a != b})
    return Gct(of, version, 3 + rows, features, names, id_, values, columns)
