"""`genodl explain biomarkers` over a lake: tests of counts as the kernel has them, ranks of attributions beside them,
gene sets, what is found again and what is not, and what is refused; rows that test, and people who withdraw, are in
nothing of it; what a report shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from genodl_spark.core import packing
from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.ingested import EXPRESSION
from genodl_spark.lake.tables.learning import ATTRIBUTIONS, BIOMARKERS, ENRICHMENT, SPLITS
from genodl_spark.learning import model_files, predictor
from genodl_spark.learning.biomarkers import moderated, negative_binomial, planted, stability
from genodl_spark.learning.biomarkers.differences import benjamini_hochberg, ranks
from genodl_spark.learning.explain.explainer import Asked, explainer_of
from jobs import evaluate, explain, forget, ingest, train
from jobs import report as write_page

GENES = [f"G{i:02}" for i in range(60)]
FAST = tuple(
    word
    for one in ("train.epochs=2", "train.min_steps=20", "train.ensemble=1", "tracking.uri=off", "biomarkers.pairs=4")
    for word in ("--set", one)
)
SPLIT = ("--set", "split.folds=2")


def counts(folder: Path, name: str, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Arguments of ingest; counts (24 samples, 60 genes), of which the first eight are four times as many in every
    second sample, one is never seen and one lacks a value; and classes, 1 for a tumor."""
    rng = np.random.default_rng(seed)
    kind = np.arange(24) % 2
    mean = np.exp(rng.normal(5, 1, 60)) * np.where(np.arange(60) < 8, 4.0 ** kind[:, None], 1)
    x = rng.negative_binomial(8, 8 / (8 + mean)).astype(float)
    x[:, 20] = 0
    x[3, 21] = np.nan
    if name == "two":
        x[18:, 50], x[18:, 51] = x[18:, 50] * 1000, x[18:, 51] + 0.5  # rows that test
    folder.mkdir(exist_ok=True)
    names = [f"{name}{i:02}" for i in range(24)]
    lines = ["gene\t" + "\t".join(names)]
    lines += ["\t".join([g, *("NA" if np.isnan(v) else f"{v:.10g}" for v in x[:, i])]) for i, g in enumerate(GENES)]
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    role = np.repeat(["train", "validation", "test"], [14, 4, 6])
    rows = [f"{s}\t{'tumor' if k else 'normal'}\t{r}" for s, k, r in zip(names, kind, role, strict=True)]
    rows = ["sample_id\tstatus\trole", *rows]
    (folder / f"{name}_samples.tsv").write_text("\n".join(rows) + "\n")
    words = ["expression", str(folder / f"{name}.tsv"), "--samples", str(folder / f"{name}_samples.tsv")]
    return [*words, "--cohort", name], x, kind


