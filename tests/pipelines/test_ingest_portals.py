"""Files of portals into a lake by one command: values, samples, symbols, units, mutations, and what became of names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.ingested import EXPRESSION, FEATURES, METHYLATION, QUARANTINE, SAMPLES, SOURCES
from genodl_spark.lake.tables.portals import HARMONISATION, MUTATIONS, PORTAL_FILES, PROBES, UNITS
from jobs import forget, ingest
from tests.formats.test_portal_matrices import ALIQUOTS, DATA, SERIES, portal, sheet
from tests.formats.test_portal_tables import BARCODE, HEAD, ROWS, XML

Values = dict[str, dict[str, float | None]]


def stored(lake: Lake, cohort: str, table=EXPRESSION) -> Values:
    orders: dict[str, list[str]] = {}
    for row in lake.read(FEATURES).where(f"cohort = '{cohort}'").orderBy("feature_set", "position").collect():
        orders.setdefault(row.feature_set, []).append(row.feature_id)
    found: Values = {}
    for row in lake.read(table).where(f"cohort = '{cohort}'").collect():
        values = np.frombuffer(row.x, np.float32).tolist()
        found[row.sample_id] = {f: None if v != v else v for f, v in zip(orders[row.feature_set], values, strict=True)}
    return found


def test_a_folder_of_the_gdc_with_its_sheet_is_one_commit_and_tells_what_became_of_names(
    genodl, lake: Lake, tmp_path: Path
) -> None:
    at = ("--cohort", "c", "--lake", lake.uri)
    portal(tmp_path / "gdc", names=[*ALIQUOTS, "TCGA-A1-A0SB-01A-11R-A999-07"])
    code, report, line = genodl(ingest, "expression", str(tmp_path / "gdc"), *at)
    assert code == 0, line
    values = stored(lake, "c")
    assert {name: row["ENSG00000000003"] for name, row in values.items()} == {
        "TCGA-A1-A0SB-01A": 40.0,
        "TCGA-A1-A0SD-01A": 20.0,
        "TCGA-A1-A0SD-11A": 30.0,
    }
    assert report["metrics"]["harmonised"] == {
        "samples renamed": 3,
        "samples dropped": 1,
        "features renamed or dropped": 4,
    }
    told = lake.read(HARMONISATION).collect()
    assert Counter((row.what, row.action) for row in told) == {
        ("sample", "renamed"): 3,
        ("sample", "dropped"): 1,
        ("feature", "renamed"): 3,
        ("feature", "dropped"): 1,
    }
    dropped = next(row for row in told if (row.what, row.action) == ("sample", "dropped"))
    assert (dropped.name, dropped.became, dropped.file) == (ALIQUOTS[0], "TCGA-A1-A0SB-01A", "f0.tsv")
    assert dropped.reason.endswith("plate A999 before A144")
    symbols = {row.feature_id: row.symbol for row in lake.read(PROBES).collect()}
    assert symbols == dict(zip(next(iter(values.values())), ["SYM0", "SYM1", "SYM2"], strict=True))
    units = {(row.file, row.unit, row.lowest, row.missing) for row in lake.read(UNITS).collect()}
    assert units == {("f1.tsv", "counts", 20.0, 0), ("f2.tsv", "counts", 30.0, 0), ("f3.tsv", "counts", 40.0, 0)}
    assert {row.sample_id: row["Case_ID"] for row in lake.read(SAMPLES).collect()} == {n: n[:12] for n in values}
    assert [lake.version(table) for table in (EXPRESSION, FEATURES, HARMONISATION, PROBES, UNITS)] == [0] * 5
    assert genodl(ingest, "expression", str(tmp_path / "gdc"), *at)[1]["status"] == "unchanged"
    # later aliquots of two samples: one comes after that which stands, the other before
    worse, better = "TCGA-A1-A0SB-01A-11R-A100-07", "TCGA-A1-A0SD-01A-11R-A200-07"
    for folder, names in (("worse", [worse]), ("both", [worse, ALIQUOTS[1], better])):
        portal(tmp_path / folder, names=names)
        for i in range(len(names)):
            (tmp_path / folder / f"f{i}.tsv").rename(tmp_path / folder / f"{folder}{i}.tsv")
        (tmp_path / folder / "sheet.tsv").write_text(sheet(names).replace("\tf", f"\t{folder}"))
        code, report, line = genodl(ingest, "expression", str(tmp_path / folder), *at)
        assert code == 0, line
        (dropped,) = lake.read(HARMONISATION).where(f"file = '{folder}0.tsv'").collect()
        assert (dropped.name, dropped.action, dropped.became) == (worse, "dropped", "TCGA-A1-A0SB-01A")
        assert dropped.reason.endswith("plate A999 before A100")
        replaced = folder == "both"
        values = {name: row["ENSG00000000003"] for name, row in stored(lake, "c").items()}
        second = 30.0 if replaced else 20.0
        assert values == {"TCGA-A1-A0SB-01A": 40.0, "TCGA-A1-A0SD-01A": second, "TCGA-A1-A0SD-11A": 30.0}
        known = {row.file for row in lake.read(SOURCES).collect()}
        assert known == {"both2.tsv" if replaced else "f1.tsv", "f2.tsv", "f3.tsv"}
    told = lake.read(HARMONISATION).where(f"name = '{ALIQUOTS[1]}'").orderBy("file").collect()
    assert [(row.file, row.action, row.reason.rpartition(": ")[2]) for row in told] == [
        ("both1.tsv", "dropped", "plate A200 before A115"),
        ("f1.tsv", "dropped", "plate A200 before A115"),
    ]
    assert {row.feature_id: row.symbol for row in lake.read(PROBES).select("feature_id", "symbol").collect()} == symbols
    # clinical rows of cases are those of their samples
    (tmp_path / "a.xml").write_text(XML)
    assert genodl(ingest, "phenotypes", str(tmp_path / "a.xml"), *at)[0] == 0
    genders = {row.sample_id: row.gender for row in lake.read(SAMPLES).collect()}
    assert genders == {name: "FEMALE" if name.startswith("TCGA-A1-A0SB") else None for name in values}
    other = tmp_path / "tpm"
    portal(other, names=["TCGA-A1-A0SE-01A-11R-A115-07"])
    code, _, line = genodl(ingest, "expression", str(other), "--set", "ingest.gdc_column=tpm_unstranded",
                           "--set", "ingest.same_name=file", *at)  # fmt: skip
    assert code == 2 and "found values in TPM, where those of" in line, line
    # who withdraws is in none of these tables
    code, _, line = genodl(forget, "--sample", "TCGA-A1-A0SB-01A", *at)
    assert code == 0, line
    assert set(stored(lake, "c")) == {"TCGA-A1-A0SD-01A", "TCGA-A1-A0SD-11A"}
    assert not [row for row in lake.read(HARMONISATION).collect() if "A0SB" in (row.name or "") + (row.became or "")]
    version = lake.version(HARMONISATION)
    code, _, line = genodl(ingest, "expression", str(tmp_path / "gdc"), *at)  # the dropped file is asked again
    assert code == 2 and "found 1 samples that have withdrawn consent" in line, line
    assert set(stored(lake, "c")) == {"TCGA-A1-A0SD-01A", "TCGA-A1-A0SD-11A"}
    assert lake.version(HARMONISATION) == version


def test_mutations_and_methylation(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--cohort", "c", "--lake", lake.uri)
    (tmp_path / "a.maf").write_text(HEAD + ROWS + "TP53\tragged\n")
    code, report, line = genodl(ingest, "mutations", str(tmp_path / "a.maf"), *at)
    assert code == 0, line
    assert report["rows"]["mutations"] == {"written": 2, "total": 2, "quarantined": 1}
    assert {(row.sample_id, row.gene) for row in lake.read(MUTATIONS).collect()} == {
        (BARCODE[:16], "TP53"),
        (BARCODE[:16], None),
    }
    assert [(row.line, row.source) for row in lake.read(QUARANTINE).collect()] == [(4, "mutations")]
    assert [row.sample_id for row in lake.read(SAMPLES).collect()] == [BARCODE[:16]]
    assert [(row.name, row.became) for row in lake.read(HARMONISATION).collect()] == [(BARCODE, BARCODE[:16])]
    (tmp_path / "beta.tsv").write_text("sample\tcg1\tcg2\ns1\t0.5\t1\ns2\t0\tNA\n")
    (tmp_path / "m.tsv").write_text("cpg\ts3\ncg1\t-2\ncg2\t4\n")
    code, report, line = genodl(ingest, "methylation", str(tmp_path / "beta.tsv"), *at)
    assert code == 0, line
    assert "samples in lines" in "".join(report["warnings"])
    assert stored(lake, "c", METHYLATION) == {"s1": {"cg1": 0.5, "cg2": 1.0}, "s2": {"cg1": 0.0, "cg2": None}}
    code, _, line = genodl(ingest, "methylation", str(tmp_path / "m.tsv"), *at)
    assert code == 2 and "found values in M, where those of beta.tsv are in beta; expected one unit in" in line
    assert set(stored(lake, "c", METHYLATION)) == {"s1", "s2"}
    assert genodl(ingest, "methylation", str(tmp_path / "m.tsv"), "--block", "m", *at)[0] == 0
    assert {row.unit for row in lake.read(UNITS).collect()} == {"beta", "M"}


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not here")
def test_public_files_by_one_command_each(genodl, lake: Lake) -> None:
    def brought(source: str, file: str, *more: str) -> dict:
        cohort = file.partition("/")[0]
        code, report, line = genodl(ingest, source, str(DATA / file), "--cohort", cohort, "--lake", lake.uri, *more)
        assert code == 0, line
        return {name: rows["written"] for name, rows in report["rows"].items()}

    rows = brought("expression", "geo_soft_geoquery/GDS507.soft.gz")
    assert (rows["expression"], rows["features"], rows["samples"]) == (17, 22_645, 17)
    states = Counter(row.disease_state for row in lake.read(SAMPLES).collect())
    assert states == {"RCC": 9, "normal": 8}
    annotations = str(DATA / "maf_tcga_laml_maftools/tcga_laml_annot.tsv")
    rows = brought("mutations", "maf_tcga_laml_maftools/tcga_laml.maf.gz", "--samples", annotations)
    assert rows["mutations"] == 2207
    samples = lake.read(SAMPLES).where("cohort = 'maf_tcga_laml_maftools'")
    assert samples.count() == 200 and samples.where("FAB_classification = 'M4'").count() > 0
    assert brought("phenotypes", "gdc_manifest_sample/TARGET-CCSK.tsv")["portal_files"] == 141
    assert len(lake.read(PORTAL_FILES).columns) == 8 + 14
    for name, table in (("expr_stemcells_mixomics", "expression"), ("meth_christensen_tissue", "methylation")):
        rows = brought(table, f"{name}/matrix.tsv.gz", "--samples", str(DATA / name / "samples.tsv"))
        shape = {"expression": (125, 400), "methylation": (217, 1413)}[table]
        assert (rows[table], rows["features"]) == shape
    labels = Counter(row.label for row in lake.read(SAMPLES).where("cohort = 'expr_stemcells_mixomics'").collect())
    assert labels == {"Fibroblast": 30, "hESC": 37, "hiPSC": 58}


def test_refused_files_leave_nothing(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--cohort", "c", "--lake", lake.uri)
    (tmp_path / "s.txt").write_text(SERIES.replace("\t-3\n", "\tx\n"))
    code, report, line = genodl(ingest, "expression", str(tmp_path / "s.txt"), *at)
    assert code == 2 and ":12: found 'x' for feature 1053_at, sample GSM2" in line and report["status"] == "failed"
    (tmp_path / "e.maf").write_text(HEAD)
    code, _, line = genodl(ingest, "mutations", str(tmp_path / "e.maf"), *at)
    assert code == 2 and "e.maf:1: found no mutation below the header" in line
    assert not any(
        lake.exists(table) for table in (EXPRESSION, FEATURES, HARMONISATION, PROBES, UNITS, MUTATIONS, SAMPLES)
    )
