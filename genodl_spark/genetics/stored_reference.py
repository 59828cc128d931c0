"""Windows of a reference genome from the lake's own files, in a task or on the driver: no FASTA, no JVM.

Row groups are found by their statistics of contig and position; the last ones read are kept, as windows mostly come in
order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import InputError, Refused
from genodl_spark.genome.bases import NO_BASE, UNKNOWN_BASE, base_codes
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.lake.files import StoredFile, opened
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.genomes import REFERENCE_BASES

_KEPT = 2  # row groups, of at most about 32 MiB each
_COLUMNS = ["contig", "name", "first", "last", "bases"]
_Ends = tuple[str, str, int, int]  # least and greatest contig, first and last base of a row group


class StoredReference:
    """The reference of a cohort, by files of `reference_bases`. Contigs answer to their name with and without chr."""

    def __init__(self, files: Sequence[StoredFile]) -> None:
        self._files = list(files)
        self._ends: list[tuple[StoredFile, int, _Ends]] | None = None
        self._kept: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    @staticmethod
    def chosen(lake: Snapshot, named: str, own: str) -> str:
        """The cohort whose reference counts: the one `named`; without a name `own`, or the only one there is.
        InputError where there is none such."""
        among = lake.cohorts(REFERENCE_BASES)
        if named in among:
            return named
        if not named and (own in among or len(among) == 1):
            return own if own in among else among[0]
        found = f"found {named or 'no name'} among {', '.join(among[:5]) or 'none'}"
        raise InputError(
            f"{found}; expected one that has a reference: genodl ingest reference, or --set reference=NAME", "reference"
        )

    @classmethod
    def of(cls, lake: Snapshot, cohort: str) -> StoredReference:
        """InputError where the cohort has no reference."""
        mine = lake.cohort_files(REFERENCE_BASES, cohort)
        if not mine:
            raise InputError("found no reference; expected one, genodl ingest reference FASTA", f"cohort {cohort}")
        return cls(mine)

    def __reduce__(self) -> tuple[type, tuple[list[StoredFile]]]:
        return (StoredReference, (self._files,))

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """Bases [start, end) of `contig`, 0-based, as in the file. Refused where no sequence has them all."""
        name = shared_contig(contig)
        parts: dict[str, list[tuple[int, bytes]]] = {}
        for file, group, (low, high, first, last) in self._groups():
            if low <= name <= high and first <= end and last > start:
                rows = self._rows(file, group)
                firsts, lasts = rows.column("first").to_numpy(), rows.column("last").to_numpy()
                mine = np.asarray(pc.equal(rows.column("contig"), name)) & (firsts <= end) & (lasts > start)
                for row in np.flatnonzero(mine):
                    found = rows.column("bases")[row].as_py()
                    parts.setdefault(rows.column("name")[row].as_py(), []).append((int(firsts[row]) - 1, found))
        for pieces in parts.values():
            pieces.sort()
            at, text = pieces[0][0], b"".join(bases for _, bases in pieces)
            if at <= start and at + len(text) >= end:
                return text[start - at : end - at]
        raise Refused(f"found no bases {start + 1}-{end} of {contig[:40]!r} in the reference; expected a whole contig")

    def codes(self, contig: str, start: int, end: int) -> np.ndarray:
        """Base codes int8 (end - start,) of [start, end) of `contig`, 0-based: -1 for an unknown base,
        `bases.NO_BASE` where no sequence has one. Where several have one, the last of them counts."""
        name = shared_contig(contig)
        found = np.full(end - start, NO_BASE, np.int8)
        for file, group, (low, high, first, last) in self._groups():
            if low <= name <= high and first <= end and last > start:
                rows = self._rows(file, group)
                firsts, lasts = rows.column("first").to_numpy(), rows.column("last").to_numpy()
                mine = np.asarray(pc.equal(rows.column("contig"), name)) & (firsts <= end) & (lasts > start)
                for row in np.flatnonzero(mine):  # a chunk of many bases each
                    at = int(firsts[row]) - 1
                    a, b = max(start, at), min(end, int(lasts[row]))
                    letters = np.frombuffer(rows.column("bases")[row].as_buffer(), np.uint8)[a - at : b - at]
                    found[a - start : b - start] = np.maximum(base_codes(letters), UNKNOWN_BASE)
        return found

    def _groups(self) -> list[tuple[StoredFile, int, _Ends]]:
        if self._ends is None:
            self._ends = []
            for file in self._files:
                with opened(file.uri, file.checksum, lambda _: []) as stored:
                    footer = stored.metadata
                places = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
                for group in range(footer.num_row_groups):
                    stats = {name: footer.row_group(group).column(places[name]).statistics for name in _COLUMNS[:-1]}
                    contig, first, last = stats["contig"], stats["first"], stats["last"]
                    self._ends.append((file, group, (contig.min, contig.max, first.min, last.max)))
        return self._ends

    def _rows(self, file: StoredFile, group: int) -> pa.Table:
        key = (file.uri, group)
        if key not in self._kept:
            with opened(file.uri, file.checksum, lambda _: [group]) as stored:
                self._kept[key] = stored.read_row_group(group, columns=_COLUMNS).combine_chunks()
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
