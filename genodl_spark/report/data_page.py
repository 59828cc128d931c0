"""The page of one cohort's data as HTML, in the style of the report, self-contained: sections of facts, each with its
pictures and the same in tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from genodl_spark.report.clouds import Colouring, colourings, shown
from genodl_spark.report.content import captioned, cell_text, escape
from genodl_spark.report.facts import Cloud, Facts, Listing
from genodl_spark.report.page import document, html_table
from genodl_spark.report.plots import bars, dots, svg

_SHARE = re.compile(r"[\d.]+%")
_PLAIN = re.compile("[a-z0-9_-]{1,60}")
_MAPPED = 2  # columns that layouts by neighbours are coloured by
_UMAP = "UMAP: points that lie together are alike; how far groups lie apart means nothing."
_COMPARED = 12  # columns in the table of what goes with components


def name_of(cohort: str) -> str:
    """File name of a cohort's page: its own name where any file system and address takes that, else one with a hash."""
    if _PLAIN.fullmatch(cohort):
        return f"data-{cohort}.html"
    plain = re.sub("[^a-z0-9_-]+", "-", cohort.lower())[:40]
    return f"data-{plain}-{hashlib.sha256(cohort.encode()).hexdigest()[:8]}.html"


def render(
    cohort: str,
    lake: str,
    facts: Sequence[Facts],
    columns: Mapping[str, Mapping[str, Mapping[str, str]]],
    first: Sequence[str],
    index: str,
) -> str:
    """The page. `columns`: kind of entity -> column -> entity -> value, of those in clouds; `first`: columns that
    pictures are coloured by before others. `index`: the page that leads here."""
    parts = [
        f"<header><h1>Data of {escape(cohort)}</h1>"
        f'<p class=quiet>Lake {escape(lake)} · <a href="{escape(index)}">whole report</a></p></header>'
    ]
    if len(facts) > 1:
        links = (f'<li><a href="#facts-{i}">{escape(one.title)}</a></li>' for i, one in enumerate(facts))
        parts.append(f"<nav aria-label=Sections><ul>{''.join(links)}</ul></nav>")
    for i, one in enumerate(facts):
        parts.append(f"<section id=facts-{i}><h2>{escape(one.title)}</h2>")
        parts += [f"<p>{escape(text)}</p>" for text in one.said]
        pictures = [
            captioned(b.title, b.caption, svg(partial(bars, b), b.alt, f"f{i}b{j}-")) for j, b in enumerate(one.bars)
        ]
        if pictures:
            parts.append(f"<div class=pictures>{''.join(pictures)}</div>")
        if one.listings:
            parts.append(f"<div class=beside>{''.join(_listing(listing) for listing in one.listings)}</div>")
        for j, cloud in enumerate(one.clouds):
            told = columns.get(cloud.kind, {})
            mine = {name: [values.get(entity) for entity in cloud.ids] for name, values in told.items()}
            parts += _cloud(cloud, colourings(cloud, mine, first), f"f{i}c{j}")
        parts.append("</section>")
    return document(f"Data of {cohort}", parts)


def _listing(listing: Listing) -> str:
    numbers = [
        i for i in range(len(listing.header)) if listing.rows and all(_is_number(row[i]) for row in listing.rows)
    ]
    rows = [[escape(cell_text(value)) for value in row] for row in listing.rows]
    table = html_table([escape(name) for name in listing.header], rows, numbers, label=True)
    note = f"<p class=quiet>{escape(listing.note)}</p>" if listing.note else ""
    return f"<div><h3>{escape(listing.title)}</h3>{table}{note}</div>"


def _cloud(cloud: Cloud, found: Sequence[Colouring], prefix: str) -> list[str]:
    """Pictures of a cloud, coloured by columns, and a table of what each explains of its components."""
    if not cloud.shares.size:
        text = f"{cloud.title}: {cloud.about} Nothing varies among them, so there are no components."
        return [f"<p>{escape(text)}</p>"]
    pictured = shown(found)
    pictures = []
    for j, (one, alike) in enumerate(pictured):
        best = int(one.explained.argmax())
        share = f"{one.explained[best]:.0%} of PC{best + 1}"
        alt = f"{len(cloud.ids)} points on two components, coloured by {one.column}, which explains {share}"
        picture = svg(partial(dots, cloud, one.column, one.values), alt, f"{prefix}p{j}-")
        same = f" The same groups: {', '.join(alike)}." if alike else ""
        pictures.append(captioned(f"By {one.column}", f"It explains {share}.{same}", picture))
    if not pictured:
        alt = f"{len(cloud.ids)} points on two components"
        picture = svg(lambda: dots(cloud, "", [None] * len(cloud.ids)), alt, f"{prefix}p-")
        pictures.append(captioned("Two components", "No column tells the points apart into 2 to 20 groups.", picture))
    if cloud.neighbours is not None:
        for j, (one, _) in enumerate(pictured[:_MAPPED]):
            alt = f"{len(cloud.ids)} points by their neighbours, coloured by {one.column}"
            picture = svg(partial(dots, cloud, one.column, one.values, True), alt, f"{prefix}u{j}-")
            pictures.append(captioned(f"Neighbours, by {one.column}", _UMAP, picture))
        if not pictured:
            alt = f"{len(cloud.ids)} points by their neighbours"
            picture = svg(lambda: dots(cloud, "", [None] * len(cloud.ids), True), alt, f"{prefix}u-")
            pictures.append(captioned("Neighbours", _UMAP, picture))
    axes = len(cloud.shares)
    header = ["Column", *(f"PC{k + 1}" for k in range(axes))]
    rows: list[list[Any]] = [["(share of the variance)", *map(_share, cloud.shares.tolist())]]
    rows += [[one.column, *map(_share, one.explained.tolist())] for one in found[:_COMPARED]]
    note = "Below the first row: how much of each component the values of a column explain (adjusted R squared)."
    more = f" {len(found) - _COMPARED} more columns are left out." if len(found) > _COMPARED else ""
    table = Listing("What goes with the components", header, rows, note + more if found else "")
    about = f"<h3>{escape(cloud.title)}</h3><p class=quiet>{escape(cloud.about)}</p>"
    return [about, f"<div class=pictures>{''.join(pictures)}</div>", _listing(table)]


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or bool(_SHARE.fullmatch(str(value)))


def _share(value: float) -> str:
    return f"{value:.1%}"
