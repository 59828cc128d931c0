"""Settings: conf/base.toml, local.toml or cluster.toml there, the task's TOML, --config, --set;
typed, and an unknown key is an error."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from genodl_spark.cells.settings import Cluster
from genodl_spark.core import own_code, redaction
from genodl_spark.core.errors import InputError
from genodl_spark.core.own_code import Code
from genodl_spark.core.toml import Names, Section, Text, assigned, check_values, read
from genodl_spark.genetics.settings import Calling, QualityControl
from genodl_spark.job.conf import conf_directory, task_file
from genodl_spark.lake.schema import partition_folder
from genodl_spark.lake.settings import Lock, Maintenance
from genodl_spark.learning.settings import (
    Biomarkers,
    Clock,
    Dimension,
    Enrichment,
    Evaluation,
    Explain,
    Feed,
    Predict,
    Quality,
    Sequences,
    Train,
    Tune,
    Variants,
)
from genodl_spark.learning.splits import Split


class Tracking(Section):
    """The mirror of registered models in MLflow."""

    uri: Text = Field(
        "", description="URI of MLflow's store; empty: a sqlite file in a local lake, else ./mlflow.db; off: none."
    )
    experiment: Text = Field("genodl-spark", description="MLflow experiment that models are logged under.")


class Ingest(Section):
    """How files are read into the lake."""

    sample_chunk: int = Field(256, ge=1, description="Samples per piece when a matrix is transposed.")
    batch: int = Field(65_536, ge=1, description="VCF records per Arrow batch, at most.")
    bin_width: int = Field(1 << 26, ge=1, description="Bases per position bin of variants.")
    split_alleles: bool = Field(False, description="Records of several ALT alleles become one for each.")
    line_bytes: int = Field(
        1 << 27,
        ge=1,
        le=1 << 30,
        description="The longest line of a VCF that is read; a task takes some seven times as much memory.",
    )
    same_name: str = Field(
        "ask",
        pattern="^(ask|edition|file)$",
        description="What a file is whose name the lake has from another folder, where the samples do not tell: "
        "another edition, which replaces that one; another file, kept beside it; or ask, which refuses it.",
    )
    lines: str = Field(
        "auto",
        pattern="^(auto|features|samples)$",
        description="What the lines of a plain matrix are: features, samples, or auto, which goes by their names.",
    )
    gdc_column: str = Field(
        "unstranded",
        min_length=1,
        description="Column of GDC gene counts that is stored: unstranded, stranded_first and stranded_second are "
        "counts; beside them are tpm_unstranded, fpkm_unstranded and fpkm_uq_unstranded.",
    )
    gdc_name: str = Field(
        "sample",
        pattern="^(aliquot|sample|case)$",
        description="What names the samples of GDC files, by a sheet or their barcodes: aliquot, sample or case.",
    )
    aliquots: Names = Field(
        ["type", "vial", "portion", "-plate"],
        description="Which of several aliquots of a sample stands for it: the first by these parts of its barcode in "
        "turn, the smallest first, or with - in front the largest.",
    )
    ensembl_versions: str = Field(
        "drop",
        pattern="^(drop|keep)$",
        description="Versions behind Ensembl identifiers of features, as in ENSG00000141510.18.",
    )
    flank: int = Field(
        200,
        ge=0,
        le=100_000,
        description="Bases of the reference on either side of a measured variant that are stored with it.",
    )
    methylation: str = Field(
        "auto",
        pattern="^(auto|beta|M)$",
        description="What values of methylation are: beta (0 to 1), M, or auto, which goes by their range.",
    )
    call_probability: float = Field(
        0.9,
        gt=0.5,
        le=1,
        description="The probability from which a genotype of a BGEN file is a call; below it is missing.",
    )
    strict: bool = Field(
        False,
        description="A VCF whose header has a line that breaks the specification is refused, "
        "also where records can be read without it.",
    )
    layer: Text = Field("X", description="Which matrix of an h5ad is read: X, raw, or the name of a layer.")
    feature_type: Text = Field(
        "Gene Expression", description="Which features of 10x are read where a file has several types of them."
    )


class Target(Section):
    """What is predicted."""

    classes: Names = Field(
        [], description="Only rows of these classes, the last one positive; empty for all, sorted by name."
    )
    kind: str = Field(
        "auto",
        pattern="^(auto|classes|regression|none|bases)$",
        description="classes or regression; auto means regression where the label column is called value; "
        "none learns from rows without labels, and bases from sequences without, of which it hides bases.",
    )
    values: Names = Field(
        [], description="Label columns that are values whatever target.kind says, where there are several."
    )
    event: Text | None = Field(
        None,
        description="Column that says whether the event came at the time in the label column: "
        "1 or 0, true or false, yes or no.",
    )
    horizons: list[Annotated[float, Field(gt=0)]] = Field(
        [],
        max_length=256,
        description="With target.event: times in the unit of the label, ascending, at which models say how probable "
        "it is that the event has not come; empty for 11, evenly from the tenth to the ninetieth percentile of those "
        "at which it came.",
    )
    within: Text | None = Field(
        None,
        description="Column of what was measured together, such as an element: values are learnt as standard "
        "scores among the rows of the same value there. No part of a split may divide these.",
    )

    @model_validator(mode="after")
    def _ascending(self) -> Target:
        if sorted(set(self.horizons)) != self.horizons:
            raise ValueError("horizons in ascending order, each once")
        return self


class Factor(Section):
    """Several questions of one kind in one cohort, such as what each of some transcription factors binds."""

    column: Text | None = Field(
        None,
        description="Column of labels, or of the sample table, whose values get a head each, of the one label column: "
        "a row teaches, and measures, the head of its own value.",
    )


class Reporting(Section):
    """What is reported beside the whole."""

    by: Text | None = Field(
        None, description="Column of the sample table, or of labels, whose values get metrics of their own."
    )


class Monitor(Section):
    """Limits of genodl monitor."""

    psi: float = Field(
        0.25,
        ge=0,
        description="Population stability index from which a feature, or the shares of the predicted classes, "
        "has drifted (.1 is little, .25 a lot: Siddiqi 2006); raised by what is to be expected "
        "without drift of so few rows.",
    )
    alpha: float = Field(
        0.01, gt=0, lt=1, description="Chance that among all features of a model one without drift counts as drifted."
    )
    bins: int = Field(10, ge=2, le=100, description="Bins of a feature, at most; fewer for few rows.")
    drifted: float = Field(0.1, ge=0, le=1, description="Share of features that may have drifted; 1 is never exceeded.")
    missing: float = Field(
        0.1,
        ge=0,
        le=1,
        description="By how much the share of missing values may exceed that of the training data; "
        "1 is never exceeded.",
    )
    score: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Kolmogorov-Smirnov distance of the scores from held-out ones; 1 is never exceeded.",
    )
    unscored: float = Field(
        0.0, ge=0, le=1, description="Share of a cohort's entities that may lack a prediction; 1 is never exceeded."
    )
    stale: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of predictions whose entity may have other features since; 1 is never exceeded.",
    )
    prediction_hours: float = Field(
        0.0, ge=0, description="Hours since the newest prediction, at most; 0 is not checked."
    )
    ingest_hours: float = Field(0.0, ge=0, description="Hours since a cohort's newest file, at most; 0 is not checked.")
    quarantined: float = Field(
        0.01, ge=0, le=1, description="Share of a file's records that may be in quarantine; 1 is never exceeded."
    )
    records: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Records of a file, at least, as a share of the median of its kind in the cohort, "
        "from three files on; 0 is not checked. The default leaves chromosomes Y and 21 beside others alone.",
    )
    worst: int = Field(20, ge=0, description="Features or files, at most, that have findings of their own.")


class Stream(Section):
    """How genodl stream takes new files."""

    kind: Text = Field(
        "",
        description="Kind of source that the files are of; empty for the only one that fills the task's tables.",
    )
    every_seconds: float = Field(60.0, gt=0, description="How often a stream looks for new files.")
    files: int = Field(1000, ge=1, description="New files that are ingested and scored at a time, at most.")


class Logs(Section):
    """What a run writes on stderr while it goes on."""

    format: str = Field(
        "text",
        pattern="^(text|json)$",
        description="Lines for people (text), or JSON with the verb, the run, Spark's application and the versions of "
        "tables read and written (json), which conf/cluster.toml has. The last line of a job that failed is text.",
    )


class OwnCode(Section):
    """Python files of the user's own."""

    trusted: bool = Field(
        False,
        description="Python files that are stored with a model may run. Without it they do only where today's command "
        "names the same file itself.",
    )


