"""Points in two dimensions so that neighbours stay neighbours: UMAP (McInnes, Healy and Melville 2018, arXiv
1802.03426) of the few rows of a picture. Pure NumPy, exact neighbours, no randomness but a seed.

A component of variance shows the largest differences; groups that differ in many small ways lie over each other there.
Distances between groups, and their sizes, mean nothing here.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

NEIGHBOURS = 15  # of each point, itself included
FEWEST = 10  # points of which there is a layout
EPOCHS = 300
_NEGATIVES = 5  # points pushed away for each neighbour that is drawn near
_A, _B = 1.577, 0.8951  # 1 / (1 + a d^2b) nearest to a membership that falls from a distance of 0.1 on, spread 1
_NEAR = 1e-3
_MOST = 4.0  # of a move in one direction, times the learning rate


def layout(x: np.ndarray, start: np.ndarray, seed: int = 0) -> np.ndarray:
    """Coordinates float64 (n, 2) of rows x (n, F), none missing, by their Euclidean distances. `start` (n, k >= 1):
    where points begin, up to scale, as their principal components. (0, 0) for all where rows do not differ."""
    n = len(x)
    graph = memberships(*neighbours(x, min(NEIGHBOURS, n)))
    points = np.zeros((n, 2))
    points[:, : min(2, start.shape[1])] = start[:, :2]
    spread = np.abs(points).max() if n else 0.0
    if not spread:
        return np.zeros((n, 2))
    generator = np.random.default_rng(seed)
    points = points * (10 / spread) + generator.normal(scale=1e-4, size=points.shape)
    edges = graph.tocoo()
    heads, tails, rate = edges.row, edges.col, edges.data / edges.data.max()
    for epoch in range(EPOCHS):
        step = 1 - epoch / EPOCHS
        # an edge is drawn as often as its weight asks for, evenly over the epochs
        now = np.floor((epoch + 1) * rate) > np.floor(epoch * rate)
        i, j = heads[now], tails[now]
        near = points[i] - points[j]
        square = np.square(near).sum(1)
        power = np.maximum(square, 1e-12) ** (_B - 1)
        moves = _clipped(-2 * _A * _B * (power * (square > 0) / (1 + _A * square * power))[:, None] * near)
        pushed = np.repeat(i, _NEGATIVES)
        other = generator.integers(n, size=len(pushed))
        far = points[pushed] - points[other]
        square = np.square(far).sum(1)
        away = 2 * _B / ((_NEAR + square) * (1 + _A * square**_B)) * (pushed != other)
        whole = np.concatenate([i, pushed]), np.concatenate([moves, _clipped(away[:, None] * far)])
        for axis in (0, 1):
            points[:, axis] += step * np.bincount(whole[0], whole[1][:, axis], n)
    return points - points.mean(0)


def _clipped(moves: np.ndarray) -> np.ndarray:
    return np.clip(moves, -_MOST, _MOST)


def neighbours(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of each row of x (n, F), itself first, int64 (n, k), and how far they are, float64."""
    z = (x - x.mean(0)).astype(np.float64)
    length = np.square(z).sum(1)
    squares = np.maximum(length[:, None] + length - 2 * z @ z.T, 0)
    np.fill_diagonal(squares, -1)  # a row that another equals is still its own first
    order = np.argsort(squares, 1, kind="stable")[:, :k]
    return order, np.sqrt(np.maximum(np.take_along_axis(squares, order, 1), 0))


def memberships(order: np.ndarray, distance: np.ndarray) -> csr_matrix:
    """How much each pair of points are neighbours, symmetric (n, n), 0 to 1, of `neighbours`.

    Of point i that of j is exp(-(d - rho) / sigma), rho the distance to its nearest other, sigma such that they add up
    to log2(k); of both, the chance that either of two independent events is so: a + b - a b.
    """
    n, k = order.shape
    apart = np.where(distance[:, 1:] > 0, distance[:, 1:], np.inf)
    rho = apart.min(1, initial=np.inf)
    rho = np.where(np.isfinite(rho), rho, 0)
    over = np.maximum(distance[:, 1:] - rho[:, None], 0)
    low, high = (
        np.full(n, 1e-3 * max(float(distance.mean()), 1e-150)),
        np.full(n, max(float(distance.max()), 1e-150) * k),
    )
    lowest, wanted = low.copy(), np.log2(k)
    for _ in range(64):
        middle = np.sqrt(low * high)
        more = np.exp(-over / middle[:, None]).sum(1) > wanted
        low, high = np.where(more, low, middle), np.where(more, middle, high)
    weight = np.exp(-over / np.maximum(np.sqrt(low * high), lowest)[:, None])
    rows = np.repeat(np.arange(n), k - 1)
    one = csr_matrix((weight.ravel(), (rows, order[:, 1:].ravel())), shape=(n, n))
    return one + one.T - one.multiply(one.T)
