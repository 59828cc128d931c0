"""Baselines that see the bases of sequences themselves: a string kernel, counts of k-mers, the most similar sequences.

Sequences are base codes int8 (rows, length), -1 for an unknown base and outside the sequence; `baselines.fit_predict`
says what each of them is, and has seen to it that targets differ and that there is something to score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC, LinearSVR

from genodl_spark.learning import markov, penalties, platt, strands, string_kernels

NAMES = ("weighted_degree", "kmer_logistic", "nearest_neighbour")
REGRESSION_NAMES = ("weighted_degree", "kmer_ridge", "nearest_neighbour")

SVM_PENALTIES = (0.1, 0.3, 1.0, 3.0)  # C, for rows scaled to mean squared length 1

_STRANDS = {"choices": ["auto", "single", "both"]}
SPACES: dict[str, dict[str, dict[str, Any]]] = {
    "weighted_degree": {"C": {"low": 0.001, "high": 100.0, "log": True}},
    "kmer_logistic": {"C": {"low": 0.01, "high": 100_000.0, "log": True}, "strands": _STRANDS},
    "kmer_ridge": {"alpha": {"low": 1e-5, "high": 1e4, "log": True}, "strands": _STRANDS},
    "nearest_neighbour": {"k": {"low": 4, "high": 12}, "neighbours": {"low": 1, "high": 100, "log": True}},
}
STARTS: dict[str, dict[str, Any]] = {
    "weighted_degree": {"C": 1.0},
    "kmer_logistic": {"C": 10.0, "strands": "auto"},
    "kmer_ridge": {"alpha": 1.0, "strands": "auto"},
    "nearest_neighbour": {"k": 8, "neighbours": 5},
}


def expected(option: str, value: Any) -> str | None:
    """What an option has to be, where a value is not that."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if option == "strands":
        return None if value in _STRANDS["choices"] else "auto, single or both"
    if option == "k":
        return None if whole and 1 <= value <= 15 else "a whole number from 1 to 15"
    if option == "order":
        return None if whole and 0 <= value <= markov.LONGEST else f"a whole number from 0 to {markov.LONGEST}"
    if option == "neighbours":
        return None if whole and value >= 1 else "a whole number, 1 or more"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if number and value > 0 else "a number above 0"


def probabilities(
    name: str, train: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int, options: Mapping[str, Any]
) -> np.ndarray:
    """y: indices 0 to k - 1, all present, at least two; returns (m, k)."""
    classes = int(y.max()) + 1
    if name == "nearest_neighbour":
        return _votes(train, np.eye(classes)[y], test, options)
    if name == "kmer_logistic":
        z, others = _spectra(train, y, test, True, seed, options)
        penalty = options["C"] if "C" in options else penalties.of_logistic(z, y, seed)
        return penalties.logistic(penalty, 1e-6).fit(z, y).predict_proba(others)
    z, others = _weighted_degrees(train, test)
    penalty = options["C"] if "C" in options else _svm_penalty(z, y, classes, seed)
    held, of = _held_decisions(z, y, classes, penalty, seed, len(y))
    return platt.probabilities(_decisions(z, y, others, classes, penalty, seed), held, of)


def values(
    name: str, train: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int, options: Mapping[str, Any]
) -> np.ndarray:
    """y (n,) float64; returns (m,)."""
    if name == "nearest_neighbour":
        return _votes(train, y[:, None], test, options)[:, 0]
    mean, spread = y.mean(), y.std()
    y = (y - mean) / spread
    if name == "kmer_ridge":
        z, others = _spectra(train, y, test, False, seed, options)
        penalty = options["alpha"] if "alpha" in options else penalties.of_ridge(z, y, seed)
        found = Ridge(penalty, solver="sparse_cg", tol=1e-8).fit(z, y).predict(others)
    else:
        z, others = _weighted_degrees(train, test)
        penalty = options["C"] if "C" in options else _svr_penalty(z, y, seed)
        found = _regressed(z, y, others, penalty, seed)
    return found * spread + mean


def _votes(train: np.ndarray, known: np.ndarray, test: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    chosen = {**STARTS["nearest_neighbour"], **options}
    found = string_kernels.votes(train, known, test, chosen["k"], chosen["neighbours"])
    return np.where(np.isnan(found), known.mean(0), found)


def _spectra(
    train: np.ndarray, y: np.ndarray, test: np.ndarray, classes: bool, seed: int, options: Mapping[str, Any]
) -> tuple[Any, Any]:
    chosen = options.get("strands", "auto")
    merged = strands.merged_loss(train, y, classes, seed) <= 1 if chosen == "auto" else chosen == "both"
    return string_kernels.spectrum(train, merged), string_kernels.spectrum(test, merged)


def _weighted_degrees(train: np.ndarray, test: np.ndarray) -> tuple[Any, Any]:
    """Features of both parts, on the scale on which those of the training rows have a mean squared length of 1."""
    z, others = string_kernels.weighted_degree(train), string_kernels.weighted_degree(test)
    scale = float(np.sqrt(z.power(2).sum() / z.shape[0])) or 1.0
    return z / scale, others / scale


def _decisions(z: Any, y: np.ndarray, others: Any, classes: int, penalty: float, seed: int) -> np.ndarray:
    """Decision values (others, classes) of an SVM for each class against the rest; NaN of a class that is not in y."""
    model = LinearSVC(C=penalty, loss="hinge", max_iter=10_000, random_state=seed).fit(z, y)
    decided = model.decision_function(others)
    found = np.full((others.shape[0], classes), np.nan)
    found[:, model.classes_] = decided if decided.ndim == 2 else np.column_stack([-decided, decided])
    return found


def _held_decisions(
    z: Any, y: np.ndarray, classes: int, penalty: float, seed: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Decision values of training rows, at most so many, by the SVM of the other inner folds; and their classes."""
    rows, fold = penalties.dealt(y, seed, most)

    def decide(z: Any, y: np.ndarray, others: Any) -> np.ndarray:
        return _decisions(z, y, others, classes, penalty, seed)

    return penalties.out_of_fold(z[rows], y[rows], fold, classes, decide), y[rows]


def _svm_penalty(z: Any, y: np.ndarray, classes: int, seed: int) -> float:
    """The C of SVM_PENALTIES whose calibrated decisions have the least log loss; the smallest of equals."""

    def loss(penalty: float) -> float:
        held, of = _held_decisions(z, y, classes, penalty, seed, penalties.INNER_ROWS)
        return -float(np.log(platt.probabilities(held, held, of)[np.arange(len(of)), of].clip(1e-6)).sum())

    return min(SVM_PENALTIES, key=loss)


def _regressed(z: Any, y: np.ndarray, others: Any, penalty: float, seed: int) -> np.ndarray:
    loss = "squared_epsilon_insensitive"  # the mean of skewed values, not their median
    return LinearSVR(C=penalty, epsilon=0.1, loss=loss, max_iter=10_000, random_state=seed).fit(z, y).predict(others)


def _svr_penalty(z: Any, y: np.ndarray, seed: int) -> float:
    """The C of SVM_PENALTIES with the least squared error in inner folds; the smallest of equals."""
    rows, fold = penalties.dealt(y, seed, penalties.INNER_ROWS)

    def loss(penalty: float) -> float:
        def decide(z: Any, y: np.ndarray, others: Any) -> np.ndarray:
            return _regressed(z, y, others, penalty, seed)[:, None]

        return float(np.nansum((penalties.out_of_fold(z[rows], y[rows], fold, 1, decide)[:, 0] - y[rows]) ** 2))

    return min(SVM_PENALTIES, key=loss)
