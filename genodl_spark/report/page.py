"""One HTML page of what the lake holds and how its models do: self-contained, no script, light and dark;
and a plain-text table.

Pictures are SVG that matplotlib draws in placeholder colours, which become CSS variables of the page. Everything
that comes from users is escaped: on the page by `escape`, in pictures by matplotlib, with its $mathematics$ off.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from genodl_spark.learning import metrics as evaluate
from genodl_spark.learning.metrics import Interval
from genodl_spark.report import compared_calls, logos, markers
from genodl_spark.report.content import (
    METRICS,
    CallsCompared,
    MarkersShown,
    ModelSection,
    Page,
    StudySection,
    captioned,
    cell_text,
    escape,
    number,
    several,
)
from genodl_spark.report.plots import DARK, LIGHT, history, importance, pictures, svg, variables

_MARKERS_LISTED = 20


def render(page: Page) -> str:
    """The page as HTML: one file, without scripts and without anything to load."""
    parts = [f"<header><h1>{escape(page.title)}</h1>"]
    about = [f"Lake {escape(page.lake)}" if page.lake else "", escape(page.made)]
    parts.append(f"<p class=quiet>{' · '.join(filter(None, about))}</p></header>" if any(about) else "</header>")
    if len(page.models) > 1:
        links = (f'<li><a href="#model-{i}">{_heading(model)}</a></li>' for i, model in enumerate(page.models))
        parts.append(f"<nav aria-label=Models><ul>{''.join(links)}</ul></nav>")
    parts.append(_warnings(page.warnings))
    if page.data:
        rows = [
            [f'<a href="{escape(d.page)}">{escape(d.cohort)}</a>', escape(d.sources), f"{d.files:,}", f"{d.rows:,}"]
            for d in page.data
        ]
        parts.append(
            "<section><h2>Data</h2>"
            f"{html_table(['Cohort', 'Sources', 'Files', 'Rows'], rows, numbers=(2, 3), label=True)}</section>"
        )
    if page.tables:
        rows = [
            [escape(t.name), "" if t.rows is None else f"{t.rows:,}", str(t.version), escape(t.doc)]
            for t in page.tables
        ]
        parts.append(
            "<section><h2>Tables</h2>"
            f"{html_table(['Table', 'Rows', 'Version', 'One row is'], rows, numbers=(1, 2))}</section>"
        )
    if page.runs:
        rows = [
            [
                escape(r.job),
                f'<span class="{escape(r.status)}">{escape(r.status)}</span>',
                f"{r.seconds:,.1f}",
                escape(r.started_at),
            ]
            for r in page.runs
        ]
        parts.append(
            "<section><h2>Runs</h2>"
            f"{html_table(['Job', 'Status', 'Seconds', 'Started, UTC'], rows, numbers=(2,))}</section>"
        )
    parts += [_section(model, i) for i, model in enumerate(page.models)]
    parts += [_study(study, i) for i, study in enumerate(page.studies)]
    parts += [_calls(calls, i) for i, calls in enumerate(page.calls)]
    return document(page.title, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """Parts of a page, HTML, as a whole one."""
    body = "\n".join(filter(None, parts))
    return (
        f"<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        f'<meta name=viewport content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _heading(model: ModelSection) -> str:
    return f"{escape(model.task)}: {escape(model.label)} in {escape(model.cohort)}"


def _warnings(warnings: Sequence[str]) -> str:
    return (
        f"<ul class=warnings aria-label=Warnings>{''.join(f'<li>{escape(w)}</li>' for w in warnings)}</ul>"
        if warnings
        else ""
    )


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), label: bool = False
) -> str:
    """A table of cells that are HTML already. `numbers`: columns set to the right.
    `label`: the first column heads its row."""
    kinds = ["n" if i in numbers else "" for i in range(len(header))]
    head = "".join(
        f'<th scope=col class="{kind}">{cell}</th>' if kind else f"<th scope=col>{cell}</th>"
        for cell, kind in zip(header, kinds, strict=True)
    )
    lines = []
    for row in rows:
        cells = [
            f'<td class="{kind}">{cell}</td>' if kind else f"<td>{cell}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        ]
        if label:
            cells[0] = f"<th scope=row>{row[0]}</th>"
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def _section(model: ModelSection, index: int) -> str:
    facts = {
        "Model": f"{model.model_id}, version {model.version}",
        "Split": model.split,
        "Rows tested": f"{model.n_test:,}",
        **model.settings,
    }
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    parts = [f"<section id=model-{index}><h2>{_heading(model)}</h2><dl>{listed}</dl>", _warnings(model.warnings)]
    if model.scores:
        parts.append(_score_table(model.scores, "Predictor", best=True))
        parts.append(
            "<p class=quiet>Best in bold; small: 95% interval of a group bootstrap; "
            "\N{DOWNWARDS ARROW}: less is better.</p>"
        )
    if model.difference is not None:
        parts.append(_difference(model.metric, *model.difference))
    if model.heads:
        parts.append(f"<h3>By label</h3>{_score_table(model.heads, 'Label')}")
    for what, found in model.by.items():
        parts.append(f"<h3>By {escape(what)}</h3>{_score_table(found, what)}")
    parts.append(f"<div class=pictures>{''.join(pictures(model, f'm{index}'))}</div>")
    if model.held is not None and model.held.classes:
        rows = [
            [
                escape(str(r["class"])),
                f"{r['support']:,g}",
                *(number(float(r[k])) for k in ("precision", "recall", "f1")),
            ]
            for r in evaluate.per_class(model.held)
        ]
        parts.append(
            "<h3>Classes</h3>"
            f"{html_table(['Class', 'Rows', 'Precision', 'Recall', 'F1'], rows, range(1, 5), label=True)}"
        )
    if model.motifs:
        parts.append(f"<h3>Motifs</h3><div class=pictures>{''.join(_motifs(model, index))}</div>")
    if model.ranked:
        ranked = [[escape(name), escape(of), number(size), number(mean)] for of, name, size, mean in model.ranked]
        header = ["Feature", "Class", "Mean size of its contributions", "Mean contribution"]
        parts.append(f"<h3>Features</h3>{html_table(header, ranked, numbers=(2, 3), label=True)}")
    parts += [_markers(shown, f"m{index}k{place}") for place, shown in enumerate(model.markers)]
    return "".join(parts) + "</section>"


def _markers(shown: MarkersShown, prefix: str) -> str:
    pictures = f"<div class=pictures>{''.join(markers.figures(shown, prefix))}</div>"
    header = ["Feature", "Effect", "FDR", "Training sets", "Halves", *shown.by, "Consensus"]
    rows = []
    for i in markers.first(shown, _MARKERS_LISTED):
        q = shown.q_value[i]
        cells = [number(shown.effect[i]), f"{q:.2g}", f"{shown.share[i]:.0%}"]
        cells.append("-" if np.isnan(shown.frequency[i]) else f"{shown.frequency[i]:.0%}")
        rows.append(
            [escape(shown.features[i]), *cells, *(f"{of[i]:,}" for of in shown.by.values()), f"{shown.rank[i]:,}"]
        )
    header = [escape(name.replace("_", " ")) for name in header]
    table = html_table(header, rows, range(1, len(header)), label=True) if rows else ""
    said = "" if shown.selected.any() else "None is selected: the first of those tested. "
    note = f"<p class=quiet>{said}Columns of methods and the last one are ranks.</p>" if rows else ""
    sizes = {name.removeprefix("found@"): share for name, share in shown.planted.items() if name != "false"}
    unit = "powers of 2" if shown.test == "negative_binomial" else "standard deviations"
    if sizes:
        found = ", ".join(f"{share:.0%}" for share in sizes.values())
        told = f"Of differences of {', '.join(sizes)} {unit}, planted where labels are dealt anew, {found} are found; "
        note = f"<p>{told}of what is found there {shown.planted['false']:.0%} is false.</p>{note}"
    return f"<h3>Biomarkers of {escape(shown.label)}</h3>{pictures}{table}{note}"


def _calls(calls: CallsCompared, index: int) -> str:
    where = f"within {calls.confident}" if calls.confident else "everywhere"
    about = f"Query {calls.query}, truth {calls.truth}, {where}; compared {calls.compared_at}, UTC"
    header = ["Variants", "Filter", "Truth", "Missed", "Right", "Wrong", "Genotype", "Unknown", *compared_calls.METRICS]
    rows = []
    for kind, filters in calls.counts.items():
        for name, row in filters.items():
            counts = [cell_text(row[column]) for column in compared_calls.COUNTS]
            metrics = [cell_text(value) for value in compared_calls.metrics(calls, kind, name)]
            rows.append([escape(kind), escape(name), *map(escape, counts), *map(escape, metrics)])
    table = html_table(header, rows, numbers=range(2, len(header)), label=True)
    picture = compared_calls.figure(calls, f"c{index}-")
    name = posixpath.basename(calls.query)
    return f"<section><h2>Calls: {escape(name)}</h2><p class=quiet>{escape(about)}</p>{table}{picture}</section>"


def _motifs(model: ModelSection, index: int) -> Iterator[str]:
    for place, motif in enumerate(model.motifs):
        said = f"{several(motif.seqlets, 'place')} in {motif.entities:,} of {several(motif.among, 'sequence')}."
        title = f"{motif.name}, {motif.consensus}"
        picture = svg(partial(logos.figure, motif.probabilities), f"Logo of {title}", f"m{index}l{place}-")
        yield captioned(title, said, picture)


def _study(study: StudySection, index: int) -> str:
    done = [values[-1] for values, state in zip(study.rungs, study.states, strict=True) if state == "complete"]
    counts = ", ".join(
        f"{study.states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in study.states
    )
    facts = {
        "Study": study.study,
        "Trials": f"{len(study.states)}: {counts}",
        "Objective": study.objective.replace("_", " "),
    }
    if study.states[:1] == ["complete"]:
        facts["Of the task as it is"] = number(study.rungs[0][-1])
    if done:
        facts["Of the best"] = number(min(done))
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    heading = f"{escape(study.task)}: {escape(study.label)} in {escape(study.cohort)}, search"
    parts = [f"<section id=study-{index}><h2>{heading}</h2><dl>{listed}</dl>"]
    rows = [[escape(name), escape(first), escape(best)] for name, (first, best) in study.settings.items()]
    parts.append(html_table(["Setting", "Task as it is", "Best"], rows, (1, 2), label=True))
    if study.baselines:
        cells = [
            [
                escape(name.replace("_", " ")),
                escape(METRICS.get(metric, metric)),
                number(first),
                number(best),
                escape(settings),
            ]
            for name, (metric, first, best, settings) in study.baselines.items()
        ]
        parts.append("<h3>Baselines, searched on the same rows</h3>")
        parts.append(
            html_table(["Baseline", "Metric", "First trial", "Best", "Its settings"], cells, (2, 3), label=True)
        )
    figures = []
    if any(study.rungs):
        alt = (
            f"Objective of {len(study.rungs)} trials; the best of those that came to an end "
            f"is {number(min(done)) if done else 'not there'}"
        )
        shown = ", ".join(f"{share:.0%}" for share in study.shares)
        caption = "A point is a trial where it ended; the line is the best so far." + (
            f" Pruned after {shown} of the epochs." if shown else ""
        )
        figures.append(captioned("History of the search", caption, svg(lambda: history(study), alt, f"s{index}h-")))
    if study.importance:
        most = max(study.importance, key=lambda name: study.importance[name])
        alt = f"Importance of {len(study.importance)} settings; {most} has the most, {study.importance[most]:.0%}"
        when = (
            f"after {study.shares[study.measured_at]:.0%} of the epochs"
            if study.measured_at < len(study.shares)
            else "at the end"
        )
        caption = f"Share of the variance of the objective {when} that each setting explains (fANOVA)."
        figures.append(
            captioned("Importance of settings", caption, svg(lambda: importance(study.importance), alt, f"s{index}i-"))
        )
    return "".join(parts) + f"<div class=pictures>{''.join(figures)}</div></section>"


def _score_table(scores: dict[str, dict[str, Interval]], corner: str, best: bool = False) -> str:
    # what is said of each of several times is in a picture
    found = {name for metrics in scores.values() for name in metrics if "@" not in name}
    columns = [name for name in METRICS if name in found] + sorted(found - METRICS.keys())
    header = [escape(corner)]
    for name in columns:
        arrow = ' <abbr title="less is better">\N{DOWNWARDS ARROW}</abbr>' if name in evaluate.LOWER_IS_BETTER else ""
        header.append(escape(METRICS.get(name, name)) + arrow)
    winners = (
        {name: _best({p: m[name].value for p, m in scores.items() if name in m}, name) for name in columns}
        if best
        else {}
    )
    rows = []
    for predictor, metrics in scores.items():
        cells = [escape(predictor.replace("_", " ") if best else predictor)]
        for name in columns:
            interval = metrics.get(name, Interval(np.nan, np.nan, np.nan))
            value = number(interval.value)
            if predictor in winners.get(name, ()):
                value = f"<b>{value}</b>"
            ends = (
                "" if math.isnan(interval.low) else f"<small>{number(interval.low)} to {number(interval.high)}</small>"
            )
            cells.append(value + ends)
        rows.append(cells)
    return html_table(header, rows, range(1, len(header)), label=True)


def _best(values: dict[str, float], metric: str) -> set[str]:
    """The predictors of the best value as shown; none for the rate of chance, and where all are equal."""
    shown = {p: float(number(v)) for p, v in values.items() if not math.isnan(v)}
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
        f"<p>{escape(name)}, model less best baseline ({escape(baseline.replace('_', ' '))}): "
        f"<b>{interval.value:+.3f}</b> <small>{interval.low:+.3f} to {interval.high:+.3f}</small>, "
        f"paired: {verdict}.</p>"
    )


_STYLE = f"""
:root {{ color-scheme: light dark;
  --ink:#1b1d20; --paper:#ffffff; --quiet:#5c6167; --faint:#c9cdd2; --wash:#f4f5f7; --bad:#b3261e;
  {variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{
  --ink:#e8eaed; --paper:#15171a; --quiet:#a3a9b0; --faint:#43484e; --wash:#1e2125; --bad:#ff8a80;
  {variables(DARK)} }} }}
