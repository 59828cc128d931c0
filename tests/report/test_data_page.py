"""Pages of data: what is added up of many rows is right however they are shared out, what is planted shows, and nothing
of the user's gets through unescaped. Without a JVM."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.core import packing
from genodl_spark.report import data_page, measures
from genodl_spark.report.clouds import colourings, explained, principal, shown
from genodl_spark.report.facts import Bars, Cloud, Facts, Histogram, Listing
from genodl_spark.report.measures import Columns, Drawn, Greatest, Moments, Picked, Spread, bars_of, missing
from tests.report.test_page import EVIL, Elements


def in_parts(empty: Any, parts: list[tuple[Any, ...]]) -> list[Any]:
    """Everything added to one, and each part to one of its own, these made one."""
    whole, *others = [copy.deepcopy(empty) for _ in range(len(parts) + 1)]
    for part, other in zip(parts, others, strict=True):
        whole.add(*part)
        other.add(*part)
    for other in others[1:]:
        others[0].merge(other)
    return [whole, others[0]]


def spread(*values: float) -> Spread:
    made = Spread()
    made.add(np.array(values))
    return made


def test_values_spread_as_they_do_whatever_their_scale() -> None:
    random = np.random.default_rng(0)
    for values in (random.normal(8, 2, 5000), random.lognormal(5, 2, 5000), -random.random(5000), random.random(5000)):
        for made in in_parts(Spread(), [(values[:10],), (values[10:4000],), (np.append(values[4000:], np.nan),)]):
            assert (made.n, made.missing, made.zeros) == (5000, 1, 0)
            assert (made.low, made.high) == (values.min(), values.max())
            for share in (0.05, 0.5, 0.95):
                assert made.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.01, abs=0.005)
            found = made.histogram(20)
            assert found.counts.sum() == pytest.approx(5000) and found.asinh == (values.max() > 50)
            scaled = np.arcsinh(values) if found.asinh else values
            wanted, _ = np.histogram(scaled, found.edges)
            assert np.abs(found.counts - wanted).max() < 60  # a bin that an edge cuts is shared out


def test_whole_numbers_have_bars_of_their_own_and_zeros_stay_zeros() -> None:
    made = spread(0, 0, 0, 1, 1, 3)
    assert made.histogram().counts.tolist() == pytest.approx([3, 2, 0, 1])
    assert made.histogram().edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert [made.quantile(share) for share in (0.1, 0.5, 0.6, 1)] == [0, 0, 1, 3]
    mostly = spread(*[0.0] * 90, *np.linspace(0.2, 0.3, 10))
    assert mostly.quantile(0.5) == 0 and mostly.quantile(0.95) == pytest.approx(0.25, abs=0.01)
    assert mostly.histogram(10).counts[0] == 90
    assert spread(7).histogram().counts.tolist() == [1] and spread(7.5).histogram().counts.tolist() == [1]
    assert np.isnan(Spread().quantile(0.5)) and Spread().histogram().counts.tolist() == [0]
    assert spread(np.inf, 1).n == 2
    # sums of one order of size are shown as they are
    assert not spread(*np.linspace(200_000, 900_000, 99)).histogram().asinh


def test_the_greatest_and_a_sample_are_the_same_in_any_parts() -> None:
    names = pa.array([f"s{i:03d}" for i in range(300)])
    values = np.tile(np.arange(100.0), 3)
    parts = [(names[:7], values[:7]), (names[7:250], values[7:250]), (names[250:], values[250:])]
    for made in in_parts(Greatest(4), parts):
        assert made.rows == [("s099", 99.0), ("s199", 99.0), ("s299", 99.0), ("s098", 98.0)]
    assert in_parts(Greatest(), [(names, values * 0)])[0].rows == []  # nothing to tell
    whole, merged = in_parts(Drawn(50), [(part[0],) for part in parts])
    assert whole.sorted == merged.sorted and len(set(whole.sorted)) == 50
    assert 90 < np.mean([int(name[1:]) for name in whole.sorted]) < 210  # from all over
    assert in_parts(Drawn(999), [(part[0],) for part in parts])[1].sorted == names.to_pylist()


def test_columns_that_vary_most() -> None:
    random = np.random.default_rng(1)
    x = random.normal(3, [0.0, 1.0, 5.0, 2.0, 9.0], (200, 5)).astype(np.float32)
    x[20:, 4] = np.nan  # too few values to be told
    for made in in_parts(Moments(5), [(x[:50],), (x[50:],)]):
        assert made.n.tolist() == [200, 200, 200, 200, 20]
        assert made.variance == pytest.approx(np.nanvar(x.astype(float), 0), rel=1e-4, abs=1e-6)
        assert made.most_varied(2, 200).tolist() == [2, 3]
        assert made.most_varied(9, 200).tolist() == [1, 2, 3]
    rows = [
        pa.RecordBatch.from_arrays([pa.array(n), packing.column(v)], ["e", "x"])
        for n, v in ((["a", "b"], x[:2]), (["c"], x[2:3]))
    ]
    for picked in in_parts(Picked(["c", "a", "z"], np.array([3, 1]), 5), [(batch,) for batch in rows]):
        assert np.array_equal(picked.x, np.stack([x[2, [3, 1]], x[0, [3, 1]], [np.nan] * 2]), equal_nan=True)


def test_columns_of_a_sample_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(names: list[str], site: list[str | None], plate: list[str]) -> tuple[pa.RecordBatch]:
        columns = {"cohort": ["c"] * len(names), "id": names, "site": site, "plate": plate}
        return (pa.RecordBatch.from_pydict({k: pa.array(v, pa.string()) for k, v in columns.items()}),)

    monkeypatch.setattr(measures, "_VALUES", 3)
    parts = [rows(["a", "b"], ["x", None], ["1", "2"]), rows(["c", "d"], ["x", "y"], ["3", "4"])]
    for made in in_parts(Columns("id", ["a", "d", "b"], ["cohort"]), parts):
        assert (made.rows, made.known["site"], made.values) == (4, 3, {"site": {"x": 2, "y": 1}, "plate": None})
        assert made.of["site"] == {"a": "x", "d": "y"} and made.of["plate"] == {"a": "1", "b": "2", "d": "4"}


def batches() -> tuple[np.ndarray, list[str | None], list[str | None]]:
    """120 rows of two batches that differ in a fifth of 300 columns, with missing values; batch and noise."""
    random = np.random.default_rng(2)
    x = random.normal(size=(120, 300))
    batch = np.arange(120) % 2
    x[:, :60] += 3 * batch[:, None]
    x[random.random(x.shape) < 0.05] = np.nan
    return x, [f"b{b}" for b in batch], [f"n{b}" for b in random.integers(0, 3, 120)]


def test_planted_batches_come_apart_on_the_first_component() -> None:
    x, batch, noise = batches()
    points, shares = principal(x)
    assert points.shape == (120, 4) and (np.diff(shares) <= 0).all()
    assert explained(points, batch)[0] > 0.95 and explained(points, noise)[0] < 0.1
    ones = points[[b == "b0" for b in batch], 0], points[[b == "b1" for b in batch], 0]
    assert max(map(np.max, ones)) > 0 and (ones[0].max() < ones[1].min() or ones[1].max() < ones[0].min())
    # shares are those of the singular values
    filled = np.where(np.isnan(x), np.nanmean(x, 0), x)
    values = np.square(np.linalg.svd(filled - filled.mean(0), compute_uv=False))
    assert shares == pytest.approx(values[:4] / values.sum(), rel=1e-3)
    assert np.square(points).sum(0) == pytest.approx(values[:4], rel=1e-3)
    for few in (x[:2], np.ones((9, 3)), np.full((9, 3), np.nan)):
        assert principal(few)[1].size == 0
    assert principal(np.arange(20.0)[:, None])[1].tolist() == pytest.approx([1.0])


def test_columns_that_colour_and_in_which_order() -> None:
    x, batch, noise = batches()
    points, shares = principal(x)
    cloud = Cloud("Components", "all", "person", [f"s{i}" for i in range(120)], points, shares)
    columns: dict[str, list[str | None]] = {
        "noise": noise,
        "lab": batch,
        "again": [None if b is None else b.upper() for b in batch],
        "id": [str(i) for i in range(120)],
        "one": ["x"] * 120,
        "seldom": [*batch[:50], *[None] * 70],
        "label": noise[::-1],
    }
    found = colourings(cloud, columns, ["absent", "label"])
    assert [one.column for one in found] == ["label", "again", "lab", "noise"]
    assert [(one.column, alike) for one, alike in shown(found)] == [("label", []), ("again", ["lab"]), ("noise", [])]


def test_what_lacks_most_is_named_first() -> None:
    shares = np.array([0, 0.3, 0.01, 0])
    of_rows, worst = Spread(), Greatest()
    of_rows.add(shares)
    worst.add(pa.array(["s0", "s1", "s2", "s3"]), shares)
    said, bars, (samples, features) = missing(
        of_rows, worst, ["g0", "g1"], np.array([0.155, 0.0]), "sample", "feature", "value"
    )
    assert said == ["Of 4 samples 2 lack values. Of 2 features 1 lack values."]
    assert samples.rows == [["s1", "30.0%"], ["s2", "1.0%"]] and features.rows == [["g0", "15.5%"]]
    assert [b.title for b in bars] == ["Missing values by sample", "Missing values by feature"]
    assert missing(spread(0, 0), Greatest(), ["g"], np.zeros(1), "sample", "feature", "value") == (
        ["No value is missing."],
        [],
        [],
    )


def test_nothing_of_the_users_gets_through_unescaped() -> None:
    x, batch, _ = batches()
    points, shares = principal(x)
    ids = [f"s{i}{EVIL}" for i in range(120)]
    told = {EVIL: dict(zip(ids, [f"{b}{EVIL}" for b in batch], strict=True))}
    facts = [
        Facts(EVIL, [EVIL], [bars_of(EVIL, spread(1, 2, 3.5), EVIL, EVIL)], [Listing(EVIL, [EVIL], [[EVIL]], EVIL)]),
        Facts(
            "x",
            [],
            [],
            [],
            [
                Cloud(EVIL, EVIL, "person", ids, points, shares, points[:, :2]),
                Cloud(EVIL, EVIL, "cell", ids, points, shares),
            ],
        ),
        Facts("flat", [], [], [], [Cloud("Flat", EVIL, "person", ids, np.zeros((120, 0)), np.zeros(0))]),
    ]
    html = data_page.render(EVIL, EVIL, facts, {"person": told}, [], "index.html")
    found = Elements(html)
    tags = {tag for tag, _ in found.elements}
    assert "script" not in tags and EVIL not in html and html.count("&lt;script&gt;") > 15
    # pictures say what is to be seen, and nothing is loaded
    assert all(one["role"] == "img" and one["aria-label"] for tag, one in found.elements if tag == "svg")
    assert sum(tag == "svg" for tag, _ in found.elements) == 4  # components, neighbours; of the other cloud; bars
    links = [one["href"] for tag, one in found.elements if tag == "a"]
    assert links == ["index.html", "#facts-0", "#facts-1", "#facts-2"]
    assert any("there are no components" in text for _, text in found.text)
    ids_ = [one["id"] for _, one in found.elements if one.get("id")]
    assert len(ids_) == len(set(ids_))
    assert data_page.render(EVIL, EVIL, facts, {"person": told}, [], "index.html") == html


@pytest.mark.parametrize(
    "histogram",
    [
        Histogram(np.array([0.0, 1.0]), np.zeros(1)),
        spread(-1e30, 0, 1e30).histogram(),
        spread(60, 61, 62.5).histogram(),
        spread(*range(2000)).histogram(),
        spread(0.1, 0.2).histogram(),
    ],
)
def test_any_values_can_be_drawn(histogram: Histogram) -> None:
    for log in (False, True):
        bars = Bars("t", "c", "a", histogram, "x", "y", log)
        html = data_page.render("c", "lake", [Facts("f", [], [bars])], {}, [], "index.html")
        assert html.count("<svg") == 1 and "mathdefault" not in html


def test_pages_have_names_that_any_file_system_takes() -> None:
    name: Callable[[str], str] = data_page.name_of
    assert name("gse7390") == "data-gse7390.html"
    odd = [name(one) for one in ("A", "a/../b", "ä" * 200, "x" * 300, 'a"b', "%2e")]
    assert len(set(odd)) == 6 and all(
        len(one) < 70 and one.isascii() and "/" not in one and "%" not in one for one in odd
    )
