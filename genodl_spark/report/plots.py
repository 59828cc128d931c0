"""Plots of a report: figures of matplotlib as SVG whose colours follow the reader's light or dark page."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import auc

from genodl_spark.learning import metrics as evaluate
from genodl_spark.learning import survival
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.report.content import ModelSection, StudySection, captioned, escape, number
from genodl_spark.report.facts import Bars, Cloud

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 1500  # of a scatter plot: each is an element of the page


def pictures(model: ModelSection, prefix: str) -> list[str]:
    """Figures of one model, as HTML; each only where its data are there."""
    drawn: list[tuple[str, str, str, Callable[[], Figure]]] = []  # title, caption, alt text, drawing
    held = model.held
    if held is not None and held.classes and held.n_test:
        counts = evaluate.confusion(held)
        right = counts.trace() / counts.sum()
        shown = (
            "Rows are the true classes; a cell holds its count and its share of the row."
            if len(held.classes) <= 14
            else "Rows are the true classes."
        )
        alt = f"Confusion matrix of {len(held.classes)} classes; {right:.0%} of the rows are on the diagonal"
        drawn.append(("Confusion matrix", shown, alt, lambda: _confusion(counts, held.classes)))
    train, validation = _losses(model.train_loss), _losses(model.validation_loss)
    if train is not None or validation is not None:
        ends = [
            f"{kind} loss ends at {np.nanmean(v[-1]):.3f}"
            for kind, v in (("training", train), ("validation", validation))
            if v is not None
        ]
        drawn.append(
            (
                "Loss",
                "Line: mean; band: all members.",
                f"Learning curve: {', '.join(ends)}",
                lambda: _learning(train, validation),
            )
        )
    if held is not None and held.classes and held.n_test:
        found = evaluate.metrics(held)
        roc, pr = evaluate.roc_curves(held), evaluate.pr_curves(held)
        if roc:
            areas = {name: auc(x, y) for name, (x, y) in roc.items()}
            precision = {name: float(np.diff(x) @ y[1:]) for name, (x, y) in pr.items()}
            base = {name: _share(held, name) for name in pr}
            alt = f"ROC curve, area {number(found['auroc'])}"
            drawn.append(
                (f"ROC, area {number(found['auroc'])}", _positive(held), alt, lambda: _curves(roc, areas, held, None))
            )
            alt = (
                f"Precision-recall curve, average precision {number(found['auprc'])}; "
                f"chance {number(found['auprc_base_rate'])}"
            )
            title = f"Precision and recall, area {number(found['auprc'])}"
            drawn.append(
                (
                    title,
                    _positive(held) + (" Dotted: chance." if len(pr) <= 4 else ""),
                    alt,
                    lambda: _curves(pr, precision, held, base),
                )
            )
        curve = evaluate.calibration_curve(held)
        alt = (
            "Reliability diagram: accuracy against stated probability in ten bins; "
            f"expected calibration error {number(found['ece'])}"
        )
        caption = "Accuracy of the predictions made with each probability; below, how many."
        drawn.append((f"Calibration, ECE {number(found['ece'])}", caption, alt, lambda: _calibration(*curve)))
    if held is not None and held.kind == "time" and held.n_test:
        drawn += _survival(model, held)
    elif held is not None and not held.classes and held.n_test:
        found = evaluate.metrics(held)
        shown = f" {MAX_POINTS:,} of {held.n_test:,} rows." if held.n_test > MAX_POINTS else ""
        alt = f"Predicted against observed values, Pearson correlation {number(found['pearson'])}"
        drawn.append(("Predicted and observed", f"Diagonal: equal.{shown}", alt, lambda: _scatter(held)))
    figures = []
    for i, (title, caption, alt, draw) in enumerate(drawn):
        figures.append(captioned(title, caption, svg(draw, alt, f"{prefix}p{i}-")))
    return figures


def _losses(loss: np.ndarray | None) -> np.ndarray | None:
    if loss is None or not np.size(loss):
        return None
    return np.asarray(loss, np.float64).reshape(len(loss), -1)


def _share(held: HeldOut, name: str) -> float:
    row = np.nonzero(held.evaluated)[1]
    return float((held.target[row] == held.classes.index(name)).mean())


def _positive(held: HeldOut) -> str:
    return f"Positive: {held.classes[-1]}." if len(held.classes) == 2 else "Each class against the rest."


# Drawing. Placeholder colours of the pictures, and the CSS that takes their place: Okabe and Ito's colour-blind-safe
# hues, with a lightness of their own for light and dark pages. Beyond seven, lines repeat the hues dashed, then dotted.
_INK, _FAINT, _PAPER, _FIRST = "#010203", "#010204", "#010205", 0x10
_SERIES = [f"#0102{_FIRST + i:02x}" for i in range(7)]
LIGHT = ("#0072b2", "#d55e00", "#008a65", "#b0568c", "#b37f00", "#3c97cf", "#6b6b6b")
DARK = ("#4fa8e0", "#ff8a3d", "#2cc295", "#e392c0", "#f0b429", "#9bd3f7", "#b0b0b0")
_COLOURS = {
    _INK: "currentColor",
    _FAINT: "var(--faint)",
    _PAPER: "var(--paper)",
    **{colour: f"var(--s{i})" for i, colour in enumerate(_SERIES)},
}
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)))


def svg(draw: Callable[[], Figure], alt: str, prefix: str) -> str:
    """The picture as an <svg> element whose identifiers begin with `prefix`, so that several fit on one page."""
    import warnings

    import matplotlib as mpl

    options: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "genodl",
        "text.parse_math": False,
        "font.family": ["DejaVu Sans", "sans-serif"],
        "font.size": 9,
        "axes.titlesize": 9,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "lines.linewidth": 1.6,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    }
    out = io.StringIO()
    with mpl.rc_context(options), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks: the reader's browser has its own
        draw().savefig(
            out,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            pad_inches=0.05,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = out.getvalue()
    text = text[text.index("<svg") :].rstrip()
    # Its style would apply to the whole page, and a page has no use for metadata and namespaces.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.S)
    # and not the text between tags, which is the user's
    text = re.sub(r"<[^>]+>", lambda tag: _tag(tag[0], prefix), text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


def _tag(tag: str, prefix: str) -> str:
    tag = re.sub(r' xmlns(:\w+)?="[^"]*"', "", tag)
    tag = re.sub(r'font-family: [^;"]*;? ?', "", tag)  # the page's style has it
    tag = re.sub(r'\bid="', f'id="{prefix}', tag)
    tag = re.sub(r'(href="|url\()#', rf"\1#{prefix}", tag)
    return re.sub("#0102[0-9a-f]{2}", lambda colour: _COLOURS[colour[0]], tag)


def _figure(width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure, figure.subplots(**options)


def _short(name: str, length: int = 18) -> str:
    return name if len(name) <= length else name[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _line(index: int) -> dict[str, Any]:
    return {"color": _SERIES[index % len(_SERIES)], "linestyle": _DASHES[index // len(_SERIES) % len(_DASHES)]}


def _grid(axes: Axes) -> None:
    axes.grid(True, color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _confusion(counts: np.ndarray, classes: list[str]) -> Figure:
    from matplotlib.patches import Rectangle

    c = len(classes)
    cell = 0.72 if c <= 4 else 0.56 if c <= 8 else 0.46 if c <= 14 else max(0.12, 6 / c)
    figure, axes = _figure(c * cell + 1.8, c * cell + 1.3)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
    axes.add_patch(Rectangle((-0.5, -0.5), c, c, facecolor=_SERIES[0], alpha=0.06, edgecolor="none"))
    for i, j in np.argwhere(counts > 0):  # most cells of many classes are empty
        share = shares[i, j]
        axes.add_patch(
            Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=_SERIES[0], alpha=0.06 + 0.94 * share, edgecolor="none")
        )
        if c <= 14:
            count = f"{counts[i, j]:.0f}" if counts[i, j] % 1 == 0 or counts[i, j] >= 100 else f"{counts[i, j]:.1f}"
            ink = _PAPER if share > 0.8 else _INK  # the better contrast, on either page
            size = 9 if c <= 4 else 7.5 if c <= 8 else 6.5
            axes.text(
                j, i, f"{count}\n{share:.0%}", ha="center", va="center", fontsize=size, color=ink, linespacing=1.15
            )
    axes.set(xlim=(-0.5, c - 0.5), ylim=(c - 0.5, -0.5), aspect="equal", xlabel="Predicted", ylabel="True")
    names = [_short(name) for name in classes]
    if c <= 40:
        long = max(len(name) for name in names) * 0.075 > cell
        axes.set_xticks(
            range(c), names, rotation=45 if long else 0, ha="right" if long else "center", rotation_mode="anchor"
        )
        axes.set_yticks(range(c), names)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _learning(train: np.ndarray | None, validation: np.ndarray | None) -> Figure:
    figure, axes = _figure(4.4, 3.2)
    for index, (name, loss) in enumerate((("training", train), ("validation", validation))):
        if loss is None:
            continue
        epochs = np.arange(1, len(loss) + 1)
        axes.plot(
            epochs,
            np.nanmean(loss, 1),
            label=name,
            marker="o" if len(loss) == 1 else None,
            **{**_line(index), "linestyle": ("-", _DASHES[1])[index]},
        )
        if loss.shape[1] > 1:
            axes.fill_between(
                epochs, np.nanmin(loss, 1), np.nanmax(loss, 1), color=_SERIES[index], alpha=0.2, linewidth=0
            )
    axes.set(xlabel="Epoch", ylabel="Loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    _grid(axes)
    return figure


def _curves(
    curves: dict[str, tuple[np.ndarray, np.ndarray]],
    areas: dict[str, float],
    held: HeldOut,
    base: dict[str, float] | None,
) -> Figure:
    """ROC curves, or precision-recall curves where `base` holds the precision of chance of each class."""
    many = len(held.classes) > 2
    columns = -(-len(curves) // 16)
    figure, axes = _figure(3.5, 3.5)
    handles = []
    for name, (x, y) in curves.items():
        style = _line(held.classes.index(name) if many else 0)
        handles += axes.plot(x, y, drawstyle="default" if base is None else "steps-pre", **style)
        if base is not None and len(curves) <= 4:
            axes.axhline(base[name], color=style["color"], linewidth=1, linestyle=":")
    if base is None:
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1)
    across, up = ("False positive rate", "True positive rate") if base is None else ("Recall", "Precision")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=across, ylabel=up)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    _grid(axes)
    if many:
        labels = [f"{_short(name)} {areas[name]:.2f}" for name in curves]
        axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.02, 1), ncols=columns, handlelength=2.6)
    return figure


def _calibration(confidence: np.ndarray, accuracy: np.ndarray, count: np.ndarray) -> Figure:
    figure, (axes, below) = _figure(
        3.6, 4.2, nrows=2, sharex=True, gridspec_kw={"height_ratios": [3, 1], "hspace": 0.08}
    )
    bins = len(count)
    filled = count > 0
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1)
    axes.vlines(confidence[filled], confidence[filled], accuracy[filled], color=_SERIES[1], linewidth=1.4)
    axes.plot(confidence[filled], accuracy[filled], color=_SERIES[0], marker="o", markersize=4.5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Accuracy")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    below.bar((np.arange(bins) + 0.5) / bins, count, width=0.9 / bins, color=_SERIES[0], alpha=0.75)
    below.set(xlabel="Probability of the predicted class", ylabel="Rows")
    _grid(axes)
    _grid(below)
    return figure


def history(study: StudySection) -> Figure:
    figure, axes = _figure(4.4, 3.2)
    ends = np.array([values[-1] if values else np.nan for values in study.rungs])
    for i, (state, marker) in enumerate((("complete", "o"), ("pruned", "v"), ("failed", "x"))):
        mine = np.flatnonzero([s == state for s in study.states])
        if np.isfinite(ends[mine]).any():
            axes.plot(
                mine,
                ends[mine],
                marker,
                color=_SERIES[(0, 6, 1)[i]],
                markersize=4.5,
                markeredgewidth=1 if marker == "x" else 0,
                label=state,
            )
    done = np.array([s == "complete" for s in study.states])
    if done.any():
        best = np.minimum.accumulate(np.where(done, ends, np.inf))
        axes.plot(np.flatnonzero(np.isfinite(best)), best[np.isfinite(best)], color=_SERIES[0], drawstyle="steps-post")
        # Trials that went wrong early would press all others to the floor.
        known = ends[np.isfinite(ends)]
        low, high = known.min(), min(known.max(), known.min() + 3 * max(np.median(known) - known.min(), 1e-12))
        axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axes.set(xlabel="Trial", ylabel=study.objective.replace("_", " ").capitalize())
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    _grid(axes)
    return figure


def importance(shares: dict[str, float]) -> Figure:
    names = sorted(shares, key=lambda name: (shares[name], name))
    figure, axes = _figure(3.6, 0.9 + 0.27 * len(names))
    axes.barh(range(len(names)), [shares[name] for name in names], color=_SERIES[0], alpha=0.75, height=0.65)
    axes.set_yticks(range(len(names)), [_short(name, 28) for name in names])
    axes.set(xlim=(0, 1), xlabel="Share of the variance")
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def _scatter(held: HeldOut) -> Figure:
    known = held.evaluated
    rows = known.any(0)
    predicted = np.where(known, held.scores, 0).sum(0)[rows] / known.sum(0)[rows]
    observed = held.target[rows]
    # by name, which has nothing to do with the values
    order = np.argsort(held.entities.astype(str)[rows], kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MAX_POINTS)).round().astype(int))]
    figure, axes = _figure(3.8, 3.7)
    low, high = min(observed.min(), predicted.min()), max(observed.max(), predicted.max())
    margin = (high - low) * 0.03 or 1.0
    axes.plot([low, high], [low, high], color=_FAINT, linewidth=1)
    alpha = float(np.clip(12 / np.sqrt(len(order)), 0.25, 0.85))
    axes.plot(observed[order], predicted[order], "o", color=_SERIES[0], markersize=3.2, markeredgewidth=0, alpha=alpha)
    axes.set(
        xlim=(low - margin, high + margin),
        ylim=(low - margin, high + margin),
        aspect="equal",
        xlabel="Observed",
        ylabel="Predicted",
    )
    _grid(axes)
    return figure


def _survival(model: ModelSection, held: HeldOut) -> list[tuple[str, str, str, Callable[[], Figure]]]:
    """Pictures of times to an event: what became of thirds by predicted risk, and errors over time."""
    time, event, third = thirds(held)
    _, p = survival.log_rank(time, event, third, 3)
    told = f"log-rank p {p:.2g}" if not math.isnan(p) else "no log-rank test"
    caption = "Kaplan-Meier curves of rows by the mean of their held-out predictions; below, how many are at risk."
    alt = f"Survival of three groups by predicted risk, {told}"
    drawn = [(f"Survival by predicted risk, {told}", caption, alt, lambda: _kaplan_meier(time, event, third))]
    curves = {
        name: {float(key.split("@")[1]): i.value for key, i in of.items() if key.startswith("brier@")}
        for name, of in model.scores.items()
    }
    known = {name: of for name, of in curves.items() if any(not math.isnan(value) for value in of.values())}
    if known and len(held.times) > 1:
        caption = "Weighted for what is lost to follow-up; majority is the curve of Kaplan and Meier."
        alt = f"Brier score over time of {', '.join(known)}"
        drawn.append(("Brier score over time", caption, alt, lambda: _over_time(known)))
    return drawn


def thirds(held: HeldOut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the rows that were evaluated, by name: time, whether the event came, and the third by predicted risk, 0 for
    the lowest to 2; by the mean rank over repeats, so that it does not matter how far models of repeats lie apart."""
    from scipy.stats import rankdata

    rows = np.flatnonzero(held.evaluated.any(0))
    rows = rows[np.argsort(held.entities.astype(str)[rows], kind="stable")]
    ranks = [rankdata(-scores[rows], nan_policy="omit") / (~np.isnan(scores[rows])).sum() for scores in held.scores]
    place = np.argsort(np.argsort(np.nanmean(ranks, 0), kind="stable"), kind="stable")
    assert held.event is not None
    return held.target[rows], held.event[rows], place * 3 // len(rows)


