"""Mutations and clinical tables as portals hand them out."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats import clinical_xml, maf, sample_table, streams

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BARCODE = "TCGA-05-4244-01A-01D-1105-08"
HEAD = "Hugo_Symbol\tNCBI_Build\tChromosome\tStart_Position\tEnd_position\tReference_Allele\tTumor_Seq_Allele1\t"
HEAD += "Tumor_Seq_Allele2\tTumor_Sample_Barcode\tMatched_Norm_Sample_Barcode\tHGVSp_Short\tt_depth\n"
ROWS = f"TP53\tGRCh38\tchr17\t7675088\t7675088\tC\tC\tT\t{BARCODE}\tN1\tp.R175H\t51\n"
ROWS += f"Unknown\tGRCh38\tchr1\t10\t11\t-\tA\t-\t{BARCODE}\t\t\t\n"


def mutations(path: Path, text: str | bytes, level: str = "sample") -> tuple[list[dict], maf.Bad]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    uri = f"file://{path}"
    header = maf.read_header(uri, level)
    rows, bad = [], []
    for split in streams.splits(uri, 1 << 20):
        for batch, refused in maf.read(uri, split, 1, header, "c", "f"):
            rows += batch.to_pylist()
            bad += refused
    return rows, bad


def test_mutations(tmp_path: Path) -> None:
    rows, bad = mutations(tmp_path / "a.maf", "#version 2.4\n" + HEAD + ROWS)
    assert not bad and [row["line"] for row in rows] == [3, 4]
    first = rows[0]
    assert (first["sample_id"], first["chrom"], first["pos"], first["end"]) == (BARCODE[:16], "chr17", 7675088, 7675088)
    assert (first["ref"], first["alt"], first["gene"], first["protein"], first["normal"]) == (
        "C",
        "T",
        "TP53",
        "p.R175H",
        "N1",
    )
    assert dict(first["fields"]) == {"t_depth": "51", "Tumor_Sample_Barcode": BARCODE}
    # an insertion whose allele is the first one, without a gene, a normal or a depth
    assert (rows[1]["ref"], rows[1]["alt"], rows[1]["gene"], rows[1]["normal"]) == ("-", "A", None, None)
    assert dict(rows[1]["fields"]) == {"Tumor_Sample_Barcode": BARCODE}
    rows, _ = mutations(tmp_path / "a.maf", HEAD + ROWS, "aliquot")
    assert rows[0]["sample_id"] == BARCODE and dict(rows[0]["fields"]) == {"t_depth": "51"}


def test_changed_mutations_are_the_same(tmp_path: Path) -> None:
    order = [8, 3, 4, 2, 0, 1, 5, 7, 6, 11, 10, 9]
    lines = (HEAD + ROWS).rstrip("\n").split("\n")
    turned = "".join("\t".join(line.split("\t")[i] for i in order) + "\n" for line in lines)
    plain = mutations(tmp_path / "a.maf", HEAD + ROWS)
    for text in (turned, HEAD.upper() + ROWS, (HEAD + ROWS).replace("\n", "\r\n"), (HEAD + ROWS).replace("\n", "\t\n"),
                 b"\xef\xbb\xbf" + (HEAD + ROWS).encode()):  # fmt: skip
        rows, bad = mutations(tmp_path / "a.maf", text)
        for row in (*rows, *plain[0]):
            row["fields"] = sorted((name.lower(), cell) for name, cell in row["fields"])
        assert (rows, bad) == plain


def test_records_that_are_none_are_set_aside_with_their_line(tmp_path: Path) -> None:
    wrong = {
        ROWS.split("\n")[0].replace("7675088\t7675088", "7675088\t7675080"): "found no end at or behind the start",
        ROWS.split("\n")[0].replace("\tchr17\t7675088", "\tchr17\tx"): "found no position of the start",
        ROWS.split("\n")[0].replace(BARCODE, ""): "found no Tumor_Sample_Barcode",
        ROWS.split("\n")[0].replace("C\tC\tT", "C\tC\tC"): "found no tumour allele other than",
        "TP53\tragged": "found 2 columns; expected 12",
    }
    rows, bad = mutations(tmp_path / "a.maf", HEAD + ROWS + "".join(f"{line}\n" for line in wrong))
    assert len(rows) == 2 and [line for line, _, _ in bad] == [4, 5, 6, 7, 8]
    for (line, found), (_, reason, text) in zip(wrong.items(), bad, strict=True):
        assert found in reason and text == line


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("", 1, "the file is empty"),
        ("#version 2.4\n", 1, "the file is empty"),
        (HEAD.replace("Tumor_Sample_Barcode", "Sample") + ROWS, 1, "expected Tumor_Sample_Barcode among them"),
        ("#x\n" + HEAD.replace("Start_Position", "Begin") + ROWS, 2, "expected Start_Position among them"),
        (HEAD.replace("t_depth", "Chromosome") + ROWS, 1, "stands twice in the header"),
        ((HEAD + ROWS).encode("utf-16"), 1, "text in UTF-16"),
    ],
)
def test_what_is_no_maf_is_refused(tmp_path: Path, text: str | bytes, line: int, found: str) -> None:
    with pytest.raises(InputError, match=found) as caught:
        mutations(tmp_path / "a.maf", text)
    assert caught.value.line == line


def samples(text: str) -> sample_table.SampleTable:
    return sample_table.read(io.BytesIO(text.encode()), "clinical.tsv")


def test_clinical_tables_of_the_gdc_and_of_tcga() -> None:
    gdc = samples(
        "project_id\tcase_submitter_id\tgender\tagent\nP\tTCGA-A1-A0SB\tfemale\ttamoxifen\n"
        "P\tTCGA-A1-A0SB\tfemale\tletrozole\nP\tTCGA-A1-A0SD\t'--\t'--\n"
    )
    assert gdc.rows == {"TCGA-A1-A0SB": ["P", "female", "tamoxifen; letrozole"], "TCGA-A1-A0SD": ["P", None, None]}
    assert gdc.merged == {"TCGA-A1-A0SB": 2} and gdc.portal
    tcga = samples(
        "bcr_patient_uuid\tbcr_patient_barcode\tgender\nbcr_patient_uuid\tbcr_patient_barcode\tgender\n"
        "CDE_ID:\tCDE_ID:2003301\tCDE_ID:2200604\nu1\tTCGA-A1-A0SB\tFEMALE\nu2\tTCGA-A1-A0SD\t[Not Available]\n"
    )
    assert tcga.rows == {"TCGA-A1-A0SB": ["u1", "FEMALE"], "TCGA-A1-A0SD": ["u2", None]}
    assert tcga.notes[-1] == "clinical.tsv: rows are named by column bcr_patient_barcode"
    with pytest.raises(InputError, match=r":3: sample_id 'a' stands twice"):  # a table of the user's own is no portal's
        samples("sample_id\tbcr_patient_barcode\na\tx\na\ty\n")


XML = """<?xml version="1.0" encoding="UTF-8"?>
<brca:tcga_bcr xmlns:brca="b" xmlns:shared="s">
<brca:patient><shared:bcr_patient_barcode>TCGA-A1-A0SB</shared:bcr_patient_barcode><shared:gender>FEMALE</shared:gender>
<shared:vital_status>Alive</shared:vital_status><shared:stage_event><shared:stage>I</shared:stage></shared:stage_event>
<shared:follow_ups><shared:follow_up><shared:vital_status>Dead</shared:vital_status></shared:follow_up></shared:follow_ups>
<shared:drugs><shared:drug><shared:name>a</shared:name></shared:drug><shared:drug><shared:name>b</shared:name></shared:drug>
</shared:drugs><shared:race></shared:race></brca:patient></brca:tcga_bcr>
"""


def test_clinical_xml(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(XML)
    table = clinical_xml.read(f"file://{tmp_path}/a.xml")
    said = dict(zip(table.columns, table.rows["TCGA-A1-A0SB"], strict=True))
    assert said == {
        "gender": "FEMALE", "vital_status": "Alive", "stage": "I", "follow_up_vital_status": "Dead", "drug_name": "a; b"
    }  # fmt: skip
    other = sample_table.SampleTable(["gender", "race"], {"TCGA-A1-A0SD": ["MALE", "x"]}, {}, portal=True)
    (joined,) = sample_table.joined([table, other])
    assert joined.rows["TCGA-A1-A0SD"] == ["MALE", None, None, None, None, "x"]
    assert dict(zip(joined.columns, joined.rows["TCGA-A1-A0SB"], strict=True)) == said | {"race": None}


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        (XML[:-20], 7, "XML that cannot be read"),
        (XML.replace("patient>", "p>"), 1, "without a patient"),
        (XML.replace("TCGA-A1-A0SB", ""), 1, "as bcr_patient_barcode"),
    ],
)
def test_what_is_no_clinical_xml_is_refused(tmp_path: Path, text: str, line: int, found: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=found) as caught:
        clinical_xml.read(f"file://{tmp_path}/a.xml")
    assert caught.value.line == line


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not here")
def test_genes_of_public_mutations(tmp_path: Path) -> None:
    rows, _ = mutations(tmp_path / "a.maf.gz", (DATA / "maf_tcga_laml_maftools" / "tcga_laml.maf.gz").read_bytes())
    genes = Counter(row["gene"] for row in rows)
    assert [genes[name] for name in ("DNMT3A", "FLT3", "NPM1", "TET2", "IDH2")] == [54, 52, 34, 27, 20]
