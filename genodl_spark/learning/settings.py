"""Settings of data sets, training, search, evaluation and prediction."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, StrictFloat, StrictInt, model_validator

from genodl_spark.core.toml import Names, Section, Text

OF_SEQUENCES = ("kmers", "positions", "both")  # what a linear model beside a network may see of a sequence
BOOSTED = "boosted"  # trees over what stands at each position of a sequence, beside a network
FOREST, RIDGE = "forest", "ridge_regression"  # what stands beside a network over measured values
OF_VALUES = (FOREST, RIDGE)

BALANCED = "balanced"  # classes that count alike


class Quality(Section):
    """Choice and treatment of features; everything is fitted on training rows only."""

    min_allele_frequency: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Variants whose rarer allele is less frequent among the cohort's samples are left out.",
    )
    max_missing: float = Field(
        1.0, ge=0, le=1, description="Features with a larger share of missing values are left out."
    )
    max_features: int = Field(
        0, ge=0, description="At most so many variants, evenly spaced over the sites that pass; 0 for all."
    )
    transform: str = Field(
        "auto",
        pattern=r"^(auto|none|asinh|[\w.-]+\.py)$",
        description="What is done to measured values first: asinh, none, or auto, which is asinh where values exceed "
        "50; or a Python file with a class Encoding, that says what packed rows are to networks.",
    )
    steps: Names = Field(
        [],
        description="Treatments of measured values, one after the other, each fitted on the training rows of every "
        "training set: files of genodl_spark/learning/preprocessing, as tmm, or tmm@mrna for the block mrna alone.",
    )
    options: dict[str, dict[str, Any]] = Field(
        {},
        description="Options of the steps, in place of their fixed ones: the step as quality.steps has it, "
        "then option, then value. Which there are: genodl settings quality.options.",
    )
    batch: Text = Field(
        "", description="Column of the sample table, or of labels, that tells the batches that combat corrects for."
    )
    annotation: Text = Field("", description="Ingested annotation whose genes give the lengths that tpm divides by.")
    select: int = Field(
        0, ge=0, description="The best so many features by F statistic, chosen in each training set; 0 for all."
    )

    @model_validator(mode="after")
    def _steps(self) -> Quality:
        if self.steps or self.options:
            from genodl_spark.learning.preprocessing import steps_of

            steps_of(self.steps, self.options)
        return self


class Sequences(Section):
    """How networks see sequences, and which of them no split divides."""

    length: int = Field(
        0,
        ge=0,
        description="Bases of a sequence that networks see, aligned at the centre; 0 for the longest of the cohort.",
    )

    alike: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Sequences of which so large a share of the bases is the same, but for single bases exchanged, "
        "inserted or deleted, stay together in every split, also where one is the other's reverse complement; "
        "1 for equal ones alone, 0 for none. Variants of one position do, but for 0.",
    )
    negatives: str = Field(
        "given",
        pattern="^(given|shuffled|genome)$",
        description="What a task of two classes, the last one positive, sets against its positives: given, what is "
        "labelled alone; shuffled, also the dinucleotides of each positive in another order, drawn anew in every "
        "epoch; genome, also windows of an ingested reference of its length and GC share. Rows that are held out have "
        "either, drawn once, where no negative is given there.",
    )
    negatives_each: int = Field(
        1, ge=1, le=100, description="Negatives that each positive brings, unless sequence.negatives is given."
    )


class Variants(Section):
    """What is learnt from of variants with measured effects."""

    features: Names = Field(
        ["auto"],
        description="Groups of features: substitution, context, motifs, motif_families, motif_totals, consequences, "
        "protein, splicing and orthologues. auto: all that a cohort has of substitution, consequences, protein and "
        "splicing, where consequences or HGVS say what its variants do to transcripts; of the others but orthologues "
        "where nothing does.",
    )
    hgvs_c: Text = Field(
        "",
        description="Column of labels with changes of transcripts, as c.188T>A, of a cohort that annotate has not "
        "seen; empty for the one that holds nothing else.",
    )
    hgvs_p: Text = Field("", description="The same of proteins, as p.Leu63Ter or p.L63*.")


class Clock(Section):
    """A published linear model, such as an epigenetic clock, that is registered in place of networks."""

    file: Text = Field(
        "",
        description="Table of a published linear model: identifiers of features in its first column, a coefficient of "
        "each, and a line for the intercept. train then fits nothing but what fills missing values; train.loss=age "
        "where the model is one of Horvath's transform of age. Empty for none.",
    )
    column: Text = Field(
        "",
        description="Column of clock.file with the coefficients; empty for the first one whose name begins with "
        "coefficient, or the second of two.",
    )


class Train(Section):
    """The training loop."""

    procs: int = Field(
        2,
        ge=1,
        le=65_536,
        description="Ranks that train together. They share each batch; how many they are changes no batch.",
    )
    ensemble: int = Field(5, ge=1, le=4096, description="Networks of different seeds behind one model.")
    epochs: int = Field(
        40,
        ge=1,
        le=1_000_000,
        description="Passes over the training rows; raised for small data until min_steps are done.",
    )
    min_steps: int = Field(
        300,
        ge=0,
        le=1 << 31,
        description="Steps of a training at least: for small data the epochs are raised until they are done.",
    )
    redrawn_epochs: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Passes where sequence.negatives=shuffled draws negatives anew in each, which nothing learns by "
        "heart: as many of these as 2,400 steps have room for, if that is more than epochs.",
    )
    batch: int = Field(64, ge=1, le=1 << 24, description="Rows of the global batch, whatever the number of ranks.")
    learning_rate: float = Field(
        1e-3, gt=0, le=1e3, description="The learning rate after the warm-up, which train.schedule lowers from there."
    )
    weight_decay: float = Field(
        1e-2, ge=0, le=1e6, description="Decay of the weights, apart from the gradient (AdamW)."
    )
    warmup_epochs: float = Field(1.0, ge=0, description="Epochs over which the learning rate rises to its full value.")
    clip: float = Field(
        1.0,
        ge=0,
        description="Largest norm of the gradient of a network; longer ones are scaled down to it; 0 for no limit.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the target probability that is spread evenly over all classes."
    )
    class_weights: str = Field(
        "none",
        pattern=f"^(none|{BALANCED})$",
        description="What classes count for, in the network's loss and in its baselines: balanced, every class alike, "
        "however rare, and probabilities are those where classes are equally frequent; or none, every row alike.",
    )
    patience: int = Field(
        0,
        ge=0,
        description="Epochs without a better validation loss before training ends, each network at its best epoch; "
        "0 trains them all to the end.",
    )
    dtype: str = Field("float32", pattern="^(float32|float64)$", description="Numbers that networks are trained in.")
    schedule: str = Field(
        "cosine",
        pattern="^(cosine|plateau|constant)$",
        description="Learning rate after the warm-up: cosine, which falls to 0; plateau, which is multiplied "
        "by plateau_factor when the validation loss has not fallen for plateau_patience epochs; or constant.",
    )
    plateau_factor: float = Field(
        0.5, gt=0, lt=1, description="What train.schedule=plateau multiplies the learning rate by."
    )
    plateau_patience: int = Field(
        3,
        ge=0,
        description="Epochs without a lower validation loss before train.schedule=plateau lowers the learning rate.",
    )
    scale_from: int = Field(
        0,
        ge=0,
        description="Batch for which learning_rate is meant: larger batches scale it up over the warm-up; "
        "0 leaves it as it is.",
    )
    amp: str = Field(
        "off",
        pattern="^(off|tf32|bf16|fp16)$",
        description="Mixed precision: what networks multiply in; tf32 is for GPUs, off for float32.",
    )
    accumulate: int = Field(
        1, ge=1, description="Pieces that a rank computes its share of a batch in, one after the other, to save memory."
    )
    compression: str = Field("none", pattern="^(none|fp16)$", description="Of gradients on their way between ranks.")
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay of averaged weights, which then are the model's; 0 for none."
    )
    blend: Names = Field(
        [],
        description="What is fitted to the rows that a network learns from and blended with it: linear models over "
        "sequences, kmers, positions (one to three bases at each) and both, of which the best within the training rows "
        "is taken, and boosted, trees over their positions; or a forest and, where values are learnt, "
        "ridge_regression, over measured values. "
        "How much each counts is chosen on the rows for validation or, with folds, on those of the other folds.",
    )
    pretrained: Text = Field(
        "",
        description="Id of a model of the lake that has learnt of rows without labels, to tell hidden bases or "
        "measured values (tasks sequence_pretraining, expression_pretraining): every network starts from its weights, "
        "but for what tells labels, which starts anew; empty for none.",
    )
    validation: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the training rows of a published split that becomes its rows for validation, where it "
        "has none: whole groups, and sequences that are nearly the same together; 0 for none.",
    )
    mixup: float = Field(
        0.0, ge=0, description="Alpha of the Beta distribution that rows are mixed by (mixup); 0 for none."
    )
    compile: str = Field(
        "auto", pattern="^(auto|on|off)$", description="torch.compile; auto uses it on a GPU with enough steps."
    )
    checkpoint_seconds: float = Field(
        60.0, gt=0, description="Seconds between checkpoints, from which a training that was cut off goes on."
    )
    restarts: int = Field(
        3, ge=0, description="How often training starts again from the last checkpoint when ranks are lost."
    )
    elastic: bool = Field(True, description="On a cluster, the ranks that are left when some are lost go on at once.")
    loss: str = Field(
        "auto",
        pattern=r"^(\w+|[\w.-]+\.py)$",
        description="What is learnt: auto (cross_entropy of classes, squared_error of values, log_logistic of times "
        "to an event), huber for values of which some lie far off, cox for times to an event, poisson for counts, or a "
        "Python file with a class Loss.",
    )
    launcher: str = Field(
        "spark",
        pattern="^(spark|horovodrun|process)$",
        description="What starts the ranks: spark (one task a rank), horovodrun (processes on train.hosts, "
        "through ssh, or here) or process (one, in the driver).",
    )
    hosts: Text = Field(
        "",
        pattern=r"^(\w[\w.-]*:[0-9]+(,\w[\w.-]*:[0-9]+)*)?$",
        description="Machines and ranks on each for train.launcher=horovodrun, such as a:4,b:4; "
        "empty for this machine.",
    )

    @model_validator(mode="after")
    def _blends(self) -> Train:
        known, values = ", ".join((*OF_SEQUENCES, BOOSTED)), " and ".join(OF_VALUES)
        if unknown := set(self.blend) - {*OF_SEQUENCES, BOOSTED, *OF_VALUES}:
            raise ValueError(f"blend of {known} or {values}, {sorted(unknown)[0]!r} is none")
        if 0 < len(set(self.blend) & set(OF_VALUES)) < len(set(self.blend)):
            raise ValueError(f"blend of {values} and another: these are for measured values, the others for sequences")
        return self


class Feed(Section):
    """How rows reach the training loop."""

    backend: str = Field("petastorm", pattern="^(petastorm|pyarrow)$", description="What reads the training files.")
    resident_bytes: int = Field(
        2 << 30,
        ge=1,
        description="Packed data up to this size stays in memory; larger data is decoded once per machine "
        "to a file that its ranks map.",
    )
    readers: int = Field(2, ge=1, description="Threads that decode files.")
    prefetch: int = Field(2, ge=0, description="Batches made ahead for a GPU.")
    device_bytes: int = Field(1 << 30, ge=0, description="Data up to this size stays on the GPU.")
    rows_per_file: int = Field(5000, ge=1, description="Rows of a training file, which is one row group.")
    shard: bool = Field(
        False,
        description="For data beyond one machine: each rank decodes a part of the training files, of which a twentieth "
        "are dealt anew after an epoch. Ten files a rank or more share evenly (feed.rows_per_file).",
    )


class Predict(Section):
    """How models score."""

    batch: int = Field(
        0,
        ge=0,
        le=1 << 20,
        description="Rows that a model computes at once, fixed when it is trained; short batches are filled up; "
        "0 for what suits the width of a row.",
    )
    precision: str = Field(
        "float32",
        pattern="^(float32|tf32|bf16|fp16)$",
        description="What networks multiply in; tf32 is for GPUs, the same as float32 elsewhere.",
    )
    strands: str = Field(
        "both",
        pattern="^(both|forward|reverse)$",
        description="How models of sequences read windows of variants: the mean of both strands, or one of them where "
        "a model is for one, as for sites in RNA; one that has the same answer for both reads them once.",
    )
    passes: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Passes with dropout, whose spread is the uncertainty of a model that is one network; 0 for none.",
    )
    least_probability: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A class predicted with less is marked as an abstention, as are rows unlike those of training.",
    )
    coverage: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="Share of rows like those held out whose class is in prediction_set, or whose value lies from "
        "prediction_low to prediction_high; fixed when a model is trained; 0 for none.",
    )
    first: Text = Field(
        "",
        description="Only entities from this one on, by name and included, are scored, and these whether or not they "
        "have been; empty for no bound.",
    )
    last: Text = Field(
        "",
        description="Only entities up to this one, by name and included, are scored, and these whether or not they "
        "have been; empty for no bound.",
    )


class Explain(Section):
    """What is explained of a model's answers, and against what."""

    method: str = Field(
        "integrated_gradients",
        pattern=r"^\w+$",
        description="How: integrated_gradients, deeplift (a fraction of the time), or saturation_mutagenesis, "
        "which changes each base, or sets each measured value to its mean; files of genodl_spark/learning/explain.",
    )
    target: Text = Field(
        "",
        description="The class whose log odds are explained; empty for the last one of two, "
        "and of more for the class that is predicted of each row.",
    )
    heads: Names = Field([], description="Of a model of several label columns, only these; empty for all.")
    reference: str = Field(
        "auto",
        pattern="^(auto|shuffles|mean|zero)$",
        description="What a row is held against: shuffles, dinucleotide shuffles of the sequence itself; mean, the "
        "bases' shares in training, or of measured values their training means; zero, no base; "
        "or auto, shuffles for sequences and mean for values.",
    )
    references: int = Field(8, ge=1, le=1000, description="Shuffles of each sequence; contributions are their mean.")
    tolerance: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Error of a row's contributions, as a share of the difference that they have to add up to; "
        "rows with a larger one have a reason in place of contributions.",
    )
    floor: float = Field(
        1e-4, ge=0, description="An error, in the unit of the output, that is no matter however small the difference."
    )
    steps: int = Field(
        8192, ge=6, description="Gradients of integrated_gradients between one reference and a row, at most."
    )
    share: float = Field(
        1.0, gt=0, le=1, description="Share of the entities that are explained, drawn by their names; 1 for all."
    )
    motif_rows: int = Field(
        5000, ge=0, description="Sequences, at most, that motifs are sought in, drawn by their names; 0 for no motifs."
    )