def _kaplan_meier(time: np.ndarray, event: np.ndarray, third: np.ndarray) -> Figure:
    figure, axes = _figure(4.6, 3.7)
    ticks = np.linspace(0, time.max(), 5)
    for index, name in enumerate(("low risk", "middle", "high risk")):
        mine = third == index
        if not mine.any():
            continue
        curve = survival.kaplan_meier(time[mine], event[mine])
        x, y = np.r_[0, curve.times], np.r_[1, curve.values]
        axes.step(x, y, where="post", label=name, **_line(index))
        lost = np.unique(time[mine & ~event])
        axes.plot(lost, curve.at(lost), "|", color=_SERIES[index], markersize=4, markeredgewidth=0.8)
        for tick in ticks:
            at_risk = int((time[mine] >= tick).sum())
            axes.text(
                tick,
                -0.27 - 0.07 * index,
                str(at_risk),
                color=_SERIES[index],
                transform=axes.get_xaxis_transform(),
                ha="center",
                fontsize=8,
            )
    axes.set(xlabel="Time", ylabel="Without the event", ylim=(0, 1.03), xlim=(0, time.max() * 1.02))
    axes.set_xticks(ticks, [number(tick) if tick else "0" for tick in ticks])
    axes.legend(loc="lower left")
    _grid(axes)
    return figure