def test_counts_from_a_model_to_gene_sets(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri, "--label", "status")
    words, x, kind = counts(tmp_path, "one", 1)
    other, _, _ = counts(tmp_path, "two", 2)
    assert genodl(ingest, *words, *at[:2])[0] == genodl(ingest, *other, *at[:2])[0] == 0
    code, report, line = genodl(train, "biomarkers", *at, "--cohort", "one", *FAST, *SPLIT, "--procs", "1")
    assert code == 0, line
    model = report["metrics"]["model_id"]

    path = tmp_path / "paths.gmt"
    sets = {"UP": GENES[:6], "REST": GENES[30:40], "FEW": GENES[:2], "ELSEWHERE": ["X1", "X2"]}
    path.write_text("".join(f"{name}\tof {name}\t" + "\t".join([*own, "Z9"]) + "\n" for name, own in sets.items()))
    mine = (*at, "--cohort", "one", *FAST, "--set", f"enrichment.gmt={path}")
    code, report, line = genodl(explain, "biomarkers", *mine)
    assert (code, report["status"]) == (0, "done"), line
    assert report["rows"]["biomarkers"] == {"written": 60, "total": 60, "quarantined": 0}
    assert report["rows"]["attributions"] == {"written": 168, "total": 168, "quarantined": 0}
    told = report["metrics"]["biomarkers"]["status"]
    assert (told["test"], told["features"], told["tested"], told["training_sets"]) == ("negative_binomial", 60, 58, 2)
    assert any("2 features of 60 are not tested for status" in text for text in report["warnings"])

    # The same numbers from the kernel, by hand: on all rows, and in the training rows of every fold.
    rows = {r.feature: r for r in lake.read(BIOMARKERS).collect()}
    assert rows.keys() == set(GENES)
    whole = negative_binomial.compare(x, kind, 2)
    for i, gene in enumerate(GENES):
        row = rows[gene]
        if i in (20, 21):
            assert (row.reason, row.p_value, row.q_value) == (("no counts", "a value is missing")[i - 20], None, None)
            assert not row.selected and row.effect is None and row["class"] is None
            continue
        assert row.p_value == pytest.approx(whole.p_value[i], rel=1e-9) and row["class"] == "tumor"
        assert row.q_value == pytest.approx(whole.q_value[i], rel=1e-9) and row.reason is None
        assert row.effect == pytest.approx(whole.effect[i]) and row.statistic == pytest.approx(whole.statistic[i])
    fold = {r.entity_id: r.fold for r in lake.read(SPLITS).where("repeat = 0").collect()}
    held = np.array([fold[f"one{i:02}"] for i in range(24)])
    of_folds = [negative_binomial.compare(x[held != k], kind[held != k], 2) for k in (0, 1)]
    rank = np.mean([ranks(-one.p_value) for one in of_folds], 0)
    significant = np.stack([benjamini_hochberg(one.p_value) <= 0.1 for one in of_folds])
    np.testing.assert_allclose([rows[g].test_rank for g in GENES], rank)
    np.testing.assert_allclose([rows[g].significant_share for g in GENES], significant.mean(0))
    chosen = {g for i, g in enumerate(GENES) if significant[:, i].any() and whole.q_value[i] <= 0.1}
    assert {g for g in GENES if rows[g].selected} == chosen >= set(GENES[:6])
    assert told["selected"] == len(chosen) and set(told["first"]) == chosen
    assert told["stability"]["training_sets"] == pytest.approx(stability.index(significant).value)
    fold_seed = [0, 0, 0, 1]
    known = planted.recovered(x, kind, 2, True, False, 0.1, 3, fold_seed)
    names = ["found@0.5", "found@1", "found@2", "false"]
    assert told["planted"] == pytest.approx(dict(zip(names, [*known.found, known.false], strict=True)))
    assert known.found[2] > 0
    assert dict(rows["G00"].planted) == told["planted"] and dict(rows["G00"].asked)["rate"] == 0.1
    assert dict(rows["G00"].stability) == told["stability"] and told["stability"].keys() >= {"halves", "halves_low"}
    often = np.array([rows[g].frequency for g in GENES])
    assert often.sum() == pytest.approx(5) and often[:8].mean() > 5 * often[8:].mean() and often[20] == 0

    # Ranks of attributions stand beside them, and in the consensus.
    stored = lake.read(ATTRIBUTIONS).where("feature IS NOT NULL").collect()
    assert {(r.method, r.model_id) for r in stored} == {("integrated_gradients", model), ("deeplift", model)}
    for r in stored:
        assert rows[r.feature].attribution_ranks[r.method] == pytest.approx(r.rank, abs=1)
    by = [stats.rankdata([rows[g].test_rank for g in GENES]), stats.rankdata([-rows[g].frequency for g in GENES])]
    by += [[rows[g].attribution_ranks[method] for g in GENES] for method in ("integrated_gradients", "deeplift")]
    np.testing.assert_allclose([rows[g].consensus_score for g in GENES], np.mean(by, 0), atol=0.5)
    assert sorted(r.consensus_rank for r in rows.values()) == list(range(1, 61))

    # Gene sets: the first holds what differs.
    found = {r.gene_set: r for r in lake.read(ENRICHMENT).collect()}
    up = found["UP"]
    assert (up.genes, up.tested, up.background, up.selected) == (7, 6, 58, 6) and up.description == "of UP"
    expected = stats.hypergeom.sf(5, 58, len(chosen), 6)
    assert up.p_over == pytest.approx(expected) and up.q_over <= 2 * expected * 1.001 and up.shift > 1
    assert up.p_shift < 1e-3 < found["REST"].p_over and set(up.selected_genes) == set(GENES[:6])
    assert found["FEW"].reason == "2 genes were tested, fewer than 5" and found["FEW"].p_over is None
    assert found["ELSEWHERE"].reason == "0 genes were tested, fewer than 5"
    assert told["enrichment"] == {"sets": 4, "tested": 2, "over": 1, "shifted": 1}

    # Again: nothing to do, and the same is told. Another test: found anew.
    version = lake.version(BIOMARKERS)
    code, report, line = genodl(explain, "biomarkers", *mine)
    assert (code, report["status"], lake.version(BIOMARKERS)) == (0, "unchanged", version), line
    assert report["metrics"]["biomarkers"]["status"] == told
    code, report, line = genodl(explain, "biomarkers", *mine, "--set", "biomarkers.test=moderated")
    assert report["status"] == "done" and report["rows"]["attributions"]["written"] == 0, line
    row = lake.read(BIOMARKERS).where("feature = 'G21'").collect()[0]
    values = moderated.compare(np.arcsinh(x.astype(np.float32)), kind, 2)
    assert row.test == "moderated_t" and row.p_value == pytest.approx(values.p_value[21], rel=1e-5)

    # Another cohort has no training sets.
    code, report, line = genodl(explain, "biomarkers", *at, "--cohort", "two", *FAST)
    assert code == 0 and "none are of two" in " ".join(report["warnings"]), line
    assert "biomarkers" not in report["metrics"] and "biomarkers" not in report["rows"]
    bad = tmp_path / "bad.gmt"
    bad.write_text("ONE\tof one\tG01\nTWO\n")
    for extra, said in (
        (("--set", f"enrichment.gmt={bad}"), f"{bad}:2: found 1 cell between tabs"),
        (("--set", "biomarkers.find=false", "--set", f"enrichment.gmt={path}"), "enrichment.gmt: found"),
        (("--set", "biomarkers.attributions=lime"), "explain.method: found 'lime'"),
    ):
        code, report, line = genodl(explain, "biomarkers", *at, "--cohort", "one", *FAST, *extra)
        assert (code, report["status"]) == (2, "failed") and said in line, line

    # Of a fixed split the rows that train, and no others, are tested and rank the features by their attributions.
    mine = (*at, "--cohort", "two", *FAST)
    code, report, line = genodl(train, "biomarkers", *mine, "--set", "split.column=role", "--procs", "1")
    assert code == 0, line
    model = report["metrics"]["model_id"]
    code, report, line = genodl(explain, "biomarkers", *mine)
    assert code == 0 and report["metrics"]["biomarkers"]["status"]["training_sets"] == 1, line
    y = counts(tmp_path, "two", 2)[1]
    check_learnt(lake, model, y, np.arange(14), kind)

    # Who withdraws leaves with the next run, which says so.
    assert genodl(forget, "--cohort", "two", "--sample", "two03", *at[:2])[0] == 0
    code, report, line = genodl(explain, "biomarkers", *mine)
    assert (code, report["status"]) == (0, "done"), line
    assert any("found 1 row of the training data withdrawn" in text for text in report["warnings"])
    check_learnt(lake, model, y, np.r_[:3, 4:14], kind)
    assert genodl(explain, "biomarkers", *mine)[1]["status"] == "unchanged"

    # A report shows them with the rows that the model learnt from, and nothing of who has withdrawn.
    quick = ("--set", "evaluate.baselines=majority", "--set", "evaluate.resamples=0")
    assert genodl(evaluate, "biomarkers", *mine, *quick)[0] == 0
    assert genodl(write_page, *at[:2], "--output", str(tmp_path / "page"))[0] == 0
    html = (tmp_path / "page" / "index.html").read_text()
    assert "planted where labels are dealt anew" in html
    assert "Biomarkers of status" in html and "two03" not in html and "Heat map of" in html
    assert "Standard scores of 13 rows that the model learnt from" in html