class Settings(Section):
    """Effective settings of one job."""

    spark: dict[str, str] = Field(
        {}, description="Properties of Spark, with or without the leading spark. of their names."
    )
    seed: int = Field(0, ge=0, description="Seed of splits, starts, shuffling and search.")
    tracking: Tracking = Tracking()
    ingest: Ingest = Ingest()
    qc: QualityControl = QualityControl()
    call: Calling = Calling()
    cluster: Cluster = Cluster()
    annotation: str = Field(
        "", description="Cohort of the annotation that annotate takes; empty for the only one in the lake."
    )
    reference: str = Field(
        "",
        description="Cohort of the reference that annotate takes, and that windows of variants and negatives of the "
        "genome are cut from; empty for that of the annotation, of the variants, or the only one.",
    )
    implementation: str = Field(
        "",
        description="Task of genodl_spark/tasks that reads the features, or a Python file of your own "
        "with a function features(settings).",
    )
    label: Text = Field(
        "label", description="Column that holds the label; several, with commas between them, are learnt together."
    )
    metric: str = Field(
        "balanced_accuracy",
        description="The metric that models are compared by, such as balanced_accuracy, macro_f1, auroc, "
        "r2 or spearman. For regression, where it is one of classes, r2.",
    )
    blocks: Names = Field(
        [], description="Blocks of features that the task takes; empty for those that it takes by itself."
    )
    covariates: Names = Field(
        [],
        description="Columns of the sample table, or of labels, that are features too; burden:GENE:CLASS is what "
        "variants do to a gene: copies of alleles of lof, missense, synonymous or a term of the Sequence Ontology.",
    )
    min_feature_overlap: float = Field(
        0.5, ge=0, le=1, description="Share of a model's features that a cohort has to have to be scored."
    )
    target: Target = Target()
    factor: Factor = Factor()
    split: Split = Split(folds=5)
    quality: Quality = Quality()
    sequence: Sequences = Sequences()
    variants: Variants = Variants()
    model: dict[str, Any] = Field(
        {"kind": "mlp"},
        description="The network: kind names a file of genodl_spark/learning/models, or a Python file of your own "
        "with a class Network; the rest are its options.",
    )
    clock: Clock = Clock()
    train: Train = Train()
    feed: Feed = Feed()
    predict: Predict = Predict()
    explain: Explain = Explain()
    biomarkers: Biomarkers = Biomarkers()
    enrichment: Enrichment = Enrichment()
    evaluate: Evaluation = Evaluation()
    tune: Tune = Tune()
    report: Reporting = Reporting()
    monitor: Monitor = Monitor()
    stream: Stream = Stream()
    maintain: Maintenance = Maintenance()
    lock: Lock = Lock()
    log: Logs = Logs()
    code: OwnCode = OwnCode()
    task: str = Field(
        "", description="The TOML's stem: what tables call the task. It follows from the task that is named."
    )  # the TOML's stem: what tables call the task
    _code: dict[str, bytes] = PrivateAttr(default_factory=dict)

    @property
    def code_files(self) -> Code:
        """The Python files that the command names as task or network, or that are stored with a model:
        content by base name."""
        return self._code

    def with_code(self, code: Code) -> Settings:
        made = self.model_copy()
        made._code = dict(code)
        return made

    def own_code(self) -> dict[str, bytes]:
        """Those of `code_files` that these settings use. InputError where one is not there."""
        names = {key: name for key, name in own_names(self.model_dump()).items() if own_code.is_own(name)}
        for key, name in names.items():
            if name not in self._code:
                raise InputError(f"found no file {name}; expected the Python file that it names, check its path", key)
        return {name: self._code[name] for name in names.values()}


