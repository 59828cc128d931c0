"""Blocks of several tables side by side: who lacks a block trains, and is scored by the others; files in another order
make the same rows and the same answers, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from genodl_spark.features.blocks import BlockFeatures
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.learning import HELD_OUT, PREDICTIONS
from jobs import evaluate, ingest, lineage, predict, train
from tests.pipelines.test_consequence_features import vcf

PEOPLE = [f"p{i:02}" for i in range(30)]
KINDS = {"mrna": ("expression", 7), "mirna": ("expression", 4), "methylation": ("methylation", 5)}
# who lacks which block; p28 and p29 have none
LACK = {"mrna": {3, 28, 29}, "mirna": {0, 1, 2, 3, 28, 29}, "methylation": {5, 28, 29}, "variants": {4, 28, 29}}
QUICK = ("train.epochs=2", "train.min_steps=20", "train.ensemble=2", "tracking.uri=off", "split.folds=2")


def values(block: str) -> dict[str, dict[str, float]]:
    """By person and feature."""
    kind, count = KINDS[block]
    drawn = np.random.default_rng(len(block)).normal(5, 1, (len(PEOPLE), count)).round(3)
    drawn[::2, 0] += 3
    drawn = (drawn / 20).round(3) if kind == "methylation" else drawn
    return {
        person: {f"{block[:2]}{j}": float(value) for j, value in enumerate(row)}
        for i, (person, row) in enumerate(zip(PEOPLE, drawn, strict=True))
        if i not in LACK[block]
    }


def arrive(genodl, folder: Path, lake: str, cohort: str, shuffled: bool = False, without: tuple[str, ...] = ()) -> None:
    """Brings a cohort in; `shuffled`: lines and columns of the matrices in another order."""
    folder.mkdir()
    table = folder / "samples.tsv"
    table.write_text("sample_id\tlabel\n" + "".join(f"{p}\t{'AB'[i % 2]}\n" for i, p in enumerate(PEOPLE)))
    draw = np.random.default_rng(5)
    for block, (kind, _) in KINDS.items():
        if block in without:
            continue
        found, path = values(block), folder / f"{block}.tsv"
        names = list(found)
        features = list(found[names[0]])
        if shuffled:
            names, features = draw.permutation(names).tolist(), draw.permutation(features).tolist()
        lines = [["id", *names], *([g, *(str(found[name][g]) for name in names)] for g in features)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
        named = ("--block", block) if kind == "expression" else ()
        argv = (kind, str(path), "--samples", str(table), "--cohort", cohort, "--lake", lake, *named)
        code, _, line = genodl(ingest, *argv)
        assert code == 0, line
    if "variants" not in without:
        people = [p for i, p in enumerate(PEOPLE) if i not in LACK["variants"]]
        calls = [" ".join(f"{(i + k) % 2}/{i // 2 % 2}" for i in range(len(people))) for k in range(2)]
        path = folder / "people.vcf"
        vcf(path, people, [f"10004 A T {calls[0]}", f"10008 G A {calls[1]}"])
        code, _, line = genodl(ingest, "vcf", str(path), "--cohort", cohort, "--lake", lake)
        assert code == 0, line


def test_rows_of_blocks_that_some_lack_and_their_scores(genodl, lake: Lake, tmp_path: Path) -> None:
    arrive(genodl, tmp_path / "a", lake.uri, "a")
    snapshot, features = Snapshot(lake), BlockFeatures()
    assert features.cohorts(snapshot) == ["a"]
    entities = features.entities(snapshot, "a")
    assert entities == PEOPLE[:28]
    chosen = features.choose(snapshot, "a", entities, np.ones((1, len(entities)), bool)).names
    assert {b: len(p) for b, p in features.positions(chosen).items()} == {
        "mirna": 4, "mrna": 7, "methylation": 5, "variants": 2,
    }  # fmt: skip
    asked = [*chosen[::-1], "mrna:unknown"]
    rows = features.rows(snapshot, "a", asked).collect()
    assert sorted(row.entity_id for row in rows) == PEOPLE
    for row in rows:
        i, x = PEOPLE.index(row.entity_id), np.frombuffer(row.x, np.float32)
        for block in KINDS:
            mine = values(block).get(row.entity_id, {})
            wanted = [mine.get(name.partition(":")[2], np.nan) for name in asked if name.startswith(f"{block}:")]
            np.testing.assert_array_equal(x[features.positions(asked)[block]], np.array(wanted, np.float32))
        place = sum(j not in LACK["variants"] for j in range(i))
        carried = [(place + k) % 2 + place // 2 % 2 for k in range(2)] if i not in LACK["variants"] else [np.nan] * 2
        assert x[:2].tolist() == carried[::-1] or (np.isnan(x[:2]).all() and i in LACK["variants"])
        # the feature that no block has is missing to whoever has the block; who has none at all lacks all
        assert row.missing == (len(asked) if i >= 28 else int(i not in LACK["mrna"]))
    assert features.told(snapshot, "a", chosen) == [
        "of 28 people of cohort a with a block, so many have each: mirna 24, mrna 27, methylation 27, variants 27"
    ]

    at = ("multi_omics", "--lake", lake.uri)
    quick = [part for one in QUICK for part in ("--set", one)]
    code, report, line = genodl(train, *at, "--cohort", "a", "--procs", "1", *quick)
    assert code == 0, line
    assert any("mirna 24" in text for text in report["warnings"]), report["warnings"]
    evaluated(genodl, lake, *at, "--cohort", "a")
    code, report, line = genodl(predict, *at, "--cohort", "a")
    assert (code, report["rows"]["predictions"]["written"]) == (0, 30), line
    assert any("mirna 24" in text for text in report["warnings"])
    assert genodl(predict, *at, "--cohort", "a")[1]["status"] == "unchanged"
    scored = {row.entity_id: row for row in lake.read(PREDICTIONS).collect()}
    assert scored["p10"].note is None and scored["p05"].note == "without methylation"
    assert scored["p03"].note == "without mirna, mrna"
    # how far the blocks that they lack could move the answers
    assert (scored["p10"].low, scored["p10"].high) == (None, None)
    for name in ("p05", "p00", "p03"):
        assert 0 <= scored[name].low < scored[name].value < scored[name].high <= 1
    for name in ("p28", "p29"):
        row = scored[name]
        assert "none of the blocks mirna, mrna, methylation, variants" in row.note
        assert (row.predicted, row.value, row.probabilities, row.uncertainty) == (None,) * 4 and row.abstained
    assert all(scored[name].predicted in ("A", "B") for name in PEOPLE[:28])
    for name in ("p03", "p28"):
        code, report, line = genodl(lineage, "predictions", "--lake", lake.uri, "--key", name)
        assert report["result"][0]["scored_again"]["identical"], (report, line)

    # Another cohort of the same, in another order of lines and columns; and one that has two of the blocks.
    arrive(genodl, tmp_path / "b", lake.uri, "b", shuffled=True)
    arrive(genodl, tmp_path / "c", lake.uri, "c", without=("mirna", "variants"))
    for cohort in "bc":
        code, report, line = genodl(predict, *at, "--cohort", cohort)
        assert code == 0, line
    again = {row.entity_id: row for row in lake.read(PREDICTIONS).where("cohort = 'b'").collect()}
    same = ("predicted", "probabilities", "value", "raw_value", "uncertainty", "distance", "low", "high", "note")
    assert {n: [row[c] for c in same] for n, row in again.items()} == {
        n: [row[c] for c in same] for n, row in scored.items()
    }
    assert any("mirna 0" in text and "variants 0" in text for text in report["warnings"]), report["warnings"]
    fewer = {row.entity_id: row for row in lake.read(PREDICTIONS).where(F.col("cohort") == "c").collect()}
    assert fewer["p10"].note == "without mirna, variants" and fewer["p10"].predicted in ("A", "B")
    assert fewer["p03"].note == "without mirna, mrna, variants"

    # Blocks by name, and of a whole table; one that there is not.
    some = BlockFeatures(["mrna", "methylation"])
    assert some.entities(snapshot, "a") == [p for i, p in enumerate(PEOPLE) if not (i in LACK["mrna"] and i == 28)][:28]
    assert set(BlockFeatures(["expression"])._parts(snapshot, "a")) == {"mrna", "mirna"}
    code, _, line = genodl(train, *at, "--cohort", "a", "--procs", "1", *quick, "--set", "blocks=mrna,protein")
    assert code == 2 and "found no block 'protein' in cohort a" in line and "mirna" in line


def evaluated(genodl, lake: Lake, *at: str) -> None:
    """Baselines of all blocks and of each alone, and the model where rows lack a block."""
    beside = ("--set", "evaluate.baselines=majority,logistic", "--set", "evaluate.resamples=20")
    code, report, line = genodl(evaluate, *at, *beside)
    assert code == 0, line
    blocks = ["mirna", "mrna", "methylation", "variants"]
    found = report["metrics"]
    assert set(found["baselines"]) == {"majority", "logistic", *(f"logistic[{block}]" for block in blocks)}
    assert set(found["without"]) == set(blocks)
    assert found["difference"]["baseline"] in found["baselines"]
    assert genodl(evaluate, *at, *beside)[1]["metrics"] == found
    held: dict[str, dict[str, list[float]]] = {}
    for row in lake.read(HELD_OUT).where("repeat = 0").collect():
        held.setdefault(row.predictor, {})[row.entity_id] = row.scores
    for block in blocks:
        without = held[f"model without {block}"]
        same = {name for name, scores in without.items() if scores == held["model"][name]}
        assert same == {p for i, p in enumerate(PEOPLE[:28]) if i in LACK[block]}, block
        # a baseline of one block has one answer for all who lack it
        others = {tuple(np.round(held[f"logistic[{block}]"][p], 12)) for p in same}
        assert len(others) <= 2  # of each fold
