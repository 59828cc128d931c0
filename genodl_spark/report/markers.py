"""Pictures of biomarkers: effects and how sure they are, values of the first ones by class, and how often each is found
again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.report.content import MarkersShown, captioned, number, several
from genodl_spark.report.plots import _FAINT, _INK, _SERIES, MAX_POINTS, _figure, _grid, _plain, _short, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST = 30  # features in the heat map and in the picture of stability
_NAMED = 10  # of which a volcano says the name
_HUES = (2, 3, 4, 5, 0, 1)  # of classes, by number of `plots`; blue and orange come last, as heat maps are of these
_LEAST = 1e-300  # what p-values of 0 are drawn at
_CELLS = (160, 120)  # of a volcano: of points in one, only the first is drawn
_FAR, _STEPS = 2.5, 5  # standard deviations at which colours are full, and how many shades there are to that


def figures(shown: MarkersShown, prefix: str) -> list[str]:
    """The pictures as HTML, each only where there is something in it."""
    drawn: list[tuple[str, str, str, Callable[[MarkersShown], Figure]]] = []
    tested, chosen = int((~np.isnan(shown.p_value)).sum()), int(shown.selected.sum())
    if tested:
        alt = f"Effects and p-values of {several(tested, 'feature')}, of which {chosen:,} are selected"
        above = f"Above the dotted line: significant at a false discovery rate of {shown.rate:g}. "
        what = f"{shown.test.replace('_', ' ').capitalize()}: {chosen:,} of {tested:,} selected"
        up = "by the class that they are higher in" if len(shown.classes) == 2 else "by the class that stands out"
        drawn.append((what, f"{above}Coloured: selected, {up}.", alt, volcano))
    if shown.values.size:
        n, g = shown.values.shape[1], len(shown.values)
        some = f"{n:,} of {shown.rows:,} rows" if n < shown.rows else several(n, "row")
        caption = f"Standard scores of {some} that the model learnt from, beside each other where they are alike."
        alt = f"Heat map of {several(g, 'feature')} in {several(n, 'row')} of {len(shown.classes)} classes"
        drawn.append((f"The first {several(g, 'biomarker')}", caption, alt, heat_map))
    if tested and shown.sets > 1:
        always, sometimes = int((shown.share >= 1).sum()), int(((shown.share > 0) & (shown.share < 1)).sum())
        index = shown.stability.get("training_sets", np.nan)
        ends = [shown.stability.get(f"training_sets_{end}", np.nan) for end in ("low", "high")]
        told = "" if np.isnan(index) else f", index {number(index)} [{number(ends[0])}, {number(ends[1])}]"
        caption = (
            f"Of {shown.sets} training sets {several(always, 'feature')} are significant in all, {sometimes:,} in "
            "some. "
            f"Lines: agreement of {shown.agreement:g} for selected, {shown.threshold:g} for stable in halves."
        )
        alt = f"How often the first features are found{told}"
        drawn.append((f"Stability of the selection{told}", caption, alt, stability))
    return [
        captioned(title, caption, svg(partial(draw, shown), alt, f"{prefix}b{place}-"))
        for place, (title, caption, alt, draw) in enumerate(drawn)
    ]


def first(shown: MarkersShown, count: int) -> np.ndarray:
    """Places of the first features by consensus, int: of those selected, or, where there are none, of those tested."""
    among = shown.selected if shown.selected.any() else ~np.isnan(shown.p_value)
    places = np.flatnonzero(among)
    return places[np.argsort(shown.rank[places], kind="stable")[:count]]


def higher_in(shown: MarkersShown) -> np.ndarray:
    """The class by whose colour each feature goes, int (F,): of two the one in which it is higher, of more the one that
    stands out."""
    return np.where(shown.effect > 0, 1, 0) if len(shown.classes) == 2 else shown.of


def thinned(x: np.ndarray, y: np.ndarray, most: int) -> np.ndarray:
    """Places of points without those that would lie on others, int; `most` of them, evenly."""
    cell = []
    for values, cells in zip((x, y), _CELLS, strict=True):
        low, high = values.min(initial=0), values.max(initial=0)
        cell.append(((values - low) / ((high - low) or 1) * (cells - 1)).astype(int))
    _, kept = np.unique(cell[0] * _CELLS[1] + cell[1], return_index=True)
    return kept[np.unique(np.linspace(0, len(kept) - 1, min(len(kept), most)).round().astype(int))]


def volcano(shown: MarkersShown) -> Figure:
    figure, axes = _figure(4.6, 3.9)
    tested = ~np.isnan(shown.p_value)
    up = -np.log10(np.maximum(np.where(tested, shown.p_value, 1), _LEAST))
    colour = higher_in(shown)
    groups: list[tuple[str, np.ndarray, str, float]] = [("", tested & ~shown.selected, _SERIES[6], 0.4)]
    for place, name in enumerate(shown.classes):
        mine = tested & shown.selected & (colour == place)
        if mine.any():
            groups.append((name, mine, _SERIES[_HUES[place % len(_HUES)]], 0.85))
    handles = []
    for name, mine, hue, alpha in groups:
        own = np.flatnonzero(mine)
        own = own[thinned(shown.effect[own], up[own], MAX_POINTS)] if len(own) else own
        (line,) = axes.plot(shown.effect[own], up[own], "o", color=hue, markersize=3.2, markeredgewidth=0, alpha=alpha)
        if name:
            handles.append((line, name))
    if not np.isnan(shown.limit):
        axes.axhline(-np.log10(max(shown.limit, _LEAST)), color=_INK, linewidth=0.8, linestyle=":")
    top = max(float(up[tested].max()), 1e-9)
    wide = max(float(np.abs(shown.effect[tested]).max()), 1e-9)
    axes.set(xlim=(-1.8 * wide, 1.8 * wide), ylim=(-0.03 * top, 1.12 * top))
    axes.set(xlabel=f"Effect{_unit(shown)}", ylabel="-log10 of the p-value")
    _names(axes, shown, up, 1.12 * wide)
    _grid(axes)
    if 1 < len(handles) <= 12:
        axes.legend(
            [line for line, _ in handles],
            [_short(name) for _, name in handles],
            loc="upper left",
            bbox_to_anchor=(1.02, 1),
            handletextpad=0.2,
        )
    return figure


def _unit(shown: MarkersShown) -> str:
    of = ", log2" if shown.test == "negative_binomial" else ""
    return f"{of}: {_short(shown.classes[1])} less {_short(shown.classes[0])}" if len(shown.classes) == 2 else of


def _names(axes: Axes, shown: MarkersShown, up: np.ndarray, beyond: float) -> None:
    """Writes the names of the first features beyond all points, on either side, none over another."""
    low, high = axes.get_ylim()
    which = first(shown, _NAMED)
    apart = 0.045 * (high - low)
    for side in (-1, 1):
        below = np.inf
        mine = [i for i in which if (1 if shown.effect[i] >= 0 else -1) == side]
        for i in sorted(mine, key=lambda i: -up[i]):
            at = min(up[i], below - apart)
            below = at
            axes.annotate(
                _short(shown.features[i], 16),
                (shown.effect[i], up[i]),
                (side * beyond, at),
                fontsize=7,
                ha="left" if side > 0 else "right",
                va="center",
                annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": _SERIES[6], "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
            )


def in_order(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Columns of values (G, n) by group, those that are alike beside each other; int (n,)."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    found = []
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        if len(own) > 2:
            own = own[leaves_list(linkage(np.nan_to_num(values[:, own].T), "average", optimal_ordering=True))]
        found.append(own)
    return np.concatenate(found)


def shades(values: np.ndarray) -> np.ndarray:
    """Standard scores of each row of values (G, n), NaN missing, as steps of a scale from -5 to 5, int; 0 where a value
    is missing, or where all are alike."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(1, keepdims=True), 1)
    mean = np.where(known, values, 0).sum(1, keepdims=True) / count
    about = np.where(known, values - mean, 0)
    deviation = np.sqrt(np.square(about).sum(1, keepdims=True) / count)
    z = about / np.where(deviation > 1e-9 * np.maximum(np.abs(mean), 1e-300), deviation, np.inf)
    found: np.ndarray = np.clip(np.round(z / _FAR * _STEPS), -_STEPS, _STEPS).astype(int)
    return found