class Biomarkers(Section):
    """Which features tell classes apart, and how that is found; explain looks for them where `find` says so."""

    find: bool = Field(
        False,
        description="genodl explain also tests the features of a model of classes on each of its training sets, in the "
        "cohort that trained it, and writes what tests, selections and attributions agree on: table biomarkers.",
    )
    test: str = Field(
        "auto",
        pattern="^(auto|moderated|negative_binomial)$",
        description="moderated, t or F with variances drawn towards each other (limma's), of measured values; "
        "negative_binomial, of counts (DESeq2's); auto, which counts where all values are whole numbers from 0 on.",
    )
    trend: bool = Field(
        False, description="Moderated tests expect variances to follow the features' means (limma's trend)."
    )
    rate: float = Field(
        0.1, gt=0, lt=1, description="False discovery rate (Benjamini and Hochberg) at which a feature is significant."
    )
    agreement: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the training sets in which a feature that is selected has to be significant, beside the "
        "rows that the registered model learnt from.",
    )
    pairs: int = Field(
        25,
        ge=0,
        le=10_000,
        description="Pairs of halves of the rows of a training set in which features are selected (stability "
        "selection); 0 for none.",
    )
    threshold: float = Field(
        0.75,
        gt=0.5,
        le=1,
        description="Share of the halves that select a feature from which it counts as stable.",
    )
    false: float = Field(
        1.0,
        gt=0,
        description="Expected number of stable features that tell nothing, at most (the bound of Meinshausen and "
        "Buhlmann): it says how many the halves select.",
    )
    attributions: Names = Field(
        ["integrated_gradients", "deeplift"],
        description="Methods of explain whose ranks of features count in the consensus, beside tests and halves.",
    )
    planted: int = Field(
        3,
        ge=0,
        le=1000,
        description="Times that differences of known sizes are planted into the registered model's rows, with labels "
        "dealt anew, to tell how much of them the test finds in such a cohort, and how much of what it finds is false; "
        "0 for none.",
    )
    max_rows: int = Field(20_000, ge=4, description="Rows of a training set that are tested, at most.")


