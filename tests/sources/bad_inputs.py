"""Files that no source may take: for each reader what is given, where it is at fault and what is said of it.

`CASES` by name: source, what makes the files in a folder and returns the one that is given, its place as FILE or
FILE:LINE, and words of the message.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pysam

from tests.formats.test_alignment import HEADER, made
from tests.formats.test_bgen import ONE, write
from tests.formats.test_cells import MARKET, anndata, counted
from tests.formats.test_plink import files
from tests.formats.test_portal_matrices import ALIQUOTS, FAMILY, GCT, SERIES, sheet, star
from tests.formats.test_portal_tables import HEAD, ROWS, XML

Maker = Callable[[Path], Path]
Case = tuple[str, Maker, str, str]


def texts(**content: str | bytes) -> Maker:
    """Files of these names, with _ for the point before the ending; the first one is given."""

    def make(folder: Path) -> Path:
        paths = [folder / ".".join(name.rsplit("_", 1)) for name in content]
        for path, text in zip(paths, content.values(), strict=True):
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return paths[0]

    return make


def in_folder(**content: str | bytes) -> Maker:
    """The same, of which the folder is given."""
    return lambda folder: texts(**content)(folder).parent


def cells(**change: str) -> Maker:
    return texts(
        **({"counts_mtx": MARKET, "genes_tsv": "gene_id\na\nb\nc\n", "cells_tsv": "cell_id\nc0\nc1\n"} | change)
    )


def h5ad(change: Callable[[h5py.File], object]) -> Maker:
    def make(folder: Path) -> Path:
        path = anndata(folder / "a.h5ad", counted(), "types", "csr")
        with h5py.File(path, "a") as file:
            change(file)
        return path

    return make


def of_10x(change: Callable[[h5py.Group], object]) -> Maker:
    def make(folder: Path) -> Path:
        matrix = counted()
        with h5py.File(folder / "a.h5", "w") as file:
            group = file.create_group("matrix")
            group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
            group["shape"] = matrix.shape[::-1]
            group["barcodes"] = np.array([f"AC{i}-1".encode() for i in range(matrix.shape[0])])
            names = np.array([f"g{i}".encode() for i in range(matrix.shape[1])])
            group["features/id"], group["features/name"] = names, names
            group["features/feature_type"] = np.array([b"Gene Expression"] * len(names))
            change(group)
        return folder / "a.h5"

    return make


def replaced(group: h5py.Group, name: str, values: object) -> None:
    del group[name]
    group[name] = values


def aligned(suffix: str, change: Callable[[Path], object], header: dict | None = None) -> Maker:
    def make(folder: Path) -> Path:
        fasta = folder / "ref.fa"
        fasta.write_text("".join(f">{sq['SN']}\n{'ACGT' * (sq['LN'] // 4)}\n" for sq in HEADER["SQ"]))
        pysam.faidx(str(fasta))
        path = made(folder / f"a{suffix}", fasta, index=False, header=header or HEADER)
        change(path)
        return path

    return make


def cut(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def plink(bim: bytes = b"1 a 0 1 C A\n", fam: bytes = b"0 x 0 0 1 2\n", bed: bytes | None = None) -> Maker:
    def make(folder: Path) -> Path:
        path = Path(files(folder, bim, fam, np.full((1, 1), 3)))
        if bed is not None:
            path.write_bytes(bed)
        return path

    return make


def bgen(change: Callable[[Path], object]) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / "a.bgen"
        write(path, [ONE], 1)
        change(path)
        return path

    return make


GTF = '1\ts\texon\t5\t9\t.\t+\t.\tgene_id "a";\n'
VCF = (
    "##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\n1\t5\t.\tA\tC\t.\t.\t.\tGT\t0/1\n"
)
CLINICAL = "case_submitter_id\tgender\nTCGA-A1-A0SB\tfemale\n"

CASES: dict[str, Case] = {
    # gene counts of the GDC, and sheets
    "counts: another column": (
        "expression",
        texts(a_tsv=star(1).replace("\tunstranded", "\traw")),
        "a.tsv:2",
        "expected column unstranded",
    ),
    "counts: cut off": ("expression", texts(a_tsv=star(1)[:-9]), "a.tsv:6", "found 5 columns; expected 6"),
    "counts: a decimal": (
        "expression",
        texts(a_tsv=star(1).replace("\t10\t", "\t1.5\t")),
        "a.tsv:4",
        "found 1.5 as a count of reads",
    ),
    "sheet: no name of a file": (
        "expression",
        in_folder(sheet_tsv=sheet(ALIQUOTS).replace("f1.tsv", ""), f0_tsv=star(1)),
        "sheet.tsv:3",
        "without the name or the id of a file",
    ),
    "sheet: a file too many": (
        "expression",
        in_folder(f9_tsv=star(1), sheet_tsv=sheet(ALIQUOTS)),
        "sheet.tsv",
        "found no line for the file f9.tsv",
    ),
    # matrices
    "matrix: text for a number": (
        "expression",
        texts(m_tsv="gene\ts1\nA\t1\nB\tlow\n"),
        "m.tsv:3",
        "found 'low' for feature B, sample s1",
    ),
    "matrix: ragged": ("expression", texts(m_csv="gene,s1,s2\nA,1,2\nB,1\n"), "m.csv:3", "found 2 columns; expected 3"),
    "matrix: a sample twice": (
        "expression",
        texts(m_tsv="gene\ts1\ts1\nA\t1\t2\n"),
        "m.tsv:1",
        "sample s1 stands twice",
    ),
    "beta: beyond float32": ("methylation", texts(b_tsv="cpg\ts1\ncg00000029\t1e39\n"), "b.tsv:2", "within float32"),
    "beta: a probe twice": (
        "methylation",
        texts(b_tsv="cpg\ts1\ncg00000029\t.5\ncg00000029\t.4\n"),
        "b.tsv:3",
        "stands twice, first on line 2",
    ),
    "beta by sample: a sample twice": (
        "methylation",
        texts(b_tsv="sample\tcg1\tcg2\ns1\t0.5\t1\ns1\t0\t1\n"),
        "b.tsv:3",
        "sample s1 stands twice, first on line 2",
    ),
    "series: no end": (
        "expression",
        texts(s_txt=SERIES.replace("!series_matrix_table_end\n", "")),
        "s.txt:13",
        "found no !series_matrix_table_end",
    ),
    "series: text for a number": (
        "expression",
        texts(s_txt=SERIES.replace("1.5", "P")),
        "s.txt:11",
        "found 'P' for feature 1007_s_at, sample GSM1",
    ),
    "SOFT: no table": (
        "expression",
        texts(f_soft="^SAMPLE = GSM1\n!Sample_title = x\n"),
        "f.soft:1",
        "none with a table of values",
    ),
    "SOFT: a probe twice": (
        "expression",
        texts(f_soft=FAMILY.replace("p2\tA", "p1\tA")),
        "f.soft:14",
        "probe p1 for the second time, first on line 13",
    ),
    "GCT: fewer features than said": (
        "expression",
        texts(a_gct=GCT.replace("2\t2\n", "5\t2\n", 1)),
        "a.gct:2",
        "found 2 features, where line 2 says 5",
    ),
    "GCT: ragged": ("expression", texts(a_gct=GCT.replace("\t0\n", "\n")), "a.gct:5", "found 3 columns; expected 4"),
    # mutations and clinical tables
    "MAF: no column of samples": (
        "mutations",
        texts(a_maf=HEAD.replace("Tumor_Sample", "Sample") + ROWS),
        "a.maf:1",
        "expected Tumor_Sample_Barcode among them",
    ),
    "MAF: no record that can be read": (
        "mutations",
        texts(a_maf=HEAD + "TP53\tragged\n"),
        "a.maf:2",
        "found 2 columns; expected 12",
    ),
    "clinical: ragged": (
        "phenotypes",
        texts(c_tsv=CLINICAL + "TCGA-A1-A0SD\n"),
        "c.tsv:3",
        "found 1 columns; expected 2",
    ),
    "clinical: no name of a case": (
        "phenotypes",
        texts(c_tsv=CLINICAL + "'--\tmale\n\tmale\n"),
        "c.tsv:4",
        "an empty name as sample_id",
    ),
    "XML: cut off": ("phenotypes", texts(a_xml=XML[:-20]), "a.xml:7", "XML that cannot be read"),
    "XML: no patient": ("phenotypes", texts(a_xml="<a>\n<b/></a>"), "a.xml:1", "without a patient"),
    "samples: one twice": (
        "phenotypes",
        texts(s_csv="sample_id,age\na,1\nb,2\na,3\n"),
        "s.csv:4",
        "'a' stands twice, first on line 2",
    ),
    # cells
    "h5ad: a value that is none": ("cells", h5ad(lambda f: f["X/data"].__setitem__(7, np.nan)), "a.h5ad", "found nan"),
    "h5ad: no table of cells": ("cells", h5ad(lambda f: f.__delitem__("obs")), "a.h5ad", "; expected"),
    "10x: a gene beyond the last": ("cells", of_10x(lambda g: g["indices"].__setitem__(3, 99)), "a.h5", "; expected"),
    "10x: barcodes of other cells": ("cells", of_10x(lambda g: replaced(g, "barcodes", [b"A"])), "a.h5", "; expected"),
    "MatrixMarket: an entry outside": (
        "cells",
        cells(counts_mtx=MARKET.replace("3 2 7", "4 2 7")),
        "counts.mtx:4",
        "found an entry of row 4",
    ),
    "MatrixMarket: an entry less": (
        "cells",
        cells(counts_mtx=MARKET.replace("3 2 2", "3 2 3")),
        "counts.mtx",
        "found 2 entries; expected 3",
    ),
    "MatrixMarket: a gene twice": (
        "cells",
        cells(genes_tsv="gene_id\na\na\nc\n"),
        "genes.tsv:3",
        "feature a stands twice",
    ),
    # genomes
    "FASTA: a protein": ("reference", texts(a_fa=">p\nMKWVTF\n"), "a.fa:2", "found 'F' at base 6 of p"),
    "FASTA: a sequence twice": (
        "reference",
        texts(a_fa=">a\nAC\n>a\nGT\n"),
        "a.fa:3",
        "sequence a stands twice, first on line 1",
    ),
    "orthologues: text without a header": (
        "orthologues",
        texts(a_fa="MKV\n>q\nMKV\n"),
        "a.fa:1",
        "found text before the first header",
    ),
    "orthologues: bases and a digit": (
        "orthologues",
        texts(a_fa=">p\nMK1V\n>q\nMKVV\n"),
        "a.fa:1",
        "found '1' in a protein",
    ),
    "orthologues: one protein": ("orthologues", texts(a_fa=">p\nMKWVTF\n"), "a.fa:1", "found one protein"),
    "GTF: blanks between columns": (
        "annotations",
        texts(a_gtf=GTF.replace("\t", " ")),
        "a.gtf:1",
        "found 1 columns between tabs",
    ),
    "GTF: no feature that can be read": (
        "annotations",
        texts(a_gtf=GTF.replace("5\t9", "9\t5")),
        "a.gtf:1",
        "found start '9' and end '5'",
    ),
    "GFF3: attributes that are none": (
        "annotations",
        texts(a_gff3="##gff-version 3\n1\ts\texon\t5\t9\t.\t+\t.\tonly\n"),
        "a.gff3:2",
        "found attributes 'only'",
    ),
    "GFF3: no feature": (
        "annotations",
        texts(a_gff3="##gff-version 3\n###\n"),
        "a.gff3",
        "found no feature in the file",
    ),
    "BED: two columns": (
        "annotations",
        texts(a_bed='track name="x"\nchr1\t10\n'),
        "a.bed:2",
        "found 2 columns between tabs",
    ),
    "BED: an end before the start": ("annotations", texts(a_bed="chr1\t20\t10\n"), "a.bed:1", "; expected"),
    "BAM: text": ("alignments", texts(a_bam="sample_id\n"), "a.bam", "found what htslib cannot read"),
    "BAM: cut off": ("alignments", aligned(".bam", lambda path: cut(path, 40)), "a.bam", "; expected"),
    "BAM: a sample with blanks": (
        "alignments",
        aligned(".bam", lambda path: None, HEADER | {"RG": [{"ID": "a", "SM": " s"}, {"ID": "b"}, {"ID": "c"}]}),
        "a.bam",
        "blanks around the name",
    ),
    "BAM: a read group of two samples": (
        "alignments",
        aligned(".bam", lambda path: None, HEADER | {"RG": [*HEADER["RG"], {"ID": "a", "SM": "s2"}]}),
        "a.bam",
        "found read group a twice, of sample s1 and of s2",
    ),
    "CRAM: cut off": (
        "alignments",
        aligned(".cram", lambda path: cut(path, 38)),
        "a.cram",
        "found a CRAM that is cut off",
    ),
    "CRAM: the head alone": (
        "alignments",
        aligned(".cram", lambda path: path.write_bytes(path.read_bytes()[:30])),
        "a.cram",
        "; expected",
    ),
    # genotypes
    "PLINK: sample by sample": (
        "vcf",
        plink(bed=b"\x6c\x1b\x00\x03"),
        "d.bed",
        "found genotypes in sample-major order",
    ),
    "PLINK: another .bim": ("vcf", plink(bim=b"1 a 0 1 C A\n1 b 0 2 C A\n"), "d.bed", "found 4 bytes; expected 5"),
    "PLINK: an empty .bim": ("vcf", plink(bim=b"", bed=b"\x6c\x1b\x01"), "d.bim:1", "found no site"),
    "PLINK: a ragged .fam": ("vcf", plink(fam=b"0 x 0 0 1 2\n0 y 0 0 1\n"), "d.fam:2", "found 5 columns; expected 6"),
    "BGEN: cut off": ("vcf", bgen(lambda path: cut(path, 3)), "a.bgen", "found it cut off within record 1"),
    "BGEN: layout 1": ("vcf", bgen(lambda path: write(path, [ONE], 1, layout=1)), "a.bgen", "found BGEN of layout 1"),
    "VCF: no header": ("vcf", texts(a_vcf=VCF.partition("#CHROM")[2]), "a.vcf:1", "; expected"),
    "VCF: a sample twice": ("vcf", texts(a_vcf=VCF.replace("\ts1\n", "\ts1\ts1\n")), "a.vcf:2", "; expected"),
    # what is no person
    "sequences: no column of theirs": (
        "sequences",
        texts(s_tsv="id\tseq\na\tACGT\n"),
        "s.tsv:1",
        "expected one called sequence",
    ),
    "sequences: none that can be read": (
        "sequences",
        texts(s_tsv="id\tsequence\na\tAC-T\n"),
        "s.tsv:2",
        "found '-' at base 3",
    ),
    "FASTA with labels: one key twice": (
        "sequences",
        texts(s_fa=">a x=1 X=2\nAC\n"),
        "s.fa:1",
        "column 'X' stands twice",
    ),
    "FASTA with labels: a database's name": (
        "sequences",
        texts(s_fa=">gi|123|x\nAC\n"),
        "s.fa:1",
        "found gi| in front of an identifier",
    ),
    "variants: no column of places": (
        "variants",
        texts(v_tsv="chrom\tposition\tref\talt\n1\t5\tA\tC\n"),
        "v.tsv:1",
        "expected one called pos",
    ),
    "variants: none that can be read": (
        "variants",
        texts(v_tsv="chrom\tpos\tref\talt\n1\tx\tA\tC\n"),
        "v.tsv:2",
        "; expected",
    ),
    # any text
    "UTF-16": (
        "variants",
        texts(v_tsv="chrom\tpos\tref\talt\n".encode("utf-16-le")),
        "v.tsv:1",
        "found text in UTF-16",
    ),
    "gzip, cut off": (
        "annotations",
        texts(a_gtf=gzip.compress(GTF.encode() * 99)[:-12]),
        "a.gtf:90",
        "cut off after line 90",
    ),
}