def _over_time(curves: dict[str, dict[float, float]]) -> Figure:
    figure, axes = _figure(4.4, 3.2)
    for index, (name, values) in enumerate(curves.items()):
        axes.plot(list(values), list(values.values()), label=name.replace("_", " "), marker=".", **_line(index))
    axes.set(xlabel="Time", ylabel="Brier score", ylim=(0, None))
    axes.legend()
    _grid(axes)
    return figure


def variables(colours: Sequence[str]) -> str:
    return "".join(f"--s{i}:{colour};" for i, colour in enumerate(colours))


_MARKERS = "osD^vPX"
_COLOURED = 7  # values of a column that have a colour of their own


def bars(drawn: Bars) -> Figure:
    from matplotlib.ticker import MaxNLocator, NullLocator

    shown = drawn.histogram
    figure, axes = _figure(3.9, 2.5)
    low, high = shown.edges[0], shown.edges[-1]
    axes.bar(
        shown.edges[:-1],
        shown.counts,
        width=np.diff(shown.edges),
        align="edge",
        color=_SERIES[0],
        alpha=0.75,
        linewidth=0,
    )
    axes.set(xlabel=drawn.across, ylabel=drawn.up, xlim=(low - 0.02 * (high - low), high + 0.02 * (high - low)))
    if drawn.log:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(_plain)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(_percent if drawn.percent else _plain)
    if shown.asinh:
        values = _decades(float(np.sinh(low)), float(np.sinh(high)))
        axes.set_xticks(np.arcsinh(values), [_plain(value) for value in values])
    _grid(axes)
    return figure