# settings that may name a Python file of the user's own
OWN = ("implementation", "model.kind", "quality.transform", "train.loss")


def own_names(content: Mapping[str, Any]) -> dict[str, str]:
    """Values of the settings of OWN, by dotted key, in a tree of settings that may lack some."""
    found = {}
    for key in OWN:
        level: Any = content
        for part in key.split("."):
            level = level.get(part) if isinstance(level, Mapping) else None
        if isinstance(level, str):
            found[key] = level
    return found


def load(
    task: str | None = None, config: str | None = None, assignments: list[str] | None = None, place: str = "local"
) -> Settings:
    """Effective settings of a job that runs on a `place` (local or cluster). InputError, naming file or key,
    for what is unknown, mistyped or unreadable.

    A Python file of the user's own (`implementation`, `model.kind`) is read here: a path in a TOML
    is one from the TOML's folder, in an assignment one from the working directory. Settings keep its base name.
    """
    layers: list[tuple[str | None, dict[str, Any]]] = [
        (None, read(conf_directory() / f"{name}.toml")) for name in ("base", place)
    ]
    if task is not None:
        path = task_file(task)
        content = read(path)
        name = path.name.removesuffix(".toml")
        partition_folder("task", name, str(path))
        layers.append((str(path), {"implementation": name, **content, "task": name}))
    if config is not None:
        if not Path(config).is_file():
            raise InputError("no such file; expected a TOML of settings, check the path", config)
        layers.append((config, read(Path(config))))
    layers.append((None, assigned(assignments or [])))
    merged: dict[str, Any] = {}
    code: dict[str, bytes] = {}
    for file, layer in layers:
        check_values(layer, file)
        redaction.learn(layer)
        merged = merge(merged, _with_code(_flat_space(layer), Path(file or "").parent, code))
        _validate(merged, file)  # so that an error names the file that brought it
    if task is not None:
        merged = _of_its_kind(merged, layers[2][1], [layer for _, layer in layers[3:]], code)
    return _validate(merged, None).with_code(code)


