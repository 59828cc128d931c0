"""What is kept of many values, row after row, for a page: how they spread, the greatest of them, a sample of names.
Each takes in what others have of other rows (`merge`); none grows with the number of rows. Pure NumPy and Arrow."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.learning.encodings.values import on_linear_scale
from genodl_spark.report.content import number, several
from genodl_spark.report.facts import Bars, Histogram, Listing

_FINE, _ENDS = 256, 90  # bins to a unit of asinh, and units on either side: float32 ends at 89.1
BARS = 40
_NEAR = 20  # times the smallest value: up to there bars of one width show enough
_FEW_WHOLE = 60  # whole numbers up to so far apart have a bar each
_VALUES = 200  # different texts that are counted


class Spread:
    """Values in narrow bins of asinh(value): near 0 those are 1/256 wide, and 0.4% of the value where it is large;
    zeros apart, as they are often many.

    `n` values that are there, `missing` (NaN) ones, `zeros` among those that are there; `low`, `high` the ends.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * _ENDS * _FINE, np.int64)
        self.n = self.missing = self.zeros = 0
        self.low, self.high = np.inf, -np.inf
        self.whole = True

    def add(self, values: np.ndarray) -> None:
        """Values of any shape, NaN missing; infinite ones count as the largest that there are."""
        values = np.asarray(values, np.float64).ravel()
        known = values[~np.isnan(values)]
        self.missing += len(values) - len(known)
        if not len(known):
            return
        self.n += len(known)
        self.zeros += int((known == 0).sum())
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
        self.whole = self.whole and bool((known == np.rint(known)).all())
        places = np.floor(np.arcsinh(known[known != 0]) * _FINE) + _ENDS * _FINE
        self.counts += np.bincount(
            np.clip(places, 0, len(self.counts) - 1).astype(np.int64), minlength=len(self.counts)
        )

    def merge(self, other: Spread) -> None:
        self.counts += other.counts
        self.n, self.missing, self.zeros = self.n + other.n, self.missing + other.missing, self.zeros + other.zeros
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.whole = self.whole and other.whole

    def quantile(self, share: float) -> float:
        """To 0.4%, or 1/256 near 0; NaN without values."""
        if not self.n:
            return float("nan")
        wanted, negative = share * self.n, int(self.counts[: _ENDS * _FINE].sum())
        if negative < wanted <= negative + self.zeros or not self.counts.any():
            return 0.0
        wanted -= self.zeros * (wanted > negative)
        below = np.concatenate([[0], np.cumsum(self.counts)])
        place = np.interp(wanted, below, np.arange(len(below)))
        found = float(np.clip(np.sinh(place / _FINE - _ENDS), self.low, self.high))
        return float(round(found)) if self.whole else found

    def text(self, value: float) -> str:
        """One of the values, in words."""
        return f"{value:,.0f}" if self.whole else number(value)

    def histogram(self, bars: int = BARS) -> Histogram:
        """Values in bars of one width: of asinh(value) where they are on a linear scale and reach far, whole numbers in
        bars of their own where they are few."""
        if not self.n:
            return Histogram(np.array([0.0, 1.0]), np.zeros(1))
        if self.whole and self.high - self.low <= _FEW_WHOLE:
            edges = np.arange(self.low - 0.5, self.high + 1)
            return Histogram(edges, self._between(np.arcsinh(edges)))
        near = self.low > 0 and self.high < _NEAR * self.low
        far = on_linear_scale(max(abs(self.low), abs(self.high))) and not near
        low, high = (np.arcsinh([self.low, self.high]) if far else np.array([self.low, self.high])).tolist()
        edges = np.linspace(low, high, bars + 1) if high > low else np.array([low - 0.5, low + 0.5])
        return Histogram(edges, self._between(edges if far else np.arcsinh(edges)), far)

    def _between(self, edges: np.ndarray) -> np.ndarray:
        """Values between edges of asinh(value), float64; a narrow bin that an edge cuts is shared out."""
        below = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.float64)
        found = np.interp(edges, np.arange(len(below)) / _FINE - _ENDS, below)
        found[0], found[-1] = 0, self.n - self.zeros
        counts = np.diff(found)
        counts[np.clip(np.searchsorted(edges, 0, "right") - 1, 0, len(counts) - 1)] += self.zeros
        return counts