def _plain(value: float, _: object = None) -> str:
    return f"{value:,.10g}" if abs(value) < 1e6 else f"{value:.3g}".replace("e+0", "e").replace("e+", "e")


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:.3g}%"


def _decades(low: float, high: float) -> np.ndarray:
    """0 and powers of ten of either sign from `low` to `high`, every other one where they are many."""
    powers = 10.0 ** np.arange(0, 39)
    values = np.concatenate([-powers[::-1], [0.0], powers])
    found = values[(values >= low) & (values <= high)]
    step = -(-len(found) // 8)
    kept = [value for value in found if value == 0 or round(math.log10(abs(value))) % step == 0]
    return np.array(kept if len(kept) > 1 else [low, high])


def dots(cloud: Cloud, column: str, values: Sequence[str | None], neighbours: bool = False) -> Figure:
    """The first two components, or the layout by neighbours, coloured by a column; without one, all alike."""
    counts = Counter(value for value in values if value is not None)
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    own = sorted(ordered if len(ordered) <= _COLOURED else ordered[: _COLOURED - 1])
    figure, axes = _figure(3.9, 3.4)
    alpha = float(np.clip(14 / np.sqrt(max(len(values), 1)), 0.45, 0.9))
    found = cloud.neighbours if neighbours and cloud.neighbours is not None else cloud.points
    two = found[:, :2] if found.shape[1] > 1 else np.column_stack([found, np.zeros(len(cloud.ids))])
    groups: list[tuple[str, list[int], str, str]] = []
    others = [i for i, value in enumerate(values) if value is not None and value not in own]
    if others:
        groups.append((f"{len(ordered) - len(own)} other values", others, _FAINT, "p"))
    lacking = [i for i, value in enumerate(values) if value is None]
    if lacking and column:
        groups.append((f"no {column}", lacking, _FAINT, "x"))
    elif lacking:
        groups.append(("", lacking, _SERIES[0], "o"))
    for place, name in enumerate(own):
        rows = [i for i, value in enumerate(values) if value == name]
        groups.append((name, rows, _SERIES[place % len(_SERIES)], _MARKERS[place % len(_MARKERS)]))
    handles = {}
    for name, rows, colour, marker in groups:
        (handles[name],) = axes.plot(
            *two[rows].T,
            marker,
            color=colour,
            markersize=3.6,
            markeredgewidth=0.8 if marker == "x" else 0,
            alpha=alpha,
        )
    shares = [*cloud.shares.tolist(), 0.0]
    if neighbours:
        axes.set(xlabel="UMAP 1", ylabel="UMAP 2")
    else:
        axes.set(xlabel=f"PC1, {shares[0]:.1%} of the variance", ylabel=f"PC2, {shares[1]:.1%}")
    axes.tick_params(labelbottom=False, labelleft=False)
    _grid(axes)
    if column:
        names = [*own, *(name for name in handles if name not in own)]
        axes.legend(
            [handles[name] for name in names],
            [f"{_short(name)}" for name in names],
            title=_short(column, 24),
            loc="upper left",
            bbox_to_anchor=(1.02, 1),
            handletextpad=0.2,
        )
    return figure