def _of_its_kind(
    merged: dict[str, Any], task: dict[str, Any], asked: list[dict[str, Any]], code: Code
) -> dict[str, Any]:
    """Settings without what a task's TOML says of its own kind of network where another is `asked` for: options that
    this one does not take, or takes as another type, and their search. What is asked for besides is left for the
    network to refuse; one of the user's own is not run to ask what it takes."""
    given, model = task.get("model", {}), merged.get("model", {})
    kind = model.get("kind", "mlp")
    if kind == given.get("kind", "mlp") or own_code.is_own(kind):
        return merged
    from genodl_spark.learning import models

    taken = models.options(model, code)

    def fits(name: str, value: Any) -> bool:
        return name in taken and (taken[name] is None or isinstance(value, type(taken[name])))

    lost = {name for name, value in given.items() if name != "kind" and not fits(name, value)}
    searched = [key for key in task.get("tune", {}).get("space", {}) if key.startswith("model.")]
    lost |= {key.removeprefix("model.") for key in searched} - {"kind", *taken}
    lost -= {name for layer in asked for name in layer.get("model", {})}
    found = {**merged, "model": {name: value for name, value in model.items() if name not in lost}}
    if "tune" in merged:
        own = {key for layer in asked for key in _flat_space(layer).get("tune", {}).get("space", {})}
        space = merged["tune"].get("space", {})
        left = {key: value for key, value in space.items() if key in own or key.removeprefix("model.") not in lost}
        found["tune"] = {**merged["tune"], "space": left}
    return found


def _with_code(layer: dict[str, Any], folder: Path, code: dict[str, bytes]) -> dict[str, Any]:
    """A layer whose own Python files are named by their base names; adds their content to `code`."""

    def named(value: Any) -> Any:
        if not isinstance(value, str) or not own_code.is_own(value):
            return value
        path = folder / value
        if path.is_file():
            content = path.read_bytes()
            if code.setdefault(path.name, content) != content:
                raise InputError(
                    "found another file of the same name; expected names that differ, rename one", str(path)
                )
        return path.name

    found = dict(layer)
    for key, value in own_names(layer).items():
        section, _, last = key.rpartition(".")
        if section:
            found[section] = {**found[section], last: named(value)}
        else:
            found[last] = named(value)
    tune = layer.get("tune")
    space = tune.get("space") if isinstance(tune, dict) else None
    kinds = space.get("model.kind") if isinstance(space, dict) else None
    if (
        isinstance(tune, dict)
        and isinstance(space, dict)
        and isinstance(kinds, dict)
        and isinstance(kinds.get("choices"), list)
    ):
        found["tune"] = {
            **tune,
            "space": {**space, "model.kind": {**kinds, "choices": [named(choice) for choice in kinds["choices"]]}},
        }
    return found


