"""One HTML page of what the lake holds and how its models do: self-contained, no script, light and dark; and a plain-text table.

Pictures are SVG that matplotlib draws in placeholder colours, which become CSS variables of the page. Everything that comes from
users is escaped: on the page by `escape`, in pictures by matplotlib, with its $mathematics$ off.
"""

from __future__ import annotations

import html
import io
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import auc

from genodl_spark.core.output import printable
from genodl_spark.learning import metrics as evaluate
from genodl_spark.learning.metrics import HeldOut, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    "mae": "MAE",
    "mse": "MSE",
}
MAX_POINTS = 1500  # of a scatter plot: each is an element of the page


@dataclass(frozen=True)
class ModelSection:
    """One model on one cohort.

    `scores`: predictor -> metric -> Interval; the first predictor is the model, the rest its baselines. `metric`: the one that
    `difference`, (baseline, Interval of model - baseline), is about. `settings`: the few worth showing. `by`: value of
    `by_column` -> metric -> Interval. `train_loss` (epochs, k) and `validation_loss` (epochs, members), float, NaN where training
    had stopped. `held`: the model's predictions, for the pictures; without it there are none but the losses.
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
    by_column: str = ""
    by: dict[str, dict[str, Interval]] = field(default_factory=dict)
    train_loss: np.ndarray | None = None
    validation_loss: np.ndarray | None = None
    held: HeldOut | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StudySection:
    """One search for settings, of a task's network.

    `rungs`: of each trial, by number, the objective at the rungs that it reached; `states`: complete, pruned or failed. `shares`: those of
    the epochs at which the rungs lie, before the end. `settings`: name -> (of the first trial, of the best). `importance`: name -> share
    of the variance of the objective at rung `measured_at`; empty where too few trials were made. `baselines`: name -> (metric, of the
    first trial, of the best, its settings).
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


