"""Tables for what portals hand out beside values: mutations, manifests, symbols of probes, units, and what became of
names on their way into the lake."""

from __future__ import annotations

from genodl_spark.lake.schema import COHORT, Column, Table, required

_MATRIX = (
    required("source", "string", "Kind of source: expression, methylation or another"),
    required("block", "string", "Block of the matrix, empty for other sources"),
)
HARMONISATION = Table(
    "harmonisation",
    "One row per name that a file has and the lake does not have so: renamed, merged with another, or dropped",
    (
        COHORT,
        *_MATRIX,
        required("what", "string", "What the name is of: sample, feature or file"),
        required("name", "string", "Name in the file"),
        required("action", "string", "renamed, merged or dropped"),
        Column("became", "string", "Name in the lake; of what was dropped the one that stands for it, else NULL"),
        required("reason", "string", "Why"),
        required("file", "string", "File name of the source; of features the first of those that have them alike"),
    ),
    key=("cohort", "source", "block", "file", "what", "name"),
    checks={"action": "action IN ('renamed', 'merged', 'dropped')"},
    person=("name", "became"),
    file="file",
    made_by="ingest",
)
PROBES = Table(
    "probes",
    "One row per feature of a file of a matrix or of cells that the file gives a gene symbol for",
    (
        COHORT,
        *_MATRIX,
        required("feature_id", "string", "Feature as in `features`"),
        required("symbol", "string", "Gene symbol as in the file; several stand as they do there"),
        required("file", "string", "File name of the source, the first of those that have the same features"),
        Column("gene_id", "string", "Gene identifier that the file has beside one that is called by its symbol"),
    ),
    key=("cohort", "source", "block", "file", "feature_id"),
    file="file",
    made_by="ingest",
)
BEYOND = 0.1  # by how much shares that are methylated may miss 0 and 1, where a background was taken off

UNITS = Table(
    "units",
    "One row per matrix file: what its values are, and their range",
    (
        COHORT,
        *_MATRIX,
        Column("unit", "string", "beta or M; counts, TPM, FPKM, FPKM-UQ; NULL where neither file nor values tell"),
        Column("lowest", "double", "Smallest value; NULL where all are missing"),
        Column("highest", "double", "Largest value, likewise"),
        required("missing", "bigint", "Missing values"),
        required("file", "string", "File name of the source"),
    ),
    key=("cohort", "source", "block", "file"),
    checks={"missing": "missing >= 0"},
    entity="file",
    kind="file",
    file="file",
    made_by="ingest",
)
PORTAL_FILES = Table(
    "portal_files",
    "One row per file that a sheet or manifest of a portal names, with its further columns as text",
    (
        COHORT,
        required("file_id", "string", "Identifier of the file at the portal"),
        required("file_name", "string", "Name of the file at the portal"),
        Column("aliquot", "string", "Aliquot that the file is of; NULL where the sheet does not say it"),
        Column("sample", "string", "Sample likewise"),
        Column("case", "string", "Case likewise"),
        required("file", "string", "File name of the sheet"),
        required("line", "bigint", "Line in the sheet, 1-based"),
    ),
    key=("cohort", "file", "file_id", "file_name"),
    open=True,
    entity="file_id",
    kind="file",
    person=("aliquot", "sample", "case"),
    file="file",
    made_by="ingest phenotypes",
)
MUTATIONS = Table(
    "mutations",
    "One row per somatic mutation of a sample",
    (
        COHORT,
        required("sample_id", "string", "Tumor_Sample_Barcode, or what it was cut to"),
        Column("normal", "string", "Matched_Norm_Sample_Barcode; NULL where missing"),
        required("chrom", "string", "Chromosome as in the file"),
        required("pos", "bigint", "Start_Position, 1-based; of an insertion the base before it"),
        required("end", "bigint", "End_Position, 1-based, closed; of an insertion the base behind it"),
        required("ref", "string", "Reference_Allele; - for an insertion"),
        required("alt", "string", "Tumour allele that is not the reference; - for a deletion"),
        Column("gene", "string", "Hugo_Symbol; NULL where Unknown or missing"),
        Column("classification", "string", "Variant_Classification"),
        Column("type", "string", "Variant_Type: SNP, DNP, TNP, ONP, INS or DEL"),
        Column("build", "string", "NCBI_Build as in the file"),
        Column("protein", "string", "Change of the protein: HGVSp_Short or Protein_Change"),
        required("fields", "map<string,string>", "Further columns of the file that are not empty, by name"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Line in the file, 1-based"),
    ),
    key=("cohort", "file", "line"),
    partitioned_by=("cohort",),
    clustered_by=("chrom", "pos"),
    checks={"position": "pos > 0 AND `end` >= pos", "alleles": "length(ref) > 0 AND length(alt) > 0"},
    entity="sample_id",
    person=("sample_id", "normal"),
    file="file",
    made_by="ingest mutations",
)
