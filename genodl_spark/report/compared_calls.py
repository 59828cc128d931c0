"""Calls compared with a truth, as a page shows them: columns of a table, and precision against recall."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from genodl_spark.learning.metrics import Interval
from genodl_spark.report.content import CallsCompared, captioned
from genodl_spark.report.plots import _figure, _grid, _line, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTS = ("TRUTH.TOTAL", "TRUTH.FN", "QUERY.TP", "QUERY.FP", "FP.gt", "QUERY.UNK")
METRICS = {"Recall": "METRIC.Recall", "Precision": "METRIC.Precision", "F1": "METRIC.F1_Score"}


def metrics(calls: CallsCompared, kind: str, name: str) -> list[Interval | float | None]:
    """METRICS of a type under a filter; with their intervals where there are some."""
    found: list[Interval | float | None] = []
    for short, column in METRICS.items():
        value = calls.counts[kind][name][column]
        interval = calls.intervals.get(f"{kind}_{short}".lower()) if name == "PASS" else None
        found.append(interval if interval is not None and value is not None else value)
    return found


def figure(calls: CallsCompared, prefix: str) -> str:
    """Precision against recall of both types as HTML; nothing where no truth was matched."""
    drawn = {kind: points for kind, points in calls.curves.items() if points}
    if not drawn:
        return ""
    ends = [f"{kind} recall {points[0][1]:.3f}, precision {points[0][2]:.3f}" for kind, points in drawn.items()]
    caption = f"Calls with at least some {calls.score}, from all of them on the right to the surest on the left."
    alt = f"Precision against recall by {calls.score}: {'; '.join(ends)} with all calls"
    return captioned("Precision and recall", caption, svg(lambda: _drawn(drawn), alt, prefix))


def _drawn(curves: dict[str, list[list[float]]]) -> Figure:
    made, axes = _figure(3.5, 3.5)
    lowest = 1.0
    for place, (kind, points) in enumerate(curves.items()):
        recall, precision = [point[1] for point in points], [point[2] for point in points]
        axes.plot(recall, precision, label=kind, marker="o", markersize=2.5, **_line(place))
        lowest = min(lowest, *recall, *precision)
    # Good callers differ in the last hundredths: both axes start where the worst point is.
    low = max(0.0, math.floor(lowest * 20) / 20 - 0.05)
    room = (1 - low) / 50
    axes.set(xlim=(low - room, 1 + room), ylim=(low - room, 1 + room), aspect="equal")
    axes.set(xlabel="Recall", ylabel="Precision")
    _grid(axes)
    axes.legend(loc="lower left")
    return made