def render(page: Page) -> str:
    """The page as HTML: one file, without scripts and without anything to load."""
    parts = [f"<header><h1>{escape(page.title)}</h1>"]
    about = [f"Lake {escape(page.lake)}" if page.lake else "", escape(page.made)]
    parts.append(f"<p class=quiet>{' · '.join(filter(None, about))}</p></header>" if any(about) else "</header>")
    if len(page.models) > 1:
        links = (f'<li><a href="#model-{i}">{_heading(model)}</a></li>' for i, model in enumerate(page.models))
        parts.append(f"<nav aria-label=Models><ul>{''.join(links)}</ul></nav>")
    parts.append(_warnings(page.warnings))
    if page.tables:
        rows = [[escape(t.name), "" if t.rows is None else f"{t.rows:,}", str(t.version), escape(t.doc)] for t in page.tables]
        parts.append(f"<section><h2>Tables</h2>{_html_table(['Table', 'Rows', 'Version', 'One row is'], rows, numbers=(1, 2))}</section>")
    if page.runs:
        rows = [
            [escape(r.job), f'<span class="{escape(r.status)}">{escape(r.status)}</span>', f"{r.seconds:,.1f}", escape(r.started_at)]
            for r in page.runs
        ]
        parts.append(f"<section><h2>Runs</h2>{_html_table(['Job', 'Status', 'Seconds', 'Started, UTC'], rows, numbers=(2,))}</section>")
    parts += [_section(model, i) for i, model in enumerate(page.models)]
    parts += [_study(study, i) for i, study in enumerate(page.studies)]
    body = "\n".join(filter(None, parts))
    return (
        f"<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        f'<meta name=viewport content="width=device-width, initial-scale=1">\n<title>{escape(page.title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """Text as HTML shows it to the letter, without characters that would turn or hide what stands around them."""
    return html.escape(printable(text))


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Aligned columns as text: numbers to the right, floats and Intervals to 3 digits, "-" for None and NaN."""
    texts = [[_cell(value) for value in row] for row in [list(header), *rows]]
    right = [all(isinstance(row[i], (int, float, tuple, type(None), np.number)) for row in rows) for i in range(len(header))]
    widths = [max(_width(row[i]) for row in texts) for i in range(len(header))]
    lines = []
    for row in texts:
        padding = [" " * (width - _width(text)) for width, text in zip(widths, row, strict=True)]
        lines.append("  ".join(p + text if r else text + p for p, text, r in zip(padding, row, right, strict=True)).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, Interval):
        return _number(value.value) if math.isnan(value.low) else f"{_number(value.value)} [{_number(value.low)}, {_number(value.high)}]"
    if value is None or isinstance(value, (float, np.floating)):
        return "-" if value is None else _number(float(value))
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{value:,}"
    return "".join(" " if unicodedata.category(c).startswith("C") else c for c in str(value))  # a line break would break the table


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    text = f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"
    return text.replace("-0.000", "0.000")


def _heading(model: ModelSection) -> str:
    return f"{escape(model.task)}: {escape(model.label)} in {escape(model.cohort)}"


def _warnings(warnings: Sequence[str]) -> str:
    return f"<ul class=warnings aria-label=Warnings>{''.join(f'<li>{escape(w)}</li>' for w in warnings)}</ul>" if warnings else ""


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), label: bool = False) -> str:
    """A table of cells that are HTML already. `numbers`: columns set to the right. `label`: the first column heads its row."""
    kinds = ["n" if i in numbers else "" for i in range(len(header))]
    head = "".join(
        f'<th scope=col class="{kind}">{cell}</th>' if kind else f"<th scope=col>{cell}</th>" for cell, kind in zip(header, kinds, strict=True)
    )
    lines = []
    for row in rows:
        cells = [f'<td class="{kind}">{cell}</td>' if kind else f"<td>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)]
        if label:
            cells[0] = f"<th scope=row>{row[0]}</th>"
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def _section(model: ModelSection, index: int) -> str:
    facts = {"Model": f"{model.model_id}, version {model.version}", "Split": model.split, "Rows tested": f"{model.n_test:,}", **model.settings}
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    parts = [f"<section id=model-{index}><h2>{_heading(model)}</h2><dl>{listed}</dl>", _warnings(model.warnings)]
    if model.scores:
        parts.append(_score_table(model.scores, "Predictor", best=True))
        parts.append("<p class=quiet>Best in bold; small: 95% interval of a group bootstrap; \N{DOWNWARDS ARROW}: less is better.</p>")
    if model.difference is not None:
        parts.append(_difference(model.metric, *model.difference))
    if model.by:
        parts.append(f"<h3>By {escape(model.by_column)}</h3>{_score_table(model.by, model.by_column)}")
    parts.append(f"<div class=pictures>{''.join(_pictures(model, f'm{index}'))}</div>")
    if model.held is not None and model.held.classes:
        rows = [
            [escape(str(r["class"])), f"{r['support']:,g}", *(_number(float(r[k])) for k in ("precision", "recall", "f1"))]
            for r in evaluate.per_class(model.held)
        ]
        parts.append(f"<h3>Classes</h3>{_html_table(['Class', 'Rows', 'Precision', 'Recall', 'F1'], rows, range(1, 5), label=True)}")
    return "".join(parts) + "</section>"


def _study(study: StudySection, index: int) -> str:
    done = [values[-1] for values, state in zip(study.rungs, study.states, strict=True) if state == "complete"]
    counts = ", ".join(f"{study.states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in study.states)
    facts = {"Study": study.study, "Trials": f"{len(study.states)}: {counts}", "Objective": study.objective.replace("_", " ")}
    if study.states[:1] == ["complete"]:
        facts["Of the task as it is"] = _number(study.rungs[0][-1])
    if done:
        facts["Of the best"] = _number(min(done))
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    heading = f"{escape(study.task)}: {escape(study.label)} in {escape(study.cohort)}, search"
    parts = [f"<section id=study-{index}><h2>{heading}</h2><dl>{listed}</dl>"]
    rows = [[escape(name), escape(first), escape(best)] for name, (first, best) in study.settings.items()]
    parts.append(_html_table(["Setting", "Task as it is", "Best"], rows, (1, 2), label=True))
    if study.baselines:
        cells = [
            [escape(name.replace("_", " ")), escape(METRICS.get(metric, metric)), _number(first), _number(best), escape(settings)]
            for name, (metric, first, best, settings) in study.baselines.items()
        ]
        parts.append("<h3>Baselines, searched on the same rows</h3>")
        parts.append(_html_table(["Baseline", "Metric", "First trial", "Best", "Its settings"], cells, (2, 3), label=True))
    figures = []
    if any(study.rungs):
        alt = f"Objective of {len(study.rungs)} trials; the best of those that came to an end is {_number(min(done)) if done else 'not there'}"
        shown = ", ".join(f"{share:.0%}" for share in study.shares)
        caption = "A point is a trial where it ended; the line is the best so far." + (f" Pruned after {shown} of the epochs." if shown else "")
        figures.append(_captioned("History of the search", caption, _svg(lambda: _history(study), alt, f"s{index}h-")))
    if study.importance:
        most = max(study.importance, key=lambda name: study.importance[name])
        alt = f"Importance of {len(study.importance)} settings; {most} has the most, {study.importance[most]:.0%}"
        when = f"after {study.shares[study.measured_at]:.0%} of the epochs" if study.measured_at < len(study.shares) else "at the end"
        caption = f"Share of the variance of the objective {when} that each setting explains (fANOVA)."
        figures.append(_captioned("Importance of settings", caption, _svg(lambda: _importance(study.importance), alt, f"s{index}i-")))
    return "".join(parts) + f"<div class=pictures>{''.join(figures)}</div></section>"


def _captioned(title: str, caption: str, picture: str) -> str:
    return f"<figure>{picture}<figcaption><b>{escape(title)}.</b> {escape(caption)}</figcaption></figure>"


def _score_table(scores: dict[str, dict[str, Interval]], corner: str, best: bool = False) -> str:
    found = {name for metrics in scores.values() for name in metrics}
    columns = [name for name in METRICS if name in found] + sorted(found - METRICS.keys())
    header = [escape(corner)]
    for name in columns:
        arrow = ' <abbr title="less is better">\N{DOWNWARDS ARROW}</abbr>' if name in evaluate.LOWER_IS_BETTER else ""
        header.append(escape(METRICS.get(name, name)) + arrow)
    winners = {name: _best({p: m[name].value for p, m in scores.items() if name in m}, name) for name in columns} if best else {}
    rows = []
    for predictor, metrics in scores.items():
        cells = [escape(predictor.replace("_", " ") if best else predictor)]
        for name in columns:
            interval = metrics.get(name, Interval(np.nan, np.nan, np.nan))
            value = _number(interval.value)
            if predictor in winners.get(name, ()):
                value = f"<b>{value}</b>"
            ends = "" if math.isnan(interval.low) else f"<small>{_number(interval.low)} to {_number(interval.high)}</small>"
            cells.append(value + ends)
        rows.append(cells)
    return _html_table(header, rows, range(1, len(header)), label=True)


def _best(values: dict[str, float], metric: str) -> set[str]:
    """The predictors of the best value as shown; none for the rate of chance, and where all are equal."""
    shown = {p: float(_number(v)) for p, v in values.items() if not math.isnan(v)}
    if metric == "auprc_base_rate" or len(set(shown.values())) < 2:
        return set()
    best = min(shown.values()) if metric in evaluate.LOWER_IS_BETTER else max(shown.values())
    return {p for p, v in shown.items() if v == best}


def _difference(metric: str, baseline: str, interval: Interval) -> str:
    name = METRICS.get(metric, metric)
    sign = -1 if metric in evaluate.LOWER_IS_BETTER else 1
    ends = sorted((sign * interval.low, sign * interval.high))
    verdict = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "no clear difference"
    return (
        f"<p>{escape(name)}, model less best baseline ({escape(baseline.replace('_', ' '))}): <b>{interval.value:+.3f}</b> "
        f"<small>{interval.low:+.3f} to {interval.high:+.3f}</small>, paired: {verdict}.</p>"
    )


def _pictures(model: ModelSection, prefix: str) -> list[str]:
    """Figures of one model, as HTML; each only where its data are there."""
    drawn: list[tuple[str, str, str, Callable[[], Figure]]] = []  # title, caption, alt text, drawing
    held = model.held
    if held is not None and held.classes and held.n_test:
        counts = evaluate.confusion(held)
        right = counts.trace() / counts.sum()
        shown = (
            "Rows are the true classes; a cell holds its count and its share of the row." if len(held.classes) <= 14 else "Rows are the true classes."
        )
        alt = f"Confusion matrix of {len(held.classes)} classes; {right:.0%} of the rows are on the diagonal"
        drawn.append(("Confusion matrix", shown, alt, lambda: _confusion(counts, held.classes)))
    train, validation = _losses(model.train_loss), _losses(model.validation_loss)
    if train is not None or validation is not None:
        ends = [f"{kind} loss ends at {np.nanmean(v[-1]):.3f}" for kind, v in (("training", train), ("validation", validation)) if v is not None]
        drawn.append(("Loss", "Line: mean; band: all members.", f"Learning curve: {', '.join(ends)}", lambda: _learning(train, validation)))
    if held is not None and held.classes and held.n_test:
        found = evaluate.metrics(held)
        roc, pr = evaluate.roc_curves(held), evaluate.pr_curves(held)
        if roc:
            areas = {name: auc(x, y) for name, (x, y) in roc.items()}
            precision = {name: float(np.diff(x) @ y[1:]) for name, (x, y) in pr.items()}
            base = {name: _share(held, name) for name in pr}
            alt = f"ROC curve, area {_number(found['auroc'])}"
            drawn.append((f"ROC, area {_number(found['auroc'])}", _positive(held), alt, lambda: _curves(roc, areas, held, None)))
            alt = f"Precision-recall curve, average precision {_number(found['auprc'])}; chance {_number(found['auprc_base_rate'])}"
            title = f"Precision and recall, area {_number(found['auprc'])}"
            drawn.append((title, _positive(held) + (" Dotted: chance." if len(pr) <= 4 else ""), alt, lambda: _curves(pr, precision, held, base)))
        curve = evaluate.calibration_curve(held)
        alt = f"Reliability diagram: accuracy against stated probability in ten bins; expected calibration error {_number(found['ece'])}"
        caption = "Accuracy of the predictions made with each probability; below, how many."
        drawn.append((f"Calibration, ECE {_number(found['ece'])}", caption, alt, lambda: _calibration(*curve)))
    if held is not None and not held.classes and held.n_test:
        found = evaluate.metrics(held)
        shown = f" {MAX_POINTS:,} of {held.n_test:,} rows." if held.n_test > MAX_POINTS else ""
        alt = f"Predicted against observed values, Pearson correlation {_number(found['pearson'])}"
        drawn.append(("Predicted and observed", f"Diagonal: equal.{shown}", alt, lambda: _scatter(held)))
    figures = []
    for i, (title, caption, alt, draw) in enumerate(drawn):
        figures.append(_captioned(title, caption, _svg(draw, alt, f"{prefix}p{i}-")))
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


# Drawing. Placeholder colours of the pictures, and the CSS that takes their place: Okabe and Ito's colour-blind-safe hues, with
# a lightness of their own for light and dark pages. Beyond seven, lines repeat the hues dashed, then dotted.
_INK, _FAINT, _PAPER, _FIRST = "#010203", "#010204", "#010205", 0x10
_SERIES = [f"#0102{_FIRST + i:02x}" for i in range(7)]
_LIGHT = ("#0072b2", "#d55e00", "#008a65", "#b0568c", "#b37f00", "#3c97cf", "#6b6b6b")
_DARK = ("#4fa8e0", "#ff8a3d", "#2cc295", "#e392c0", "#f0b429", "#9bd3f7", "#b0b0b0")
_COLOURS = {_INK: "currentColor", _FAINT: "var(--faint)", _PAPER: "var(--paper)", **{colour: f"var(--s{i})" for i, colour in enumerate(_SERIES)}}
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)))


