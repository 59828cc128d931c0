"""Records of a region with the calls of chosen samples, straight from the lake's files:
milliseconds, without a Spark job.

For a process that stays, such as a notebook or a server. The live files of the newest version
of `variants` come from its log, which is read once and from then on only where it has grown.
Files are left out by cohort, contig and their statistics of pos and end, row groups by those in the file's footer;
footers are kept, as no file of a table ever changes. Calls of samples that were not asked for are never taken apart.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.genotype_text import ABSENT, MISSING
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.lake.files import opened
from genodl_spark.lake.live import HIGHEST, LOWEST, LiveFile, LiveFiles, Spans
from genodl_spark.lake.tables.ingested import SAMPLE_SETS, VARIANTS

_SHOWN = ["chrom", "pos", "end", "id", "ref", "alts", "qual", "filters", "info"]
_ORDER = ["pos", "file", "line", "alt_number"]
_READ = list(dict.fromkeys([*_SHOWN, *_ORDER, "gt", "n_samples", "sample_set"]))
_TYPES = VARIANTS.arrow_schema()
_KEPT_FOOTERS, _KEPT_LAKES = 4096, 16


def read(
    lake_uri: str,
    cohort: str,
    contig: str,
    start: int,
    end: int,
    samples: list[str] | None = None,
    form: Literal["dosage", "alleles"] = "dosage",
) -> pa.Table:
    """The V records of a cohort that have a base in [`start`, `end`] (1-based, closed),
    also those that start before it, by pos.

    `contig` may be named as in the files or as in the lake (chr20, 20). Columns: chrom, pos, end, id, ref, alts,
    qual, filters, info, and for n `samples` in the order given, or for all samples of the records found (by sample set
    as first met, then by position):

    - form "dosage": `dosage` fixed_size_list<int8>[n], copies of the first ALT;
      -1 where any allele of the call is missing.
    - form "alleles": `alleles` fixed_size_list<fixed_size_list<int16>[P]>[n], P the highest ploidy found (at least 1),
      -1 missing, -2 past the end of a call of lower ploidy; and `phased`, bool alike:
      of the separator before the allele.

    Records of several sample sets stand in one table:
    -2 fills what a record says nothing of because its set lacks the sample. A record without GT has NULL.
    `matrix` gives the NumPy array. The samples' names are in the schema's metadata under `samples`, as JSON.
    InputError for a lake or cohort that is not there, and for a sample that no sample set of the lake has.
    """
    if start > end or end < 0:
        raise InputError(
            f"found region {contig}:{start}-{end}; expected a first base that is not behind the last, 1-based", lake_uri
        )
    lake = _lake(storage.absolute(lake_uri))
    rows = lake.again_if_gone(lambda: _records(lake, cohort, shared_contig(contig), start, end))
    sets = pc.unique(rows.column("sample_set")).to_pylist()
    if samples is None:
        names = list(dict.fromkeys(name for set_ in sets for name in lake.positions(set_)))
    else:
        names = list(samples)
        lake.check_known(names, sets)
    shown = rows.select(_SHOWN)
    for name, column in _calls(rows, [(set_, lake.positions(set_)) for set_ in sets], names, form).items():
        shown = shown.append_column(name, column)
    return shown.replace_schema_metadata({"samples": json.dumps(names)})


def matrix(rows: pa.Table, column: str = "dosage") -> np.ndarray:
    """A column of calls that `read` made as an array: `dosage` int8 (V, n), `alleles` int16 or `phased` bool (V, n, P).

    A record without GT is missing throughout: -1.
    """
    values = rows.column(column).combine_chunks()
    shape = [len(values)]
    while pa.types.is_fixed_size_list(values.type):
        size = values.type.list_size
        shape.append(size)
        values = values.values.slice(values.offset * size, len(values) * size)
    return values.to_numpy(zero_copy_only=False).reshape(shape)


class _Lake:
    """What is kept of one lake. Threads may share it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.lock = threading.RLock()
        self.variants, self._sample_sets = LiveFiles(uri, VARIANTS), LiveFiles(uri, SAMPLE_SETS)
        self._positions: dict[str, dict[str, int]] = {}

    def again_if_gone(self, work: Callable[[], pa.Table]) -> pa.Table:
        """`work()`, once more from the log where a file is gone: it was vacuumed away after the log was read,
        or the lake made anew."""
        try:
            return work()
        except FileNotFoundError:
            with self.lock:
                self.variants.forget()
            return work()

    def positions(self, sample_set: str) -> dict[str, int]:
        """Sample -> its position in the packed columns of a sample set, in this order."""
        if sample_set not in self._positions:
            self._load()
        return self._positions[sample_set]

    def check_known(self, names: Sequence[str], sets: list[str]) -> None:
        missing = {name for name in names if not any(name in self.positions(set_) for set_ in sets)}
        if missing:
            self._load()
            for known in self._positions.values():
                missing -= known.keys()
        if missing:
            raise InputError(f"found no sample {min(missing)}; expected names as in table sample_sets", self.uri)

    def _load(self) -> None:
        with self.lock:
            files = [file for listed, _ in self._sample_sets.files().values() for file in listed]
        rows = pa.concat_tables([SAMPLE_SETS.arrow_schema().empty_table(), *(_sample_set_rows(file) for file in files)])
        rows = rows.sort_by([("sample_set", "ascending"), ("position", "ascending")])
        found: dict[str, dict[str, int]] = {}
        for set_, position, name in zip(*(rows.column(c).to_pylist() for c in SAMPLE_SETS.column_names), strict=True):
            found.setdefault(set_, {})[name] = position
        self._positions = found