def heat_map(shown: MarkersShown) -> Figure:
    from matplotlib.patches import Rectangle

    g = len(shown.shown)
    colour = higher_in(shown)[shown.shown]
    rows = np.lexsort([np.arange(g), colour])  # features of a class together, the first by consensus first
    columns = in_order(shades(shown.values), shown.codes)
    steps, codes = shades(shown.values)[rows][:, columns], shown.codes[columns]
    n = len(columns)
    figure, axes = _figure(min(7.0, 2.2 + 0.07 * n), 1.2 + 0.17 * g)
    for sign in (-1, 1):
        for step in range(1, _STEPS + 1):
            _cells(axes, steps == sign * step, _SERIES[0 if sign < 0 else 1], step / _STEPS)
    handles, high = [], 0.7
    for k in np.unique(codes):
        own = np.flatnonzero(codes == k)
        patch = Rectangle((own[0], -1.2 * high), len(own), high, facecolor=_SERIES[_HUES[k % len(_HUES)]], linewidth=0)
        axes.add_patch(patch)
        handles.append((patch, shown.classes[k]))
        if own[0]:
            axes.plot([own[0]] * 2, [0, g], color=_INK, linewidth=0.7)
    axes.add_patch(Rectangle((0, 0), n, g, facecolor="none", edgecolor=_FAINT, linewidth=0.6))
    for step in range(-_STEPS, _STEPS + 1):  # the scale
        box = Rectangle(
            ((_STEPS + step) * n / 33, g + 0.5),
            n / 33,
            0.6,
            facecolor=_SERIES[0 if step < 0 else 1],
            alpha=abs(step) / _STEPS,
            edgecolor=_FAINT,
            linewidth=0.4,
        )
        axes.add_patch(box)
        if step in (-_STEPS, 0, _STEPS):
            axes.text((_STEPS + step + 0.5) * n / 33, g + 1.35, f"{step / _STEPS * _FAR:g}", ha="center", va="top")
    axes.text(n * 11.6 / 33, g + 0.8, "standard deviations", ha="left", va="center")
    axes.set(xlim=(0, n), ylim=(g + 2.2, -1.2 * high))
    axes.set_xticks([])
    axes.set_yticks(np.arange(g) + 0.5, [_short(shown.features[shown.shown[i]], 20) for i in rows], fontsize=7)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if len(handles) <= 14:
        axes.legend(
            [patch for patch, _ in handles],
            [_short(name) for _, name in handles],
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            handlelength=1,
        )
    return figure


