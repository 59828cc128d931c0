"""The table of what variants do to transcripts."""

from __future__ import annotations

from genodl_spark.lake.schema import COHORT, SITE, Column, Table, required

CONSEQUENCES = Table(
    "consequences",
    "One row per ALT allele of a cohort and transcript within 5,000 bases of it; one without a transcript where "
    "there is none",
    (
        COHORT,
        required("contig", "string", "Contig, as in `variants`"),
        required("pos", "bigint", "POS, 1-based"),
        required("ref", "string", "REF"),
        required("alt", "string", "ALT allele"),
        required("transcript_id", "string", "Transcript identifier without version; empty for a variant near none"),
        required("terms", "array<string>", "Terms of the Sequence Ontology, the most severe first, as VEP ranks them"),
        required("impact", "string", "HIGH, MODERATE, LOW or MODIFIER: that of the first term"),
        required("rank", "int", "Place of the first term among all, from 1, the most severe"),
        required("picked", "boolean", "One row of each variant: the most severe, then the preferred transcript"),
        Column("gene_id", "string", "Gene identifier without version"),
        Column("gene_name", "string", "Symbol"),
        Column("transcript_version", "string", "Version of the transcript identifier; NULL without"),
        Column("protein_id", "string", "Protein identifier, as in the annotation"),
        Column("biotype", "string", "Biotype of the transcript"),
        Column("strand", "string", "+ or -"),
        Column("exon", "bigint", "First exon that is changed, from 1 in the order of transcription"),
        Column("intron", "bigint", "Intron, likewise, where no exon is changed"),
        Column("cdna_position", "bigint", "First base of the transcript that is changed, 1-based"),
        Column("cds_position", "bigint", "The same of its coding sequence"),
        Column("protein_position", "bigint", "The same of its protein, in amino acids"),
        Column("codons", "string", "Codons before and after, changed bases in upper case"),
        Column("amino_acids", "string", "Amino acids before and after, one letter each; one side where they are equal"),
        Column("hgvs_c", "string", "HGVS c. or n., behind the transcript's identifier"),
        Column("hgvs_p", "string", "HGVS p., behind the protein's identifier"),
        required("annotation", "string", "Cohort of the annotation"),
        required("fingerprint", "string", "Hash of what the cohort's rows were made from"),
        Column("end", "bigint", "Last base of a record whose allele is no bases, 1-based, closed; else NULL"),
        Column("note", "string", "What is not known of an allele that is no bases; NULL where all is"),
    ),
    key=("cohort", "contig", "pos", "ref", "alt", "transcript_id", "end"),
    partitioned_by=("cohort",),
    checks={"position": "pos >= 0"},
    kind=SITE,
    made_by="annotate",
)
