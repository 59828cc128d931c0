"""The page: nothing of the user's gets through unescaped, nothing is loaded,
and the figures on it are the right ones."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from genodl_spark.learning import metrics
from genodl_spark.learning.metrics import HeldOut, Interval
from genodl_spark.report import content, plots
from genodl_spark.report import page as report
from genodl_spark.report.content import ModelSection, Page, RunRow, StudySection, TableRow

EVIL = '<script>alert("1")</script>'
VOID = {"meta", "link", "br", "img", "input"}


class Elements(HTMLParser):
    """Elements with attributes, and text by element; fails where a tag is not closed by its own."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append((self.open[-1] if self.open else "", data.strip()))


def held(c: int, n: int = 60, names: list[str] | None = None) -> HeldOut:
    random = np.random.default_rng(0)
    ids = np.array([f"s{i}" for i in range(n)])
    if not c:
        target = random.normal(size=n)
        return HeldOut(ids, ids, target, (target + random.normal(size=n))[None], [])
    index = np.arange(n) % c
    scores = random.dirichlet([1] * c, (1, n))
    scores[:, np.arange(n), index] += 0.8
    return HeldOut(
        ids, ids, index.astype(float), scores / scores.sum(-1, keepdims=True), names or [f"c{i}" for i in range(c)]
    )


