"""Every table of the lake, declared once: columns, types, units, key, partitioning, checks and what a row means.

Spark schema, Arrow schema, Delta DDL, constraints and documentation are rendered from these declarations. Types are written
as Spark SQL types. Coordinates are 1-based and closed. Timestamps are UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from genodl_spark.core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType


@dataclass(frozen=True)
class Column:
    """One column: Spark SQL type, what it holds, and whether it may be NULL."""

    name: str
    type: str
    doc: str
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """One table of the lake.

    `key` names the columns that no two rows share. `checks` maps a constraint's name to the SQL condition that every row
    meets. `open` tables take further columns that come with the user's data (strings). `clustered_by`: order of the rows within a partition
    once it is compacted; the key where it is empty. Tables that are not `compacted` keep their files as they were written.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partitioned_by: tuple[str, ...] = ()
    checks: dict[str, str] = field(default_factory=dict)
    open: bool = False
    clustered_by: tuple[str, ...] = ()
    compacted: bool = True

    @property
    def order(self) -> list[str]:
        """Columns that rows of a partition are ordered by when they are compacted."""
        return [name for name in (*self.clustered_by, *self.key) if name not in self.partitioned_by]

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    def spark_schema(self) -> StructType:
        from pyspark.sql.types import StructField, StructType, _parse_datatype_string

        fields = []
        for column in self.columns:
            parsed = _parse_datatype_string(f"c {column.type}")
            assert isinstance(parsed, StructType)
            fields.append(StructField(column.name, parsed.fields[0].dataType, column.nullable, {"comment": column.doc}))
        return StructType(fields)

    def arrow_schema(self) -> pa.Schema:
        """Rendered without a JVM, so that tasks can ask for it."""
        import pyarrow as pa

        def arrow(type_: str) -> pa.DataType:
            kind, _, inner = type_.removesuffix(">").partition("<")
            if kind == "array":
                return pa.list_(arrow(inner))
            if kind == "map":
                key, value = inner.split(",", 1)
                return pa.map_(arrow(key), arrow(value.strip()))
            if kind == "timestamp":
                return pa.timestamp("us", tz="UTC")
            return pa.type_for_alias({"bigint": "int64", "int": "int32", "boolean": "bool", "tinyint": "int8"}.get(kind, kind))

        return pa.schema([pa.field(c.name, arrow(c.type), c.nullable) for c in self.columns])

    def ddl(self, path: str) -> str:
        """CREATE TABLE for a Delta table at `path`, with comments, partitioning and CHECK constraints."""
        columns = ",\n  ".join(f"{identifier(c.name)} {c.type}{'' if c.nullable else ' NOT NULL'} COMMENT {literal(c.doc)}" for c in self.columns)
        partitioning = ", ".join(identifier(name) for name in self.partitioned_by)
        properties = {
            # Petastorm, DuckDB and others read the files themselves: nothing that only Delta's own reader understands.
            "delta.enableDeletionVectors": "false",
            "delta.columnMapping.mode": "none",
            # Models and predictions pin versions for as long as they are there; `genodl maintain` knows which.
            "delta.enableExpiredLogCleanup": "false",
            **{f"delta.constraints.{name}": condition for name, condition in self.checks.items()},
        }
        return (
            f"CREATE TABLE IF NOT EXISTS delta.{identifier(path)} (\n  {columns}\n) USING delta"
            + (f" PARTITIONED BY ({partitioning})" if partitioning else "")
            + f" COMMENT {literal(self.doc)} TBLPROPERTIES ("
            + ", ".join(f"{literal(k)} = {literal(v)}" for k, v in properties.items())
            + ")"
        )


def identifier(name: str) -> str:
    """`name` quoted as a Spark SQL identifier."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """`text` quoted as a Spark SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_FOLDER_NAME = 255  # bytes that a file system takes, as a rule


def partition_folder(column: str, value: str, place: str | None = None) -> str:
    """The folder of a partition, percent-encoded. InputError, at `place`, where the value is too long for one."""
    folder = f"{column}={quote(value, safe='')}"
    if len(folder) > _FOLDER_NAME:
        found = f"found a name of {len(value)} characters, {len(folder)} bytes as the folder {folder[:40]}..."
        raise InputError(f"{found}; expected {_FOLDER_NAME} bytes at most, where each beyond ASCII counts as three: shorten it", place or column)
    return folder


def required(name: str, type_: str, doc: str) -> Column:
    return Column(name, type_, doc, nullable=False)


