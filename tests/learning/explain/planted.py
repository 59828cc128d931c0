"""Sequences with planted motifs, small networks trained on them, and how well attributions find what was planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from genodl_spark.learning import encodings, models
from genodl_spark.learning.explain import Attributions, Limits, method, references
from genodl_spark.learning.explain.outputs import Outputs

LENGTH = 60
# what a base of the consensus has of A, C, G, T, at each position; the other three share the rest
MOTIFS = [
    np.where(np.array(list(text))[:, None] == np.array(list("ACGT")), sure, (1 - np.array(sure)) / 3)
    for text, sure in (
        ("AGATAAGG", np.array([[0.85, 0.97, 0.97, 0.97, 0.94, 0.97, 0.91, 0.85]]).T),
        ("TGACTCAC", np.array([[0.94, 0.97, 0.94, 0.85, 0.97, 0.97, 0.94, 0.85]]).T),
    )
]
NETWORK = {"kind": "cnn", "channels": [16], "dilations": [1], "stem_kernel": 9, "hidden": [16]}


def sequences(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base codes int8 (rows, LENGTH), labels, 1 for the half that has one of the motifs, and what was planted, bool.
    Each motif is in half of these, so that who knows one alone misses the others."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 4, (rows, LENGTH)).astype(np.int8)
    label = np.arange(rows) % 2
    planted = np.zeros(codes.shape, bool)
    for number, i in enumerate(np.flatnonzero(label)):
        motif = MOTIFS[number % 2]
        start = generator.integers(3, LENGTH - 3 - len(motif))
        codes[i, start : start + len(motif)] = [generator.choice(4, p=shares / shares.sum()) for shares in motif]
        planted[i, start : start + len(motif)] = True
    return codes, label, planted


def one_hot(codes: np.ndarray) -> torch.Tensor:
    flat = codes.reshape(-1, codes.shape[-1])
    return torch.from_numpy(encodings.encoding("onehot").floats(flat)).unflatten(0, codes.shape[:-1])


def network(seed: int = 1, **options: Any) -> nn.Module:
    return models.build({**NETWORK, **options}, [seed], (4, LENGTH), 2)


def trained(codes: np.ndarray, label: np.ndarray, epochs: int, seed: int = 1, **options: Any) -> nn.Module:
    """A network that was taught labels."""
    made, x, y = network(seed, **options), one_hot(codes), torch.from_numpy(label)
    optimizer = torch.optim.AdamW(made.parameters(), 4e-3)
    generator = np.random.default_rng(seed)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in np.array_split(generator.permutation(len(x)), len(x) // 64):
            loss = functional.cross_entropy(made(x[rows][None])[0], y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return made


def explained(made: nn.Module, codes: np.ndarray, name: str = "integrated_gradients", count: int = 4) -> Attributions:
    """Attributions of the log odds of label 1."""
    rows = np.arange(len(codes), dtype=np.uint64)
    weights = torch.tensor([[-1.0, 1.0]], dtype=torch.float64).expand(len(codes), -1)
    against = one_hot(references.shuffled(codes, rows, count, 0))
    return method(name, Limits()).attribute(
        Outputs(made, (4, LENGTH), torch.device("cpu")), one_hot(codes), against, weights
    )


def pearson_of_logos(found: np.ndarray, planted: np.ndarray) -> float:
    """Correlation of two logos, heights of bases by the bits of their positions, where they fit best."""

    def heights(shares: np.ndarray) -> np.ndarray:
        shares = shares / shares.sum(1, keepdims=True)
        return shares * (2 + (shares * np.log2(np.maximum(shares, 1e-9))).sum(1, keepdims=True))

    best = -1.0  # where a window has no heights there is no correlation
    of = heights(planted)
    for turned in (found, found[::-1, ::-1]):
        wide = np.concatenate([np.zeros((len(of), 4)), heights(turned), np.zeros((len(of), 4))])
        for start in range(len(wide) - len(of) + 1):
            window = wide[start : start + len(of)]
            if window.std():
                best = max(best, float(np.corrcoef(window.ravel(), of.ravel())[0, 1]))
    return best
