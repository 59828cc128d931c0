"""What a page says of a cohort's cells: counts and genes of each, the share of zeros, and where cells lie among each
other. Counts stay entries of what is not 0; only the genes of a sample of cells that components are made of do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.core.errors import MEND, Damaged
from genodl_spark.features.matrices import places_of
from genodl_spark.lake.schema import CELL
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.summaries import Reading
from genodl_spark.lake.tables.ingested import CELLS, FEATURES
from genodl_spark.report.clouds import DRAWN, VARIED, cloud_of
from genodl_spark.report.facts import Facts, Listing
from genodl_spark.report.measures import Drawn, Greatest, Moments, Picked, Spread, bars_of

_SCALE = 1e4  # counts that each cell is scaled to before their logarithm
_DTYPE = f"{packing.SPARSE}float32"
_COLUMNS = ["block", "cell_id", "feature_set", "x", "n_values", "n_features", "total"]


def facts_of(lake: Snapshot, cohort: str) -> list[Facts]:
    """Of every block: two passes over its cells, the second for the values of a sample."""
    orders: dict[str, dict[str, list[str]]] = {}
    stored = lake.rows(FEATURES, {"cohort": cohort, "source": CELLS.name}).sort_by("position")
    of_set = stored.group_by(["block", "feature_set"], use_threads=False).aggregate([("feature_id", "list")])
    for row in of_set.to_pylist():
        orders.setdefault(row["block"], {})[row["feature_set"]] = row["feature_id_list"]
    found = []
    for block, sets in sorted(orders.items()):
        names = list(dict.fromkeys(name for order in sets.values() for name in order))
        targets = {}
        for key, order, (source, target) in zip(sets, sets.values(), places_of(sets.values(), names), strict=True):
            targets[key] = np.zeros(len(order), np.int64)
            targets[key][source] = target
        reading = Reading(CELLS, {"cohort": cohort, "block": block}, _COLUMNS, at_once=1024)
        sums = reading.summarise(lake, CellSums(targets, len(names)))
        if not sums.rows:
            continue
        columns, drawn = sums.logs.most_varied(VARIED, sums.rows), sums.drawn.sorted
        dense = _Dense(targets, columns, drawn, len(names))
        picking = Reading(CELLS, reading.where, _COLUMNS, dense, at_once=1024)
        x = picking.summarise(lake, Picked(drawn, np.arange(len(columns)), len(columns))).x
        found.append(sums.facts(f"Cells, block {block}" if block else "Cells", names, x))
    return found


def _scaled(x: packing.SparseRows, totals: np.ndarray) -> np.ndarray:
    """log(1 + value / total * 10,000) of the entries, float64; `totals` float64 of the rows."""
    return np.log1p(x.entries["value"] * np.repeat(_SCALE / np.where(totals > 0, totals, 1), x.counts))


class CellSums:
    """`targets`: of each stored order of features their places among all, int64; `width` of all."""

    def __init__(self, targets: dict[str, np.ndarray], width: int) -> None:
        self.targets, self.rows = targets, 0
        self.genes, self.totals, self.zeros = Spread(), Spread(), Spread()
        self.cells = np.zeros(width, np.int64)
        self.logs, self.drawn = Moments(width), Drawn(DRAWN)

    def add(self, rows: pa.RecordBatch) -> None:
        self.rows += rows.num_rows
        genes, totals = (rows.column(name).to_numpy().astype(np.float64) for name in ("n_values", "total"))
        self.genes.add(genes)
        self.totals.add(totals)
        self.zeros.add(1 - genes / np.maximum(rows.column("n_features").to_numpy(), 1))
        self.drawn.add(rows.column("cell_id"))
        for batch, target, x in _entries(rows, self.targets):
            values, columns = _scaled(x, batch.column("total").to_numpy()), target[x.entries["place"]]
            self.cells += np.bincount(columns, minlength=len(self.cells))
            self.logs.n[target] += len(x)
            self.logs.sums += np.bincount(columns, values, len(self.cells))
            self.logs.squares += np.bincount(columns, values * values, len(self.cells))

    def merge(self, other: CellSums) -> None:
        self.rows += other.rows
        self.cells += other.cells
        for name in ("genes", "totals", "zeros", "logs", "drawn"):
            getattr(self, name).merge(getattr(other, name))

    def facts(self, title: str, names: list[str], x: np.ndarray) -> Facts:
        """`x` float32 (drawn cells, most varied features): logarithms of scaled counts."""
        width, never = len(names), int((self.cells == 0).sum())
        share = self.zeros.quantile(0.5)
        said = [
            f"{self.rows:,} cells of {width:,} features; half of the cells have more than {share:.1%} zeros. "
            f"{never:,} features are 0 in every cell."
        ]
        bars = [
            bars_of("Counts per cell", self.totals, "Sum of the values", "Cells"),
            bars_of("Genes per cell", self.genes, "Features that are not 0", "Cells"),
            bars_of("Share of zeros", self.zeros, "Share of a cell's features", "Cells", True),
        ]
        most = Greatest()
        most.add(pa.array(names, pa.string()), self.cells / max(self.rows, 1))
        rows = [[name, f"{value:.1%}"] for name, value in most.rows]
        listings = [Listing("Features found in most cells", ["Feature", "Cells"], rows)]
        some = f"{len(x):,} of {self.rows:,} cells, drawn by chance," if len(x) < self.rows else "All cells"
        about = (
            f"{some} and the {x.shape[1]:,} features of {width:,} that vary most; "
            f"log(1 + share of the cell's counts x {_SCALE:,.0f}), centred."
        )
        shown = cloud_of(about, CELL, self.drawn.sorted, np.nan_to_num(x))
        return Facts(title, said, bars, listings, [shown])


@dataclass(frozen=True)
class _Dense:
    """Rows of `cells` that are drawn, as name and packed float32 values of some columns of all `width`."""

    targets: dict[str, np.ndarray]
    columns: np.ndarray
    drawn: list[str]
    width: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        drawn = pa.array(self.drawn, pa.string())
        for rows in batches:
            for batch, target, x in _entries(rows.filter(pc.is_in(rows.column("cell_id"), drawn)), self.targets):
                made = np.zeros((len(x), self.width), np.float32)
                row = np.repeat(np.arange(len(x)), x.counts)
                made[row, target[x.entries["place"]]] = _scaled(x, batch.column("total").to_numpy())
                packed = packing.column(made[:, self.columns])
                yield pa.RecordBatch.from_arrays([batch.column("cell_id"), packed], ["cell_id", "x"])


def _entries(
    rows: pa.RecordBatch, targets: dict[str, np.ndarray]
) -> Iterator[tuple[pa.RecordBatch, np.ndarray, packing.SparseRows]]:
    """Rows of one order of features each, the places of these among all, and the entries of the rows. Damaged for what
    is no such row."""
    for key in pc.unique(rows.column("feature_set")).to_pylist():
        batch = rows.filter(pc.equal(rows.column("feature_set"), key))
        try:
            x = packing.packed(batch.column("x"), _DTYPE, len(targets[key]))
        except (KeyError, ValueError) as error:
            raise Damaged(f"found cells of features {key} that cannot be read ({error}); {MEND}", CELLS.name) from error
        assert isinstance(x, packing.SparseRows)
        yield batch, targets[key], x
