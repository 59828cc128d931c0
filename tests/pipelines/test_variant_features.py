"""Features of measured variants through the command line: by group, from bases that `ingest variants` stored, from HGVS
and from consequences; and a task that learns from them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark import tasks
from genodl_spark.core.errors import InputError
from genodl_spark.features.covariates import told
from genodl_spark.features.variants import FLANK, GROUPS, VariantFeatures
from genodl_spark.genome import motifs, orthologues
from genodl_spark.genome.coding import RESIDUE_NAMES, SPLICING_NAMES, Coding, protein_features, splicing_features
from genodl_spark.genome.substitutions import CONTEXT_NAMES, SUBSTITUTION_NAMES, context, substitutions
from genodl_spark.genome.surroundings import Surroundings
from genodl_spark.job import config
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.consequences import CONSEQUENCES
from genodl_spark.lake.tables.genomes import ORTHOLOGUES
from genodl_spark.lake.tables.ingested import VARIANT_EFFECTS
from genodl_spark.lake.tables.learning import DATASETS, HELD_OUT, PREDICTIONS, SPLITS
from jobs import annotate, evaluate, ingest, predict, prepare, train

SP1, ELEMENTS, LENGTH = "GGGGCGGGG", 6, 60
FAST = "train.epochs=8 train.min_steps=60 train.ensemble=2 train.learning_rate=0.01 train.weight_decay=1"
LINEAR = "model.hidden=[] model.dropout=0 model.input_dropout=0 tracking.uri=off evaluate.resamples=20"
SETTINGS = [part for one in f"{FAST} {LINEAR}".split() for part in ("--set", one)]
# A gene on the forward strand: 30 bases, ATG and 9 codons, an intron, 6 codons and a stop
GENE = (
    "CCGTTAACCGTTAACCGGATTCAGGCACC"
    + "C"
    + "ATGAAACGTCTGGGTTGGGATCCGGCTGAA"
    + "GTAAGTTTCTTTTTTTCTGCAG"
    + "TCTTGCGTTAAACTGGGTTAA"
)
CODING = "ATGAAACGTCTGGGTTGGGATCCGGCTGAA" + "TCTTGCGTTAAACTGGGTTAA"


def _done(genodl, verb, *argv: str) -> dict:
    code, report, line = genodl(verb, *argv)
    assert code == 0, line
    return report


def elements(folder: Path) -> list[str]:
    """Two builds of a FASTA, and all substitutions and deletions of six elements of which each has a site of SP1: who
    changes it lowers the value. Elements have scales of their own; two measure the same place."""
    draw = np.random.default_rng(2)
    fasta, lines = [], ["chrom\tpos\tref\talt\tvalue\telement\tdepth\tbuild"]
    for number in range(ELEMENTS - 1):
        text = "".join(draw.choice(list("ACGT"), LENGTH))
        at = 15 + 5 * number
        text = text[:at] + SP1 + text[at + len(SP1) :]
        first = 1001 + 500 * number
        fasta.append(f">e{number} b1_chr{number + 1}:{first}-{first + LENGTH - 1}\n{text}\n")
        for name in [f"e{number}"] + (["again"] if number == 0 else []):
            for place, ref in enumerate(text):
                for alt in [base for base in "ACGT-" if base != ref]:
                    effect = -float(at <= place < at + len(SP1)) + 0.2 * draw.normal()
                    value = 10.0 ** (number % 2) * effect + number
                    row = [f"chr{number + 1}", str(first + place), ref, alt, f"{value:.4f}", name]
                    lines.append("\t".join([*row, f"{draw.normal():.3f}", "b1"]))
    (folder / "e.fa").write_text("".join(fasta))
    (folder / "e.tsv").write_text("\n".join(lines) + "\n")
    return [str(folder / "e.tsv"), "--reference", str(folder / "e.fa")]


def test_effects_of_regulatory_variants_are_learnt_from_motifs(genodl, lake: Lake, tmp_path: Path) -> None:
    common = ("--lake", lake.uri, "--cohort", "c")
    _done(genodl, ingest, "variants", *elements(tmp_path), *common)
    task = ("variant_effect", *common, "--label", "value")
    split = ("--set", "split.folds=3", "--set", "split.group=element")
    within = ("--set", "target.within=element", "--set", "covariates=depth")
    # A part of a split may not divide what the standard scores are of.
    code, _, line = genodl(prepare, *task, *within, "--set", "split.folds=3")
    assert code == 2 and "is divided between parts of the split; expected it whole" in line, line
    few = ("--set", "variants.features=substitution,motif_families,motif_totals")
    few += ("--set", "evaluate.baselines=majority,ridge")
    report = _done(genodl, train, *task, *split, *within, *few, *SETTINGS)
    (dataset,) = lake.rows(DATASETS, {"cohort": "c"}).to_pylist()
    assert dataset["features"][-1] == "covariate:depth" and {
        name.partition(":")[0] for name in dataset["features"]
    } == {*("substitution", "family", "motifs", "covariate")}
    rows, sites = ELEMENTS * LENGTH * 4, (ELEMENTS - 1) * LENGTH
    share = f"{rows} of {rows} variants share their position with another one: {sites} groups of them are kept together"
    groups = "features of variants, by group: substitution (16), motif_families (78), motif_totals (8)"
    assert {share, groups} <= set(report["warnings"])
    # Elements that measure the same place are in one fold, and every element is whole.
    folds: dict[str, set[int]] = {}
    for row in lake.read(SPLITS).collect():
        name = row.entity_id.rpartition(":")[2] if row.entity_id.count(":") > 3 else f"e{int(row.entity_id[3]) - 1}"
        folds.setdefault(name, set()).add(row.fold)
    assert all(len(one) == 1 for one in folds.values()) and folds["e0"] == folds["again"] and len(folds) == ELEMENTS
    truth = [row.target for row in lake.read(HELD_OUT).where("predictor = 'model'").collect()]
    assert len(truth) == rows and abs(np.mean(truth)) < 1e-9 and np.std(truth) == pytest.approx(1)
    found = _done(genodl, evaluate, *task, "--set", "report.by=element")["metrics"]
    assert found["model"]["pearson"]["value"] > 0.5 and found["baselines"]["ridge"]["pearson"]["value"] > 0.5
    assert {name: part["pearson"]["value"] > 0.3 for name, part in found["by"].items()} == dict.fromkeys(
        [*(f"e{i}" for i in range(ELEMENTS - 1)), "again"], True
    )
    assert _done(genodl, predict, *task)["rows"]["predictions"]["written"] == rows
    scored = {row.entity_id: row.value for row in lake.read(PREDICTIONS).collect()}
    assert scored["chr2:1525:C:A"] < -0.5 < scored[f"chr2:1555:{_ref(tmp_path, 1, 54)}:-"]
    code, _, line = genodl(prepare, *task, *split, "--set", "variants.features=motives")
    assert code == 2 and "variants.features: found 'motives'; expected some of auto, substitution," in line, line
    for groups, said in (
        (("consequences",), "found no consequences of cohort c; expected some: genodl annotate"),
        (("protein",), "found neither consequences nor a column with HGVS of cohort c; expected some"),
    ):
        with pytest.raises(InputError, match=said):
            VariantFeatures(groups).choose(Snapshot(lake), "c", [], np.zeros((1, 0), bool))
    with pytest.raises(InputError, match="found no column 'nothing' in labels; expected one of"):
        VariantFeatures(hgvs_c="nothing").choose(Snapshot(lake), "c", [], np.zeros((1, 0), bool))


def _ref(folder: Path, number: int, place: int) -> str:
    return (folder / "e.fa").read_text().split("\n")[2 * number + 1][place]


def gene(folder: Path, forward: bool) -> tuple[list[str], list[dict[str, str]]]:
    """The gene above on contig 20, from base 1001 on; every substitution with its HGVS."""
    turned = str.maketrans("ACGT", "TGCA")
    text = GENE if forward else GENE[::-1].translate(turned)
    (folder / "g.fa").write_text(f">g b1_chr20:1001-{1000 + len(GENE)}\n{text}\n")
    start, border = GENE.index("ATG"), GENE.index("GTAAGT")
    second = border + 22
    rows = []
    for place, old in enumerate(GENE):
        for new in "ACGT":
            if new == old:
                continue
            if place < start:
                c = f"c.-{start - place}"
            elif place < border:
                c = f"c.{place - start + 1}"
            elif place < second:
                ahead, back = place - border + 1, second - place
                c = f"c.30+{ahead}" if ahead <= back else f"c.31-{back}"
            else:
                c = f"c.{place - second + 31}"
            position = 1001 + (place if forward else len(GENE) - 1 - place)
            pair = (old, new) if forward else (old.translate(turned), new.translate(turned))
            p = "NA"
            if c[2:].isdigit():
                number = int(c[2:])
                codon = 3 * ((number - 1) // 3)
                codons = [CODING[codon : codon + 3]]
                codons.append(codons[0][: (number - 1) % 3] + new + codons[0][(number - 1) % 3 + 1 :])
                before, after = (_residue(one) for one in codons)
                p = f"p.{before}{codon // 3 + 1}{'=' if before == after else after}"
            row = {"chrom": "chr20", "pos": str(position), "ref": pair[0], "alt": pair[1]}
            label = "LOF" if p.endswith("*") or c[4:] in ("+1", "+2") else "FUNC"
            rows.append({**row, "label": label, "dna": f"NM_1.1:{c}{old}>{new}", "residue": p})
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    (folder / "g.tsv").write_text("\n".join(lines) + "\n")
    return [str(folder / "g.tsv"), "--reference", str(folder / "g.fa")], rows


def _residue(codon: str) -> str:
    from genodl_spark.genome.codons import code_of, translated

    return translated(np.array(["ACGT".index(base) for base in codon], np.int8), code_of("20")).decode()


def values_of(features: VariantFeatures, lake: Lake, names: list[str], parts: int) -> dict[str, bytes]:
    rows = features.rows(Snapshot(lake), "c", names)
    assert {row.missing for row in rows.select("missing").collect()} <= {0}
    return {row.entity_id: bytes(row.x) for row in rows.repartition(parts).collect()}


@pytest.mark.parametrize("forward", [True, False])
def test_values_are_those_of_the_kernels(genodl, lake: Lake, tmp_path: Path, forward: bool) -> None:
    """From the lake, row for row, bit for bit: what kernels make of the whole table at once; with HGVS and then with
    what `annotate` says."""
    given, rows = gene(tmp_path, forward)
    _done(genodl, ingest, "variants", *given, "--cohort", "c", "--lake", lake.uri)
    features = tasks.features(config.load("variant_effect"))
    assert isinstance(features, VariantFeatures)
    snapshot = Snapshot(lake)
    names = [f"{row['chrom']}:{row['pos']}:{row['ref']}:{row['alt']}" for row in rows]
    assert features.cohorts(snapshot) == ["c"] and features.entities(snapshot, "c") == sorted(names)
    stored = {row.variant_id: row for row in lake.read(VARIANT_EFFECTS).collect()}
    columns = [pa.array([stored[name][column] for name in names]) for column in ("before", "ref", "alt", "after")]
    variants = Surroundings.of(*columns, FLANK)
    hgvs = [pa.array([None if row[key] == "NA" else row[key] for row in rows]) for key in ("dna", "residue")]
    coding = Coding.read(*hgvs, pa.nulls(len(rows), pa.string()), columns[1], columns[2])
    assert coding.known.all() and (coding.forward == forward).all()
    change, _ = motifs.changes(variants, motifs.jaspar())
    made = {
        "substitution": (SUBSTITUTION_NAMES, substitutions(variants)),
        "context": (CONTEXT_NAMES, context(variants)),
        "motifs": ([f"motif:{id_}" for id_ in motifs.jaspar().ids], change),
        "motif_families": ([f"family:{name}" for name in motifs.jaspar().families],
                           motifs.by_family(change, motifs.jaspar())),
        "protein": (RESIDUE_NAMES, protein_features(coding, variants, "20")),
        "splicing": (SPLICING_NAMES, splicing_features(coding, variants)),
    }  # fmt: skip
    asked = [name for names_, _ in made.values() for name in names_]
    expected = np.concatenate([x for _, x in made.values()], 1)
    for parts in (1, 3):
        found = values_of(features, lake, asked, parts)
        np.testing.assert_array_equal(
            np.stack([np.frombuffer(found[name], np.float32) for name in names]), expected, verbose=True
        )
    learns = np.array([np.ones(len(names), bool), np.array([row["residue"] == "NA" for row in rows])])
    choice = features.choose(snapshot, "c", names, learns)
    groups = {name: next(g for g, one in GROUPS.items() if name in one.names()) for name in choice.names}
    assert set(groups.values()) == {"substitution", "protein", "splicing"}
    assert choice.allowed is not None and not any(
        may for name, may in zip(choice.names, choice.allowed[1], strict=True) if name.startswith("protein:")
    )
    count = {group: sum(of == group for of in groups.values()) for group in ("substitution", "protein", "splicing")}
    said = told(features, snapshot, "c", choice.names)
    assert said[:2] == [
        "features of variants, by group: " + ", ".join(f"{group} ({n})" for group, n in count.items()),
        "transcripts of variants are those of HGVS in dna and residue",
    ]
    assert said[2].startswith("cohort c cannot have features consequences (no consequences: genodl annotate)")
    if not forward:
        return

    # The same from an annotation.
    fields = 'gene_id "G"; gene_name "G"; transcript_id "T"; transcript_biotype "protein_coding";'
    start, border = GENE.index("ATG"), GENE.index("GTAAGT")
    second, end = border + 22, len(GENE)
    spans = [
        ("exon", 0, border, "."),
        ("exon", second, end, "."),
        ("CDS", start, border, "0"),
        ("CDS", second, end, "0"),
    ]
    (tmp_path / "g.gtf").write_text(
        "".join(f"20\tx\t{kind}\t{1001 + a}\t{1000 + b}\t.\t+\t{phase}\t{fields}\n" for kind, a, b, phase in spans)
    )
    _done(genodl, ingest, "reference", str(tmp_path / "g.fa"), "--cohort", "g", "--lake", lake.uri)
    _done(genodl, ingest, "annotations", str(tmp_path / "g.gtf"), "--cohort", "g", "--lake", lake.uri)
    _done(genodl, annotate, "--cohort", "c", "--lake", lake.uri)
    again = values_of(features, lake, asked, 2)
    np.testing.assert_array_equal(np.stack([np.frombuffer(again[name], np.float32) for name in names]), expected)
    snapshot = Snapshot(lake)
    choice = features.choose(snapshot, "c", names, learns[:1])
    assert {"term:stop_gained", "protein:stop_gained", "splice:donor:change"} <= set(choice.names)
    assert "transcripts of variants are those of genodl annotate" in told(features, snapshot, "c", choice.names)
    # What is new since an earlier version is known; a change of columns with HGVS would not be.
    since = {table.name: snapshot.version(table) for table in (VARIANT_EFFECTS, CONSEQUENCES)}
    changed = features.changed(snapshot, "c", since)
    assert changed is not None and changed.entities.count() == 0


def test_classes_of_coding_variants(genodl, lake: Lake, tmp_path: Path) -> None:
    given, rows = gene(tmp_path, False)
    common = ("--lake", lake.uri, "--cohort", "c")
    _done(genodl, ingest, "variants", *given, *common)
    few = ("--set", "split.folds=3", "--set", "evaluate.baselines=majority", "--set", "target.classes=FUNC,LOF")
    _done(genodl, train, "variant_effect", *common, *few, *SETTINGS)
    found = _done(genodl, evaluate, "variant_effect", *common)["metrics"]
    assert found["model"]["auroc"]["value"] > 0.9 and found["n_test"] == len(rows)
    # A file that came without a reference has no bases around its variants.
    (tmp_path / "more.tsv").write_text("chrom\tpos\tref\talt\nchr20\t5\tA\tC\n")
    _done(genodl, ingest, "variants", str(tmp_path / "more.tsv"), *common)
    code, _, line = genodl(predict, "variant_effect", *common)
    assert code == 2 and "found no bases around chr20:5:A:C of cohort c; expected those of all its variants" in line, (
        line
    )


def test_orthologues_of_a_protein(genodl, lake: Lake, tmp_path: Path) -> None:
    """Of the gene's protein, MKRLGWDPAESCVKLG, two others with a gap and a fragment; HGVS names no protein."""
    given, rows = gene(tmp_path, True)
    common = ("--lake", lake.uri, "--cohort", "c")
    _done(genodl, ingest, "variants", *given, *common)
    features = VariantFeatures(("substitution", "orthologues"))
    with pytest.raises(InputError, match="found no orthologues of cohort c; expected some: genodl ingest orthologues"):
        features.choose(Snapshot(lake), "c", [], np.zeros((1, 0), bool))
    fasta = tmp_path / "p.fa"
    for text, said in (
        (">P.1\nMKRLGWDPAESCVKLG*\n", "p.fa:1: found one protein; expected its orthologues behind it"),
        (">P.1\nMKRL5\n>Q\nMKRL\n", "p.fa:1: found '5' in a protein; expected letters of amino acids"),
        ("MKRL\n", "p.fa:1: found text before the first header"),
    ):
        fasta.write_text(text)
        code, _, line = genodl(ingest, "orthologues", str(fasta), *common)
        assert (code, said in line) == (2, True), line
    others = ["MKRLGWEPAESCVKLG", "MKRLGWDPESCVRLG", "mkrlgwdp\nvescvklg*", "GWDPAES", "MK1", "WWWWWWWWWW"]
    fasta.write_text(">P.1 its own\nMKRLGWDPAESCVKLG\n" + "".join(f">o{i}\n{one}\n" for i, one in enumerate(others)))
    report = _done(genodl, ingest, "orthologues", str(fasta), *common)
    assert report["rows"]["orthologues"] == {"written": 16, "total": 16, "quarantined": 1}
    told_of = "1 records of p.fa have fewer than 30% of their residues in common with P; the first is record 7"
    assert told_of in report["warnings"]
    stored = {row.position: row for row in lake.read(ORTHOLOGUES).collect()}
    assert "".join(stored[place].residue for place in range(1, 17)) == "MKRLGWDPAESCVKLG"
    assert {row.protein for row in stored.values()} == {"P"} and [stored[i].aligned[:4] for i in (1, 7, 9, 14)] == [
        *("MMM.", "EDDD", "A-VA", "KRK.")
    ]
    (tmp_path / "again.fa").write_text(fasta.read_text())
    code, _, line = genodl(ingest, "orthologues", str(tmp_path / "again.fa"), *common)
    assert code == 2 and "found protein P, of which cohort c has p.fa; expected a file for each" in line, line

    names = [f"{row['chrom']}:{row['pos']}:{row['ref']}:{row['alt']}" for row in rows]
    found = values_of(features, lake, orthologues.NAMES, 2)
    for name, row in zip(names, rows, strict=True):
        x = dict(zip(orthologues.NAMES, np.frombuffer(found[name], np.float32).tolist(), strict=True))
        if row["residue"] == "NA" or row["residue"].startswith("p.*"):
            assert not any(x.values()), name
            continue
        old, place = row["residue"][2], int(row["residue"][3:-1])
        column, whole = re.sub("[-.]", "", stored[place].aligned), stored[place].aligned.replace(".", "")
        assert x["orthologues:known"] == 1 and x["orthologues:gaps"] == pytest.approx(1 - len(column) / len(whole)), (
            name
        )
        assert x["orthologues:same"] == pytest.approx(column.count(old) / len(column)), name
        new = old if row["residue"].endswith("=") else row["residue"][-1]
        assert x["orthologues:other"] == pytest.approx(column.count(new) / len(column)), name
    # HGVS with a protein's name asks for that one alone, whatever the version.
    table = (tmp_path / "g.tsv").read_text().replace("\tp.", "\tP.7:p.", 30).replace("\tp.", "\tQ:p.")
    (tmp_path / "named.tsv").write_text(table)
    named = ("--lake", lake.uri, "--cohort", "named")
    _done(genodl, ingest, "variants", str(tmp_path / "named.tsv"), *given[1:], *named)
    _done(genodl, ingest, "orthologues", str(fasta), *named)
    snapshot = Snapshot(lake)
    choice = features.choose(snapshot, "named", names, np.ones((1, len(names)), bool))
    assert set(orthologues.NAMES) - {"orthologues:gaps"} < set(choice.names)  # residue 9 has one, which is not named P
    coding = sum(row["residue"] != "NA" for row in rows)
    assert told(features, snapshot, "named", choice.names)[1] == (
        f"orthologues are known of 30 of {coding} variants with HGVS p.; of the others there is no such protein, or it "
        "has another residue there"
    )
    report = _done(genodl, prepare, "variant_effect", *named, "--set", "variants.features=auto,orthologues")
    assert any(text.startswith("features of variants, by group: ") and "orthologues (" in text
               for text in report["warnings"])  # fmt: skip