def check_learnt(lake: Lake, model: str, y: np.ndarray, rows: np.ndarray, kind: np.ndarray) -> None:
    """Holds what is stored of a model against tests and attributions of some rows alone."""
    stored = {r.feature: r for r in lake.read(BIOMARKERS).where(f"model_id = '{model}'").collect()}
    of = negative_binomial.compare(y[rows], kind[rows], 2)
    known = [i for i in range(60) if not np.isnan(of.p_value[i])]
    assert [stored[GENES[i]].p_value for i in known] == pytest.approx(of.p_value[known], rel=1e-9)
    files = model_files.registered(lake, model)
    features = files.card().features
    packed = MatrixFeatures(EXPRESSION).rows(Snapshot(lake), "two", features).orderBy("entity_id").toArrow()
    x = packing.rows(packed.column("x"), "float32", 60)
    names = packed.column("entity_id").to_pylist()
    learnt = np.isin(names, [f"two{i:02}" for i in rows])
    assert learnt.sum() == len(rows)
    for method in ("integrated_gradients", "deeplift"):
        (found,) = explainer_of(predictor.load(files), Asked(method))(x, names)
        size = np.abs(found.found.contributions)
        mean = dict(zip(features, size[learnt].mean(0), strict=True))
        told = lake.read(ATTRIBUTIONS).where(f"model_id = '{model}' AND method = '{method}' AND rank >= 1").collect()
        assert {(r.entities, r.learnt) for r in told} == {(len(names), len(rows))}
        assert [r.learnt_absolute for r in told] == pytest.approx([mean[r.feature] for r in told], rel=1e-3, abs=1e-6)
        place = {g: stored[g].attribution_ranks[method] for g in GENES}
        best = sorted(mean, key=lambda g: -mean[g])
        assert sorted(GENES, key=lambda g: place[g])[:10] == best[:10]
        # Over all rows the gene that is far off in those that test would come first.
        assert features[int(size.mean(0).argmax())] == "G50" and place["G50"] > 1