def _sample_set_rows(file: LiveFile) -> pa.Table:
    return _table(file, None, SAMPLE_SETS.column_names).cast(SAMPLE_SETS.arrow_schema())


@lru_cache(_KEPT_LAKES)
def _lake(uri: str) -> _Lake:
    return _Lake(uri)


@lru_cache(_KEPT_FOOTERS)
def _footer(file: LiveFile) -> tuple[pq.FileMetaData, Spans]:
    with opened(file.uri, file.checksum, lambda _: []) as stored:
        footer = stored.metadata
    columns = {footer.schema.column(i).path: i for i in range(footer.num_columns)}

    def bounds(name: str, side: str, unknown: int) -> np.ndarray:
        found = []
        for group in range(footer.num_row_groups):
            stated = footer.row_group(group).column(columns[name]).statistics if name in columns else None
            found.append(getattr(stated, side) if stated is not None and stated.has_min_max else unknown)
        return np.array(found, np.int64)

    return footer, Spans(bounds("pos", "min", LOWEST), bounds("end", "max", HIGHEST))


def _table(file: LiveFile, groups: list[int] | None, names: list[str]) -> pa.Table:
    """Columns of a file, of some row groups or of all. InputError where it lacks one."""
    footer, _ = _footer(file)
    with opened(file.uri, file.checksum, None if groups is None else lambda _: groups, footer) as stored:
        rows = stored.read(columns=names) if groups is None else stored.read_row_groups(groups, columns=names)
    lacking = [name for name in names if name not in rows.column_names]
    if lacking:
        raise InputError(
            f"found no column {lacking[0]}; expected the columns of this version, ingest the cohort again", file.uri
        )
    return rows.select(names)


