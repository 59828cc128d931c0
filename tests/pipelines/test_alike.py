"""Sequences that are nearly the same, through the command line: no split divides them, but one that was published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import DATASETS, SPLITS
from jobs import evaluate, ingest, prepare, train
from jobs import report as report_page

FAMILIES, SIZE, STRANGERS = 6, 5, 30
SHARE = "share 0.9 or more of the bases with"
Places = dict[str, tuple[str | None, str, int | None]]


def sequences() -> dict[str, tuple[str, str]]:
    """By name: bases and family. Copies with 2 of 60 bases exchanged, some turned round; and strangers."""
    random = np.random.default_rng(0)
    found = {}
    for family in range(FAMILIES + STRANGERS):
        start = random.integers(0, 4, 60)
        for copy in range(SIZE if family < FAMILIES else 1):
            row = start.copy()
            row[random.integers(0, 60, 2)] = random.integers(0, 4, 2)
            row = row if copy % 2 else 3 - row[::-1]
            found[f"s{len(found):03}"] = ("".join("ACGT"[b] for b in row), f"f{family}")
    return found


def places_of(rows: dict[str, tuple[str, str]], stood: Places) -> dict[str, set[tuple[str | None, str, int | None]]]:
    """Group, role and fold of each family."""
    found: dict[str, set[tuple[str | None, str, int | None]]] = {}
    for name, (_, family) in rows.items():
        found.setdefault(family, set()).add(stood[name])
    return found


def test_no_split_divides_them(genodl, lake: Lake, tmp_path: Path) -> None:
    rows = sequences()
    split = {name: ("train", "test")[i % 2] for i, name in enumerate(rows)}
    donor = {f"s{i:03}": "d" for i in (0, SIZE, FAMILIES * SIZE + 4)}  # of f0, f1 and a stranger, f10
    lines = [
        f"{name}\t{bases}\t{i // 2 % 2}\t{split[name]}\t{donor.get(name, '')}"
        for i, (name, (bases, _)) in enumerate(rows.items())
    ]
    (tmp_path / "s.tsv").write_text("\n".join(["id\tsequence\tlabel\tsplit\tdonor", *lines, ""]))
    common = ("--lake", lake.uri, "--cohort", "c")
    assert genodl(ingest, "sequences", str(tmp_path / "s.tsv"), *common)[0] == 0

    def prepared(*options: str) -> tuple[list[str], Places]:
        code, report, last = genodl(prepare, "binding", *common, *options)
        assert code == 0, last
        newest = lake.read(DATASETS).orderBy(F.col("prepared_at").desc()).first().split_hash
        found = lake.read(SPLITS).where(F.col("split_hash") == newest).collect()
        return report["warnings"], {row.entity_id: (row.group, row.role, row.fold) for row in found}

    told = (
        f"{FAMILIES * SIZE} of {len(rows)} sequences {SHARE} another one: {FAMILIES} groups of them are kept together"
    )
    folds = ("--set", "split.folds=4")
    for options, joined in (((), set()), (folds, set()), ((*folds, "--set", "split.group=donor"), {"f0", "f1", "f10"})):
        warnings, stood = prepared(*options)
        assert told in warnings
        found = places_of(rows, stood)
        assert all(len(places) == 1 for places in found.values())
        group = {family: next(iter(places))[0] for family, places in found.items()}
        assert len({group[family] for family in joined}) == bool(joined)
        assert len(set(group.values())) == len(group) - max(len(joined) - 1, 0)

    warnings, stood = prepared("--set", "sequence.alike=0")
    assert not any(SHARE in text for text in warnings)
    assert {group for group, _, _ in stood.values()} == {None}
    assert any(len(places) > 1 for places in places_of(rows, stood).values())

    published = ("--set", "split.column=split")
    warnings, stood = prepared(*published, "--set", "train.validation=0")
    held = [name for name, role in split.items() if role == "test"]
    like = [name for name in held if int(rows[name][1][1:]) < FAMILIES]
    told = f"0 of 0 validation rows and {len(like)} of {len(held)} test rows {SHARE} a training row"
    assert f"{told}, as the split was published" in warnings
    assert {name: role for name, (_, role, _) in stood.items()} == split

    # Rows that say when to stop come out of those that train, families whole.
    warnings, stood = prepared(*published, "--set", "train.validation=0.3")
    trains = [name for name, role in split.items() if role == "train"]
    validates = [name for name in trains if stood[name][1] == "validation"]
    told = f"no rows for validation: {len(validates)} of its {len(trains)} training rows are these"
    assert any(told in text for text in warnings) and 0.2 < len(validates) / len(trains) < 0.4
    assert all(stood[name][1] == role for name, role in split.items() if name not in validates)
    families = [{stood[name][1] for name in trains if rows[name][1] == f"f{number}"} for number in range(FAMILIES)]
    assert all(len(roles) == 1 for roles in families)


def test_metrics_by_similarity(genodl, lake: Lake, tmp_path: Path) -> None:
    rows = sequences()
    split = {name: ("train", "test")[i % 2] for i, name in enumerate(rows)}
    lines = [f"{name}\t{bases}\t{i // 2 % 2}\t{split[name]}" for i, (name, (bases, _)) in enumerate(rows.items())]
    (tmp_path / "s.tsv").write_text("\n".join(["id\tsequence\tlabel\tsplit", *lines, ""]))
    common = ("--lake", lake.uri, "--cohort", "c")
    assert genodl(ingest, "sequences", str(tmp_path / "s.tsv"), *common)[0] == 0
    small = ("model.channels=[4]", "model.dilations=[1]", "train.ensemble=1", "train.epochs=1", "train.min_steps=1")
    more = ("train.validation=0", "evaluate.baselines=majority", "evaluate.resamples=10")
    options = [*common, *(word for text in (*small, *more) for word in ("--set", text))]

    def bins(*split: str) -> dict[str, int]:
        code, _, last = genodl(train, "binding", *options, *split)
        assert code == 0, last
        code, report, last = genodl(evaluate, "binding", *common)
        assert code == 0, last
        found = report["metrics"]["by"]
        assert all(one.keys() == {"n_test", "auroc"} for one in found.values())
        assert sum(one["n_test"] for one in found.values()) == report["metrics"]["n_test"]
        return {name: one["n_test"] for name, one in found.items()}

    held = [name for name, role in split.items() if role == "test"]
    like = sum(int(rows[name][1][1:]) < FAMILIES for name in held)
    expected = {"similarity 0.9 to 1": like, "similarity below 0.7": len(held) - like}
    assert bins("--set", "split.column=split") == expected
    assert bins("--set", "split.folds=3") == {"similarity below 0.7": len(rows)}
    assert genodl(report_page, "--lake", lake.uri, "--output", str(tmp_path / "pages"))[0] == 0
    page = (tmp_path / "pages" / "index.html").read_text()
    assert "<h3>By similarity to training</h3>" in page
    assert f"{FAMILIES} groups of them are kept together" in page
