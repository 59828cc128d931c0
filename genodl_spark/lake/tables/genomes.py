"""Tables of genomes and of reads on them: reference sequences, annotations, alignments. Nothing in a reference or an
annotation is about a person."""

from __future__ import annotations

from genodl_spark.lake.schema import COHORT, Column, Table, required

CHUNK = 1 << 16  # bases of a chunk of `reference_bases`

REFERENCE = Table(
    "reference",
    "One row per sequence of a reference genome: where it lies on its contig; its bases are in `reference_bases`",
    (
        COHORT,
        required("contig", "string", "Contig by the name that cohorts share: chr20 and 20 are 20, chrM is MT"),
        required("name", "string", "Name of the sequence, as in the file"),
        Column("description", "string", "What stands behind the name in the file; NULL when nothing"),
        required(
            "first",
            "bigint",
            "Its first base on the contig, 1-based: 1, unless its description says that it is a slice, "
            "as BUILD_CHROM:START-END",
        ),
        required("last", "bigint", "Its last base on the contig, 1-based, closed"),
        required("length", "bigint", "Bases"),
        required("md5", "string", "MD5 of its bases in upper case, hexadecimal, as M5 of SAM has it"),
        Column("build", "string", "Genome build: as a slice says, or by the contig's length; NULL where not known"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Number of the sequence in the file, from 1"),
    ),
    key=("cohort", "file", "name"),
    checks={"interval": "first > 0 AND last = first + length - 1 AND length > 0"},
    entity="name",
    kind="contig",
    file="file",
    made_by="ingest reference",
)
REFERENCE_BASES = Table(
    "reference_bases",
    f"One row per {CHUNK:,} bases of a reference sequence, cut where positions of the contig are whole multiples",
    (
        COHORT,
        required("contig", "string", "Contig, as in `reference`"),
        required("name", "string", "Name of the sequence, as in `reference`"),
        required("chunk", "bigint", f"(first - 1) / {CHUNK:,}, without what is left"),
        required("first", "bigint", "First base on the contig, 1-based"),
        required("last", "bigint", "Last base on the contig, 1-based, closed"),
        required("bases", "binary", "ASCII letters of IUPAC, one per base, case as in the file"),
        required("file", "string", "File name of the source"),
    ),
    key=("cohort", "file", "name", "first"),
    partitioned_by=("cohort",),
    clustered_by=("contig", "first"),
    checks={"packed": "octet_length(bases) = last - first + 1 AND first > 0 AND last >= first"},
    kind="contig",
    file="file",
    made_by="ingest reference",
)
ANNOTATIONS = Table(
    "annotations",
    "One row per feature of a GTF, GFF3 or BED file; one of several transcripts (GFF3), or of several blocks (BED), "
    "has a row for each",
    (
        COHORT,
        required("contig", "string", "Contig by the name that cohorts share: chr20 and 20 are 20, chrM is MT"),
        required("chrom", "string", "Contig as in the file"),
        Column("source", "string", "What made the feature; NULL when missing"),
        required(
            "type",
            "string",
            "As in the file, but five_prime_utr and three_prime_utr by one name each; region for a line of BED, "
            "block for a block of it",
        ),
        required("start", "bigint", "First base, 1-based; of BED, which counts from 0, too"),
        required("end", "bigint", "Last base, 1-based, closed"),
        Column("score", "double", "NULL when missing"),
        Column("strand", "string", "+ or -; ? where it matters and is not known; NULL when missing"),
        Column("phase", "tinyint", "Bases before the first whole codon of a CDS: 0, 1, 2; NULL when missing"),
        Column("gene_id", "string", "Gene identifier without version; of GFF3 that of the parents' parent"),
        Column("gene_version", "string", "Version of the gene identifier; NULL without"),
        Column("transcript_id", "string", "Transcript identifier without version; of GFF3 that of the parent"),
        Column("transcript_version", "string", "Version of the transcript identifier; NULL without"),
        Column("exon_number", "int", "Place of the exon in the transcript, from 1, in the order of transcription"),
        Column("gene_name", "string", "Symbol"),
        Column("gene_biotype", "string", "gene_biotype or gene_type"),
        Column("transcript_biotype", "string", "transcript_biotype or transcript_type"),
        Column("protein_id", "string", "Protein identifier, as in the file"),
        Column("id", "string", "ID of GFF3, name of BED; NULL without"),
        Column("parents", "array<string>", "Values of Parent of GFF3; the name of the line for a block of BED"),
        Column("tags", "array<string>", "Values of tag, in the order of the file; NULL without"),
        Column(
            "attributes",
            "map<string,string>",
            "All attributes as in the file, those that stand several times joined by commas; columns of BED by name",
        ),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Line in the file, 1-based"),
        required("part", "int", "Which row of the line, from 0"),
    ),
    key=("cohort", "file", "line", "part"),
    partitioned_by=("cohort",),
    clustered_by=("contig", "start"),
    checks={"interval": "start > 0 AND `end` >= start", "phase": "phase IS NULL OR phase BETWEEN 0 AND 2"},
    kind="feature",
    file="file",
    made_by="ingest annotations",
)
ORTHOLOGUES = Table(
    "orthologues",
    "One row per residue of a protein: what its orthologues in other species have there",
    (
        COHORT,
        required("protein", "string", "Name of the first protein of the file, without version"),
        required("position", "int", "Residue of the protein, 1-based"),
        required("residue", "string", "Its amino acid, a letter"),
        required(
            "aligned", "string", "A letter for each orthologue in the order of the file; - for a gap, . beyond its ends"
        ),
        required("present", "int", "Orthologues that have a letter"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Record in the file, 1-based"),
    ),
    key=("cohort", "protein", "position"),
    partitioned_by=("cohort",),
    checks={"letters": "position > 0 AND length(residue) = 1 AND present BETWEEN 0 AND length(aligned)"},
    entity="protein",
    kind="protein",
    file="file",
    made_by="ingest orthologues",
)
ALIGNMENTS = Table(
    "alignments",
    "One row per BAM or CRAM file and sample in it: what the file holds; its reads stay there and are read on demand",
    (
        COHORT,
        required("sample_id", "string", "Sample: SM of its read groups; the file's name where it has none"),
        required("format", "string", "BAM or CRAM"),
        required("uri", "string", "Where the file lies"),
        Column("index", "string", "Where its index lies; NULL without: then no region can be read"),
        Column("reference", "string", "The FASTA of --reference, by which a CRAM is read; NULL without"),
        Column("sort_order", "string", "SO of the header; NULL when missing"),
        Column("build", "string", "Genome build by the contig lengths; NULL where they do not tell"),
        required("read_groups", "array<string>", "ID of the sample's read groups"),
        required("contigs", "array<string>", "SN of the header, in its order"),
        required("lengths", "array<bigint>", "LN, bases, by contig"),
        Column("mapped", "array<bigint>", "Mapped reads by contig, as a BAM's index says; NULL without"),
        Column("unmapped", "array<bigint>", "Unmapped reads placed on a contig, likewise"),
        Column("unplaced", "bigint", "Reads on no contig, likewise"),
        required("header", "string", "Header as text"),
        required("file", "string", "File name of the source"),
    ),
    key=("cohort", "file", "sample_id"),
    checks={"sample_named": "length(sample_id) > 0"},
    entity="sample_id",
    person=("sample_id",),
    file="file",
    made_by="ingest alignments",
)