class Greatest:
    """The `k` greatest values with their names, the first by name among equals; 0 and less are no news."""

    def __init__(self, k: int = 10) -> None:
        self.k = k
        self.found: list[tuple[float, str]] = []  # the value below 0, so that the smallest come first

    def add(self, names: pa.Array, values: np.ndarray) -> None:
        """Names, text (n,), of `values` (n,)."""
        some = np.flatnonzero(values > 0)
        if len(some) > self.k:
            least = np.partition(values[some], len(some) - self.k)[len(some) - self.k]
            some = some[values[some] >= least]
        told = names.take(pa.array(some)).to_pylist()
        self._keep(zip((-values[some]).tolist(), map(str, told), strict=True))

    def merge(self, other: Greatest) -> None:
        self._keep(other.found)

    def _keep(self, more: Iterable[tuple[float, str]]) -> None:
        self.found = heapq.nsmallest(self.k, [*self.found, *more])

    @property
    def rows(self) -> list[tuple[str, float]]:
        return [(name, -value) for value, name in self.found]


class Drawn:
    """A sample of names: the `k` with the least hashes, which is as good as by chance, and the same every time."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.hashes, self.names = np.zeros(0, np.uint64), np.zeros(0, object)

    def add(self, names: pa.Array | pa.RecordBatch) -> None:
        """Names, or rows whose first column they are."""
        from pandas.util import hash_array

        column = names.column(0) if isinstance(names, pa.RecordBatch) else names
        told = np.asarray(column.to_pylist(), object)
        if len(told):
            self._keep(hash_array(told, categorize=False), told)

    def merge(self, other: Drawn) -> None:
        self._keep(other.hashes, other.names)

    def _keep(self, hashes: np.ndarray, names: np.ndarray) -> None:
        if len(self.hashes) == self.k:
            some = hashes < self.hashes[-1]
            hashes, names = hashes[some], names[some]
        hashes, names = np.concatenate([self.hashes, hashes]), np.concatenate([self.names, names])
        order = np.argsort(hashes, kind="stable")[: self.k]
        self.hashes, self.names = hashes[order], names[order]

    @property
    def sorted(self) -> list[str]:
        return sorted(self.names.tolist())


class Moments:
    """Of each of `width` columns: how many values are there, their mean and variance."""

    def __init__(self, width: int) -> None:
        self.n = np.zeros(width, np.int64)
        self.sums, self.squares = np.zeros(width), np.zeros(width)

    def add(self, x: np.ndarray) -> None:
        """Rows x (n, width), NaN missing."""
        lacking = np.isnan(x)
        x = np.where(lacking, 0, x)
        self.n += len(x) - lacking.sum(0)
        self.sums += x.sum(0, dtype=np.float64)
        self.squares += np.einsum("ij,ij->j", x, x, dtype=np.float64)

    def merge(self, other: Moments) -> None:
        self.n += other.n
        self.sums += other.sums
        self.squares += other.squares

    @property
    def variance(self) -> np.ndarray:
        n = np.maximum(self.n, 1)
        found: np.ndarray = np.maximum(self.squares / n - (self.sums / n) ** 2, 0)
        return found

    def most_varied(self, count: int, rows: int) -> np.ndarray:
        """The `count` columns that vary most, int64 in ascending order, among those with a value in half of the `rows`
        at least; none that does not vary."""
        variance = np.where(2 * self.n >= rows, self.variance, 0)
        order = np.argsort(-variance, kind="stable")[:count]
        return np.sort(order[variance[order] > 0])


class Columns:
    """What columns of text hold: how many rows have a value, how many each value; and the values that `wanted` entities
    have, whose names are in the column `entity`."""

    def __init__(self, entity: str, wanted: Sequence[str] = (), but: Sequence[str] = ()) -> None:
        self.entity, self.but = entity, {entity, *but}
        self.wanted = pa.array(wanted, pa.string())
        self.rows = 0
        self.known: Counter[str] = Counter()
        self.values: dict[str, Counter[str] | None] = {}  # None: too many to be counted
        self.of: dict[str, dict[str, str]] = {}  # column -> entity -> value

    def add(self, rows: pa.RecordBatch) -> None:
        self.rows += rows.num_rows
        names = rows.column(self.entity)
        wanted = pc.is_in(names, self.wanted) if len(self.wanted) else None
        for name in rows.schema.names:
            if name in self.but or not pa.types.is_string(rows.schema.field(name).type):
                continue
            column = rows.column(name)
            self.known[name] += len(column) - column.null_count
            self._count(
                name, Counter({v["values"]: v["counts"] for v in pc.value_counts(column.drop_null()).to_pylist()})
            )
            if wanted is not None:
                told = pc.and_(wanted, column.is_valid())
                mine = self.of.setdefault(name, {})
                mine.update(zip(names.filter(told).to_pylist(), column.filter(told).to_pylist(), strict=True))

    def merge(self, other: Columns) -> None:
        self.rows += other.rows
        self.known += other.known
        for name, values in other.values.items():
            self._count(name, values)
        for name, told in other.of.items():
            self.of.setdefault(name, {}).update(told)

    def _count(self, name: str, more: Counter[str] | None) -> None:
        mine = self.values.setdefault(name, Counter())
        if mine is not None and more is not None and len(mine.keys() | more.keys()) <= _VALUES:
            mine.update(more)
        else:
            self.values[name] = None


class Picked:
    """Values of some rows: `x` float32 (n, columns) in the order of `names`, NaN where a row has not come. Rows come as
    the name and packed float32 values, `width` of them, of which `columns` int64 are taken."""

    def __init__(self, names: Sequence[str], columns: np.ndarray, width: int) -> None:
        self.names, self.columns, self.width = pa.array(names, pa.string()), columns, width
        self.places: list[np.ndarray] = []
        self.parts: list[np.ndarray] = []

    def add(self, rows: pa.RecordBatch) -> None:
        place = pc.index_in(rows.column(0), self.names)
        some = place.is_valid()
        if pc.any(some).as_py():
            self.places.append(place.drop_null().to_numpy())
            self.parts.append(packing.rows(rows.column(1).filter(some), "float32", self.width)[:, self.columns])

    def merge(self, other: Picked) -> None:
        self.places += other.places
        self.parts += other.parts

    @property
    def x(self) -> np.ndarray:
        found = np.full((len(self.names), len(self.columns)), np.nan, np.float32)
        for places, part in zip(self.places, self.parts, strict=True):
            found[places] = part
        return found


def bars_of(title: str, spread: Spread, across: str, up: str, percent: bool = False, log: bool = False) -> Bars:
    """A picture of how values spread, and in words their median and where 90% of them lie. `percent`: of shares."""
    ends = [spread.quantile(share) for share in (0.05, 0.5, 0.95)]
    if percent:
        low, middle, high = (f"{end:.1%}" for end in ends)
    else:
        low, middle, high = (spread.text(end) for end in ends)
    histogram = spread.histogram()
    words = f"Median {middle}; 90% of {spread.n:,} lie between {low} and {high}."
    scale = " The axis is logarithmic for large values." if histogram.asinh else ""
    scale += " Heights are on a logarithmic scale." if log else ""
    return Bars(title, words + scale, f"{title}: {words}", histogram, across, up, log, percent)


def missing(
    of_rows: Spread, worst: Greatest, names: Sequence[str], shares: np.ndarray, row: str, column: str, value: str
) -> tuple[list[str], list[Bars], list[Listing]]:
    """What is missing, by row and by column. `of_rows`: share of each row; `worst`: rows by it; `shares` float64 (F,)
    of the columns `names`. `row`, `column`, `value`: what they are called."""
    of_columns, worst_columns = Spread(), Greatest()
    of_columns.add(shares)
    worst_columns.add(pa.array(names, pa.string()), shares)
    return lacking({row: (of_rows, worst), column: (of_columns, worst_columns)}, value)


def lacking(sides: Mapping[str, tuple[Spread, Greatest]], value: str) -> tuple[list[str], list[Bars], list[Listing]]:
    """What is missing, by what there is of it: shares of each, and those of the greatest."""
    if all(spread.high <= 0 for spread, _ in sides.values()):
        return [f"No {value} is missing."], [], []
    said, bars, listings = [], [], []
    for what, (spread, greatest) in sides.items():
        some = spread.n - spread.zeros
        said.append(f"Of {several(spread.n, what)} {some:,} lack {value}s.")
        if some:
            bars.append(
                bars_of(f"Missing {value}s by {what}", spread, "Share missing", f"{what.capitalize()}s", True, True)
            )
            rows = [[name, f"{share:.1%}"] for name, share in greatest.rows]
            listings.append(
                Listing(f"{what.capitalize()}s that lack most {value}s", [what.capitalize(), "Missing"], rows)
            )
    return [" ".join(said)], bars, listings
