"""What a sequence model says of variants: its answer for a window with the other allele, less that for the same window
of the reference.

Effects on classes are differences of log odds, natural logarithms of p / (1 - p), as a probability that is near 0 or 1
hides what moves it; effects on values are differences in the unit of the value. Both strands are averaged: log
probabilities, as if a network's outputs were, or values. Each distinct window is scored once, however many alleles
stand at a site.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genodl_spark.learning.heads import Head, answers
from genodl_spark.learning.model_files import Card
from genodl_spark.learning.predictor import Predictor

STRANDS = ("both", "forward", "reverse")
_LEAST = 1e-300  # of a probability, so that its logarithm is a number


@dataclass(frozen=True)
class Effects:
    """Of B variants, a column for each of a model's scores, its heads side by side: float64 (B, scores).

    `ref`, `alt`: the answers for both windows, calibrated probabilities of classes, or values. `effect`: log odds for
    `alt` less those for `ref`, or the difference of the values; `raw`: the same before calibration.
    `distance` float64 (B,): how far the reference's window is from the training rows. `unusual` bool (B,): whether
    either window is unlike these.
    """

    ref: np.ndarray
    alt: np.ndarray
    effect: np.ndarray
    raw: np.ndarray
    distance: np.ndarray
    unusual: np.ndarray


def effects(predictor: Predictor, ref: np.ndarray, alt: np.ndarray, strands: str = "both") -> Effects:
    """Effects of variants by their windows, base codes int8 (B, L) each, L the length that the model takes.

    `strands`: of STRANDS, how windows are read. A model that answers for both strands by itself reads each once.
    """
    rows = len(ref)
    windows, of = distinct(np.concatenate([ref, alt]))
    x = turned(windows) if strands == "reverse" else windows
    both = strands == "both" and not reads_both(predictor.card)
    scores = predictor.scores(np.concatenate([x, turned(x)]) if both else x)
    several = scores.raw.reshape(2 if both else 1, len(windows), scores.raw.shape[1])
    odds, raw_odds, found = (np.empty(several.shape[1:]) for _ in range(3))
    for head, own, temperature in _heads(predictor.card):
        mine = several[..., own]
        if not head.classes:
            odds[:, own] = raw_odds[:, own] = found[:, own] = mine.mean(0)
            continue
        logs = np.log(np.maximum(mine, _LEAST)).mean(0)
        raw_odds[:, own] = _log_odds(_normal(logs))
        sharp = _normal(logs / temperature)
        odds[:, own], found[:, own] = _log_odds(sharp), np.exp(sharp)
    a, b = of[:rows], of[rows:]
    unusual = scores.unusual[: len(windows)]
    return Effects(
        found[a], found[b], odds[b] - odds[a], raw_odds[b] - raw_odds[a], scores.distance[a], unusual[a] | unusual[b]
    )


def _heads(card: Card) -> Iterator[tuple[Head, slice, float]]:
    return zip(card.predicted, answers(card.predicted), card.temperatures, strict=True)


def reads_both(card: Card) -> bool:
    """Whether a model is known to give a sequence and its reverse complement the same answer by itself: a linear part
    beside its networks may tell them apart."""
    network = bool(card.model.get("average_strands")) or card.model.get("reverse_complement") == "equivariant"
    return network and not any(card.shares)


def turned(codes: np.ndarray) -> np.ndarray:
    """Reverse complements of windows int8 (rows, L), padding and unknown bases -1."""
    return np.where(codes >= 0, 3 - codes, codes)[:, ::-1].astype(np.int8)


def distinct(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows int8 (rows, L) each once, and which of them each row is, int (rows,)."""
    whole = np.ascontiguousarray(codes).view(np.dtype((np.void, max(codes.shape[1], 1)))).reshape(-1)
    _, first, of = np.unique(whole, return_index=True, return_inverse=True)
    order = np.argsort(first)  # neighbours stay neighbours
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return codes[first[order]], place[of.reshape(-1)]


def _normal(logs: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities (rows, C), up to a constant for each row, so that these add up to 1."""
    found: np.ndarray = logs - np.logaddexp.reduce(logs, axis=1, keepdims=True)
    return found


def _log_odds(logs: np.ndarray) -> np.ndarray:
    """Log odds (rows, C) of classes against all others, of logarithms of probabilities."""
    others = (np.logaddexp.reduce(np.delete(logs, one, 1), axis=1) for one in range(logs.shape[1]))
    return logs - np.stack(list(others), 1)