class Enrichment(Section):
    """Which sets of genes biomarkers are of."""

    gmt: Text = Field(
        "",
        description="GMT file of gene sets, such as pathways, that biomarkers are held against: table enrichment; its "
        "genes have to be named as the features are. Empty for none.",
    )
    smallest: int = Field(5, ge=1, description="Genes of a set that were tested, at least; of others nothing is said.")
    largest: int = Field(500, ge=1, description="Genes of a set that were tested, at most.")
    correlation: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="How much the statistics of two genes of a set go together, which makes a shift of a set less "
        "surprising (limma's cameraPR).",
    )


class Evaluation(Section):
    """What a model is measured beside, and how."""

    null: bool = Field(
        False,
        description="The model's network, trained again on shuffled labels, stands beside it as the baseline "
        "shuffled_labels; that takes as long as the training did.",
    )
    baselines: Names = Field(
        ["majority", "linear_svm", "random_forest", "decision_tree", "logistic"],
        description="Baselines that are fitted on the same splits.",
    )
    negatives: Names = Field(
        [],
        description="Further negatives of sequences, shuffled or genome as of sequence.negatives: the metrics of the "
        "model on the same positives against each stand beside those against the negatives that are held out.",
    )
    resamples: int = Field(1000, ge=0, description="Of the group bootstrap that intervals come from.")
    max_rows: int = Field(20_000, ge=1, description="Training rows per fit of a baseline, at most.")
    spark_rows: int = Field(
        1_000_000,
        ge=0,
        description="With more rows in a data set than these, Spark ML's forest of all of them, spark_forest, stands "
        "beside random_forest, which sees evaluate.max_rows; 0 for never, unless it is asked for by name.",
    )
    options: dict[str, dict[str, Any]] = Field(
        {},
        description="Options of baselines, in place of their fixed ones: baseline, then option, then value. "
        "What is fixed, and which options there are: genodl settings evaluate.options.",
    )