FORMAT = 2  # of stored settings; 1 had no number, and the path of a Python file
# What decides which features a model takes, what it answers and how that is measured:
# these must be read as they were meant.
_SHAPING = (
    "task",
    "implementation",
    "label",
    "metric",
    "blocks",
    "covariates",
    "target",
    "split",
    "quality",
    "sequence",
    "variants",
    "model",
    "seed",
)


def stored(settings: Settings) -> str:
    """Settings as they are kept in tables: JSON with the number of its format, without secrets."""
    return json.dumps({"format": FORMAT, **redaction.settings(settings.model_dump(mode="json"))})


def from_stored(text: str, place: str) -> tuple[Settings, list[str]]:
    """Settings that `stored` made, of this version or an older one, and the keys that were passed over:
    those of sections that shape no answer of a model and that are not known any more, or mean something else.
    InputError, with `place`, for what cannot be read."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InputError(
            f"found stored settings that are no JSON object ({text[:40]!r}); expected those of a model, train it again",
            place,
        )
    number = document.pop("format", 1)
    kept = {key: value for key, value in document.items() if key in _SHAPING}
    if not isinstance(number, int) or not 1 <= number <= FORMAT:
        raise InputError(
            f"found stored settings of format {number!r}; expected {FORMAT} or older, use the version that stored them",
            place,
        )
    for name, table in ((("implementation", kept), ("kind", kept.get("model")))) if number == 1 else ():
        if isinstance(table, dict) and own_code.is_own(str(table.get(name))):
            table[name] = Path(table[name]).name
    passed: list[str] = []
    for key, value in document.items():
        if key in _SHAPING:
            continue
        part, strange = _readable(key, value)
        kept |= part
        passed += strange
    try:
        return Settings.model_validate(kept), passed
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(one) for one in first["loc"])
        text = (
            f"found stored settings whose {key} is not known here ({first['msg']}); expected one that is, "
            "as it shapes the model's answers"
        )
        raise InputError(f"{text}: use the version that stored them, or train it again", place) from error


def _readable(key: str, value: Any) -> tuple[dict[str, Any], list[str]]:
    """A section of stored settings without the keys that are not known or do not validate, and these."""
    try:
        Settings.model_validate({key: value})
    except ValidationError as error:
        strange = {str(one["loc"][1]) for one in error.errors(include_url=False) if len(one["loc"]) > 1}
        if isinstance(value, dict) and strange:
            rest, more = _readable(key, {name: inner for name, inner in value.items() if name not in strange})
            return rest, sorted({*(f"{key}.{name}" for name in strange), *more})
        return {}, [key]
    return {key: value}, []


def override(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Settings with the values of some dotted keys replaced. InputError, naming the key,
    for one that is unknown or mistyped."""
    content = settings.model_dump()
    for key, value in values.items():
        *parents, last = key.split(".")
        level = content
        for parent in parents:
            level = level.setdefault(parent, {})
        level[last] = value
    return _validate(content, None).with_code(settings.code_files)


def _flat_space(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer whose search space names its settings by dotted keys, which --set and TOML take for tables in tables."""
    tune = layer.get("tune")
    if not isinstance(tune, dict) or not isinstance(tune.get("space"), dict):
        return layer
    flat: dict[str, Any] = {}

    def walk(prefix: str, table: dict[str, Any]) -> None:
        for key, value in table.items():
            if isinstance(value, dict) and value and not value.keys() & Dimension.model_fields.keys():
                walk(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = value

    walk("", tune["space"])
    return {**layer, "tune": {**tune, "space": flat}}


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # A split is one of three forms, a dimension one of two: keys of two of them mean nothing together.
        whole = key == "split" or (isinstance(value, dict) and value.keys() & {"low", "high", "choices"})
        merged[key] = merge(merged[key], value) if both and not whole else value
    return merged


def _validate(merged: dict[str, Any], file: str | None) -> Settings:
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _keys(Settings)
            close = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f", such as {close[0]}" if close else f": {', '.join(sorted({k.split('.')[0] for k in known}))}"
            message = f"unknown key; expected a known one{hint}"
        else:
            found = redaction.HIDDEN if redaction.is_secret(key) else redaction.text(f"{first['input']!r:.200}")
            message = f"found {found}; expected: {first['msg']}"
        raise InputError(message if file is None else f"{key}: {message}", key if file is None else file) from error


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += _keys(info.annotation, f"{prefix}{name}.")
    return keys
