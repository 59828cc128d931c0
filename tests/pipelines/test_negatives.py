"""Cohorts of positives alone, through the command line: what stands against them in training, and where they are
held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from genodl_spark.genome.bases import kmer_counts
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES, HELD_OUT, PREDICTIONS, SPLITS
from jobs import evaluate, forget, ingest, predict, prepare, train
from jobs import report as report_page

MOTIF, LENGTH = "CACGTGAC", 31
SHUFFLED = ("--set", "sequence.negatives=shuffled")
SMALL = (
    *("--set", "model.channels=[8]", "--set", "model.dilations=[1]", "--set", "model.stem_kernel=9"),
    *("--set", "train.ensemble=1", "--set", "train.epochs=12", "--set", "train.batch=32"),
    *("--set", "train.learning_rate=0.01", "--set", "train.min_steps=1", "--set", "tracking.uri=off"),
    *("--set", "train.validation=0"),
)
FEW = ("--set", "evaluate.baselines=majority,logistic", "--set", "evaluate.resamples=20", "--set", "tracking.uri=off")


def sequence(random: np.random.Generator, bound: bool) -> str:
    row = ["ACGT"[b] for b in random.integers(0, 4, LENGTH)]
    if bound:
        start = int(random.integers(0, LENGTH - len(MOTIF)))
        row[start : start + len(MOTIF)] = MOTIF
    return "".join(row)


def table(folder: Path, rows: list[tuple[str, str, str, str]]) -> str:
    """id, sequence, label and split of each row."""
    path = folder / "s.tsv"
    path.write_text("\n".join(["id\tsequence\tlabel\tsplit", *map("\t".join, rows), ""]))
    return str(path)


def examples(lake: Lake, dataset: str) -> dict[str, tuple[int, np.ndarray, float, str, bytes]]:
    """By entity: row, base codes, target, group and part of the split."""
    rows = lake.read(EXAMPLES).where(F.col("dataset") == dataset).collect()
    return {r.entity_id: (r.row_id, np.frombuffer(r.x, np.int8), r.target, r.group, bytes(r.folds)) for r in rows}


def test_a_published_test_set_measures_what_shuffles_taught(genodl, lake: Lake, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = [(f"p{i:03}", sequence(random, True), "1", "train") for i in range(160)]
    rows += [(f"t{i:03}", sequence(random, i % 2 == 1), str(i % 2), "test") for i in range(80)]
    common = ("--lake", lake.uri, "--cohort", "c")
    assert genodl(ingest, "sequences", table(tmp_path, rows), *common)[0] == 0
    options = (*common, *SHUFFLED, *SMALL, "--set", "split.column=split", "--set", "sequence.alike=0")

    code, report, last = genodl(train, "binding", *options)
    assert code == 0, last
    assert "1 is taken for the positive class of label, 0 for the other" in report["warnings"]
    dataset = lake.read(DATASETS).collect()[0]
    assert (dataset.rows, dataset.negatives, list(dataset.classes)) == (400, 160, ["0", "1"])
    found = examples(lake, dataset.dataset)
    assert sorted(row for row, *_ in found.values()) == list(range(400))
    for name, *_ in rows[:160]:
        _, codes, target, _, part = found[name]
        row, shuffle, negative, group, same = found[f"{name}~shuffled:1"]
        assert (target, negative, group, part == same, row >= 240) == (1, 0, name, True, True)
        assert (shuffle != codes).any()
        np.testing.assert_array_equal(kmer_counts(shuffle[None], 2), kmer_counts(codes[None], 2))
    assert not any("~" in name for name in found if name.startswith("t"))  # they have given ones
    roles = {row.entity_id: (row.role, row.group) for row in lake.read(SPLITS).collect()}
    assert len(roles) == 400 and roles["p007~shuffled:1"] == ("train", "p007") == roles["p007"]

    code, again, _ = genodl(train, "binding", *options)
    assert (code, again["status"]) == (0, "unchanged")
    code, report, last = genodl(evaluate, "binding", *common, *FEW)
    assert code == 0, last
    metrics = report["metrics"]
    assert metrics["n_test"] == 80 and {"majority", "logistic"} == set(metrics["baselines"])
    assert metrics["model"]["auroc"]["value"] > 0.9 and metrics["baselines"]["majority"]["auroc"]["value"] == 0.5
    assert {row.entity_id for row in lake.read(HELD_OUT).collect()} == {name for name, *_ in rows[160:]}

    contrast = ("--set", "evaluate.negatives=shuffled")
    code, report, last = genodl(evaluate, "binding", *common, *FEW, *contrast)
    assert (code, report["metrics"]["model"]) == (0, metrics["model"]), last
    against = report["metrics"]["negatives"]
    assert against.keys() == {"shuffled"} and against["shuffled"]["n_test"] == 80
    assert against["shuffled"].keys() == {"n_test", *metrics["model"]} and against["shuffled"]["auroc"]["value"] > 0.85
    assert (genodl(evaluate, "binding", *common, *FEW, *contrast)[1])["status"] == "unchanged"
    code, _, last = genodl(evaluate, "binding", *common, *FEW, "--set", "evaluate.negatives=genome")
    assert code == 2 and last.startswith("genodl: error: reference: found no name among none")
    code, _, last = genodl(evaluate, "binding", *common, *FEW, "--set", "evaluate.negatives=given")
    assert (code, last) == (2, "genodl: error: evaluate.negatives: found 'given'; expected some of shuffled, genome")

    others = [(f"x{i:03}", sequence(random, True), "1", "") for i in range(40)]
    assert genodl(ingest, "sequences", table(tmp_path, others), "--lake", lake.uri, "--cohort", "d")[0] == 0
    code, report, last = genodl(evaluate, "binding", "--lake", lake.uri, "--cohort", "d", *FEW)
    assert code == 0, last
    assert report["metrics"]["n_test"] == 80 and report["metrics"]["model"]["auroc"]["value"] > 0.85
    assert report["metrics"]["baselines"]["logistic"]["auroc"]["value"] > 0.6

    code, report, last = genodl(predict, "binding", *common)
    assert code == 0, last
    assert {row.entity_id for row in lake.read(PREDICTIONS).collect()} == {name for name, *_ in rows}


def test_of_positives_alone_what_is_held_out_has_shuffles_too(genodl, lake: Lake, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    rows = [(f"p{i:03}", sequence(random, True), "CTCF", "") for i in range(60)]
    common = ("--lake", lake.uri, "--cohort", "c")
    assert genodl(ingest, "sequences", table(tmp_path, rows), *common)[0] == 0
    code, _, last = genodl(prepare, "binding", *common)
    assert (code, last.partition(";")[0]) == (2, "genodl: error: --label: found one class, 'CTCF', in label")

    three = (*SHUFFLED, "--set", "sequence.negatives_each=3")
    for split, roles in (("split.folds=3", {"fold"}), ("", {"train", "validation", "test"})):
        code, report, last = genodl(prepare, "binding", *common, *three, *(("--set", split) if split else ()))
        assert code == 0, last
        dataset = lake.read(DATASETS).orderBy(F.col("prepared_at").desc()).first()
        assert (dataset.rows, dataset.negatives, list(dataset.classes)) == (240, 180, ["negative", "CTCF"])
        parts: dict[str, set[tuple[str, int | None]]] = {}
        stored = lake.read(SPLITS).where(F.col("split_hash") == dataset.split_hash).collect()
        for row in stored:
            parts.setdefault(row.entity_id.partition("~")[0], set()).add((row.role, row.fold))
        assert len(stored) == 240 and all(len(places) == 1 for places in parts.values())
        assert {role for places in parts.values() for role, _ in places} == roles
        found = examples(lake, dataset.dataset)
        assert all(len({found[f"{n}~shuffled:{k}"][1].tobytes() for k in (1, 2, 3)}) == 3 for n, *_ in rows)
    # a shuffle that is held out is the same in every data set
    before, after = (
        examples(lake, row.dataset) for row in lake.read(DATASETS).where(F.col("negatives") == 180).collect()
    )
    assert all((before[name][1] == after[name][1]).all() for name in before)

    code, report, last = genodl(train, "binding", *common, *SHUFFLED, *SMALL, "--set", "target.classes=none,CTCF")
    assert code == 0, last
    code, report, last = genodl(evaluate, "binding", *common, *FEW)
    assert code == 0, last
    assert report["metrics"]["n_test"] == 24 and report["metrics"]["model"]["auroc"]["value"] > 0.7

    code, _, last = genodl(forget, *common, "--sample", "p003")
    assert code == 0, last
    for stored in (EXAMPLES, SPLITS, HELD_OUT):
        names = {row.entity_id for row in lake.read(stored).select("entity_id").distinct().collect()}
        assert any("~shuffled:" in name for name in names)
        assert not any(name.startswith("p003") for name in names)


def test_what_has_no_positives_is_refused(genodl, lake: Lake, tmp_path: Path) -> None:
    common = ("--lake", lake.uri, "--cohort", "c")
    random = np.random.default_rng(5)
    rows = [(f"s{i}", sequence(random, False), "abc"[i % 3], str(i)) for i in range(12)]
    assert genodl(ingest, "sequences", table(tmp_path, rows), *common)[0] == 0
    for options, told in (
        (("--set", "split.folds=2"), "target.classes: found the classes 'a', 'b', 'c' in label for positives that"),
        (
            ("--label", "split", "--set", "target.kind=regression", "--set", "split.folds=2"),
            "sequence.negatives: found no classes in split; expected two, the last one positive",
        ),
        (("--set", "target.classes=c,d", "--set", "split.folds=2"), "target.classes: found no sequence of class 'd'"),
    ):
        code, _, last = genodl(prepare, "binding", *common, *SHUFFLED, *options)
        assert code == 2 and last.startswith(f"genodl: error: {told}"), last
    code, _, last = genodl(prepare, "ancestry", "--lake", lake.uri, *SHUFFLED)
    assert code == 2
    assert last == "genodl: error: sequence.negatives: found shuffled for features of each person; expected given"


def test_windows_of_a_genome_stay_with_their_positives(genodl, lake: Lake, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    contigs = {name: "".join("ACGT"[b] for b in random.integers(0, 4, 30_000)) for name in ("chr1", "chr2")}
    (tmp_path / "r.fa").write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    rows = []
    for i in range(120):
        contig, start = f"chr{1 + i % 2}", 100 * i
        text = contigs[contig][start : start + LENGTH]
        place = int(random.integers(0, LENGTH - len(MOTIF)))
        bound = text[:place] + MOTIF + text[place + len(MOTIF) :]
        rows.append((f"{contig}:{start}-{start + LENGTH}", bound, "1", ("train", "validation", "test")[i % 3]))
    path = tmp_path / "s.tsv"
    lines = ["id\tsequence\tlabel\tsplit\tchrom", *("\t".join((*row, row[0].partition(":")[0])) for row in rows), ""]
    path.write_text("\n".join(lines))
    common = ("--lake", lake.uri, "--cohort", "c")
    assert genodl(ingest, "sequences", str(path), *common)[0] == 0
    options = (*common, "--set", "sequence.negatives=genome", "--set", "sequence.alike=0")
    code, _, last = genodl(prepare, "binding", *options)
    assert code == 2 and last.startswith("genodl: error: reference: found no name among none for negatives of the gen")
    assert genodl(ingest, "reference", str(tmp_path / "r.fa"), "--lake", lake.uri, "--cohort", "ref")[0] == 0

    def prepared(*more: str) -> tuple[str, dict[str, tuple[str, str, int | None]]]:
        code, _, last = genodl(prepare, "binding", *options, *more)
        assert code == 0, last
        newest = lake.read(DATASETS).orderBy(F.col("prepared_at").desc()).first()
        assert set(newest.source_versions) == {"sequences", "labels", "reference_bases"}
        assert (newest.rows, newest.negatives, list(newest.classes)) == (240, 120, ["negative", "1"])
        stored = lake.read(SPLITS).where(F.col("split_hash") == newest.split_hash).collect()
        return newest.dataset, {row.entity_id: (row.group, row.role, row.fold) for row in stored}

    for more in (("--set", "split.column=split"), ("--set", "split.folds=2", "--set", "split.group=chrom")):
        dataset, stood = prepared(*more)
        found = examples(lake, dataset)
        brought = {name.partition("~")[0]: name for name in stood if "~" in name}
        assert brought.keys() == {name for name, *_ in rows} and len(stood) == 240
        for name, negative in brought.items():
            assert stood[negative][1:] == stood[name][1:]
            contig, _, place = negative.partition("~")[2].partition(":")
            first, last = map(int, place.split("-"))
            codes, positive = found[negative][1], found[name][1]
            assert "".join("ACGT"[c] for c in codes) == contigs[f"chr{contig}"][first - 1 : last]
            assert abs(np.isin(codes, (1, 2)).mean() - np.isin(positive, (1, 2)).mean()) <= 0.02 + 1e-9
            if "split.group=chrom" in more:
                assert name.startswith(f"chr{contig}:")
            for start in range(0, 12_000, 100):
                on = f"chr{1 + start // 100 % 2}" == f"chr{contig}"
                assert not (on and first - 1 < start + LENGTH and start < last)
    code, report, last = genodl(train, "binding", *options, *SMALL, "--set", "split.column=split")
    assert code == 0, last
    code, report, last = genodl(evaluate, "binding", *common, *FEW, "--set", "evaluate.negatives=genome,shuffled")
    assert code == 0, last
    metrics = report["metrics"]
    assert metrics["n_test"] == 80 and metrics["model"]["auroc"]["value"] > 0.6
    assert all(metrics["negatives"][scheme]["auroc"]["value"] > 0.6 for scheme in ("genome", "shuffled"))
    code, _, last = genodl(report_page, "--lake", lake.uri, "--output", str(tmp_path / "pages"))
    assert code == 0, last
    assert "<h3>By negatives</h3>" in (tmp_path / "pages" / "index.html").read_text()
