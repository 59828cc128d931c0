"""SQL functions over packed genotypes, the columns `gt` and `n_samples` of `variants` and of the `vcf` data source.

    dosage(gt, n_samples[, allele])              array<tinyint>: copies of an ALT (1, the first, unless given) in each
                                                 sample; a NULL element where any allele of the call is missing
    alleles(gt, n_samples)                       array<string>: the calls as text, "0|1"
    allele_counts(gt, n_samples[, allele])       struct of bigint: copies of the ALT, called alleles;
                                                 and calls that are all-reference (hom_ref), het, otherwise homozygous
                                                 (hom_alt), with a missing allele
    dosage_at(gt, n_samples, position[, allele]) tinyint: that of one sample, at its 0-based
    position as in `sample_sets`
    genotype_at(gt, n_samples, position)         string: that of one sample

An argument that is NULL makes the result NULL. A position that is not below n_samples is an error.
Of calls of VCF 4.4 and later, text states the phase of the first allele only where it is phased and not all others are.

Spark hands batches over as pandas Series; what is in them stays in Arrow and NumPy, and no call is a Python object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from genodl_spark.core import session
from genodl_spark.core.errors import InputError
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.genotype_text import MISSING
from genodl_spark.genetics.genotypes import call_texts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_COUNTS = {"copies": 0, "called": 1, "hom_ref": 3, "het": 4, "hom_alt": 5, "missing": 6}  # columns of genotypes.counts
_MOST_CALLS = 2**31 - 1  # of a batch, in the lists of a column
_AT_A_TIME = 1 << 22  # calls taken apart together


def register(spark: SparkSession, names: Collection[str] | None = None) -> None:
    """Makes the functions known to a session: those of `names`, where these are given, else all."""
    from pyspark.sql.pandas import functions

    # its stubs know neither a variable number of columns nor a DataFrame as result
    pandas_udf: Any = functions.pandas_udf
    for name, (function, type_) in _FUNCTIONS.items():
        if names is not None and name not in names:
            continue
        if type_ == _STRUCT:
            # A pandas UDF cannot make a NULL struct; a SQL function around it can.
            spark.udf.register(f"_{name}", pandas_udf(function, type_))
            definition = (
                f"CREATE OR REPLACE TEMPORARY FUNCTION {name}(gt BINARY, n_samples INT, "
                f"allele INT DEFAULT 1) RETURNS {type_} RETURN IF(gt IS NULL OR n_samples IS NULL OR allele IS NULL, "
                f"NULL, _{name}(gt, n_samples, allele))"
            )
            # By Spark's own parser: that of a session which may only read would refuse it.
            jvm: Any = spark._jvm
            session.planned(spark, jvm.org.apache.spark.sql.execution.SparkSqlParser().parsePlan(definition))
        else:
            spark.udf.register(name, pandas_udf(function, type_))


def dosage(gt: pd.Series, n_samples: pd.Series, *allele: pd.Series) -> pd.Series:
    rows = _Rows(gt, n_samples, *allele)
    values = np.empty(rows.total(), np.int8)
    for piece, samples in rows.pieces():
        values[rows.places(piece)] = genotypes.dosages(
            rows.packed(piece), samples, rows.arguments[0][piece] if allele else 1
        )
    return rows.lists(pa.array(values, mask=values == MISSING))


def alleles(gt: pd.Series, n_samples: pd.Series) -> pd.Series:
    rows = _Rows(gt, n_samples)
    rows.total()
    texts: list[pa.Array] = []
    order = []
    for piece, samples in rows.pieces():
        texts.append(call_texts(*genotypes.unpack(rows.packed(piece), samples)))
        order.append(rows.places(piece).reshape(-1))
    joined = pa.concat_arrays([pa.array([], pa.string()), *texts])
    return rows.lists(joined if len(order) <= 1 else joined.take(pa.array(np.argsort(np.concatenate(order)))))


def allele_counts(gt: pd.Series, n_samples: pd.Series, *allele: pd.Series) -> pd.DataFrame:
    rows = _Rows(gt, n_samples, *allele)
    values = np.zeros((len(gt), 7), np.int64)
    for piece, samples in rows.pieces():
        values[piece] = genotypes.counts(rows.packed(piece), samples, rows.arguments[0][piece] if allele else 1)
    return frame({name: pa.array(values[:, column], mask=~rows.valid) for name, column in _COUNTS.items()})


def dosage_at(gt: pd.Series, n_samples: pd.Series, position: pd.Series, *allele: pd.Series) -> pd.Series:
    rows = _Rows(gt, n_samples, position, *allele)
    values = np.full(len(gt), MISSING, np.int8)
    for piece, samples in rows.pieces():
        chosen, which = rows.positions(piece)
        found = genotypes.dosages(rows.packed(piece), samples, rows.arguments[1][piece] if allele else 1, chosen=chosen)
        values[piece] = found[np.arange(len(piece)), which]
    return series(pa.array(values, mask=values == MISSING))


def genotype_at(gt: pd.Series, n_samples: pd.Series, position: pd.Series) -> pd.Series:
    rows = _Rows(gt, n_samples, position)
    order = [np.flatnonzero(~rows.valid)]
    texts: list[pa.Array] = [pa.nulls(len(order[0]), pa.string())]
    for piece, samples in rows.pieces():
        chosen, which = rows.positions(piece)
        values, phased = genotypes.unpack(rows.packed(piece), samples, chosen)
        each = np.arange(len(piece))
        texts.append(call_texts(values[each, which][:, None], phased[each, which][:, None]))
        order.append(piece)
    return series(pa.concat_arrays(texts).take(pa.array(np.argsort(np.concatenate(order)))))


_STRUCT = f"struct<{', '.join(f'{name}: bigint' for name in _COUNTS)}>"
_FUNCTIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "dosage": (dosage, "array<tinyint>"),
    "alleles": (alleles, "array<string>"),
    "allele_counts": (allele_counts, _STRUCT),
    "dosage_at": (dosage_at, "tinyint"),
    "genotype_at": (genotype_at, "string"),
}
NAMES = frozenset(_FUNCTIONS)


class _Rows:
    """The arguments of one batch of V rows. `valid` bool (V,): no argument is NULL.
    `arguments`: those behind `n_samples`, int64 (V,)."""

    def __init__(self, gt: pd.Series, n_samples: pd.Series, *arguments: pd.Series) -> None:
        self.valid = gt.notna().to_numpy()
        for numbers in (n_samples, *arguments):
            self.valid = self.valid & numbers.notna().to_numpy()
        self._gt = pa.array(gt, pa.binary(), from_pandas=True)
        self.n_samples, *self.arguments = (
            numbers.fillna(0).to_numpy().astype(np.int64) for numbers in (n_samples, *arguments)
        )
        wrong = self.valid & ((self.n_samples < 0) | (self.n_samples > genotypes.MOST_SAMPLES))
        if wrong.any():
            found = self.n_samples[wrong][0]
            raise InputError(
                f"found {found} as a number of samples; expected 0 to {genotypes.MOST_SAMPLES}, the record's n_samples",
                "SQL",
            )
        self._offsets = np.concatenate([[0], np.cumsum(np.where(self.valid, self.n_samples, 0))])

    def total(self) -> int:
        """Calls of all rows. InputError for more than a list column has places for."""
        calls = int(self._offsets[-1])
        if calls > _MOST_CALLS:
            raise InputError(
                f"found {calls} calls in {len(self.valid)} records at a time; expected {_MOST_CALLS} at most, "
                "lower spark.sql.execution.arrow.maxRecordsPerBatch",
                "SQL",
            )
        return calls

    def pieces(self) -> Iterator[tuple[np.ndarray, int]]:
        """Rows of the same number of samples, as many as are taken apart together, and that number."""
        for samples in np.unique(self.n_samples[self.valid]).tolist():
            rows = np.flatnonzero(self.valid & (self.n_samples == samples))
            most = max(1, _AT_A_TIME // max(samples, 1))
            for start in range(0, len(rows), most):
                yield rows[start : start + most], samples

    def positions(self, piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distinct positions that the rows of a piece ask for, and which of them each row does.
        InputError for one that no sample has."""
        places = self.arguments[0][piece]
        outside = (places < 0) | (places >= self.n_samples[piece])
        if outside.any():
            found, samples = places[outside][0], self.n_samples[piece[0]]
            raise InputError(
                f"found position {found} of {samples} samples; expected 0 to {samples - 1}, as in sample_sets", "SQL"
            )
        chosen, which = np.unique(places, return_inverse=True)
        return chosen, which.reshape(-1)

    def packed(self, piece: np.ndarray) -> pa.BinaryArray:
        return self._gt if len(piece) == len(self._gt) else self._gt.take(pa.array(piece))

    def places(self, piece: np.ndarray) -> np.ndarray:
        """Where the samples of the rows of a piece stand among all, int (rows, samples)."""
        return self._offsets[piece][:, None] + np.arange(self.n_samples[piece[0]])

    def lists(self, values: pa.Array) -> pd.Series:
        """`values` of all samples of all rows as a list per row, NULL where the row is."""
        mask = None if self.valid.all() else pa.py_buffer(np.packbits(self.valid, bitorder="little"))
        offsets = pa.py_buffer(self._offsets.astype(np.int32))
        return series(pa.Array.from_buffers(pa.list_(values.type), len(self.valid), [mask, offsets], children=[values]))


class _Arrow(pd.Series):  # type: ignore[misc]
    """An Arrow array as a Series that PySpark takes back as it is: by `apply` it would make a Python
    list of every list in it."""

    def apply(self, *_: Any, **__: Any) -> _Arrow:
        return self


class _Frame(pd.DataFrame):  # type: ignore[misc]
    """A DataFrame whose columns are such Series."""

    @property
    def _constructor_sliced(self) -> type[_Arrow]:
        return _Arrow


def frame(columns: dict[str, pa.Array]) -> pd.DataFrame:
    """Arrow arrays as what a pandas UDF of a struct may return."""
    return _Frame({name: series(array) for name, array in columns.items()})


def series(array: pa.Array) -> pd.Series:
    """An Arrow array as what a pandas UDF may return."""
    return _Arrow(pd.arrays.ArrowExtensionArray(pa.chunked_array([array])))