def _svg(draw: Callable[[], Figure], alt: str, prefix: str) -> str:
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
    text = re.sub(r"<[^>]+>", lambda tag: _tag(tag[0], prefix), text)  # and not the text between tags, which is the user's
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
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=_SERIES[0], alpha=0.06 + 0.94 * share, edgecolor="none"))
        if c <= 14:
            count = f"{counts[i, j]:.0f}" if counts[i, j] % 1 == 0 or counts[i, j] >= 100 else f"{counts[i, j]:.1f}"
            ink = _PAPER if share > 0.8 else _INK  # the better contrast, on either page
            size = 9 if c <= 4 else 7.5 if c <= 8 else 6.5
            axes.text(j, i, f"{count}\n{share:.0%}", ha="center", va="center", fontsize=size, color=ink, linespacing=1.15)
    axes.set(xlim=(-0.5, c - 0.5), ylim=(c - 0.5, -0.5), aspect="equal", xlabel="Predicted", ylabel="True")
    names = [_short(name) for name in classes]
    if c <= 40:
        long = max(len(name) for name in names) * 0.075 > cell
        axes.set_xticks(range(c), names, rotation=45 if long else 0, ha="right" if long else "center", rotation_mode="anchor")
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
            epochs, np.nanmean(loss, 1), label=name, marker="o" if len(loss) == 1 else None, **{**_line(index), "linestyle": ("-", _DASHES[1])[index]}
        )
        if loss.shape[1] > 1:
            axes.fill_between(epochs, np.nanmin(loss, 1), np.nanmax(loss, 1), color=_SERIES[index], alpha=0.2, linewidth=0)
    axes.set(xlabel="Epoch", ylabel="Loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    _grid(axes)
    return figure


def _curves(curves: dict[str, tuple[np.ndarray, np.ndarray]], areas: dict[str, float], held: HeldOut, base: dict[str, float] | None) -> Figure:
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
    figure, (axes, below) = _figure(3.6, 4.2, nrows=2, sharex=True, gridspec_kw={"height_ratios": [3, 1], "hspace": 0.08})
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


def _history(study: StudySection) -> Figure:
    figure, axes = _figure(4.4, 3.2)
    ends = np.array([values[-1] if values else np.nan for values in study.rungs])
    for i, (state, marker) in enumerate((("complete", "o"), ("pruned", "v"), ("failed", "x"))):
        mine = np.flatnonzero([s == state for s in study.states])
        if np.isfinite(ends[mine]).any():
            axes.plot(mine, ends[mine], marker, color=_SERIES[(0, 6, 1)[i]], markersize=4.5, markeredgewidth=1 if marker == "x" else 0, label=state)
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


def _importance(shares: dict[str, float]) -> Figure:
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
    order = np.argsort(held.entities.astype(str)[rows], kind="stable")  # by name, which has nothing to do with the values
    order = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MAX_POINTS)).round().astype(int))]
    figure, axes = _figure(3.8, 3.7)
    low, high = min(observed.min(), predicted.min()), max(observed.max(), predicted.max())
    margin = (high - low) * 0.03 or 1.0
    axes.plot([low, high], [low, high], color=_FAINT, linewidth=1)
    alpha = float(np.clip(12 / np.sqrt(len(order)), 0.25, 0.85))
    axes.plot(observed[order], predicted[order], "o", color=_SERIES[0], markersize=3.2, markeredgewidth=0, alpha=alpha)
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal", xlabel="Observed", ylabel="Predicted")
    _grid(axes)
    return figure


