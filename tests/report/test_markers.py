"""Pictures of biomarkers: what is where, and nothing of the users' unescaped."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.patches import PathPatch

from genodl_spark.learning.biomarkers.differences import benjamini_hochberg
from genodl_spark.report import markers
from genodl_spark.report import page as report
from genodl_spark.report.content import MarkersShown, Page
from tests.report.test_page import EVIL, Elements, section


def shown(features: int = 400, classes: tuple[str, ...] = ("normal", "tumor"), **changes: object) -> MarkersShown:
    """The first eight features differ, the odd ones downwards."""
    random = np.random.default_rng(0)
    true = np.arange(features) < 8
    p = np.where(true, 10.0 ** -random.uniform(5, 20, features), random.uniform(0, 1, features))
    p[8] = np.nan
    q = benjamini_hochberg(p)
    effect = np.where(true, np.where(np.arange(features) % 2, -2.0, 2.0), random.normal(0, 0.4, features))
    codes = np.repeat(np.arange(len(classes)), 10)
    some = np.arange(8)
    values = random.normal(size=(8, len(codes))) + effect[:8, None] * (codes == 1)
    values[0, 3] = np.nan
    base = MarkersShown(
        label="status",
        classes=classes,
        test="moderated_t",
        rate=0.1,
        agreement=0.5,
        threshold=0.75,
        sets=15,
        stability={"training_sets": 0.812, "training_sets_low": 0.75, "training_sets_high": 0.875},
        features=[f"G{i}" for i in range(features)],
        effect=np.where(np.isnan(p), np.nan, effect),
        of=np.full(features, 1),
        p_value=p,
        q_value=q,
        share=np.where(true, 1.0, np.where(np.arange(features) < 12, 0.2, 0.0)),
        frequency=np.where(true, 0.9, 0.1),
        selected=true,
        rank=np.arange(1, features + 1),
        by={"deeplift": np.arange(1, features + 1)[::-1]},
        limit=float(np.nanmax(p[:8])),
        shown=some,
        values=values,
        codes=codes,
        rows=50,
        planted={"found@0.5": 0.04, "found@1": 0.625, "found@2": 1.0, "false": 0.09},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_biomarkers_are_shown_in_three_pictures_and_a_table() -> None:
    html = report.render(Page("t", models=[section(None, markers=[shown(), shown(label=EVIL, features=500)])]))
    assert EVIL not in html
    found = Elements(html)
    alts = [str(attributes["aria-label"]) for tag, attributes in found.elements if tag == "svg"]
    assert alts[-3:] == [
        "Effects and p-values of 499 features, of which 8 are selected",
        "Heat map of 8 features in 20 rows of 2 classes",
        "How often the first features are found, index 0.812 [0.750, 0.875]",
    ]
    named = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(named) == len(set(named))
    text = [told for _, told in found.text]
    assert "Biomarkers of status" in text and f"Biomarkers of {EVIL}" in text
    assert any("20 of 50 rows that the model learnt from" in told for told in text)
    assert any("Of 15 training sets 8 features are significant in all, 4 in some" in told for told in text)
    assert any(
        "0.5, 1, 2 standard deviations, planted where labels are dealt anew, 4%, 62%, 100% are found; of what is found "
        "there 9% is false." in told
        for told in text
    )
    cells = [told for element, told in found.text if element in ("th", "td")]
    at = cells.index("Feature")
    assert cells[at : at + 7] == ["Feature", "Effect", "FDR", "Training sets", "Halves", "deeplift", "Consensus"]
    assert cells[at + 7 : at + 14] == ["G0", "2.000", f"{shown().q_value[0]:.2g}", "100%", "90%", "400", "1"]
    assert "G8" not in cells  # not selected


def test_a_volcano_has_what_is_selected_by_the_class_that_it_is_higher_in() -> None:
    one = shown()
    axes = markers.volcano(one).axes[0]
    others, low, high, limit = axes.get_lines()
    assert sorted(high.get_xdata()) == [2.0] * 4 and sorted(low.get_xdata()) == [-2.0] * 4
    assert np.sort(high.get_ydata()) == pytest.approx(np.sort(-np.log10(one.p_value[:8:2])))
    assert limit.get_ydata()[0] == pytest.approx(-np.log10(one.limit)) == pytest.approx(low.get_ydata().min(), abs=15)
    assert len(others.get_xdata()) <= 391 and low.get_color() != high.get_color() != others.get_color()
    assert {text.get_text() for text in axes.texts} == {f"G{i}" for i in range(8)}
    heights = sorted(text.xyann[1] for text in axes.texts if text.xyann[0] > 0)
    low_end, high_end = axes.get_ylim()
    assert (np.diff(heights) >= 0.045 * (high_end - low_end) - 1e-9).all()  # no name over another
    zero = replace(one, p_value=np.where(np.arange(400) == 0, 0, one.p_value))
    assert markers.volcano(zero).axes[0].get_ylim()[1] == pytest.approx(1.12 * 300)


def test_points_that_lie_on_others_are_drawn_once() -> None:
    x = np.r_[np.zeros(1000), np.linspace(1, 2, 50)]
    kept = markers.thinned(x, x, 100)
    assert 40 <= len(kept) <= 51 and x[kept].max() == 2 and (x[kept] == 0).sum() == 1
    assert len(markers.thinned(x, x, 10)) == 10 and len(markers.thinned(x[:0], x[:0], 10)) == 0


def test_shades_are_standard_scores() -> None:
    values = np.array([[1.0, 2, 3, np.nan], [5, 5, 5, 5], [0, 0, 0, 100]])
    assert markers.shades(values).tolist() == [[-2, 0, 2, 0], [0, 0, 0, 0], [-1, -1, -1, 3]]
    random = np.random.default_rng(1)
    x = random.normal(3, 2, (4, 60))
    z = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    assert np.abs(markers.shades(x) / 2 - z).max() <= max(0.25, np.abs(z).max() - 2.5) + 1e-9
    assert (markers.shades(x) == markers.shades(x * 1e9)).all()


def test_a_heat_map_has_rows_by_class_and_columns_that_are_alike_together() -> None:
    one = shown()
    figure = markers.heat_map(one)
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["G1", "G3", "G5", "G7", "G0", "G2", "G4", "G6"]  # higher in normal first
    # cells of one shade beside each other are one rectangle
    steps = markers.shades(one.values)[:, markers.in_order(markers.shades(one.values), one.codes)]
    runs = (steps != 0) & (np.diff(steps, axis=1, prepend=0) != 0)
    cells = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    assert sum(len(patch.get_path().codes) // 5 for patch in cells) == runs.sum() > 40
    order = markers.in_order(one.values, one.codes)
    assert sorted(order) == list(range(20)) and (np.diff(one.codes[order]) >= 0).all()
    twins = np.repeat(np.random.default_rng(2).normal(size=(5, 6)), 2, 1)[:, np.random.default_rng(3).permutation(12)]
    placed = twins[:, markers.in_order(twins, np.zeros(12, int))]
    assert (placed[:, ::2] == placed[:, 1::2]).all()  # twins are neighbours


def test_odd_biomarkers_are_drawn() -> None:
    none = shown(selected=np.zeros(400, bool), limit=np.nan)
    html = report.render(Page("t", models=[section(None, markers=[none])]))
    assert "None is selected" in html and html.count("<svg") == 1 + 3
    untested = shown(
        p_value=np.full(400, np.nan), q_value=np.full(400, np.nan), selected=np.zeros(400, bool),
        shown=np.zeros(0, int), values=np.zeros((0, 0)), codes=np.zeros(0, int),
    )  # fmt: skip
    assert report.render(Page("t", models=[section(None, markers=[untested])])).count("<svg") == 1
    classes = tuple(f"class {i}" for i in range(16))
    many = shown(classes=classes, of=np.arange(400) % 16, test="moderated_f", frequency=np.full(400, np.nan))
    html = report.render(Page("t", models=[section(None, markers=[many])]))
    assert html.count("<svg") == 1 + 3 and "16 classes" in html
    large = shown(features=30_000, sets=1)
    html = report.render(Page("t", models=[section(None, markers=[large])]))
    assert html.count("<svg") == 1 + 2 and len(html) < 500_000
    assert not re.search("#0102", html)