def section(rows: HeldOut | None, **changes: object) -> ModelSection:
    def only(value: float) -> Interval:
        return Interval(value, value - 0.1, value + 0.1)

    base = ModelSection(
        task="tumour",
        cohort="khan",
        label="label",
        model_id="m1",
        version=3,
        settings={"model": "mlp"},
        split="5 folds",
        n_test=63,
        metric="accuracy",
        scores={
            "model": {"accuracy": only(0.9), "brier": only(0.2)},
            "linear_svm": {"accuracy": only(0.8), "brier": only(0.1)},
            "majority": {"accuracy": only(0.9), "brier": Interval(np.nan, np.nan, np.nan)},
        },
        train_loss=np.array([[1.0, 1.2], [0.5, np.nan]]),
        validation_loss=np.array([1.1, 0.7]),
        held=rows,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def study(**changes: object) -> StudySection:
    base = StudySection(
        task="tumour",
        cohort="khan",
        label="label",
        study="tumour.khan.label.model.0123",
        objective="validation_loss",
        rungs=[(0.9, 0.7, 0.5), (1.2,), (0.8, 0.6, 0.4), (0.7,), (0.5, 0.45, 0.41)],
        states=["complete", "pruned", "complete", "failed", "complete"],
        shares=[1 / 9, 1 / 3],
        settings={"train.learning_rate": ("0.001", "0.0042"), "model.hidden": ("[128]", "[64]")},
        importance={"train.learning_rate": 0.8, "model.hidden": 0.2},
        measured_at=1,
        baselines={"linear_svm": ("accuracy", 0.8, 0.9, "C 0.1")},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_search_is_shown_with_its_history_and_importance() -> None:
    found = Elements(
        report.render(Page("t", studies=[study(), study(importance={}, rungs=[()], states=["failed"], baselines={})]))
    )
    pictures = [str(attributes["aria-label"]) for tag, attributes in found.elements if tag == "svg"]
    assert pictures == [
        "Objective of 5 trials; the best of those that came to an end is 0.400",
        "Importance of 2 settings; train.learning_rate has the most, 80%",
    ]
    text = [shown for _, shown in found.text]
    assert "5: 3 complete, 1 pruned, 1 failed" in text and "1: 1 failed" in text
    assert text.index("0.400") < text.index("Setting")  # the best
    assert "0.500" in text  # the first
    cells = [shown for element, shown in found.text if element in ("th", "td")]
    assert cells[:9] == [
        "Setting",
        "Task as it is",
        "Best",
        "train.learning_rate",
        "0.001",
        "0.0042",
        "model.hidden",
        "[128]",
        "[64]",
    ]
    assert cells[9:19] == [
        "Baseline",
        "Metric",
        "First trial",
        "Best",
        "Its settings",
        "linear svm",
        "Accuracy",
        "0.800",
        "0.900",
        "C 0.1",
    ]
    assert any("after 33% of the epochs" in shown for shown in text)


def test_the_line_of_a_search_is_the_best_so_far() -> None:
    figure = plots.history(study())
    axes = figure.axes[0]
    best = axes.get_lines()[-1]
    assert list(zip(best.get_xdata(), best.get_ydata(), strict=True)) == [
        (0, 0.5),
        (1, 0.5),
        (2, 0.4),
        (3, 0.4),
        (4, 0.4),
    ]
    assert [list(line.get_ydata()) for line in axes.get_lines()[:-1]] == [[0.5, 0.4, 0.41], [1.2], [0.7]]
    bars = plots.importance(study().importance).axes[0]
    assert [bar.get_width() for bar in bars.patches] == [0.2, 0.8]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["model.hidden", "train.learning_rate"]


def test_everything_of_the_users_is_escaped_and_nothing_is_loaded() -> None:
    names = [EVIL, "_hidden", '$x_1$ #010203 id="q"']
    interval = {"accuracy": Interval(0.5, 0.4, 0.6)}
    evil = section(
        held(3, names=names),
        task=EVIL,
        cohort=EVIL,
        label=EVIL,
        model_id=EVIL,
        settings={EVIL: EVIL},
        split=EVIL,
        scores={EVIL: interval, "b": {EVIL: interval["accuracy"]}},
        difference=(EVIL, interval["accuracy"]),
        metric=EVIL,
        by={EVIL: {EVIL: interval}},
        warnings=[EVIL],
    )
    page = Page(
        EVIL,
        EVIL,
        EVIL,
        [TableRow(EVIL, 5, 1, EVIL)],
        [RunRow(EVIL, '"' + EVIL, 1.5, EVIL)],
        [EVIL],
        [evil, replace(evil, held=None)],
    )
    searched = study(
        task=EVIL,
        study=EVIL,
        objective=EVIL,
        settings={EVIL: (EVIL, EVIL)},
        importance={EVIL: 1.0},
        baselines={EVIL: (EVIL, 0, 1, EVIL)},
    )
    page = replace(page, studies=[searched])
    html = report.render(page)
    found = Elements(html)
    assert "<script" not in html.lower()
    assert not {"script", "iframe", "object", "link", "img"} & {tag for tag, _ in found.elements}
    for _, attributes in found.elements:
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        for name in ("href", "xlink:href"):
            assert str(attributes.get(name, "#")).startswith("#")
    assert "http" not in html and "@import" not in html and "url(" not in re.sub(r"url\(#", "", html)
    shown = [text for element, text in found.text if element == "text"]  # in pictures
    assert "_hidden" in shown and any(text.startswith("<script>") for text in shown)
    # cut, and otherwise as it was
    assert '$x_1$ #010203 id="q"' not in shown and "$x_1$ #010203 id=\N{HORIZONTAL ELLIPSIS}" in shown
    assert [text for element, text in found.text if element == "th"].count(EVIL) >= 3


def test_pictures_have_alternatives_unique_identifiers_and_page_colours() -> None:
    page = Page("t", models=[section(held(3)), section(held(2)), section(held(0)), section(None)])
    html = report.render(page)
    found = Elements(html)
    identifiers = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in found.elements:  # what is referred to is there
        for reference in [
            *re.findall(r"url\(#(.*?)\)", " ".join(filter(None, attributes.values()))),
            str(attributes.get("xlink:href", "#"))[1:],
        ]:
            assert reference == "" or reference in identifiers
    pictures = [attributes for tag, attributes in found.elements if tag == "svg"]
    assert len(pictures) == 5 + 5 + 2 + 1
    roc = re.findall(r"<svg.*?</svg>", html, re.S)[2]
    # each curve, and in the legend
    assert [len(re.findall(rf"stroke: var\(--s{i}\)", roc)) for i in range(4)] == [2, 2, 2, 0]
    assert all(p["role"] == "img" and len(str(p["aria-label"])) > 20 for p in pictures)
    for svg in re.findall(r"<svg.*?</svg>", html, re.S):
        ET.fromstring(svg.replace("xlink:href", "href"))
        assert not re.search("#[0-9a-f]{6}", svg)
    assert all(re.search(rf"--s{i}:#", html) for i in range(7))
    assert "prefers-color-scheme: dark" in html
    assert report.render(page) == html


def test_what_a_model_goes_by_is_shown() -> None:
    shares = np.array([[0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01]])
    motifs = [content.MotifShown(f"positive_{i}", f"AC{EVIL}", 1200, 900, 5000, shares) for i in (1, 2)]
    ranked = [(EVIL, f"ESR1{EVIL}", 0.5, -0.25), ("b", "GATA3", 0.125, 0.0)]
    html = report.render(Page("t", models=[section(None, motifs=motifs, ranked=ranked)]))
    assert EVIL not in html
    found = Elements(html)
    pictures = [str(attributes["aria-label"]) for tag, attributes in found.elements if tag == "svg"]
    assert pictures[-2:] == [f"Logo of positive_{i}, AC{EVIL}" for i in (1, 2)]
    named = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(named) == len(set(named))
    assert any("1,200 places in 900 of 5,000 sequences." in shown for _, shown in found.text)
    cells = [shown for element, shown in found.text if element in ("th", "td")]
    assert cells[-8:] == [f"ESR1{EVIL}", EVIL, "0.500", "-0.250", "GATA3", "b", "0.125", "0.000"]


def test_figures_are_the_right_ones() -> None:
    rows = held(3)
    html = report.render(Page("t", models=[section(rows)]))
    text = [text for _, text in Elements(html).text]
    found = metrics.metrics(rows)
    assert f"Calibration, ECE {found['ece']:.3f}." in text
    assert f"ROC, area {found['auroc']:.3f}." in text
    assert f"Precision and recall, area {found['auprc']:.3f}." in text
    counts = metrics.confusion(rows)
    assert f"{counts[0, 0]:.0f}" in text and f"{counts[0, 0] / 20:.0%}" in text
    assert "training loss ends at 0.500, validation loss ends at 0.700" in html
    recall = metrics.per_class(rows)[1]["recall"]
    assert f"{recall:.3f}" in text


def test_the_best_is_bold() -> None:
    html = report.render(Page("t", models=[section(None)]))
    # both of equals; the least Brier; NaN never wins
    assert re.findall(r"<b>([\d.]+)</b>", html) == ["0.900", "0.100", "0.900"]
    assert "<th scope=row>linear svm</th>" in html
    assert 'title="less is better"' in html
    assert "<small>0.700 to 0.900</small>" in html
    same = {
        name: {"auprc_base_rate": Interval(rate, rate, rate), "mcc": Interval(0.0, 0.0, 0.0)}
        for name, rate in (("model", 0.2), ("b", 0.3))
    }
    assert "<b>0" not in report.render(Page("t", models=[section(None, scores=same)]))


@pytest.mark.parametrize(
    ("metric", "ends", "verdict"),
    [
        ("accuracy", (0.01, 0.2), "better"),
        ("accuracy", (-0.2, -0.01), "worse"),
        ("accuracy", (-0.1, 0.1), "no clear difference"),
        ("mae", (-0.2, -0.1), "better"),
    ],
)
def test_the_difference_is_judged(metric: str, ends: tuple[float, float], verdict: str) -> None:
    html = report.render(
        Page("t", models=[section(None, metric=metric, difference=("random_forest", Interval(sum(ends) / 2, *ends)))])
    )
    assert f"paired: {verdict}." in html and "best baseline (random forest)" in html


def test_odd_data_draw_without_failing() -> None:
    single = replace(held(2), target=np.zeros(60))  # no ROC
    unevaluated = replace(held(3), scores=np.full((1, 60, 3), np.nan))
    flat = replace(held(0), target=np.ones(60), scores=np.ones((2, 60)))
    many = held(45, 90, [f"a very long name of a class, number {i}" for i in range(45)])
    for rows, pictures in ((single, 3), (unevaluated, 1), (flat, 2), (many, 5), (held(12, 120), 5)):
        assert report.render(Page("t", models=[section(rows)])).count("<svg") == pictures
    wide = report.render(Page("t", models=[section(held(0, 5000))]))
    assert "1,500 of 5,000 rows" in wide and len(wide) < 400_000
    assert report.render(Page("nothing")).count("<section") == 0


def test_top_of_the_page() -> None:
    page = Page(
        "Lake",
        "/lake",
        "now",
        [TableRow("samples", 2504, 3, "a person"), TableRow("cells", None, 0)],
        [RunRow("train", "failed", 1234.56)],
        ["stale"],
    )
    html = report.render(page)
    assert '<td>samples</td><td class="n">2,504</td><td class="n">3</td><td>a person</td>' in html
    assert '<td>cells</td><td class="n"></td>' in html
    assert '<span class="failed">failed</span></td><td class="n">1,234.6</td>' in html
    assert "<li>stale</li>" in html
    assert "<nav" not in html and "<nav" in report.render(Page("t", models=[section(None), section(None)]))


def test_text_table() -> None:
    rows = [
        ["golub", 34, 0.9117, Interval(0.5, 0.4, 0.6)],
        ["\u65e5\u672c\n", 2504, None, Interval(1.0, np.nan, np.nan)],
        ["a", np.int64(1), float("nan"), None],
    ]
    assert content.table(rows, ["cohort", "n", "accuracy", "auroc"]).splitlines() == [
        "cohort      n  accuracy                 auroc",
        "------  -----  --------  --------------------",
        "golub      34     0.912  0.500 [0.400, 0.600]",
        "\u65e5\u672c    2,504         -                 1.000",
        "a           1         -                     -",
    ]
    assert content.table([], ["a", "b"]) == "a  b\n-  -"
    assert content.table([["x", "y"]], ["name", "b"]) == "name  b\n----  -\nx     y"


def test_times_are_shown_by_thirds_of_predicted_risk_and_errors_over_time() -> None:
    generator = np.random.default_rng(0)
    risk = generator.normal(size=90)
    time, until = generator.exponential(np.exp(-2 * risk)), generator.exponential(2.0, 90)
    ids, event = np.array([f"p{i:02}" for i in range(90)]), time <= until
    scores = np.stack([-risk, 100 - risk])  # repeats that lie far apart
    scores[1, :45] = np.nan
    curves = np.repeat(np.exp(-np.exp(risk))[None, :, None], 2, 0).repeat(2, 2)
    rows = HeldOut(
        ids, ids, np.minimum(time, until), scores, [], event, "days", "time", (0.5, 1.0), np.where(
            np.isnan(scores)[..., None], np.nan, curves)
    )  # fmt: skip
    of_row, _, third = plots.thirds(rows)
    assert len(of_row) == 90 and np.bincount(third).tolist() == [30, 30, 30]
    assert risk[third == 0].mean() < risk[third == 1].mean() < risk[third == 2].mean()
    order = generator.permutation(90)
    assert all(np.array_equal(a, b) for a, b in zip(plots.thirds(rows), plots.thirds(rows.of(order)), strict=True))
    found = {"brier@0.5": Interval(0.1, 0, 1), "brier@1": Interval(0.2, 0, 1), "c_index": Interval(0.8, 0.7, 0.9)}
    given = section(rows, scores={"model": found, "majority": {"brier@0.5": Interval(0.3, 0, 1)}, "ridge": {}})
    html = report.render(Page("t", models=[given]))
    assert "Brier score over time of model, majority" in html and "brier@" not in html
    assert re.search(r"Survival of three groups by predicted risk, log-rank p \d", html)
    assert "C index" in html and "Predicted and observed" not in html
    nothing = section(replace(rows, event=rows.event & False), scores={"model": {}})
    assert "no log-rank test" in report.render(Page("t", models=[nothing]))
