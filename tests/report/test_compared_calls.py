"""Calls compared with a truth on the page: what stands in the table, and nothing of the users' unescaped."""

from __future__ import annotations

from dataclasses import replace

from genodl_spark.learning.metrics import Interval
from genodl_spark.report import compared_calls
from genodl_spark.report import page as report
from genodl_spark.report.content import CallsCompared, Page
from tests.report.test_page import EVIL, Elements

ROW = {
    "TRUTH.TOTAL": 1200,
    "TRUTH.FN": 12,
    "QUERY.TP": 1188,
    "QUERY.FP": 7,
    "FP.gt": 3,
    "QUERY.UNK": 40,
    "METRIC.Recall": 0.99,
    "METRIC.Precision": 0.994,
    "METRIC.F1_Score": 0.992,
}
CALLS = CallsCompared(
    "/data/q.vcf.gz",
    "/data/t.vcf.gz",
    "",
    "2026-11-28 10:00",
    {"SNP": {"ALL": ROW, "PASS": ROW}, "INDEL": {"PASS": dict.fromkeys(ROW)}},
    {"snp_recall": Interval(0.99, 0.98, 0.995), "indel_f1": Interval(float("nan"), float("nan"), float("nan"))},
    "GQ",
    {"SNP": [[0, 0.99, 0.994], [30, 0.9, 1.0]], "INDEL": []},
)


def test_counts_metrics_and_the_curve_are_shown() -> None:
    html = report.render(Page(title="t", calls=[CALLS]))
    Elements(html)  # what is opened is closed
    assert "<h2>Calls: q.vcf.gz</h2>" in html
    assert "truth /data/t.vcf.gz, everywhere; compared 2026-11-28 10:00, UTC" in html
    assert '<td class="n">1,200</td><td class="n">12</td><td class="n">1,188</td><td class="n">7</td>' in html
    assert html.count("0.990 [0.980, 0.995]") == 1  # intervals are those of PASS
    assert "SNP recall 0.990, precision 0.994 with all calls" in html
    assert html.count("<figure>") == 1
    assert compared_calls.figure(replace(CALLS, curves={"SNP": []}), "") == ""
    assert compared_calls.metrics(CALLS, "INDEL", "PASS") == [None, None, None]


def test_names_are_escaped() -> None:
    html = report.render(Page(title="t", calls=[replace(CALLS, query=EVIL, truth=EVIL, confident=EVIL, score=EVIL)]))
    assert EVIL not in html
    assert "<script" not in html
