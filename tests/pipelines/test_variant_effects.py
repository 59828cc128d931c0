"""Effects of variants through a model of sequences: from a VCF and a table to `predictions`, in SQL, and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import PREDICTIONS, SPLITS
from genodl_spark.learning import predictor
from jobs import ingest, lineage, monitor, query, train
from jobs import predict as predict_job
from tests.pipelines.test_predictions import FAST, SMALL, sequences

LENGTH = 40


def genome() -> dict[str, str]:
    generator = np.random.default_rng(5)
    return {"chr1": "".join(generator.choice(list("ACGT"), 400)), "chr2": "".join(generator.choice(list("ACGTN"), 300))}


def vcf(path: Path, records: list[tuple[str, int, str, str]]) -> str:
    lines = ["##fileformat=VCFv4.3", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    lines += [f"{chrom}\t{pos}\t.\t{ref}\t{alt}\t.\t.\t." for chrom, pos, ref, alt in sorted(records)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def scores(lake: Lake, where: str = "task = 'variant_effect'") -> dict[str, Any]:
    return {row.entity_id: row for row in lake.read(PREDICTIONS).where(where).collect()}


def log_odds(model: predictor.Predictor, window: str) -> float:
    """Of the last of two classes, the mean of both strands; the reverse complement is written out."""
    other = window[::-1].translate(str.maketrans("ACGT", "TGCA"))
    codes = np.array([["ACGT".find(base) for base in text] for text in (window, other)], np.int8)
    raw = model.scores(codes).raw
    return float(np.log(raw[:, 1] / raw[:, 0]).mean()) / model.card.temperature


def by_hand(model: predictor.Predictor, contig: str, pos: int, ref: str, alt: str) -> tuple[float, float]:
    """Log odds of both windows, cut from a contig with N beside it; `pos` of the first base that differs."""
    whole = "N" * LENGTH + contig + "N" * LENGTH
    first = LENGTH + pos - 1
    assert whole[first : first + len(ref)] == ref
    changed = whole[:first] + alt + whole[first + len(ref) :]
    start = first - LENGTH // 2
    found = [log_odds(model, text[start : start + LENGTH]) for text in (whole, changed)]
    return found[0], found[1]


def test_effects_follow_the_lake(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    contigs = genome()
    one = contigs["chr1"]
    fasta = tmp_path / "g.fa"
    fasta.write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    other = {base: "CGTA"["ACGT".index(base)] for base in "ACGT"}
    third = {base: "GTAC"["ACGT".index(base)] for base in "ACGT"}

    # ref, alt as windows see them, by the name of the variant
    expected = {
        f"1:100:{one[99]}:{other[one[99]]}": ("chr1", 100, one[99], other[one[99]]),
        f"1:100:{one[99]}:{third[one[99]]}": ("chr1", 100, one[99], third[one[99]]),
        f"1:2:{one[1]}:{other[one[1]]}": ("chr1", 2, one[1], other[one[1]]),
        f"1:400:{one[399]}:{other[one[399]]}": ("chr1", 400, one[399], other[one[399]]),
        f"1:150:{one[149]}:{one[149]}GATTACA": ("chr1", 151, "", "GATTACA"),
        f"1:200:{one[199:206]}:{one[199]}": ("chr1", 201, one[200:206], ""),
        f"1:250:{one[249:252]}:{''.join(other[b] for b in one[249:252])}": (
            "chr1", 250, one[249:252], "".join(other[b] for b in one[249:252]),
        ),
    }  # fmt: skip
    records = [(name.split(":")[0], int(name.split(":")[1]), *name.split(":")[2:]) for name in expected]
    site = (one[99], f"{other[one[99]]},{third[one[99]]}")
    several = [record for record in records if record[1] != 100] + [("1", 100, *site)]
    wrong = other[one[319]]
    odd = {
        "1:300:{}:<DEL>": "found ALT <DEL>; expected one that is spelled in bases",
        "1:310:{}:*": "found ALT *, which is no change",
        "1:401:A:C": "found REF A where the reference has no bases; expected a place that it has",
        "9:5:A:C": "found REF A where the reference has no bases; expected a place that it has",
        f"1:320:{wrong}:{one[319]}": f"found REF {wrong}; expected {one[319]}, as the reference has it",
    }
    odd = {name.format(one[int(name.split(":")[1]) - 1]) if "{}" in name else name: note for name, note in odd.items()}
    several += [(c, int(p), r, a) for c, p, r, a in (name.split(":") for name in odd)]
    # The second file has a site of the first, and one more.
    more = (f"1:350:{one[349]}:{other[one[349]]}", ("chr1", 350, one[349], other[one[349]]))
    again = [("1", 100, *site), ("1", 350, one[349], other[one[349]])]

    table = sequences(tmp_path / "s.tsv", [f"s{i:03}" for i in range(80)], 1)
    with Path(table).open("a") as file:  # most of the window of a variant
        file.write(f"near\t{one[180:220]}\t1\n")
    assert genodl(ingest, "sequences", table, "--cohort", "trained", *at)[0] == 0
    # whose strands differ, so that both count
    apart = ("--set", "model.reverse_complement=none")
    code, report, line = genodl(train, "binding", *at, *SMALL, *FAST, "--set", "model.hidden=[8]", *apart)
    assert code == 0, line
    model_id = report["metrics"]["model_id"]
    by = ("--cohort", "people", "--model", model_id)
    assert genodl(ingest, "vcf", vcf(tmp_path / "a.vcf", several), "--cohort", "people", *at)[0] == 0

    code, _, line = genodl(predict_job, "variant_effect", *at, *by)
    assert (code, "found no name among none" in line, "genodl ingest reference" in line) == (2, True, True)
    assert genodl(ingest, "reference", str(fasta), "--cohort", "genome", *at)[0] == 0
    code, _, line = genodl(predict_job, "variant_effect", *at, "--cohort", "people")
    assert code == 2 and "found no model of task variant_effect" in line
    code, _, line = genodl(predict_job, "variant_effect", *at, "--cohort", "nobody", "--model", model_id)
    assert code == 2 and "cohort nobody has no data for variant_effect" in line

    code, _, line = genodl(predict_job, "variant_effect", *at, *by, "--label", "other")
    assert code == 2 and "of label label, not other" in line

    code, report, line = genodl(predict_job, "variant_effect", *at, *by)
    assert (code, report["rows"]["predictions"]["written"]) == (0, 12), line
    assert report["metrics"]["without_effect"] == 5 and any("5 of 12 effects" in text for text in report["warnings"])
    assert report["metrics"]["model_id"] == model_id and report["tables"]["read"].keys() >= {
        "variants",
        "reference_bases",
    }
    found = scores(lake)
    assert found.keys() == expected.keys() | odd.keys()
    model = predictor.load(predictor.registered(lake, model_id))
    for name, (contig, pos, ref, alt) in expected.items():
        row = found[name]
        a, b = by_hand(model, contigs[contig], pos, ref, alt)
        assert row.value == pytest.approx(b - a, rel=1e-9, abs=1e-9), name
        assert row.raw_value == pytest.approx((b - a) * model.card.temperature, rel=1e-9, abs=1e-9)
        assert row.probabilities["alt 1"] == pytest.approx(1 / (1 + np.exp(-b)), rel=1e-9)
        assert row.probabilities["ref 0"] == pytest.approx(1 / (1 + np.exp(a)), rel=1e-9)
        assert row.probabilities["effect 1"] == row.value == -row.probabilities["effect 0"]
        assert (row.predicted, row.note, row.label_column, row.in_training) == (None, None, "binding:label", False)
        assert row.source_versions.keys() == {"variants", "reference_bases"}
    assert len({found[name].value for name in expected}) == len(expected)
    assert {name: found[name].note for name in odd} == odd
    assert all(
        found[name].value is None and found[name].probabilities is None and found[name].abstained for name in odd
    )
    assert genodl(predict_job, "variant_effect", *at, *by)[1]["status"] == "unchanged"

    # New records: they alone are scored, and what both files have is there once.
    assert genodl(ingest, "vcf", vcf(tmp_path / "b.vcf", again), "--cohort", "people", *at)[0] == 0
    code, report, line = genodl(predict_job, "variant_effect", *at, *by)
    assert (code, report["rows"]["predictions"]["written"]) == (0, 3), line
    now = scores(lake)
    assert now.keys() == found.keys() | {more[0]}
    a, b = by_hand(model, contigs["chr1"], *more[1][1:])
    assert now[more[0]].value == pytest.approx(b - a, rel=1e-9, abs=1e-9)
    assert {name: row.value for name, row in now.items() if name in found} == {
        name: row.value for name, row in found.items()
    }
    # Another cohort's reference is none of this one's, as long as it is told which counts.
    assert genodl(ingest, "reference", str(fasta), "--cohort", "second", *at)[0] == 0
    code, _, line = genodl(predict_job, "variant_effect", *at, *by)
    assert code == 2 and "found no name among genome, second" in line
    named = ("--set", "reference=genome")
    assert genodl(predict_job, "variant_effect", *at, *by, *named)[1]["status"] == "unchanged"
    # All anew, in other pieces, and one strand alone.
    assert genodl(predict_job, "variant_effect", *at, *by, *named, "--force")[1]["rows"]["predictions"]["written"] == 13
    assert {name: row.value for name, row in scores(lake).items()} == {name: row.value for name, row in now.items()}

    # SQL: the same from a statement's own rows, beside what is stored, with another reference named.
    sql = (
        "SELECT p.entity_id, p.value AS stored, p.note AS why, "
        "genodl_score_variants('{}', chrom, pos, ref, alt, 'second') AS s "
        "FROM (SELECT chrom, pos, ref, explode(alts) AS alt FROM variants WHERE file = 'a.vcf') "
        "JOIN predictions_latest p ON p.entity_id = concat_ws(':', chrom, pos, ref, alt) AND p.task = 'variant_effect'"
    )
    code, report, line = genodl(query, sql.format(model_id), *at)
    assert (code, len(report["result"])) == (0, 12), line
    for row in report["result"]:
        assert (row["s"]["value"], row["s"]["note"]) == (row["stored"], row["why"])
        assert row["s"]["probabilities"] == now[row["entity_id"]].probabilities
    seen = {row.entity_id for row in lake.read(SPLITS).where("role IN ('train', 'validation')").collect()}
    beside = {row["entity_id"]: row["s"] for row in report["result"]}
    near = beside[next(name for name in expected if name.startswith("1:200:"))]
    if "near" in seen:
        assert (near["neighbour"], near["neighbour_label"]) == ("near", "1") and near["similarity"] > 0.9
    else:
        assert near["neighbour"] != "near"
    assert all(beside[name]["neighbour"] is None for name in odd)
    name = f"1:100:{one[99]}:{other[one[99]]}"
    values = f"'binding', '1', 100, '{one[99]}', '{other[one[99]]}'"
    no_place = "'binding', '1', NULL, 'A', 'C'"
    asked = f"genodl_score_variants({values}).value AS v, genodl_score_variants({no_place}).note AS n"
    code, report, line = genodl(query, f"SELECT {asked}", *at, *named)
    assert (code, report["result"]) == (0, [{"v": now[name].value, "n": None}]), line
    for sql, text in (
        ("SELECT genodl_score_variants(chrom, pos, ref, ref, ref) FROM variants", "without the name of a model"),
        (f"SELECT genodl_score_variants({values})", "found no reference"),
        ("SELECT genodl_score_variants('nothing', '1', 100, 'A', 'C')", "found no model 'nothing'"),
    ):
        code, _, line = genodl(query, sql, *at)
        assert code == 2 and text in line, (sql, line)

    # Back to the file, and the same score again.
    code, report, line = genodl(lineage, "predictions", *at, "--key", name)
    (traced,) = report["result"]
    assert code == 0 and traced["scored_again"] == {"identical": True, "same_hardware": True}, line
    assert [file["file"] for file in traced["made_from"]["files"]] == ["a.vcf", "b.vcf"]
    # Watched: all are scored, none is of features that have changed since.
    code, report, line = genodl(monitor, *at, *named)
    checks = {
        f["check"]: f["value"] for f in report["metrics"].get("findings", []) if f.get("task") == "variant_effect"
    }
    assert code in (0, 3) and not {"unscored", "stale", "readable"} & checks.keys(), (line, checks)


def test_variants_of_a_table_and_a_foreign_reference(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    contigs = genome()
    one = contigs["chr1"]
    (tmp_path / "s.fa").write_text(f">slice hg19_chr7:1001-1400\n{one}\n")
    base = one[199]
    lines = ["chrom\tpos\tref\talt\tvalue\telement"]
    alt = "A" if base != "A" else "C"
    lines += [f"chr7\t1200\t{base}\t{alt}\t1.5\tE1", f"chr7\t1200\t{base}\t{alt}\t2\tE2"]
    lines += [f"chr7\t1300\t{one[299:302]}\t-\t0\tE1", "chr7\t1301\t-\tACG\t0\tE1"]
    (tmp_path / "v.tsv").write_text("\n".join(lines) + "\n")
    fasta, cohort = str(tmp_path / "s.fa"), ("--cohort", "c", *at)
    assert genodl(ingest, "variants", str(tmp_path / "v.tsv"), *cohort, "--reference", fasta)[0] == 0
    assert genodl(ingest, "reference", fasta, *cohort)[0] == 0
    table = sequences(tmp_path / "t.tsv", [f"s{i:03}" for i in range(60)], 1)
    assert genodl(ingest, "sequences", table, *cohort)[0] == 0
    values = ("--set", "target.kind=regression", "--set", "metric=r2", "--set", "model.average_strands=true")
    code, report, line = genodl(train, "sequence_expression", *at, "--label", "label", *values, *SMALL, *FAST)
    assert code == 0, line
    model_id = report["metrics"]["model_id"]
    code, report, line = genodl(predict_job, "variant_effect", *at, "--model", model_id)
    assert (code, report["rows"]["predictions"]["written"], report["metrics"]["without_effect"]) == (0, 4, 1), line
    found = scores(lake)
    model = predictor.load(predictor.registered(lake, model_id))
    whole = "N" * LENGTH + one + "N" * LENGTH

    def value(text: str) -> float:
        return float(model(np.array([["ACGT".find(b) for b in text]], np.int8))[0])

    for pos, ref, other, names in (
        (200, base, alt, [f"chr7:1200:{base}:{alt}:E1", f"chr7:1200:{base}:{alt}:E2"]),
        (300, one[299:302], "", [f"chr7:1300:{one[299:302]}:-"]),
    ):
        first = LENGTH + pos - 1
        start = first - LENGTH // 2
        changed = whole[:first] + other + whole[first + len(ref) :]
        a, b = (value(text[start : start + LENGTH]) for text in (whole, changed))
        for name in names:
            row = found[name]
            assert row.value == pytest.approx(b - a, abs=1e-9) and row.label_column == "sequence_expression:label"
            assert row.probabilities == {"ref": pytest.approx(a, abs=1e-9), "alt": pytest.approx(b, abs=1e-9)}
    assert found["chr7:1301:-:ACG"].note == "found REF -; expected one that is spelled in bases"

    # None that fits: nothing is written. So it is for a model that reads no sequences.
    (tmp_path / "w.fa").write_text(f">chr7\n{'A' * 50}\n")
    assert genodl(ingest, "reference", str(tmp_path / "w.fa"), "--cohort", "short", *at)[0] == 0
    version = lake.version(PREDICTIONS)
    code, _, line = genodl(predict_job, "variant_effect", *at, "--model", model_id, "--set", "reference=short")
    assert code == 2 and "found no variant of 4 that can be scored" in line and "is it the same build?" in line
    assert lake.version(PREDICTIONS) == version
