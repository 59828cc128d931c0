"""The statement of docs/sequences.md that scores the variants of a VCF: through JDBC and `genodl query`, beside
predictions, consequences, genes, and the training sequence that a window is most like."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genodl_spark.core import storage
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.learning import predictor
from genodl_spark.pipelines.serve import Asked, Door, server
from jobs import annotate, ingest, query
from jobs import predict as predict_job
from tests.frozen.make import LAKE
from tests.pages import pages, queries
from tests.pipelines.test_serve import Client
from tests.pipelines.test_variant_effects import log_odds

LENGTH = 26  # bases that the model sees
# Where in the genome a sequence of the model stands, by the site that has one of its A: of two that trained, the first
# base for base as a window, the second one base aside; and of one that was held out.
STANDS = {"bound-020": (1500, 13), "bound-013": (2000, 14), "bound-019": (2600, 11)}
CODING = (1591, "ATGAAACGGACGTGCTAA")  # a gene, whose tenth base is a site: Thr4
GTF = "".join(
    f'1\tx\t{kind}\t{CODING[0]}\t{CODING[0] + last}\t.\t+\t{phase}\tgene_id "G1"; gene_name "ONE"; '
    'gene_biotype "protein_coding"; transcript_id "T1"; transcript_biotype "protein_coding";\n'
    for kind, last, phase in (("gene", 17, "."), ("exon", 17, "."), ("CDS", 14, "0"))
)


def genome(sequences: dict[str, str], sites: list[tuple[str, int, str, str]]) -> dict[str, str]:
    """Contigs of random bases, A at every site, with what STANDS and CODING say."""
    generator = np.random.default_rng(3)
    found = {}
    for name in ("chr1", "chr2", "chrX"):
        bases = generator.choice(list("CGT"), 8_000)
        for contig, pos, *_ in sites:
            bases[pos - 1] = "A" if contig == name else bases[pos - 1]
        for first, text in (
            *((pos - 1 - place, sequences[one]) for one, (pos, place) in STANDS.items()),
            (CODING[0] - 1, CODING[1]),
        ):
            if name == "chr1":
                bases[first : first + len(text)] = list(text)
        found[name] = "".join(bases)
    return found


def test_the_statement_of_the_page(genodl: Any, lake: Lake, tmp_path: Path) -> None:
    with tarfile.open(LAKE) as archive:
        archive.extractall(tmp_path / "frozen", filter="data")
    (tmp_path / "frozen" / "lake").rename(storage.local_path(lake.uri))
    for table in lake.existing():
        lake.upgrade(table)
    lines = (tmp_path / "frozen" / "inputs" / "people.vcf").read_text().splitlines()
    records = [line.split("\t")[:5] for line in lines if line.startswith("chr") and "somewhere" not in line]
    sites = [(chrom, int(pos), ref, alt) for chrom, pos, _, ref, alts in records for alt in alts.split(",")]
    rows = (line.split("\t") for line in (tmp_path / "frozen" / "inputs" / "bound.tsv").read_text().splitlines())
    contigs = genome({row[0]: row[1] for row in rows}, sites)
    (tmp_path / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    (tmp_path / "g.gtf").write_text(GTF)
    at = ("--lake", lake.uri)
    for verb, *words in (
        (ingest, "reference", str(tmp_path / "g.fa"), "--cohort", "genome"),
        (ingest, "annotations", str(tmp_path / "g.gtf"), "--cohort", "genome"),
        (annotate, "--cohort", "people", "--set", "annotation=genome"),
    ):
        code, _, line = genodl(verb, *words, *at)
        assert code == 0, line
    model_id = lake.rows(MODELS, {"task": "binding"}).column("model_id")[0].as_py()
    code, _, line = genodl(predict_job, "variant_effect", "--cohort", "people", "--model", model_id, *at)
    assert code == 0, line

    (sql,) = (text for place, text in queries(pages()) if place.startswith("docs/sequences") and "annotations" in text)
    code, report, line = genodl(query, sql, *at)
    assert code == 0, line
    run, door = Run(Report("serve"), config.load(), lake.uri, "local[2]"), Door.of(0)
    with server(run, Asked(run), door):
        client = Client(lake.spark._jvm, door.url)
        through_jdbc = client.rows(sql)
        client.connection.close()

    found = report["result"]
    assert [(row["chrom"], row["pos"], row["ref"], row["alt"]) for row in found] == sorted(sites)
    numbers = ("pos", "effect", "predicted_effect", "similarity")
    for row, values in zip(found, through_jdbc, strict=True):
        there = dict(zip(row, values, strict=True))
        for name, value in row.items():
            text = there[name]
            assert (float(text) if name in numbers and text is not None else text) == value, name

    model = predictor.load(predictor.registered(lake, model_id))
    for row in found:
        if row["alt"] == "<DEL>":
            assert (row["effect"], row["predicted_effect"], row["neighbour"]) == (None, None, None)
            assert row["note"] == "found ALT <DEL>; expected one that is spelled in bases"
            continue
        start = row["pos"] - 1 - LENGTH // 2
        window = contigs[row["chrom"]][start : start + LENGTH]
        assert window[LENGTH // 2] == row["ref"] == "A"
        changed = window[: LENGTH // 2] + row["alt"] + window[LENGTH // 2 + 1 :]
        by_hand = log_odds(model, changed) - log_odds(model, window)
        assert row["effect"] == row["predicted_effect"] == pytest.approx(by_hand, rel=1e-9, abs=1e-9)
        assert row["note"] is None
    genes = {(row["chrom"], row["pos"], row["alt"]): row for row in found}
    coding = genes["chr1", 1600, "C"]
    assert (coding["gene_name"], coding["consequence"]) == ("ONE", "missense_variant")
    assert (coding["hgvs_p"], coding["gene_biotype"]) == ("p.Thr4Pro", "protein_coding")
    far = genes["chr2", 5000, "G"]
    assert [far[name] for name in ("gene_name", "consequence", "hgvs_p", "gene_biotype")] == [
        *(None, "intergenic_variant", None, None),
    ]
    beside = {pos: row for (chrom, pos, _), row in genes.items() if chrom == "chr1"}
    same, aside, held_out = (beside[pos] for pos, _ in STANDS.values())
    assert (same["neighbour"], same["neighbour_label"], same["similarity"]) == ("bound-020", "0", 1.0)
    assert (aside["neighbour"], aside["neighbour_label"]) == ("bound-013", "1") and 0.6 < aside["similarity"] < 1
    assert held_out["neighbour"] is None and held_out["similarity"] is None
