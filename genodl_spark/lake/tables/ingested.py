"""Tables that `ingest` fills: what the files of a cohort say, and where each row comes from."""

from __future__ import annotations

from genodl_spark.lake.schema import CELL, COHORT, OF_TASK, SEQUENCE, SITE, VARIANT, Column, Table, required

SOURCES = Table(
    "sources",
    "One row per ingested file: the manifest that makes ingest idempotent and a row's origin traceable",
    (
        COHORT,
        required(
            "source",
            "string",
            "Kind of source: as `genodl ingest` names it, samples for those of --samples, or the name of a user's own",
        ),
        required("block", "string", "Block of a matrix, empty for other sources"),
        required(
            "file", "string", "File name, with the folders before it that tell it from another file of the cohort"
        ),
        required("uri", "string", "Where the file was read"),
        required("bytes", "bigint", "Size in bytes"),
        required("sha256", "string", "SHA-256 of the content, hexadecimal"),
        required("records", "bigint", "Rows stored from it"),
        required("quarantined", "bigint", "Records set aside in `quarantine`"),
        required("options", "string", "How it was read where that changes its rows: normalisation, empty for as it is"),
        Column("header", "string", "VCF header lines as read; NULL for other sources"),
        Column("build", "string", "Genome build by the contig lengths of a VCF header; NULL where they do not tell"),
        required("ingested_at", "timestamp", "When, UTC"),
    ),
    key=("cohort", "source", "block", "file"),
    checks={"counts": "records >= 0 AND quarantined >= 0 AND bytes >= 0"},
    entity="file",
    kind="file",
    file="file",
    made_by="ingest",
)
SAMPLES = Table(
    "samples",
    "One row per person or specimen of a cohort, with every column of its sample tables as text",
    (COHORT, required("sample_id", "string", "Sample identifier as in the data files")),
    key=("cohort", "sample_id"),
    checks={"sample_named": "length(sample_id) > 0"},
    open=True,
    entity="sample_id",
    person=("sample_id",),
    made_by="ingest",
)
LABELS = Table(
    "labels",
    "One row per entity of a cohort that is no person, with every column that its file has of it as text",
    (
        COHORT,
        required("entity", "string", "What it is: sequence, variant, cell or site"),
        required("entity_id", "string", "Its identifier, as in the table that holds its data"),
        Column("file", "string", "File name of the source; NULL where only a table of further columns has brought it"),
        Column("line", "bigint", "Line in the file, 1-based; NULL likewise"),
    ),
    key=("cohort", "entity", "entity_id"),
    checks={"entity_named": "length(entity_id) > 0"},
    open=True,
    entity="entity_id",
    kind=OF_TASK,
    kind_in="entity",
    file="file",
    made_by="ingest",
)
SAMPLE_SETS = Table(
    "sample_sets",
    "Order of the samples in packed genotype columns",
    (
        required("sample_set", "string", "Hash of the ordered sample identifiers"),
        required("position", "int", "0-based position in the packed column"),
        required("sample_id", "string", "Sample identifier"),
    ),
    key=("sample_set", "position"),
    checks={"position": "position >= 0"},
    entity="sample_id",
    person=("sample_id",),
    made_by="ingest",
)
VARIANTS = Table(
    "variants",
    "One row per VCF record, as read; with normalisation, one per record that it became",
    (
        COHORT,
        required(
            "contig",
            "string",
            "Contig by the name that cohorts share: chr20 and 20 are 20, chrM is MT, other names as in the file",
        ),
        required("bin", "int", "pos / ingest.bin_width: bounds the size of a partition"),
        required("chrom", "string", "CHROM as in the file"),
        required("pos", "bigint", "POS, 1-based; 0 is the telomere"),
        required("end", "bigint", "Last reference base of the record, 1-based, closed"),
        Column("id", "string", "ID; NULL when missing"),
        required("ref", "string", "REF"),
        required("alts", "array<string>", "ALT alleles in order; empty when missing"),
        Column("qual", "double", "QUAL, phred-scaled; NULL when missing"),
        Column("filters", "array<string>", "FILTER codes; ['PASS'] when passed, NULL when not applied"),
        required("info", "string", "INFO as in the file"),
        Column("format", "string", "FORMAT keys as in the file; NULL without samples"),
        Column(
            "gt",
            "binary",
            "Packed genotypes of n_samples samples (layout: genodl_spark/genetics/genotypes.py); NULL without GT",
        ),
        Column("fields", "binary", "Sample columns as text without GT; NULL when FORMAT is GT alone"),
        required("n_samples", "int", "Samples in the record"),
        required("sample_set", "string", "Order of the samples: key into `sample_sets`"),
        required(
            "alt_number", "int", "Which ALT of a multi-allelic record this row holds, from 1; 0 when it was not split"
        ),
        Column("source_pos", "bigint", "POS in the file where normalisation changed the record, else NULL"),
        Column("source_ref", "string", "REF in the file, likewise"),
        Column("source_alts", "string", "ALT in the file, likewise"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Line in the file, 1-based"),
    ),
    key=("cohort", "file", "line", "alt_number"),
    partitioned_by=("cohort", "contig", "bin"),
    clustered_by=("pos", "ref"),
    checks={"position": "pos >= 0", "reference": "length(ref) > 0", "samples": "n_samples >= 0"},
    kind=SITE,
    packed_by="sample_set",
    file="file",
    made_by="ingest vcf",
)


def _matrix(name: str, doc: str, unit: str) -> Table:
    return Table(
        name,
        doc,
        (
            COHORT,
            required("block", "string", "Block of features: one matrix of several that a cohort may have"),
            required("sample_id", "string", "Sample identifier"),
            required("feature_set", "string", "Order of the values: key into `features`"),
            required("x", "binary", f"Packed little-endian float32, {unit}, one per feature; NaN is missing"),
            required("n_features", "int", "Values in x"),
            required("file", "string", "File name of the source, the last where the values are of several"),
            Column(
                "files",
                "array<string>",
                "Files that values are from, in the order in which they came; NULL in rows of older versions",
            ),
            Column(
                "origin",
                "binary",
                "Packed little-endian uint16, one per feature: which of `files` its value is from, "
                "from 0; NULL for one file",
            ),
        ),
        key=("cohort", "block", "sample_id"),
        partitioned_by=("cohort",),  # an empty block would read back as NULL from a partition
        checks={"packed": "octet_length(x) = 4 * n_features"},
        entity="sample_id",
        person=("sample_id",),
        file="file",
        made_by=f"ingest {name}",
    )


EXPRESSION = _matrix("expression", "Gene expression, one row per cohort, block and sample", "in the unit of the source")
METHYLATION = _matrix(
    "methylation", "DNA methylation, one row per cohort, block and sample", "beta values as in the source"
)
SEQUENCES = Table(
    "sequences",
    "One row per sequence of a cohort; its label and further columns are in `labels`",
    (
        COHORT,
        required("sequence_id", "string", "Sequence identifier: entity_id in `labels`"),
        required(
            "codes", "binary", "Packed int8, one per base: A C G T (or U) are 0 1 2 3, any other letter of IUPAC is -1"
        ),
        required("length", "int", "Bases"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Line in the file, 1-based"),
    ),
    key=("cohort", "sequence_id"),
    partitioned_by=("cohort",),
    checks={"packed": "octet_length(codes) = length", "bases": "length > 0"},
    entity="sequence_id",
    kind=SEQUENCE,
    file="file",
    made_by="ingest sequences",
)
CELLS = Table(
    "cells",
    "One row per cell of a cohort and block: what was counted in it; its label and further columns are in `labels`",
    (
        COHORT,
        required("block", "string", "Block of features, empty where there is one matrix"),
        required("cell_id", "string", "Cell identifier, such as its barcode: entity_id in `labels`"),
        required("feature_set", "string", "Order of the features: key into `features`"),
        required(
            "x",
            "binary",
            "Values that are not 0, in the unit of the source, as packed entries sparse:float32 "
            "(layout: genodl_spark/core/packing.py)",
        ),
        required("n_values", "int", "Entries in x"),
        required("n_features", "int", "Features of the order, counted or not"),
        required("total", "double", "Sum of the values"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Number of the cell in the file, from 1"),
    ),
    key=("cohort", "block", "cell_id"),
    partitioned_by=("cohort",),
    checks={"packed": "octet_length(x) = 8 * n_values AND n_values <= n_features"},
    entity="cell_id",
    kind=CELL,
    file="file",
    made_by="ingest cells",
)
FEATURES = Table(
    "features",
    "Order of the features in packed matrix rows",
    (
        COHORT,
        required("source", "string", "Table that the features belong to: expression, methylation or cells"),
        required("block", "string", "Block of the matrix"),
        required("feature_set", "string", "Hash of the ordered feature identifiers"),
        required("position", "int", "0-based position in the packed row"),
        required("feature_id", "string", "Gene, probe or CpG identifier as in the source"),
    ),
    key=("cohort", "source", "block", "feature_set", "position"),
    checks={"position": "position >= 0"},
    made_by="ingest",
)
VARIANT_EFFECTS = Table(
    "variant_effects",
    "One row per variant of a table of measured effects; its label or value and further columns are in `labels`",
    (
        COHORT,
        required(
            "variant_id",
            "string",
            "chrom:pos:ref:alt, and behind it what tells rows of one variant apart: entity_id in `labels`",
        ),
        required("contig", "string", "Contig by the name that cohorts share, as in `variants`"),
        required("chrom", "string", "Chromosome as in the file"),
        required("pos", "bigint", "Position of the first base of ref, 1-based"),
        required("ref", "string", "Reference allele in upper case; - for none"),
        required("alt", "string", "Other allele in upper case; - for none"),
        Column("build", "string", "Genome build of the reference that ref was found in, as it says; NULL without"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Line in the file, 1-based"),
        Column(
            "before",
            "string",
            "Bases of the reference in front of ref, in upper case, up to ingest.flank of them; NULL without",
        ),
        Column("after", "string", "Those behind it"),
    ),
    key=("cohort", "variant_id"),
    partitioned_by=("cohort",),
    clustered_by=("contig", "pos"),
    checks={"position": "pos > 0", "alleles": "length(ref) > 0 AND length(alt) > 0"},
    entity="variant_id",
    kind=VARIANT,
    file="file",
    made_by="ingest variants",
)
QUARANTINE = Table(
    "quarantine",
    "Records, and lines of headers, that break their format's specification, kept with the reason",
    (
        COHORT,
        required("source", "string", "Kind of source"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Line in the file, 1-based; in files that have no lines, number of the record"),
        required("reason", "string", "What was found and what was expected"),
        required("text", "string", "The record or line, its first 4,096 characters"),
    ),
    key=("cohort", "source", "file", "line"),
    entity="file",
    kind="file",
    file="file",
    made_by="ingest",
)