class Dimension(Section):
    """Values that a setting may take in a search: low to high, both included; or one of choices."""

    low: StrictInt | StrictFloat | None = Field(None, description="The least value, included.")
    high: StrictInt | StrictFloat | None = Field(None, description="The greatest value, included.")
    log: bool = Field(False, description="Values are drawn evenly by their logarithm.")
    step: StrictInt | StrictFloat | None = Field(
        None, description="Values are drawn in steps of this size from low to high."
    )
    choices: list[Any] | None = Field(
        None,
        description="Values of which one is drawn, in place of low and high: numbers, texts, "
        "booleans, or lists of them.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Dimension:
        if self.choices is not None:
            if (self.low, self.high, self.log, self.step) != (None, None, False, None):
                raise ValueError("choices, or low and high, not both")
            flat = [part for choice in self.choices for part in (choice if isinstance(choice, list) else [choice])]
            if not all(isinstance(part, bool | int | float | str) for part in flat):
                raise ValueError("choices that are numbers, texts, booleans or lists of them")
            if len({json.dumps(choice) for choice in self.choices}) != len(self.choices) or len(self.choices) < 2:
                raise ValueError("at least two choices, each once")
            return self
        if self.low is None or self.high is None or not self.low < self.high < float("inf"):
            raise ValueError("choices, or a finite low below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log with a low above 0 and without step")
        if self.step is not None:
            steps = (self.high - self.low) / self.step if self.step > 0 else 0
            if steps < 1 or abs(steps - round(steps)) > 1e-6:
                raise ValueError("a step above 0 that leads from low to high")
        return self


class Tune(Section):
    """The search of genodl tune."""

    trials: int = Field(30, ge=1, description="Configurations that are tried in all; the first is the task's own.")
    startup: int = Field(10, ge=1, description="The first so many trials are drawn at random.")
    parallel: int = Field(
        0,
        ge=0,
        description="Trials under way at once; 0 for twice the task slots, so that none waits for a long trial.",
    )
    folds: int = Field(
        5, ge=2, le=127, description="Folds of the training rows, where the split has no validation rows."
    )
    test: float = Field(
        0.2, gt=0, lt=1, description="Share of the rows that is set aside where the split is a cross-validation."
    )
    ensemble: int = Field(1, ge=1, description="Networks of a training set in a trial.")
    rungs: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [1 / 9, 1 / 3],
        description="Shares of the epochs at which a trial ends unless it is among the best 1 / reduction "
        "of those before it; ascending.",
    )
    reduction: int = Field(3, ge=2, description="One in so many trials goes on at each of tune.rungs.")
    storage: Text = Field(
        "", description="URL of Optuna's database; empty: a sqlite file in a local lake, else the table trials alone."
    )
    space: dict[str, Dimension] = Field(
        {}, description="Settings that are searched, each with the values that it may take."
    )

    @model_validator(mode="after")
    def _ascending(self) -> Tune:
        if sorted(set(self.rungs)) != self.rungs:
            raise ValueError("rungs in ascending order, each once")
        return self