def _variables(colours: Sequence[str]) -> str:
    return "".join(f"--s{i}:{colour};" for i, colour in enumerate(colours))


_STYLE = f"""
:root {{ color-scheme: light dark;
  --ink:#1b1d20; --paper:#ffffff; --quiet:#5c6167; --faint:#c9cdd2; --wash:#f4f5f7; --bad:#b3261e; {_variables(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{
  --ink:#e8eaed; --paper:#15171a; --quiet:#a3a9b0; --faint:#43484e; --wash:#1e2125; --bad:#ff8a80; {_variables(_DARK)} }} }}
* {{ box-sizing: border-box }}
body {{ margin: 0 auto; padding: 1.5rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, "Segoe UI", sans-serif }}
h1 {{ font-size: 1.6rem; margin: 0 }} h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .6rem }} h3 {{ font-size: 1rem; margin: 1.4rem 0 .4rem }}
h1, h2, h3, dd, figcaption, li {{ overflow-wrap: anywhere }}
a {{ color: var(--s0) }} .quiet, small, dt, figcaption {{ color: var(--quiet) }} .quiet {{ margin: .3rem 0; font-size: .87rem }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--faint); white-space: nowrap }}
td:last-child {{ white-space: normal }} td.n, th.n {{ text-align: right; white-space: nowrap }}
thead th, thead th.n {{ background: var(--wash); font-weight: 600; white-space: normal; vertical-align: bottom }} tbody th {{ font-weight: 500 }}
td small {{ display: block; font-size: .76rem }} abbr {{ text-decoration: none }}
dl {{ display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: .3rem 0 .9rem }} dt {{ font-size: .78rem }} dd {{ margin: 0 }}
.warnings {{ margin: .8rem 0; padding: .5rem .9rem .5rem 2rem; border-left: 4px solid var(--s4); background: var(--wash) }}
.failed {{ color: var(--bad); font-weight: 600 }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1.2rem 2rem; align-items: flex-end; margin: 1.2rem 0 }}
figure {{ margin: 0; max-width: 100% }} figcaption {{ max-width: 26rem; font-size: .83rem }} figcaption b {{ color: var(--ink) }}
svg {{ max-width: 100%; height: auto; color: var(--ink); stroke-linejoin: round; stroke-linecap: butt }}
svg text {{ font-family: "DejaVu Sans", Verdana, sans-serif }}
@media print {{ body {{ max-width: none; padding: 0 }} figure, tr {{ break-inside: avoid }} }}
"""