def _cells(axes: Axes, where: np.ndarray, colour: str, alpha: float) -> None:
    """Fills cells, bool (G, n), as one path: cells beside each other as one."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if not where.any():
        return
    edges = np.diff(np.pad(where.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, start = np.nonzero(edges == 1)
    end = np.nonzero(edges == -1)[1]  # in the same order, as both go row by row
    corners = np.stack([[start, row], [end, row], [end, row + 1], [start, row + 1], [start, row]]).transpose(2, 0, 1)
    codes = np.tile([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], len(row))
    path = Path(corners.reshape(-1, 2).astype(float), codes)
    axes.add_patch(PathPatch(path, facecolor=colour, alpha=alpha, linewidth=0))


def stability(shown: MarkersShown) -> Figure:
    which = first(shown, FIRST)
    figure, axes = _figure(3.9, 1.1 + 0.17 * len(which))
    place = np.arange(len(which))
    series: Sequence[tuple[str, np.ndarray, float, dict[str, Any]]] = (
        ("training sets", shown.share, shown.agreement, {"marker": "o", "markersize": 6, "markerfacecolor": "none"}),
        ("halves of them", shown.frequency, shown.threshold, {"marker": "D", "markersize": 2.8}),
    )
    for index, (name, of, limit, style) in enumerate(series):
        if np.isnan(of[which]).all():
            continue
        axes.axvline(limit, color=_SERIES[index], linewidth=0.9, linestyle=":")
        axes.plot(of[which], place, linestyle="none", color=_SERIES[index], markeredgewidth=1, label=name, **style)
    axes.set(xlim=(-0.03, 1.03), ylim=(len(which) - 0.4, -0.6), xlabel="Share in which a feature is found")
    axes.xaxis.set_major_formatter(_plain)
    axes.set_yticks(place, [_short(shown.features[i], 20) for i in which], fontsize=7)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.42 / (0.17 * len(which) + 0.3)), ncols=2)
    _grid(axes)
    return figure
