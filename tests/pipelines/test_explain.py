"""`genodl explain` over a lake: values as the kernel has them, what is explained again and what is not, people taken
out, features ranked, motifs and their files, and what is refused."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import functions as F

from genodl_spark.core import packing, storage
from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.features.sequences import SequenceFeatures
from genodl_spark.genome import bases
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.ingested import EXPRESSION, SEQUENCES
from genodl_spark.lake.tables.learning import ATTRIBUTIONS, MOTIFS
from genodl_spark.learning import model_files, predictor
from genodl_spark.learning.explain.explainer import Asked, explainer_of
from genodl_spark.registry.models import chosen_model
from jobs import explain, forget, ingest, lineage, query, train
from tests.frozen.make import LAKE, PEOPLE
from tests.pipelines.test_tasks import GENES, matrix

FAST = tuple(
    word
    for one in ("train.epochs=2", "train.min_steps=40", "train.ensemble=2", "tracking.uri=off", "split.folds=2")
    for word in ("--set", one)
)
SMALL = ("--set", "model.channels=[8]", "--set", "model.dilations=[1]", "--procs", "1")
LEARN = tuple(
    word
    for one in (
        *("train.epochs=8", "train.min_steps=240", "train.ensemble=1", "train.learning_rate=0.005"),
        *("tracking.uri=off", "split.train=0.8", "split.validation=0.1", "split.test=0.1"),
    )
    for word in ("--set", one)
)
TWO = ("--set", "explain.references=2")


def sequences(path: Path, names: list[str], seed: int, motif: str = "TATAATGC") -> str:
    """Every second one with a motif; of the others some are short, long, or have an unknown base."""
    generator = np.random.default_rng(seed)
    lines = ["id\tsequence\tlabel"]
    for i, name in enumerate(names):
        text = "".join("ACGT"[b] for b in generator.integers(0, 4, 44 if i % 7 == 3 else 33 if i % 7 == 5 else 40))
        text = text[:15] + motif + text[23:] if i % 2 else text
        lines.append(f"{name}\t{text[:3] + 'N' + text[4:] if i % 7 == 1 else text}\t{i % 2}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def contents(lake: Lake, where: str = "true") -> dict[str, tuple]:
    names = ("output", "reference_output", "completeness_error", "steps", "reason", "sequence", "contributions", "rank")
    rows = lake.read(ATTRIBUTIONS).where(where).collect()
    return {f"{r.method} {r.target} {r.entity_id or r.feature}": tuple(r[name] for name in names) for r in rows}


def test_sequences_from_a_model_to_motifs(genodl, lake: Lake, tmp_path: Path) -> None:
    at, out = ("--lake", lake.uri), tmp_path / "out"
    one, two = [f"s{i:03}" for i in range(500)], [f"t{i:03}" for i in range(6)]
    assert genodl(ingest, "sequences", sequences(tmp_path / "one.tsv", one, 1), "--cohort", "c'1", *at)[0] == 0
    code, report, line = genodl(train, "binding", *at, *SMALL, *LEARN, "--set", "sequence.length=40")
    assert code == 0, line
    model = report["metrics"]["model_id"]

    code, report, line = genodl(explain, "binding", *at, *TWO, "--set", "explain.motif_rows=0")
    assert (code, report["status"]) == (0, "done"), line
    assert report["rows"] == {"attributions": {"written": 500, "total": 500, "quarantined": 0}}
    told = report["metrics"]
    assert (told["entities"], told["incomplete"], told["model_id"]) == (500, 0, model)
    assert 0 < told["completeness"]["median"] <= told["completeness"]["max"] <= 0.01
    assert (told["method"], told["reference"]) == ("integrated_gradients", "shuffles")

    # The same numbers from the kernel, by hand.
    files = model_files.registered(lake, model)
    explainer = explainer_of(predictor.load(files), Asked("deeplift", references=2))
    packed = SequenceFeatures(40).rows(Snapshot(lake), "c'1", files.card().features).orderBy("entity_id").toArrow()
    names = packed.column("entity_id").to_pylist()
    (found,) = explainer(packing.rows(packed.column("x"), "int8", 40), names)
    quick = (*at, *TWO, "--set", "explain.method=deeplift")
    code, report, line = genodl(explain, "binding", *quick, "--output", str(out))
    assert report["rows"]["attributions"] == {"written": 500, "total": 1000, "quarantined": 0}, line
    rows = {r.entity_id: r for r in lake.read(ATTRIBUTIONS).where("method = 'deeplift'").collect()}
    texts = {r.sequence_id: bases.spelled(np.frombuffer(r.codes, np.int8)) for r in lake.read(SEQUENCES).collect()}
    assert rows.keys() == texts.keys()
    for i, name in enumerate(names):
        row, whole = rows[name], texts[name]
        cut = (len(whole) - 40) // 2 if len(whole) > 40 else 0
        assert row.sequence == whole[cut : cut + 40] and row.first_position == cut + 1 and row.target == "1"
        assert row.reason is None and row.feature is None and row.top is None
        shift = max(20 - len(whole) // 2, 0)
        own = slice(shift, shift + len(row.sequence))
        np.testing.assert_allclose(row.contributions, found.found.contributions[i].sum(0)[own], atol=1e-4)
        np.testing.assert_allclose(np.reshape(row.hypothetical, (-1, 4)), found.found.hypothetical[i].T[own], atol=1e-4)
        assert row.output == pytest.approx(found.found.output[i], abs=1e-4)
        total = row.output - row.reference_output + row.completeness_error
        assert sum(row.contributions) == pytest.approx(total, abs=1e-3)
        assert dict(row.source_versions) == {"sequences": lake.version(SEQUENCES)}
    sql = "SELECT entity_id, posexplode(contributions) AS (place, c) FROM attributions WHERE entity_id = 's005' "
    asked = genodl(query, f"{sql} AND method = 'deeplift'", *at)[1]["result"]
    assert [r["c"] for r in asked] == pytest.approx(list(rows["s005"].contributions), rel=1e-5)

    # What the sequences have in common.
    best = report["metrics"]["motifs"][0]
    assert best["motif"] == "positive_1" and "TATAATGC" in best["consensus"] and best["entities"] > 50
    row = lake.read(MOTIFS).where("motif = 'positive_1'").collect()[0]
    assert (row.seqlets, row.among, row.consensus) == (best["seqlets"], 500, best["consensus"])
    np.testing.assert_allclose(np.reshape(row.probabilities, (-1, 4)).sum(1), 1)
    meme = (out / "motifs.meme").read_text()
    assert f"MOTIF positive_1 {row.consensus}" in meme and f"nsites= {row.seqlets}" in meme
    assert "<svg" in (out / "positive_1.svg").read_text()

    # Again: nothing to do, but files are written.
    first, version = contents(lake), lake.version(MOTIFS)
    (out / "motifs.meme").unlink()
    code, report, line = genodl(explain, "binding", *quick, "--output", str(out))
    assert (code, report["status"], report["rows"]["attributions"]["written"]) == (0, "unchanged", 0), line
    assert report["metrics"]["entities"] == 500 and lake.version(MOTIFS) == version
    assert (out / "motifs.meme").read_text() == meme

    # New rows: only they are explained, and motifs are of all.
    assert genodl(ingest, "sequences", sequences(tmp_path / "two.tsv", two, 2), "--cohort", "c'1", *at)[0] == 0
    report = genodl(explain, "binding", *quick)[1]
    assert report["rows"]["attributions"] == {"written": 6, "total": 1006, "quarantined": 0}
    grown = contents(lake)
    assert {key: grown[key] for key in first} == first and len(grown) == 1006
    assert {r.among for r in lake.read(MOTIFS).collect()} == {506}

    # Where a row came from, and a row taken out.
    traced = genodl(lineage, "attributions", "--key", "s004", *at)[1]["result"]
    assert len(traced) == 2 and all(one["made_from"]["files"] and one["model"] for one in traced)
    assert genodl(forget, "--cohort", "c'1", "--sample", "s004", *at)[0] == 0
    assert lake.read(ATTRIBUTIONS).where("entity_id = 's004'").count() == 0

    # Other settings make all rows anew. What does not add up has a reason in place of contributions.
    strict = ("--set", "explain.tolerance=1e-12", "--set", "explain.floor=0", "--set", "explain.share=0.5")
    code, report, line = genodl(explain, "binding", *quick, *strict)
    told = report["metrics"]
    assert code == 0 and told["incomplete"] > 0.9 * told["entities"] and 200 < told["entities"] < 310, line
    assert any("have a reason in place of contributions" in text for text in report["warnings"])
    row = lake.read(ATTRIBUTIONS).where("reason IS NOT NULL").collect()[0]
    assert row.contributions is None and row.hypothetical is None and "contributions are off by" in row.reason

    for words, said in (
        (("--set", "explain.method=lime"), "explain.method: found 'lime'"),
        (("--set", "explain.target=9"), "explain.target: found '9'"),
        (("--set", "explain.reference=median"), "explain.reference"),
        (("--model", "none"), "found no model none"),
        (("--output", str(tmp_path / "one.tsv")), "found a file; expected a folder"),
        (("--output", str(out), "--set", "explain.motif_rows=0"), "no motifs are sought"),
    ):
        code, report, line = genodl(explain, "binding", *at, *words)
        assert (code, report["status"]) == (2, "failed") and said in line, line


def test_measured_values_are_ranked(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    assert genodl(ingest, *matrix(tmp_path, "one", [f"p{i}" for i in range(40)], GENES, 1), *at)[0] == 0
    code, report, line = genodl(train, "tumor_type", *at, "--label", "status", *FAST)
    assert code == 0, line
    model = report["metrics"]["model_id"]
    code, report, line = genodl(explain, "tumor_type", *at, "--label", "status")
    assert code == 0, line
    assert report["rows"]["attributions"] == {"written": 60, "total": 60, "quarantined": 0}
    assert (report["metrics"]["entities"], report["metrics"]["reference"]) == (40, "mean")
    assert "motifs" not in report["metrics"] and report["metrics"]["completeness"]["max"] <= 0.01

    files = model_files.registered(lake, model)
    features = files.card().features
    packed = MatrixFeatures(EXPRESSION).rows(Snapshot(lake), "one", features).orderBy("entity_id").toArrow()
    (found,) = explainer_of(predictor.load(files), Asked())(
        packing.rows(packed.column("x"), "float32", len(features)), packed.column("entity_id").to_pylist()
    )
    contributions = found.found.contributions
    ranked = lake.read(ATTRIBUTIONS).where("feature IS NOT NULL").orderBy("rank").collect()
    assert [r.rank for r in ranked] == list(range(1, 21)) and {r.entities for r in ranked} == {40}
    assert len({r.feature for r in ranked[:6]} & set(GENES[:5])) >= 4
    assert [r.mean_absolute for r in ranked] == sorted((r.mean_absolute for r in ranked), reverse=True)
    for r in ranked:
        of = contributions[:, features.index(r.feature)]
        assert r.mean_absolute == pytest.approx(np.abs(of).mean(), rel=1e-4)
        assert r.mean_contribution == pytest.approx(of.mean(), abs=1e-5)
        assert r.completeness_error == pytest.approx(np.abs(found.found.error).max(), rel=0.05, abs=1e-6)
        assert (r.entity_id, r.output, r.reason, r.target) == (None, None, None, "tumor")
    people = {r.entity_id: r for r in lake.read(ATTRIBUTIONS).where("entity_id IS NOT NULL").collect()}
    for i, name in enumerate(packed.column("entity_id").to_pylist()):
        top = people[name].top
        assert len(top) == 20 and people[name].contributions is None
        assert top[features[int(np.abs(contributions[i]).argmax())]] == pytest.approx(
            contributions[i][np.abs(contributions[i]).argmax()], rel=1e-4
        )
    assert genodl(explain, "tumor_type", *at, "--label", "status")[1]["status"] == "unchanged"

    # A person who withdraws: their row goes, and the means are of the others once the verb has run again.
    assert genodl(forget, "--cohort", "one", "--sample", "p3", *at)[0] == 0
    assert lake.read(ATTRIBUTIONS).where("entity_id = 'p3'").count() == 0
    assert lake.read(ATTRIBUTIONS).where("feature IS NOT NULL").count() == 20
    report = genodl(explain, "tumor_type", *at, "--label", "status")[1]
    assert report["rows"]["attributions"] == {"written": 59, "total": 59, "quarantined": 0}
    rest = lake.read(ATTRIBUTIONS).where(F.col("feature") == ranked[0].feature).collect()[0]
    kept = [name != "p3" for name in packed.column("entity_id").to_pylist()]
    of = np.abs(contributions[kept, features.index(rest.feature)]).mean()
    assert (rest.entities, rest.mean_absolute) == (39, pytest.approx(of, rel=1e-4))

    words = (*at, "--label", "status")
    for extra, told in (
        (("--output", str(tmp_path / "out")), "--output: found a model of measured values"),
        (("--set", "explain.reference=shuffles"), "explain.reference: found 'shuffles' for measured values"),
    ):
        code, _, line = genodl(explain, "tumor_type", *words, *extra)
        assert code == 2 and told in line, line


def test_alleles_are_ranked(genodl, lake: Lake, tmp_path: Path) -> None:
    """Of a model of genotypes, against the kernel on the same people."""
    with tarfile.open(LAKE) as archive:
        archive.extractall(tmp_path / "frozen", filter="data")
    (tmp_path / "frozen" / "lake").rename(storage.local_path(lake.uri))
    for table in lake.existing():
        lake.upgrade(table)
    code, report, line = genodl(explain, "ancestry", "--lake", lake.uri)
    assert code == 0, line
    model = chosen_model(Run(Report("explain"), config.load("ancestry"), lake.uri), None, report["metrics"]["model_id"])
    features = model.card.features
    packed = model.features.rows(Snapshot(lake), "people", features).orderBy("entity_id").toArrow()
    names = packed.column("entity_id").to_pylist()
    assert set(names) < set(PEOPLE) and report["metrics"]["entities"] == len(names) == 24
    (found,) = explainer_of(predictor.load(model.files), Asked())(
        packing.rows(packed.column("x"), model.card.dtype, len(features)), names
    )
    contributions = found.found.contributions
    people = {r.entity_id: r for r in lake.read(ATTRIBUTIONS).where("entity_id IS NOT NULL").collect()}
    for i, name in enumerate(names):
        assert people[name].output - people[name].reference_output == pytest.approx(contributions[i].sum(), rel=0.02)
        assert max(people[name].top.values(), key=abs) == pytest.approx(
            max(contributions[i].tolist(), key=abs), rel=1e-4
        )
    ranked = lake.read(ATTRIBUTIONS).where("feature IS NOT NULL").orderBy("rank").collect()
    assert [r.rank for r in ranked] == list(range(1, len(features) + 1)) and {r.target for r in ranked} == {"WEST"}
    assert {r.feature for r in ranked} == set(features) and all(":A:" in name for name in features)
    size = np.abs(contributions).mean(0)
    assert [r.mean_absolute for r in ranked] == pytest.approx(np.sort(size)[::-1].tolist(), rel=1e-4)
    assert ranked[0].feature == features[int(size.argmax())]