* {{ box-sizing: border-box }}
body {{ margin: 0 auto; padding: 1.5rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, "Segoe UI", sans-serif }}
h1 {{ font-size: 1.6rem; margin: 0 }} h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .6rem }}
h3 {{ font-size: 1rem; margin: 1.4rem 0 .4rem }}
h1, h2, h3, dd, figcaption, li {{ overflow-wrap: anywhere }}
a {{ color: var(--s0) }} .quiet, small, dt, figcaption {{ color: var(--quiet) }}
.quiet {{ margin: .3rem 0; font-size: .87rem }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--faint); white-space: nowrap }}
td:last-child {{ white-space: normal }} td.n, th.n {{ text-align: right; white-space: nowrap }}
thead th, thead th.n {{ background: var(--wash); font-weight: 600; white-space: normal; vertical-align: bottom }}
tbody th {{ font-weight: 500 }}
td small {{ display: block; font-size: .76rem }} abbr {{ text-decoration: none }}
dl {{ display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: .3rem 0 .9rem }}
dt {{ font-size: .78rem }} dd {{ margin: 0 }}
.warnings {{ margin: .8rem 0; padding: .5rem .9rem .5rem 2rem;
  border-left: 4px solid var(--s4); background: var(--wash) }}
.failed {{ color: var(--bad); font-weight: 600 }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1.2rem 2rem; align-items: flex-end; margin: 1.2rem 0 }}
.beside {{ display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start }}
.beside > div {{ min-width: 0; max-width: 100% }}
figure {{ margin: 0; max-width: 100% }} figcaption {{ max-width: 26rem; font-size: .83rem }}
figcaption b {{ color: var(--ink) }}
svg {{ max-width: 100%; height: auto; color: var(--ink); stroke-linejoin: round; stroke-linecap: butt }}
svg text {{ font-family: "DejaVu Sans", Verdana, sans-serif }}
@media print {{ body {{ max-width: none; padding: 0 }} figure, tr {{ break-inside: avoid }} }}
"""
