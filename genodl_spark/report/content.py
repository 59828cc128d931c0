"""What a report says: its sections, and the tables in them as text."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genodl_spark.core.output import printable
from genodl_spark.learning.metrics import HeldOut, Interval

METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "auprc_base_rate": "AUPRC of chance",
    "brier": "Brier",
    "ece": "ECE",
    "ari": "ARI",
    "nmi": "NMI",
    "r2": "R\N{SUPERSCRIPT TWO}",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "c_index": "C index",
    "c_index_uno": "C index (Uno)",
    "integrated_brier": "Integrated Brier",
    "mean_auroc": "Mean AUROC",
    "mae": "MAE",
    "mse": "MSE",
    "reconstruction_error": "Reconstruction error",
    "cross_entropy": "Cross entropy (nats)",
    "perplexity": "Perplexity",
}


@dataclass(frozen=True)
class MotifShown:
    """A motif of what a model goes by: how many places in how many sequences, among how many, it is the mean of;
    `probabilities` of A, C, G, T, float64 (W, 4)."""

    name: str
    consensus: str
    seqlets: int
    entities: int
    among: int
    probabilities: np.ndarray


@dataclass(frozen=True)
class MarkersShown:
    """Biomarkers of one label of a model.

    Of F features: their names, float64 `effect` and `p_value`, NaN without a test, `of` int, the class that the effect
    is of, `share` of the `sets` training sets in which a feature is significant, `frequency` in halves of them, NaN
    without halves, `selected` bool and `rank` int by consensus. `limit`: the largest p-value that is significant at
    `rate`, NaN where none is; `agreement` and `threshold`: shares from which a feature is selected, and stable in
    halves; `stability`: its index by name, as the table has it. `by`: ranks of features by method, int (F,) each.
    `values` float (G, n): of the features at the places `shown`, in n of the `rows` that the model learnt from, NaN
    missing; `codes` int (n,): their classes. `planted`: what the test finds of planted differences, by name, as the
    table has it.
    """

    label: str
    classes: tuple[str, ...]
    test: str
    rate: float
    agreement: float
    threshold: float
    sets: int
    stability: dict[str, float]
    features: list[str]
    effect: np.ndarray
    of: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    share: np.ndarray
    frequency: np.ndarray
    selected: np.ndarray
    rank: np.ndarray
    by: dict[str, np.ndarray]
    limit: float = math.nan
    shown: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: int = 0
    planted: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSection:
    """One model on one cohort.

    `scores`: predictor -> metric -> Interval; the first predictor is the model, the rest its baselines. `metric`: the
    one that `difference`, (baseline, Interval of model - baseline), is about. `settings`: the few worth showing.
    `by`: what rows are told apart by -> value of it -> metric -> Interval. `train_loss` (epochs, k) and
    `validation_loss` (epochs, members), float, NaN where training had stopped. `held`: the model's predictions of
    classes, values or times, for the pictures; without it there are none but the losses. `heads`: label -> metric ->
    Interval, of a model of several.
    `motifs` and `ranked`, (class, feature, mean size, mean) of contributions, and `markers`: what explain has found.
    """

    task: str
    cohort: str
    label: str
    model_id: str
    version: int
    settings: dict[str, str]
    split: str
    n_test: int
    metric: str
    scores: dict[str, dict[str, Interval]]
    difference: tuple[str, Interval] | None = None
    by: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    train_loss: np.ndarray | None = None
    validation_loss: np.ndarray | None = None
    held: HeldOut | None = None
    heads: dict[str, dict[str, Interval]] = field(default_factory=dict)
    motifs: list[MotifShown] = field(default_factory=list)
    ranked: list[tuple[str, str, float, float]] = field(default_factory=list)
    markers: list[MarkersShown] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StudySection:
    """One search for settings, of a task's network.

    `rungs`: of each trial, by number, the objective at the rungs that it reached; `states`: complete, pruned or failed.
    `shares`: those of the epochs at which the rungs lie, before the end. `settings`: name -> (of the first trial,
    of the best). `importance`: name -> share of the variance of the objective at rung `measured_at`;
    empty where too few trials were made. `baselines`: name -> (metric, of the first trial, of the best, its settings).
    """

    task: str
    cohort: str
    label: str
    study: str
    objective: str
    rungs: list[tuple[float, ...]]
    states: list[str]
    shares: list[float]
    settings: dict[str, tuple[str, str]]
    importance: dict[str, float] = field(default_factory=dict)
    measured_at: int = 0
    baselines: dict[str, tuple[str, float, float, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class CallsCompared:
    """Calls compared with a truth. counts: by type and filter, hap.py's columns. intervals: of snp_recall and the like,
    filter PASS. curves: by type, [score, recall, precision] of all calls with at least that score; `score` says which.
    confident: the regions, empty for everywhere."""

    query: str
    truth: str
    confident: str
    compared_at: str
    counts: dict[str, dict[str, dict[str, float | int | None]]]
    intervals: dict[str, Interval]
    score: str
    curves: dict[str, list[list[float]]]


@dataclass(frozen=True)
class TableRow:
    """A table of the lake; `rows` None where it was not counted."""

    name: str
    rows: int | None
    version: int
    doc: str = ""


@dataclass(frozen=True)
class RunRow:
    job: str
    status: str
    seconds: float
    started_at: str = ""


@dataclass(frozen=True)
class DataLink:
    """The page of a cohort's data beside this one, by its name, and how much there is."""

    page: str
    cohort: str
    sources: str
    files: int
    rows: int


@dataclass(frozen=True)
class Page:
    """The whole report. `made`: when, as it shall read; left empty, the same content gives the same bytes."""

    title: str
    lake: str = ""
    made: str = ""
    tables: list[TableRow] = field(default_factory=list)
    runs: list[RunRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    models: list[ModelSection] = field(default_factory=list)
    studies: list[StudySection] = field(default_factory=list)
    data: list[DataLink] = field(default_factory=list)
    calls: list[CallsCompared] = field(default_factory=list)


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Aligned columns as text: numbers to the right, floats and Intervals to 3 digits, "-" for None and NaN."""
    texts = [[cell_text(value) for value in row] for row in [list(header), *rows]]
    right = [
        all(isinstance(row[i], (int, float, tuple, type(None), np.number)) for row in rows) for i in range(len(header))
    ]
    widths = [max(_width(row[i]) for row in texts) for i in range(len(header))]
    lines = []
    for row in texts:
        padding = [" " * (width - _width(text)) for width, text in zip(widths, row, strict=True)]
        lines.append(
            "  ".join(p + text if r else text + p for p, text, r in zip(padding, row, right, strict=True)).rstrip()
        )
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def cell_text(value: Any) -> str:
    """A value as a table shows it: floats to 3 digits, thousands apart, "-" for None and NaN."""
    if isinstance(value, Interval):
        return (
            number(value.value)
            if math.isnan(value.low)
            else f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"
        )
    if value is None or isinstance(value, (float, np.floating)):
        return "-" if value is None else number(float(value))
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{value:,}"
    # a line break would break the table
    return "".join(" " if unicodedata.category(c).startswith("C") else c for c in str(value))


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def several(count: int, word: str) -> str:
    """A count and what is counted."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    if math.isnan(value):
        return "-"
    text = f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"
    return text.replace("-0.000", "0.000")


def captioned(title: str, caption: str, picture: str) -> str:
    return f"<figure>{picture}<figcaption><b>{escape(title)}.</b> {escape(caption)}</figcaption></figure>"


def escape(text: str) -> str:
    """Text as HTML shows it to the letter, without characters that would turn or hide what stands around them."""
    return html.escape(printable(text))
