"""Gene counts as the GDC hands them out, a file for each aliquot: STAR's with named columns, of any release,
and HTSeq's without a header. Rows of totals (N_unmapped, __no_feature and the like) are no genes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import fault_of_name, shown
from genodl_spark.formats import delimited, named_columns
from genodl_spark.formats.matrix import MatrixFile, Samples
from genodl_spark.formats.streams import line_blocks

GENE = ("gene_id", "gene", "#gene")
SYMBOL = ("gene_name", "gene_symbol", "symbol")
COUNTS = ("unstranded", "stranded_first", "stranded_second")
UNITS = {**dict.fromkeys(COUNTS, "counts"), "tpm": "TPM", "fpkm": "FPKM", "fpkm_uq": "FPKM-UQ"}
_WHOLE = 64 << 20  # bytes of a block: a file is one
_TOTALS = r"^(N_[A-Za-z]+|__[a-z_]+)$"
_WITHOUT_HEADER = re.compile(rb"(ENS[A-Z]*G\d{11}[\w.]*|__[a-z_]+)\t[^\t]*")

_SUFFIX = re.compile(
    r"(\.(rna_seq|(augmented_)?star_gene_counts|htseq|counts|htseq_counts|fpkm(-uq)?|genes|tsv|txt|tab|b?gz))+$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class GdcCounts(MatrixFile):
    """Header of a file of counts. `above`: lines up to its end; `width`: columns; `gene`, `symbol`, `value`: places
    of these. `bare`: HTSeq's, without names. The sample is called after the file until a sheet names it."""

    samples: list[str]
    above: int
    width: int
    gene: int
    symbol: int | None
    value: int
    column: str
    bare: bool = False
    odd = False

    @property
    def unit(self) -> str | None:  # type: ignore[override]
        return UNITS.get(self.column.removesuffix("_unstranded") if self.column not in UNITS else self.column)

    def described(self) -> str:
        return (
            f"GDC gene values of HTSeq, taken for {self.column}"
            if self.bare
            else f"GDC gene counts, column {self.column}"
        )

    def named(self, sample: str) -> GdcCounts:
        return replace(self, samples=[sample])

    def runs(self, uri: str, size: int) -> Iterator[Samples]:
        with storage.open_input(uri) as raw:
            blocks = [block for _, block in line_blocks(raw, uri, _WHOLE)]
        text = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        at = 0
        for _ in range(self.above):
            at = text.index(b"\n", at) + 1
        texts = [self.gene] if self.symbol is None else [self.gene, self.symbol]
        named, (values,), lines = named_columns.read(text, self.width, texts, [self.value], self.above + 1, uri, at)
        genes = _genes(named, lines, uri)
        if not genes.names:
            raise InputError("found no gene below the header; expected one line per gene", uri, self.above + 1)
        kept = named_columns.floats(values)[genes.kept]
        self._check(kept, genes.kept, lines, uri)
        yield Samples(self.samples, genes.names, kept[None, :], genes.symbols, genes.left)

    def _check(self, values: np.ndarray, kept: np.ndarray, lines: np.ndarray, uri: str) -> None:
        """InputError for counts that are none, and for other values of a file without names that are counts."""
        none = np.flatnonzero(~((values >= 0) & (values == np.floor(values)) | np.isnan(values)))
        advice = "say which values these are with --set ingest.gdc_column=NAME, or leave the file out"
        if self.column in COUNTS and len(none):
            found = f"found {values[none[0]]:g} as a count of reads"
            raise InputError(f"{found}; expected a whole number: {advice}", uri, int(lines[kept][none[0]]))
        if self.bare and self.column not in COUNTS and not len(none):
            raise InputError(f"found whole numbers alone; expected {self.unit}: {advice}", uri, int(lines[0]))


@dataclass(frozen=True)
class _Genes:
    names: list[str]
    kept: np.ndarray
    symbols: list[str | None] | None
    left: tuple[str, ...]


_last: list[tuple[list[pa.Array], _Genes]] = []  # files of one release have the same genes: their names are made once


def _genes(named: list[pa.Array], lines: np.ndarray, uri: str) -> _Genes:
    """Names of the rows that are genes, and their symbols where `named` has them.
    InputError for one that stands twice or is none."""
    if _last and len(_last[0][0]) == len(named) and all(map(pa.Array.equals, _last[0][0], named)):
        return _last[0][1]
    column = named[0]
    totals = pc.match_substring_regex(column, _TOTALS)
    kept = ~totals.to_numpy(zero_copy_only=False).astype(bool)
    genes = column.filter(pa.array(kept))
    odd = delimited.odd_names(genes)
    if pc.any(odd).as_py():
        row = np.flatnonzero(odd.to_numpy(zero_copy_only=False))[0]
        found = f"found {fault_of_name(genes[row].as_py())}"
        raise InputError(f"{found}; expected a gene's identifier, mend it", uri, int(lines[kept][row]))
    names = genes.to_pylist()
    if len(set(names)) != len(names):
        seen: dict[str, int] = {}
        for name, line in zip(names, lines[kept].tolist(), strict=True):
            if name in seen:
                found = f"gene {name} stands twice, first on line {seen[name]}"
                raise InputError(f"{found}; expected each once, fetch the file again", uri, line)
            seen[name] = line
    symbols = None if len(named) < 2 else [text or None for text in named[1].filter(pa.array(kept)).to_pylist()]
    made = _Genes(names, kept, symbols, tuple(column.filter(totals).to_pylist()))
    _last[:] = [(named, made)]
    return made


def recognised(head: list[bytes]) -> bool:
    """Whether the first lines of a file are those of such a file."""
    found = next(((i, line) for i, line in enumerate(head) if line.strip() and not _is_comment(line)), None)
    if found is None:
        return False
    if _WITHOUT_HEADER.fullmatch(found[1].rstrip(b"\t")):
        return True
    names = [name.strip().lower() for name in found[1].decode("utf-8", "replace").split("\t")]
    comments = any(b"gene-model" in line for line in head[: found[0]])
    return comments or (any(name in GENE for name in names) and any(map(_is_value, names)))


def _is_comment(line: bytes) -> bool:
    return line.startswith(b"#") and not line.startswith(b"#gene\t")


def _is_value(name: str) -> bool:
    return name in COUNTS or name.endswith("_unstranded")


def read_header(head: list[bytes], file: str, column: str) -> GdcCounts:
    """The header among the first lines of a file. InputError where `column` is not in it."""
    number, line = next((i, line) for i, line in enumerate(head, 1) if line.strip() and not _is_comment(line))
    name = named_after(file)
    if _WITHOUT_HEADER.fullmatch(line.rstrip(b"\t")):
        return GdcCounts([name], number - 1, 2, 0, None, 1, column, bare=True)
    names = named_columns.header(line, file, number)
    gene, value = named_columns.place(names, GENE), named_columns.place(names, [column])
    if gene is None or value is None:
        lacking = f"column {column}" if gene is not None else "column gene_id"
        there = ", ".join(shown(name) for name in names[:10])
        raise InputError(
            f"found columns {there}; expected {lacking}; --set ingest.gdc_column=NAME says which is stored",
            file,
            number,
        )
    return GdcCounts([name], number, len(names), gene, named_columns.place(names, SYMBOL), value, column)


def named_after(file: str) -> str:
    """What a sample is called that only its file's name tells of."""
    return _SUFFIX.sub("", posixpath.basename(file))
