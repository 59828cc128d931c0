"""Axes of ancestry: principal components of standardised genotypes by a randomised method. Pure NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


def standardised(dosages: np.ndarray) -> np.ndarray:
    """Genotypes in units of their expected deviation, (dosage - 2p) / sqrt(2p(1-p)), float32 (V, S);
    0 where missing or the variant has one allele.

    p is the allele's frequency among the block's samples, which are to be all of the cohort.
    """
    called = (dosages >= 0).sum(1)
    absent = dosages.shape[1] - called
    total = dosages.sum(1, dtype=np.int64) + absent
    mean = total / np.maximum(called, 1)
    variance = mean * (1 - mean / 2)
    scale = np.where(variance > 0, 1 / np.sqrt(np.where(variance > 0, variance, 1)), 0)
    z = dosages.astype(np.float32)
    z -= mean.astype(np.float32)[:, None]
    z *= scale.astype(np.float32)[:, None]
    if absent.any():
        z[dosages < 0] = 0
    return z


def gram_product(z: np.ndarray, q: np.ndarray) -> np.ndarray:
    """z.T (z q), float64 (S, l), for one block z float32 (V, S) of the standardised genotypes:
    parts add up to the product with the whole."""
    return (z.T @ (z @ q.astype(np.float32))).astype(np.float64)


@dataclass(frozen=True)
class Components:
    """Principal components, the largest first: `values` float64 (K,), eigenvalues of the relationship matrix Z.T Z / M;
    `vectors` float64 (S, K) of unit length, the largest coordinate positive; `residuals` (K,):
    length of (A v - value v) / value, which bounds how far an eigenvalue is off, and over the relative gap to the next
    one the angle of the vector. `passes` through the genotypes."""

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    passes: int


def principal_components(
    product: Callable[[np.ndarray], np.ndarray],
    samples: int,
    variants: int,
    count: int,
    seed: int = 0,
    tolerance: float = 1e-4,
    passes: int = 12,
) -> Components:
    """Components of M = `variants` standardised variants, by products with random and then ever
    better directions (Halko 2011).

    `product` (S, l) -> (S, l): sum of `gram_product` over all blocks, one pass through the genotypes.
    The directions of all passes are kept, and the components are the best in the space that they span (block Krylov,
    Musco 2015), which takes a third of the passes that the last directions alone take.
    Ends when all residuals are below `tolerance`, or after `passes`.
    """
    count = min(count, samples)
    width = min(count + 10, samples)
    basis = np.empty((samples, 0))
    images = np.empty((samples, 0))
    new, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((samples, width)))
    done = 0
    while True:
        # What is multiplied is what float32 holds, so that images are those of the basis.
        new = new.astype(np.float32).astype(np.float64)
        image = product(new) / variants
        done += 1
        basis, images = np.hstack([basis, new]), np.hstack([images, image])
        gram, cross = basis.T @ basis, basis.T @ images
        factor = np.linalg.inv(np.linalg.cholesky(gram))
        values, inner = np.linalg.eigh(factor @ ((cross + cross.T) / 2) @ factor.T)
        chosen = factor.T @ inner[:, ::-1][:, :count]
        values, vectors, moved = values[::-1][:count], basis @ chosen, images @ chosen
        residuals = np.linalg.norm(moved - vectors * values, axis=0) / np.maximum(np.abs(values), 1e-300)
        room = min(width, samples - basis.shape[1])
        if (residuals < tolerance).all() or done >= passes or room <= 0:
            break
        for _ in range(2):  # twice is enough
            image = image - basis @ np.linalg.solve(gram, basis.T @ image)
            image, _ = np.linalg.qr(image)
        new = image[:, :room]
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    return Components(values, vectors * signs, residuals, done)
