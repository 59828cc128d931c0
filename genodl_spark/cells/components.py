"""Principal components of chosen genes, from their sums of products.

Rows are whole numbers (`transform.py`): the sums are exact, whatever the order in which cells come and tasks add them.
The loadings are rounded to a grid, which is far coarser than what LAPACK leaves open, so that scores, whole numbers
again, are exact too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_GRID = 2.0**14  # loadings are multiples of 1 / _GRID


@dataclass
class Products:
    """Cells, sums (genes,) and sums of products (genes, genes), float64, of rows that were added."""

    cells: int
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def empty(cls, genes: int) -> Products:
        return cls(0, np.zeros(genes), np.zeros((genes, genes)))

    def add(self, rows: np.ndarray) -> None:
        """rows: float64 (cells, genes), whole numbers."""
        self.cells += len(rows)
        self.sums += rows.sum(0)
        self.products += rows.T @ rows

    def join(self, other: Products) -> None:
        self.cells += other.cells
        self.sums += other.sums
        self.products += other.products

    def pack(self) -> bytes:
        upper = self.products[np.triu_indices(len(self.sums))]
        return np.concatenate([np.array([self.cells], float), self.sums, upper]).astype("<f8").tobytes()

    @classmethod
    def unpack(cls, packed: bytes, genes: int) -> Products:
        values = np.frombuffer(packed, "<f8")
        products = np.zeros((genes, genes))
        rows, columns = np.triu_indices(genes)
        products[rows, columns] = products[columns, rows] = values[1 + genes :]
        return cls(int(values[0]), values[1 : 1 + genes].copy(), products)


@dataclass(frozen=True)
class Components:
    """Loadings float64 (genes, k), whole numbers of a grid, the largest component first, and the shares (k,) of the
    variance that they hold."""

    loadings: np.ndarray
    shares: np.ndarray

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Scores of rows (cells, genes), not centred: float64 (cells, k), whole numbers in the unit of the rows."""
        return np.rint(rows @ self.loadings / _GRID)


def components(found: Products, count: int) -> Components:
    """The `count` first components of what was added, at most as many as have a variance."""
    covariance = found.products - np.outer(found.sums, found.sums) / max(found.cells, 1)
    values, vectors = np.linalg.eigh(covariance)
    total = max(float(values.clip(0).sum()), np.finfo(float).tiny)
    order = [int(i) for i in np.argsort(-values, kind="stable")[:count] if values[i] > 1e-9 * values[-1]]
    chosen = vectors[:, order]
    peaks = chosen[np.abs(chosen).argmax(0), np.arange(len(order))]
    return Components(np.rint(chosen * np.where(peaks < 0, -1, 1) * _GRID), values[order] / total)
