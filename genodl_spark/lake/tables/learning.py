"""Tables of data sets, models, what they were found to be worth, and their predictions."""

from __future__ import annotations

from genodl_spark.lake.schema import COHORT, LABEL_COLUMN, OF_TASK, TASK, Column, Table, required

_HEADS = (
    "JSON list of what is predicted, label, kind (classes, value, time, none, bases) and classes of each; "
    "NULL of one column of classes or values"
)

EXAMPLES = Table(
    "examples",
    "Rows that training reads: one per labelled entity of a dataset, features packed in the dataset's order",
    (
        required("dataset", "string", "Hash of the dataset: task, cohort, label, features, split and content"),
        required(
            "row_id",
            "bigint",
            "Dense row number within the dataset, from 0, in the order of entity_id; negatives that sequence.negatives "
            "brought come last, in the order of their positives",
        ),
        required(
            "entity_id", "string", "Sample or sequence identifier; of a negative that of its positive, ~ and what it is"
        ),
        Column("group", "string", "Group that no split may divide; NULL when the split has none"),
        required(
            "x",
            "binary",
            "Packed little-endian values of the dataset's dtype (of sequences base codes); -1 or NaN is a missing one",
        ),
        required(
            "target",
            "double",
            "Class index, or the value for regression; NaN where `targets` holds more than one number, or none",
        ),
        Column(
            "targets",
            "binary",
            "float64 for each number of the dataset's heads, NaN where the row has no label of one; NULL of one number",
        ),
        required(
            "folds", "binary", "int8 per repeat: fold index; or one byte: 0 train, 1 validation, 2 test; -1 not used"
        ),
    ),
    key=("dataset", "row_id"),
    partitioned_by=("dataset",),
    checks={"row": "row_id >= 0"},
    compacted=False,  # `feed.rows_per_file` says how large a file is
    entity="entity_id",
    kind=OF_TASK,
    person=("entity_id",),
    made_by="prepare TASK",
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
        Column("reason", "string", "Why an entity is unused whose label nothing can be learnt of; else NULL"),
    ),
    key=("task", "cohort", "label_column", "split_hash", "repeat", "entity_id"),
    checks={"role": "role IN ('fold', 'train', 'validation', 'test', 'unused')"},
    entity="entity_id",
    kind=OF_TASK,
    person=("entity_id",),
    made_by="prepare TASK",
)
DATASETS = Table(
    "datasets",
    "One row per prepared dataset: what `examples` holds for a task, cohort and label",
    (
        required("dataset", "string", "Hash of the dataset"),
        TASK,
        COHORT,
        LABEL_COLUMN,
        required("rows", "bigint", "Labelled rows, and negatives that they brought"),
        required("n_features", "int", "Features per row"),
        required(
            "dtype",
            "string",
            "Of packed values: int8, uint8, uint16 or float32; behind sparse: of entries, those that are not 0",
        ),
        required("classes", "array<string>", "Class names in index order; empty for regression"),
        Column("heads", "string", _HEADS),
        required("features", "array<string>", "Feature identifiers in packed order"),
        Column(
            "allowed",
            "binary",
            "Bits, the highest of a byte first: which features each training set may use, "
            "set after set as in training; NULL where each may use all",
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
        Column("entries", "bigint", "Entries of all rows together, of a sparse dtype; else NULL"),
        Column("negatives", "bigint", "Rows, the last ones, that sequence.negatives brought; NULL where it is given"),
    ),
    key=("dataset",),
    checks={"rows": "rows >= 0"},
    entity="dataset",
    kind="dataset",
    made_by="prepare TASK",
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
        Column("heads", "string", _HEADS),
        required("n_features", "int", "Features that it takes"),
        required("settings", "string", "Effective settings, JSON"),
        required("seed", "bigint", "Seed"),
        required("ranks", "int", "Horovod ranks"),
        required("code", "string", "Hash of the code that trained it"),
        required("fingerprint", "string", "Hash of dataset, settings, seed, ranks and code"),
        required("source_versions", "map<string,bigint>", "Version of every table behind the dataset"),
        required(
            "metrics", "map<string,double>", "Training figures: final losses, temperature, seconds, rows per second"
        ),
        required("trained_at", "timestamp", "When, UTC"),
        Column("card_sha256", "string", "SHA-256 of model.json, hexadecimal; NULL for models of older versions"),
        Column(
            "weights_sha256", "string", "SHA-256 of model.safetensors, hexadecimal; NULL for models of older versions"
        ),
        Column(
            "code_sha256",
            "map<string,string>",
            "SHA-256 of each file of the user's own code, in models/ID/code; empty without any",
        ),
    ),
    key=("model_id",),
    checks={"version": "model_version >= 1"},
    entity="model_id",
    kind="model",
    made_by="train TASK --force",
)
TREATMENTS = Table(
    "treatments",
    "What the steps before networks were fitted to: a row for each training set of a model that has steps",
    (
        required("model_id", "string", "Model"),
        required("repeat", "int", "Repeat of the cross-validation, from 0"),
        required("fold", "int", "Fold that was held out; -1 for the rows that the registered model learnt from"),
        required("steps", "string", "The steps and their options, JSON"),
        required("dataset", "string", "Dataset whose rows they learnt from"),
        required("rows", "bigint", "Rows that they learnt from, without those that a step has left out"),
        required("rows_sha256", "string", "SHA-256 of their row_id in ascending order, int64 little-endian"),
        required("tensors", "binary", "What was learnt: float64 arrays by step.NUMBER.NAME, as a safetensors file"),
    ),
    key=("model_id", "repeat", "fold"),
    partitioned_by=("model_id",),
    checks={"rows": "rows >= 2"},
    entity="model_id",
    kind="model",
    made_by="train TASK --force",
)
HELD_OUT = Table(
    "held_out",
    "Scores of rows that no training saw: of a model's networks, and of the baselines fitted on the same rows",
    (
        required("model_id", "string", "Model evaluated"),
        COHORT,
        required(
            "predictor",
            "string",
            "model, its parts network and linear, `model without BLOCK`, or a baseline, of one block as NAME[BLOCK]",
        ),
        required("repeat", "int", "Repeat of the cross-validation, from 0"),
        required("entity_id", "string", "Entity scored"),
        Column("group", "string", "Group that the split keeps together"),
        Column("head", "string", "Column of the label, of a model of several; NULL of one"),
        required("target", "double", "True class index, value or time; NaN of a row that has no label"),
        Column("event", "boolean", "Of a time, whether the event came then; else nothing is known of later"),
        required("role", "string", "fold, validation, test or external"),
        Column("fold", "int", "Fold that held the entity out; NULL unless role is fold"),
        required(
            "scores",
            "array<double>",
            "Probability per class before calibration; one value; or of a time to an event a value, and the "
            "probability that it has not come by each of the head's times, NaN where a baseline says nothing of that",
        ),
    ),
    key=("model_id", "cohort", "predictor", "repeat", "entity_id"),
    partitioned_by=("model_id",),
    checks={"role": "role IN ('fold', 'validation', 'test', 'external')"},
    entity="entity_id",
    kind=OF_TASK,
    person=("entity_id",),
    made_by="train TASK --force",
)
EVALUATIONS = Table(
    "evaluations",
    "Metrics of a model and its baselines on rows that no training saw",
    (
        required("model_id", "string", "Model evaluated"),
        required("cohort", "string", "Cohort evaluated on"),
        required(
            "predictor",
            "string",
            "model, a baseline's name, or `model - NAME`: the paired difference to the best baseline",
        ),
        required(
            "by",
            "string",
            "COLUMN=VALUE of report.by; =LABEL for one of several labels; ~negatives=SCHEME against other negatives; "
            "~similarity to training=BIN of sequences; ~drop from=COHORT for how much greater the metric was on rows "
            "held out of the cohort that trained the model; empty for all rows",
        ),
        required("metric", "string", "Metric's name"),
        Column("value", "double", "Mean over repeats of the pooled metric; NULL where undefined"),
        Column("low", "double", "Lower end of the 95% group bootstrap"),
        Column("high", "double", "Upper end of the 95% group bootstrap"),
        required("n_test", "bigint", "Distinct entities evaluated"),
        required(
            "fingerprint",
            "string",
            "Hash of what the evaluation depends on: it is not done again while that is the same",
        ),
        required("evaluated_at", "timestamp", "When, UTC"),
    ),
    key=("model_id", "cohort", "predictor", "by", "metric"),
    entity="model_id",
    kind="model",
    made_by="evaluate TASK",
)
TRIALS = Table(
    "trials",
    "One row per configuration that a search has tried, for a task's network or for a baseline",
    (
        required(
            "study", "string", "Search: task, cohort, label, predictor and a hash of all that its trials depend on"
        ),
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
        required(
            "dataset", "string", "Dataset that it was trained and measured on, which holds no test row in any part"
        ),
        required("started_at", "timestamp", "When, UTC"),
    ),
    key=("study", "number"),
    checks={
        "state": "state IN ('complete', 'pruned', 'failed')",
        "complete": "state != 'complete' OR value IS NOT NULL",
    },
    entity="study",
    kind="study",
    made_by="tune TASK",
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
        Column(
            "probabilities",
            "map<string,double>",
            "Calibrated probability per class; NULL for regression. Of a time to an event by TIME, the probability "
            "that it has not come by then. Of an effect through a model of sequences: by "
            "class `ref CLASS` and `alt CLASS`, the probabilities of both alleles, and `effect CLASS`, the difference "
            "of their log odds; of a value `ref` and `alt`",
        ),
        Column(
            "value",
            "double",
            "Calibrated score: the probability of the class predicted, or the predicted value; of an effect the "
            "difference of log odds for the last of two classes, of more for that which changes most, or of values; "
            "NULL where there is none",
        ),
        Column("raw_value", "double", "The same before calibration"),
        Column(
            "uncertainty",
            "double",
            "Disagreement of the model's networks: mutual information in nats, or standard deviation; "
            "NULL for one network",
        ),
        Column(
            "distance",
            "double",
            "Distance from the training rows: mean square of standardised features, or bits per base; "
            "NULL without any value",
        ),
        Column("out_of_distribution", "boolean", "Whether the distance is beyond what is usual in the training rows"),
        Column(
            "abstained",
            "boolean",
            "Whether the prediction should not be used: out of distribution, or improbable "
            "by predict.least_probability",
        ),
        required("in_training", "boolean", "Whether the registered model saw this entity in training"),
        required("source_versions", "map<string,bigint>", "Version of every table read"),
        Column("split_hash", "string", "SHA-256 of the split that the model was trained on"),
        Column(
            "computed_on",
            "string",
            "What the last bits depend on: device, precision, rows of a batch, threads, torch; JSON",
        ),
        Column("code", "string", "Hash of the code that scored the row"),
        required("scored_at", "timestamp", "When, UTC"),
        Column(
            "low",
            "double",
            "Lower end of where the value would be, for 95 of 100 rows, with the blocks that the entity lacks, "
            "or in 95 of 100 draws of the values that it lacks and that a step fills; "
            "NULL where it lacks none, or it is not known",
        ),
        Column("high", "double", "Upper end likewise"),
        Column("note", "string", "Why there is no score, or which blocks of features it was made without; else NULL"),
        Column(
            "filled", "int", "Measured features that the entity lacks, of a model with steps; NULL where it lacks none"
        ),
        Column(
            "prediction_set",
            "array<string>",
            "Classes that may be: the true one is among them for the share predict.coverage of rows like those held "
            "out when the model was trained; NULL of values, and where too few were held out",
        ),
        Column(
            "prediction_low",
            "double",
            "Lower end of where the true value lies for as many such rows; NULL of classes, and where it is not known",
        ),
        Column("prediction_high", "double", "Upper end likewise"),
    ),
    key=("task", "cohort", "entity_id", "label_column", "model_id"),
    partitioned_by=("task", "cohort"),
    clustered_by=("entity_id",),
    checks={
        "scored": "predicted IS NOT NULL OR value IS NOT NULL OR note IS NOT NULL",
        "probability": "predicted IS NULL OR value BETWEEN 0 AND 1.000000001",
        "uncertain": "uncertainty IS NULL OR uncertainty >= 0",
    },
    entity="entity_id",
    kind=OF_TASK,
    person=("entity_id",),
    made_by="predict TASK --force",
)
ATTRIBUTIONS = Table(
    "attributions",
    "What inputs did to a model's output: a row per entity, and of measured values one per feature over all entities",
    (
        TASK,
        COHORT,
        LABEL_COLUMN,
        required("target", "string", "Class whose log odds are explained; empty where the model's output is a value"),
        required("model_id", "string", "Model that is explained"),
        required("model_version", "int", "Its version"),
        required("method", "string", "integrated_gradients, deeplift or saturation_mutagenesis"),
        required("reference", "string", "What rows are held against: shuffles, mean or zero"),
        Column("entity_id", "string", "Entity that the row explains; NULL of a feature over all entities"),
        Column("feature", "string", "Feature that the row is about, over all entities; NULL of an entity"),
        Column("output", "double", "Of an entity: the model's output, log odds or a value"),
        Column("reference_output", "double", "Of an entity: the same of its references, the mean"),
        Column(
            "completeness_error",
            "double",
            "By how much contributions miss output - reference_output; of a feature the largest of all entities; "
            "NULL where contributions are not meant to add up",
        ),
        Column("steps", "int", "Of an entity: passes of the network for each of its references"),
        Column("reason", "string", "Why an entity has no contributions; NULL of one that has"),
        Column("sequence", "string", "Of a sequence: the bases that the model sees, N for an unknown one"),
        Column("first_position", "int", "Of a sequence: where these begin in it, 1-based; above 1 where it is cut"),
        Column("contributions", "array<float>", "Of a sequence: contribution of each of these bases"),
        Column(
            "hypothetical",
            "array<float>",
            "Of a sequence: what A, C, G and T would contribute at the first of these positions, at the second, and so "
            "on; by saturation_mutagenesis, by how much the output changes with them",
        ),
        Column("top", "map<string,double>", "Of measured values: contributions of the features that contribute most"),
        Column("mean_contribution", "double", "Of a feature: the mean of its contributions"),
        Column("mean_absolute", "double", "Of a feature: the mean of their sizes"),
        Column("rank", "int", "Of a feature: its place by mean_absolute, from 1"),
        Column("entities", "bigint", "Of a feature: entities that these are means over"),
        Column("learnt", "bigint", "Of a feature: of these, entities that the model learnt from"),
        Column("learnt_absolute", "double", "Of a feature: mean_absolute over these alone; NULL where there are none"),
        required("source_versions", "map<string,bigint>", "Version of every table read"),
        required("run_id", "string", "Run that explained it"),
        Column("code", "string", "Hash of the code that did"),
        required("explained_at", "timestamp", "When, UTC"),
    ),
    key=("task", "cohort", "label_column", "target", "model_id", "method", "entity_id", "feature"),
    partitioned_by=("task", "cohort"),
    clustered_by=("model_id", "entity_id"),
    checks={
        "either": "(entity_id IS NULL) <> (feature IS NULL)",
        "ranked": "feature IS NULL OR rank >= 1",
        "explained": "entity_id IS NULL OR reason IS NOT NULL OR contributions IS NOT NULL OR top IS NOT NULL",
    },
    entity="entity_id",
    kind=OF_TASK,
    person=("entity_id",),
    made_by="explain TASK --force",
)
MOTIFS = Table(
    "motifs",
    "Patterns of bases that contribute to a model's output again and again, out of `attributions`",
    (
        TASK,
        COHORT,
        LABEL_COLUMN,
        required("target", "string", "As in `attributions`"),
        required("model_id", "string", "Model that is explained"),
        required("method", "string", "As in `attributions`"),
        required("motif", "string", "positive_1, positive_2, ... raise the output, negative_1, ... lower it"),
        required("consensus", "string", "Its bases, by IUPAC"),
        required("seqlets", "bigint", "Places in sequences that it is the mean of"),
        required("entities", "bigint", "Sequences that have such a place"),
        required("among", "bigint", "Sequences that motifs were sought in"),
        required("probabilities", "array<double>", "Shares of A, C, G and T at its first position, at the second, ..."),
        required("contributions", "array<double>", "Mean contribution of these bases, in the same order"),
        required("threshold", "double", "Least size of the contribution of a place, by what chance brings about"),
        required("run_id", "string", "Run that found it"),
        required("found_at", "timestamp", "When, UTC"),
    ),
    key=("task", "cohort", "label_column", "target", "model_id", "method", "motif"),
    partitioned_by=("task", "cohort"),
    checks={"counts": "seqlets >= entities AND entities >= 1 AND among >= entities"},
    entity="motif",
    kind="motif",
    made_by="explain TASK --force",
)
BIOMARKERS = Table(
    "biomarkers",
    "Which features tell the classes of a label apart: a row for each feature of a model, by tests on its training "
    "sets, selections in halves of these, and attributions",
    (
        TASK,
        COHORT,
        LABEL_COLUMN,
        required("model_id", "string", "Model whose training sets and attributions these are"),
        required("model_version", "int", "Its version"),
        required("feature", "string", "Feature"),
        required("test", "string", "moderated_t, moderated_f or negative_binomial"),
        Column(
            "class",
            "string",
            "Class that the effect is of: the last one of two, of more the one that stands out; NULL without a test",
        ),
        Column(
            "effect",
            "double",
            "Its mean less that of the others, of counts log2; on the rows that the registered model learnt from, as "
            "all up to reason",
        ),
        Column(
            "statistic", "double", "t or z, with the effect's sign; of more than two classes F or a likelihood ratio"
        ),
        Column("p_value", "double", "Of the test; NULL where there is none"),
        Column("q_value", "double", "False discovery rate at which the feature is significant, among all features"),
        Column("reason", "string", "Why there is no test; NULL where there is one"),
        required("test_rank", "double", "Mean over training sets of the rank by p-value, from 1, the last for no test"),
        required("training_sets", "int", "Training sets: every fold and repeat, or the one of a fixed split"),
        required("significant_share", "double", "Share of them in which the feature is significant"),
        Column("frequency", "double", "Share of the halves of training sets that select it; NULL without halves"),
        required("attribution_ranks", "map<string,int>", "Rank by the size of attributions, by method"),
        required("consensus_score", "double", "Mean of its ranks by test, frequency and attributions"),
        required("consensus_rank", "int", "Its place by that, from 1"),
        required(
            "selected",
            "boolean",
            "Whether it is significant on the rows that the registered model learnt from and in enough training sets",
        ),
        required(
            "stability",
            "map<string,double>",
            "Of all rows the same: index of Nogueira et al. (2018) with its 95% interval, of what training_sets find "
            "significant, and of what halves of the registered model's rows select",
        ),
        Column(
            "planted",
            "map<string,double>",
            "Of all rows the same: found@0.5, found@1 and found@2, the share that the test finds of differences of so "
            "many standard deviations, of counts powers of 2, planted where labels are dealt anew; and false, the "
            "share of what it finds there that is none of them; NULL where not asked for, or of too few features",
        ),
        Column(
            "asked",
            "map<string,double>",
            "Of all rows the same: rate, agreement and threshold that it was sought with; NULL of older versions",
        ),
        required("run_id", "string", "Run that found it"),
        Column("code", "string", "Hash of the code that did"),
        required("found_at", "timestamp", "When, UTC"),
    ),
    key=("task", "cohort", "label_column", "model_id", "feature"),
    partitioned_by=("task", "cohort"),
    clustered_by=("model_id", "consensus_rank"),
    checks={
        "ranked": "consensus_rank >= 1",
        "tested": "(p_value IS NULL) = (reason IS NOT NULL)",
        "chance": "p_value IS NULL OR p_value BETWEEN 0 AND 1",
    },
    entity="feature",
    kind="feature",
    made_by="explain TASK --force",
)
ENRICHMENT = Table(
    "enrichment",
    "Sets of genes, such as pathways, among biomarkers: which hold more of the selected ones than chance would have, "
    "and which lie higher or lower than all others",
    (
        TASK,
        COHORT,
        LABEL_COLUMN,
        required("model_id", "string", "Model, as in `biomarkers`"),
        required("collection", "string", "Name of the GMT file"),
        required("collection_sha256", "string", "SHA-256 of its bytes as stored, hexadecimal"),
        required("gene_set", "string", "Name of the set"),
        Column("description", "string", "What the file says of it"),
        required("genes", "int", "Genes that the file has in it"),
        required("tested", "int", "Of these, genes that were tested"),
        required("background", "int", "Genes that were tested, of the set or not"),
        required("selected", "int", "Genes of the set that are selected as biomarkers"),
        required("selected_genes", "array<string>", "Which these are, the first by consensus first"),
        Column("expected", "double", "As many as chance would have selected"),
        Column("p_over", "double", "Chance of so many or more: the hypergeometric distribution"),
        Column("q_over", "double", "False discovery rate by that"),
        Column(
            "shift",
            "double",
            "By how many standard deviations statistics of its genes lie above all others; of more than two classes "
            "by how much more its genes differ",
        ),
        Column("p_shift", "double", "Chance of a shift so large, of more than two classes upwards (cameraPR)"),
        Column("q_shift", "double", "False discovery rate by that"),
        Column("reason", "string", "Why there is no test; NULL where there is one"),
        required("run_id", "string", "Run that found it"),
        required("found_at", "timestamp", "When, UTC"),
    ),
    key=("task", "cohort", "label_column", "model_id", "collection", "gene_set"),
    partitioned_by=("task", "cohort"),
    checks={"counts": "genes >= tested AND tested >= selected AND selected >= 0"},
    entity="gene_set",
    kind="gene set",
    made_by="explain TASK --force",
)