COHORT = required("cohort", "string", "Name of the cohort that the row belongs to")
TASK = required("task", "string", "Task name: that of its TOML")
LABEL_COLUMN = required("label_column", "string", "Column that holds the label, as named in `samples`")

SOURCES = Table(
    "sources",
    "One row per ingested file: the manifest that makes ingest idempotent and a row's origin traceable",
    (
        COHORT,
        required("source", "string", "Kind of source: vcf, expression, methylation, sequences, phenotypes, samples"),
        required("block", "string", "Block of a matrix, empty for other sources"),
        required("file", "string", "File name, with the folders before it that tell it from another file of the cohort"),
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
)

SAMPLES = Table(
    "samples",
    "One row per person or specimen of a cohort, with every column of its sample tables as text",
    (COHORT, required("sample_id", "string", "Sample identifier as in the data files")),
    key=("cohort", "sample_id"),
    checks={"sample_named": "length(sample_id) > 0"},
    open=True,
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
)

VARIANTS = Table(
    "variants",
    "One row per VCF record, as read; with normalisation, one per record that it became",
    (
        COHORT,
        required("contig", "string", "Contig by the name that cohorts share: chr20 and 20 are 20, chrM is MT, other names as in the file"),
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
        Column("gt", "binary", "Packed genotypes of n_samples samples (layout: genodl_spark/genetics/genotypes.py); NULL without GT"),
        Column("fields", "binary", "Sample columns as text without GT; NULL when FORMAT is GT alone"),
        required("n_samples", "int", "Samples in the record"),
        required("sample_set", "string", "Order of the samples: key into `sample_sets`"),
        required("alt_number", "int", "Which ALT of a multi-allelic record this row holds, from 1; 0 when it was not split"),
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
            Column("files", "array<string>", "Files that values are from, in the order in which they came; NULL in rows of older versions"),
            Column("origin", "binary", "Packed little-endian uint16, one per feature: which of `files` its value is from, from 0; NULL for one file"),
        ),
        key=("cohort", "block", "sample_id"),
        partitioned_by=("cohort",),  # an empty block would read back as NULL from a partition
        checks={"packed": "octet_length(x) = 4 * n_features"},
    )


EXPRESSION = _matrix("expression", "Gene expression, one row per cohort, block and sample", "in the unit of the source")
METHYLATION = _matrix("methylation", "DNA methylation, one row per cohort, block and sample", "beta values as in the source")

SEQUENCES = Table(
    "sequences",
    "One row per sequence of a cohort; its label and further columns are in `samples`",
    (
        COHORT,
        required("sequence_id", "string", "Sequence identifier: sample_id in `samples`"),
        required("codes", "binary", "Packed int8, one per base: A C G T (or U) are 0 1 2 3, any other letter of IUPAC is -1"),
        required("length", "int", "Bases"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Line in the file, 1-based"),
    ),
    key=("cohort", "sequence_id"),
    partitioned_by=("cohort",),
    checks={"packed": "octet_length(codes) = length", "bases": "length > 0"},
)

FEATURES = Table(
    "features",
    "Order of the features in packed matrix rows",
    (
        COHORT,
        required("source", "string", "Table that the features belong to: expression or methylation"),
        required("block", "string", "Block of the matrix"),
        required("feature_set", "string", "Hash of the ordered feature identifiers"),
        required("position", "int", "0-based position in the packed row"),
        required("feature_id", "string", "Gene, probe or CpG identifier as in the source"),
    ),
    key=("cohort", "source", "block", "feature_set", "position"),
    checks={"position": "position >= 0"},
)

QUARANTINE = Table(
    "quarantine",
    "Records, and lines of headers, that break their format's specification, kept with the reason",
    (
        COHORT,
        required("source", "string", "Kind of source"),
        required("file", "string", "File name of the source"),
        required("line", "bigint", "Line in the file, 1-based"),
        required("reason", "string", "What was found and what was expected"),
        required("text", "string", "The record or line, its first 4,096 characters"),
    ),
    key=("cohort", "source", "file", "line"),
)

EXAMPLES = Table(
    "examples",
    "Rows that training reads: one per labelled entity of a dataset, features packed in the dataset's order",
    (
        required("dataset", "string", "Hash of the dataset: task, cohort, label, features, split and content"),
        required("row_id", "bigint", "Dense row number within the dataset, from 0, in the order of entity_id"),
        required("entity_id", "string", "Sample or sequence identifier"),
        Column("group", "string", "Group that no split may divide; NULL when the split has none"),
        required("x", "binary", "Packed little-endian values: int8 with -1 missing (of sequences base codes), or float32 with NaN missing"),
        required("target", "double", "Class index, or the value for regression"),
        required("folds", "binary", "int8 per repeat: fold index; or one byte: 0 train, 1 validation, 2 test; -1 not used"),
    ),
    key=("dataset", "row_id"),
    partitioned_by=("dataset",),
    checks={"row": "row_id >= 0"},
    compacted=False,  # `feed.rows_per_file` says how large a file is
)

SPLITS = Table(
    "splits",
    "Which rows train and which test, as data",
    (
        TASK,
        COHORT,
        LABEL_COLUMN,
        required("split_hash", "string", "SHA-256 of the assignment"),
        required("repeat", "int", "Repeat of the cross-validation, from 0"),
        required("entity_id", "string", "Entity assigned"),
        Column("group", "string", "Group that the split keeps together"),
        required("role", "string", "fold, train, validation, test or unused"),
        Column("fold", "int", "Fold in which the entity is held out, from 0; NULL unless role is fold"),
    ),
    key=("task", "cohort", "label_column", "split_hash", "repeat", "entity_id"),
    checks={"role": "role IN ('fold', 'train', 'validation', 'test', 'unused')"},
)

DATASETS = Table(
    "datasets",
    "One row per prepared dataset: what `examples` holds for a task, cohort and label",
    (
        required("dataset", "string", "Hash of the dataset"),
        TASK,
        COHORT,
        LABEL_COLUMN,
        required("rows", "bigint", "Labelled rows"),
        required("n_features", "int", "Features per row"),
        required("dtype", "string", "int8 or float32"),
        required("classes", "array<string>", "Class names in index order; empty for regression"),
        required("features", "array<string>", "Feature identifiers in packed order"),
        Column(
            "allowed",
            "binary",
            "Bits, the highest of a byte first: which features each training set may use, set after set as in training; NULL where each may use all",
        ),
        required("transform", "string", "none, asinh for values on a linear scale, or onehot for base codes"),
        required("split", "string", "Split settings, JSON"),
        required("split_hash", "string", "SHA-256 of the assignment"),
        required("folds", "int", "Folds of the cross-validation; 0 for a fixed split"),
        required("repeats", "int", "Repeats of the cross-validation; 1 for a fixed split"),
        required("settings_hash", "string", "Hash of the settings that shaped the dataset"),
        required("source_versions", "map<string,bigint>", "Version of every table read"),
        required("warnings", "array<string>", "What the preparation noticed"),
        required("prepared_at", "timestamp", "When, UTC"),
    ),
    key=("dataset",),
    checks={"rows": "rows >= 0"},
)

MODELS = Table(
    "models",
    "Registered models; the files are in models/ID beside the tables",
    (
        required("model_id", "string", "Model identifier"),
        TASK,
        LABEL_COLUMN,
        required("model_version", "int", "1 for the first model of a task and label, then counting up"),
        required("cohort", "string", "Cohort that trained it"),
        required("dataset", "string", "Dataset that trained it"),
        required("split_hash", "string", "SHA-256 of the split"),
        required("classes", "array<string>", "Class names in index order; empty for regression"),
        required("n_features", "int", "Features that it takes"),
        required("settings", "string", "Effective settings, JSON"),
        required("seed", "bigint", "Seed"),
        required("ranks", "int", "Horovod ranks"),
        required("code", "string", "Hash of the code that trained it"),
        required("fingerprint", "string", "Hash of dataset, settings, seed, ranks and code"),
        required("source_versions", "map<string,bigint>", "Version of every table behind the dataset"),
        required("metrics", "map<string,double>", "Training figures: final losses, temperature, seconds, rows per second"),
        required("trained_at", "timestamp", "When, UTC"),
        Column("card_sha256", "string", "SHA-256 of model.json, hexadecimal; NULL for models of older versions"),
        Column("weights_sha256", "string", "SHA-256 of model.safetensors, hexadecimal; NULL for models of older versions"),
        Column("code_sha256", "map<string,string>", "SHA-256 of each file of the user's own code, in models/ID/code; empty without any"),
    ),
    key=("model_id",),
    checks={"version": "model_version >= 1"},
)

HELD_OUT = Table(
    "held_out",
    "Scores of rows that no training saw: of a model's networks, and of the baselines fitted on the same rows",
    (
        required("model_id", "string", "Model evaluated"),
        COHORT,
        required("predictor", "string", "model, or the baseline's name"),
        required("repeat", "int", "Repeat of the cross-validation, from 0"),
        required("entity_id", "string", "Entity scored"),
        Column("group", "string", "Group that the split keeps together"),
        required("target", "double", "True class index, or true value"),
        required("role", "string", "fold, validation, test or external"),
        Column("fold", "int", "Fold that held the entity out; NULL unless role is fold"),
        required("scores", "array<double>", "Probability per class before calibration, or one value"),
    ),
    key=("model_id", "cohort", "predictor", "repeat", "entity_id"),
    partitioned_by=("model_id",),
    checks={"role": "role IN ('fold', 'validation', 'test', 'external')"},
)

EVALUATIONS = Table(
    "evaluations",
    "Metrics of a model and its baselines on rows that no training saw",
    (
        required("model_id", "string", "Model evaluated"),
        required("cohort", "string", "Cohort evaluated on"),
        required("predictor", "string", "model, a baseline's name, or `model - NAME`: the paired difference to the best baseline"),
        required("by", "string", "COLUMN=VALUE of report.by; empty for all rows"),
        required("metric", "string", "Metric's name"),
        Column("value", "double", "Mean over repeats of the pooled metric; NULL where undefined"),
        Column("low", "double", "Lower end of the 95% group bootstrap"),
        Column("high", "double", "Upper end of the 95% group bootstrap"),
        required("n_test", "bigint", "Distinct entities evaluated"),
        required("fingerprint", "string", "Hash of what the evaluation depends on: it is not done again while that is the same"),
        required("evaluated_at", "timestamp", "When, UTC"),
    ),
    key=("model_id", "cohort", "predictor", "by", "metric"),
)

TRIALS = Table(
    "trials",
    "One row per configuration that a search has tried, for a task's network or for a baseline",
    (
        required("study", "string", "Search: task, cohort, label, predictor and a hash of all that its trials depend on"),
        required("number", "int", "Trial of the search, from 0: the configuration that the task has anyway"),
        TASK,
        COHORT,
        LABEL_COLUMN,
        required("predictor", "string", "model, or the baseline's name"),
        required("objective", "string", "What is compared: validation_loss, or a metric of the inner validation rows"),
        required("state", "string", "complete, pruned at a rung, or failed: its loss was not finite"),
        Column("value", "double", "Objective at the end; NULL unless complete"),
        required("rungs", "array<double>", "Objective at each rung reached, that of the end last"),
        required("rung_shares", "array<double>", "Shares of the epochs at which the rungs before the end lie"),
        required("params", "string", "Values of the settings searched, JSON"),
        required("space", "string", "Values that they may take, JSON"),
        required("seconds", "double", "Time of the trial in its Spark task"),
        required("dataset", "string", "Dataset that it was trained and measured on, which holds no test row in any part"),
        required("started_at", "timestamp", "When, UTC"),
    ),
    key=("study", "number"),
    checks={"state": "state IN ('complete', 'pruned', 'failed')", "complete": "state != 'complete' OR value IS NOT NULL"},
)

PREDICTIONS = Table(
    "predictions",
    "One row per entity and model: the newest score",
    (
        TASK,
        COHORT,
        required("entity_id", "string", "Sample, sequence or cell identifier, or chrom:pos:ref:alt"),
        LABEL_COLUMN,
        required("model_id", "string", "Model that scored the row"),
        required("model_version", "int", "Its version"),
        Column("predicted", "string", "Class of the highest probability; NULL for regression"),
        Column("probabilities", "map<string,double>", "Calibrated probability per class; NULL for regression"),
        Column("value", "double", "Calibrated score: the probability of the class predicted, or the predicted value"),
        Column("raw_value", "double", "The same before calibration"),
        Column(
            "uncertainty", "double", "Disagreement of the model's networks: mutual information in nats, or standard deviation; NULL for one network"
        ),
        Column(
            "distance", "double", "Distance from the training rows: mean square of standardised features, or bits per base; NULL without any value"
        ),
        Column("out_of_distribution", "boolean", "Whether the distance is beyond what is usual in the training rows"),
        Column("abstained", "boolean", "Whether the prediction should not be used: out of distribution, or improbable by predict.least_probability"),
        required("in_training", "boolean", "Whether the registered model saw this entity in training"),
        required("source_versions", "map<string,bigint>", "Version of every table read"),
        Column("split_hash", "string", "SHA-256 of the split that the model was trained on"),
        Column("computed_on", "string", "What the last bits depend on: device, precision, rows of a batch, threads, torch; JSON"),
        Column("code", "string", "Hash of the code that scored the row"),
        required("scored_at", "timestamp", "When, UTC"),
    ),
    key=("task", "cohort", "entity_id", "label_column", "model_id"),
    partitioned_by=("task", "cohort"),
    clustered_by=("entity_id",),
    checks={
        "scored": "predicted IS NOT NULL OR value IS NOT NULL",
        "probability": "predicted IS NULL OR value BETWEEN 0 AND 1.000000001",
        "uncertain": "uncertainty IS NULL OR uncertainty >= 0",
    },
)

RUNS = Table(
    "runs",
    "One row per job run",
    (
        required("run_id", "string", "Run identifier"),
        required("job", "string", "Verb"),
        required("status", "string", "done, unchanged or failed"),
        required("started_at", "timestamp", "When, UTC"),
        required("seconds", "double", "Wall time"),
        required("arguments", "string", "Command line, JSON"),
        required("settings", "string", "Effective settings, JSON"),
        required("report", "string", "The run report, JSON"),
        required("code", "string", "Hash of the code"),
    ),
    key=("run_id",),
    checks={"status": "status IN ('done', 'unchanged', 'failed')"},
)

VARIANT_QC = Table(
    "variant_qc",
    "One row per site and ALT allele of a cohort: calls, frequency and Hardy-Weinberg test; counts of records of one site are added",
    (
        COHORT,
        required("contig", "string", "Contig, as in `variants`"),
        required("pos", "bigint", "POS, 1-based"),
        required("ref", "string", "REF"),
        required("alt", "string", "ALT allele"),
        required("alt_number", "int", "Which ALT of its record, from 1"),
        required("substitution", "string", "transition, transversion or other"),
        Column("call_rate", "double", "Share of samples whose call is whole; NULL without samples"),
        required("ac", "bigint", "Called copies of the allele"),
        required("an", "bigint", "Called alleles"),
        Column("frequency", "double", "ac / an; NULL without calls"),
        required("hom_ref", "bigint", "Samples without the allele; in records of one ALT: homozygous for REF"),
        required("het", "bigint", "Samples with the allele and another"),
        required("hom_alt", "bigint", "Samples with no allele but this; haploid calls count here"),
        required("missing", "bigint", "Samples whose call is missing or not whole"),
        Column("hwe_p", "double", "Exact Hardy-Weinberg p-value (Wigginton 2005); NULL without calls and outside autosomes"),
        Column("hwe_mid_p", "double", "The same with the mid-p correction (Graffelman 2013)"),
        Column("mean_depth", "double", "Mean DP over the samples that have it, reads; NULL without"),
        Column("mean_quality", "double", "Mean GQ over the samples that have it, phred-scaled; NULL without"),
    ),
    key=("cohort", "contig", "pos", "ref", "alt"),
    partitioned_by=("cohort",),
    checks={"counts": "ac >= 0 AND ac <= an AND hom_ref >= 0 AND het >= 0 AND hom_alt >= 0 AND missing >= 0"},
)

SAMPLE_QC = Table(
    "sample_qc",
    "One row per sample of a cohort, over its autosomal records",
    (
        COHORT,
        required("sample_id", "string", "Sample identifier"),
        required("variants", "bigint", "Records of the sample"),
        Column("call_rate", "double", "Share of whole calls; NULL without records"),
        required("hom_ref", "bigint", "Calls"),
        required("het", "bigint", "Calls; of two different ALT too"),
        required("hom_alt", "bigint", "Calls"),
        required("missing", "bigint", "Calls that are missing or not whole"),
        required("singletons", "bigint", "Alleles of which this sample has the only copy in its sample set"),
        required("transitions", "bigint", "Biallelic transitions that the sample carries"),
        required("transversions", "bigint", "Biallelic transversions that the sample carries"),
        Column("ti_tv", "double", "transitions / transversions; NULL without the latter"),
        Column("inbreeding", "double", "F = 1 - heterozygous calls / those expected, at polymorphic biallelic records; NULL where none is expected"),
        Column("mean_depth", "double", "Mean DP over the records that have it, reads; NULL without"),
        Column("mean_quality", "double", "Mean GQ over the records that have it, phred-scaled; NULL without"),
    ),
    key=("cohort", "sample_id"),
    checks={"counts": "variants >= 0 AND missing <= variants"},
)

RELATEDNESS = Table(
    "relatedness",
    "Pairs of samples whose kinship is above the threshold (KING-robust, Manichaikul 2010)",
    (
        COHORT,
        required("sample_1", "string", "The first of the two by name"),
        required("sample_2", "string", "The other"),
        required("variants", "bigint", "Common biallelic autosomal SNVs called in both"),
        required("het_het", "bigint", "Of them, both heterozygous"),
        required("ibs0", "bigint", "Of them, opposite homozygotes"),
        required("kinship", "double", "Kinship coefficient: 0.5 for the same genotypes, 0.25 for first degree"),
        required("relation", "string", "duplicate (or twin), first, second, third degree or unrelated, by the borders 2^-1.5 to 2^-4.5"),
    ),
    key=("cohort", "sample_1", "sample_2"),
    checks={"order": "sample_1 < sample_2"},
)

PRINCIPAL_COMPONENTS = Table(
    "principal_components",
    "One row per sample: its coordinates on the principal components of the genotypes; eigenvalues are in `qc_steps`",
    (
        COHORT,
        required("sample_id", "string", "Sample identifier"),
        required("components", "array<double>", "Coordinates on eigenvectors of unit length, the largest eigenvalue first"),
    ),
    key=("cohort", "sample_id"),
)

LD_PRUNED = Table(
    "ld_pruned",
    "Common biallelic autosomal SNVs of a cohort in approximate linkage equilibrium",
    (
        COHORT,
        required("contig", "string", "Contig, as in `variants`"),
        required("pos", "bigint", "POS, 1-based"),
        required("ref", "string", "REF, upper case"),
        required("alt", "string", "ALT, upper case"),
    ),
    key=("cohort", "contig", "pos", "ref", "alt"),
    partitioned_by=("cohort",),
)

QC_STEPS = Table(
    "qc_steps",
    "One row per cohort and step of its quality control: what the step's table was made from, and figures of the whole cohort",
    (
        COHORT,
        required("step", "string", "variants, samples, pruning, relatedness or components"),
        required("fingerprint", "string", "Hash of what the step depends on: it is not done again while that is the same"),
        required("metrics", "map<string,double>", "Rows written, variants used; of components: passes, eigenvalues, residuals"),
        required("done_at", "timestamp", "When, UTC"),
    ),
    key=("cohort", "step"),
)

FINDINGS = Table(
    "findings",
    "One row per check of a monitoring run; of features and files those over their limit, the worst of them",
    (
        required("found_at", "timestamp", "When, UTC: one for all checks of a run"),
        required("check", "string", "What was checked: see genodl_spark/pipelines/monitor.py"),
        required("task", "string", "Task, empty for a check of what was ingested"),
        COHORT,
        required("label_column", "string", "Label column, empty likewise"),
        required("model_id", "string", "Model, empty likewise"),
        required("subject", "string", "Feature identifier, or source/block/file; empty for a check of the whole"),
        Column("value", "double", "What was measured; NULL where the check is no measurement"),
        Column("threshold", "double", "The limit that it was held against"),
        required("breached", "boolean", "Whether it alarms; a feature does where so many drifted that the whole does"),
        required("message", "string", "What was found"),
    ),
    key=("found_at", "check", "task", "cohort", "label_column", "model_id", "subject"),
)

FORGOTTEN = Table(
    "forgotten",
    "People who withdrew consent, by a hash: data that brings them again is refused",
    (
        COHORT,
        required("person", "string", "SHA-256 of cohort, a zero byte and the sample's identifier, hexadecimal"),
        required("forgotten_at", "timestamp", "When, UTC"),
    ),
    key=("cohort", "person"),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        SOURCES,
        SAMPLES,
        SAMPLE_SETS,
        VARIANTS,
        EXPRESSION,
        METHYLATION,
        SEQUENCES,
        FEATURES,
        QUARANTINE,
        EXAMPLES,
        SPLITS,
        DATASETS,
        MODELS,
        HELD_OUT,
        EVALUATIONS,
        TRIALS,
        PREDICTIONS,
        RUNS,
        VARIANT_QC,
        SAMPLE_QC,
        RELATEDNESS,
        PRINCIPAL_COMPONENTS,
        LD_PRUNED,
        QC_STEPS,
        FINDINGS,
        FORGOTTEN,
    )
}