def _records(lake: _Lake, cohort: str, contig: str, start: int, end: int) -> pa.Table:
    """Columns `_READ` of the records that overlap, sorted."""
    with lake.lock:
        files = lake.variants.files()
        stored, spans = files.get((cohort, contig), ([], None))
        if spans is None and not any(key[0] == cohort for key in files):
            known = sorted({key[0] for key in files})
            raise InputError(
                f"cohort {cohort} has no variants; expected one of {', '.join(known[:5]) or 'none: ingest some first'}",
                lake.uri,
            )
    schema = pa.schema([_TYPES.field(name) for name in _READ])
    found = [schema.empty_table()]
    for i in spans.overlapping(start, end).tolist() if spans is not None else []:
        groups = _footer(stored[i])[1].overlapping(start, end)
        if not len(groups):
            continue
        rows = _table(stored[i], groups.tolist(), _READ)
        places = np.flatnonzero((rows.column("pos").to_numpy() <= end) & (rows.column("end").to_numpy() >= start))
        if len(places):
            together = places[-1] - places[0] + 1 == len(places)
            rows = rows.slice(places[0], len(places)) if together else rows.take(pa.array(places))
            found.append(rows.cast(schema))
    rows = pa.concat_tables(found).combine_chunks()
    if (np.diff(rows.column("pos").to_numpy()) <= 0).any():
        rows = rows.take(pc.sort_indices(rows, [(name, "ascending") for name in _ORDER]))
    return rows


def _calls(rows: pa.Table, sets: list[tuple[str, dict[str, int]]], names: list[str], form: str) -> dict[str, pa.Array]:
    """The columns of calls: `names` of the samples wanted, `sets` the sample sets of the records
    with their samples' positions."""
    n, gt = len(names), rows.column("gt").combine_chunks()
    gt = gt if isinstance(gt, pa.Array) else gt.chunk(0) if gt.num_chunks else pa.array([], pa.binary())
    given = gt.is_valid().to_numpy(zero_copy_only=False)
    of = pc.index_in(rows.column("sample_set"), pa.array([set_ for set_, _ in sets], pa.string())).to_numpy()
    sizes = rows.column("n_samples").to_numpy()
    pieces: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]] = []
    for i, (_, positions) in enumerate(sets):
        places = np.flatnonzero((of == i) & given)
        columns = np.array([k for k, name in enumerate(names) if name in positions], np.int64)
        if len(places) and len(columns):
            chosen = np.array([positions[names[k]] for k in columns], np.int32)
            packed = gt if len(places) == len(gt) else gt.take(pa.array(places))
            samples = int(sizes[places[0]])
            taken = (
                [genotypes.dosages(packed, samples, chosen=chosen)]
                if form == "dosage"
                else list(genotypes.unpack(packed, samples, chosen))
            )
            pieces.append((places, columns, taken))

    def filled(k: int, fill: int | bool, type_: type, *shape: int) -> np.ndarray:
        if len(pieces) == 1 and pieces[0][2][k].shape == shape:
            return pieces[0][2][k]
        out: np.ndarray = np.full(shape, fill, type_)
        for places, columns, taken in pieces:
            out[np.ix_(places, columns, *(np.arange(size) for size in taken[k].shape[2:]))] = taken[k]
        out[~given] = MISSING if fill else fill
        return out

    if form == "dosage":
        return {"dosage": _lists(filled(0, ABSENT, np.int8, len(gt), n), given)}
    ploidy = max((taken[0].shape[2] for _, _, taken in pieces), default=1)
    alleles, phased = filled(0, ABSENT, np.int16, len(gt), n, ploidy), filled(1, False, np.bool_, len(gt), n, ploidy)
    return {"alleles": _lists(alleles, given), "phased": _lists(phased, given)}


def _lists(values: np.ndarray, valid: np.ndarray) -> pa.Array:
    """`values` (V, n[, P]) as fixed-size lists, NULL where `valid` (V,) is false."""
    array = pa.array(values.reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        length = int(np.prod(values.shape[:axis]))
        mask = pa.py_buffer(np.packbits(valid, bitorder="little")) if axis == 1 and not valid.all() else None
        array = pa.Array.from_buffers(pa.list_(array.type, values.shape[axis]), length, [mask], children=[array])
    return array
