"""Settings: conf/base.toml, local.toml or cluster.toml there, the task's TOML, --config, --set; typed, and an unknown key is an error."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, StrictFloat, StrictInt, ValidationError, model_validator

from genodl_spark.core import own_code, redaction
from genodl_spark.core.errors import InputError
from genodl_spark.core.own_code import Code
from genodl_spark.lake.tables import partition_folder
from genodl_spark.learning.splits import Split


def _names(value: Any) -> Any:
    """A comma list, a number or a list of either, as a list of strings."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        return [str(part) for part in value]
    return [str(value)]


def _numbers(value: Any) -> Any:
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value if isinstance(value, list) else [value]


Names = Annotated[list[str], BeforeValidator(_names)]
Numbers = Annotated[list[int], BeforeValidator(_numbers)]
Text = Annotated[str, BeforeValidator(lambda value: value if value is None else str(value))]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Tracking(_Section):
    """MLflow: `uri` of the store (empty: a sqlite file in a local lake, else ./mlflow.db; `off`: none)."""

    uri: Text = ""
    experiment: Text = "genodl-spark"


class Ingest(_Section):
    """`sample_chunk`: samples per piece when a matrix is transposed. `batch`: VCF records per Arrow batch, at most.

    `bin_width`: bases per position bin of `variants`. `split_alleles`: records of several ALT alleles become one for each.
    `line_bytes`: the longest line of a VCF that is read; a task takes some seven times as much memory.
    `same_name`: what a file is whose name the lake has from another folder, where the samples do not tell: another `edition`, which
    replaces that one; another `file`, kept beside it; or `ask`, which refuses it. `strict`: a VCF whose header has a line that
    breaks the specification is refused, also where records can be read without it.
    """

    sample_chunk: int = Field(256, ge=1)
    batch: int = Field(65_536, ge=1)
    bin_width: int = Field(1 << 26, ge=1)
    split_alleles: bool = False
    line_bytes: int = Field(1 << 27, ge=1, le=1 << 30)
    same_name: str = Field("ask", pattern="^(ask|edition|file)$")
    strict: bool = False


class Target(_Section):
    """`classes`: only rows of these classes, the last one positive; empty for all, sorted by name.

    `kind`: classes or regression; auto means regression where the label column is called value.
    """

    classes: Names = []
    kind: str = Field("auto", pattern="^(auto|classes|regression)$")


class Quality(_Section):
    """Choice and treatment of features; everything is fitted on training rows only.

    `min_allele_frequency`: variants whose rarer allele is less frequent among the cohort's samples are left out.
    `max_missing`: features with a larger share of missing values are left out. `max_features`: at most so many variants,
    evenly spaced over the sites that pass; 0 for all. `transform`: auto (asinh where values exceed 50), none or asinh.
    `select`: the best so many features by F statistic in each training set; 0 for all.
    """

    min_allele_frequency: float = Field(0.0, ge=0, le=0.5)
    max_missing: float = Field(1.0, ge=0, le=1)
    max_features: int = Field(0, ge=0)
    transform: str = Field("auto", pattern="^(auto|none|asinh)$")
    select: int = Field(0, ge=0)


class Sequences(_Section):
    """`length`: bases of a sequence that networks see, aligned at the centre; 0 for the longest of the cohort."""

    length: int = Field(0, ge=0)


class Train(_Section):
    """The training loop. `batch` is the global batch, whatever the number of ranks `procs`.

    `ensemble`: networks of different seeds behind one model. `epochs`: raised for small data until `min_steps` are done.
    `patience`: epochs without a better validation loss before training ends, each network at its best epoch; 0 trains them all to the end.
    `schedule`: of the learning rate after the warm-up: cosine to 0; plateau, times `plateau_factor` when the validation loss has not fallen
    for `plateau_patience` epochs; or constant. `scale_from`: batch for which `learning_rate` is meant: larger batches scale it up over the
    warm-up; 0 leaves it. `amp`: mixed precision. `accumulate`: pieces that a rank computes its share of a batch in. `compression`: of
    gradients between ranks. `ema`: decay of averaged weights, 0 for none. `mixup`: alpha of its Beta distribution, 0 for none.
    `compile`: torch.compile; auto on a GPU with enough steps. `checkpoint_seconds`: between checkpoints. `restarts`: from the last
    checkpoint when ranks are lost; on a cluster those that are left go on at once where `elastic` is set. `launcher`: spark (one task
    a rank), horovodrun (processes on `hosts`, such as a:4,b:4, through ssh, or here) or process (one, in the driver).
    """

    procs: int = Field(2, ge=1, le=65_536)
    ensemble: int = Field(5, ge=1, le=4096)
    epochs: int = Field(40, ge=1, le=1_000_000)
    min_steps: int = Field(300, ge=0, le=1 << 31)
    batch: int = Field(64, ge=1, le=1 << 24)
    learning_rate: float = Field(1e-3, gt=0, le=1e3)
    weight_decay: float = Field(1e-2, ge=0, le=1e6)
    warmup_epochs: float = Field(1.0, ge=0)
    clip: float = Field(1.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    patience: int = Field(0, ge=0)
    dtype: str = Field("float32", pattern="^(float32|float64)$")
    schedule: str = Field("cosine", pattern="^(cosine|plateau|constant)$")
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: int = Field(3, ge=0)
    scale_from: int = Field(0, ge=0)
    amp: str = Field("off", pattern="^(off|bf16|fp16)$")
    accumulate: int = Field(1, ge=1)
    compression: str = Field("none", pattern="^(none|fp16)$")
    ema: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0)
    compile: str = Field("auto", pattern="^(auto|on|off)$")
    checkpoint_seconds: float = Field(60.0, gt=0)
    restarts: int = Field(3, ge=0)
    elastic: bool = True
    launcher: str = Field("spark", pattern="^(spark|horovodrun|process)$")
    hosts: Text = Field("", pattern=r"^(\w[\w.-]*:[0-9]+(,\w[\w.-]*:[0-9]+)*)?$")


class Feed(_Section):
    """`backend`: petastorm or pyarrow. `resident_bytes`: packed data up to this size stays in memory.

    `rows_per_file`: rows of a training file, which is one row group. `readers`: threads that decode files. `prefetch`: batches made ahead
    for a GPU; data up to `device_bytes` stays on it.
    """

    backend: str = Field("petastorm", pattern="^(petastorm|pyarrow)$")
    resident_bytes: int = Field(2 << 30, ge=1)
    readers: int = Field(2, ge=1)
    prefetch: int = Field(2, ge=0)
    device_bytes: int = Field(1 << 30, ge=0)
    rows_per_file: int = Field(5000, ge=1)


class Predict(_Section):
    """`batch`: rows that a model computes at once, fixed when it is trained; short batches are filled up; 0 for what suits the width of a row.

    `precision`: float32, or bf16 or fp16 for what networks multiply. `passes`: with dropout, whose spread is the uncertainty of a model
    that is one network; 0 for none. `least_probability`: a class predicted with less is marked as an abstention, as are rows unlike those
    of training. `first`, `last`: only entities from the one to the other by name, both included, are scored, and these whether or not they
    have been; empty for no bound.
    """

    batch: int = Field(0, ge=0, le=1 << 20)
    precision: str = Field("float32", pattern="^(float32|bf16|fp16)$")
    passes: int = Field(0, ge=0, le=100_000)
    least_probability: float = Field(0.5, ge=0, le=1)
    first: Text = ""
    last: Text = ""


class Evaluation(_Section):
    """`baselines`: fitted on the same splits. `resamples`: of the group bootstrap. `max_rows`: training rows per baseline fit.

    `null`: the model's network, trained again on shuffled labels, stands beside it as the baseline `shuffled_labels`; that takes as long as the
    training did. `options`: baseline -> option -> value, in place of the fixed ones of genodl_spark/learning/baselines.py.
    """

    null: bool = False
    baselines: Names = ["majority", "linear_svm", "random_forest", "decision_tree", "logistic"]
    resamples: int = Field(1000, ge=0)
    max_rows: int = Field(20_000, ge=1)
    options: dict[str, dict[str, Any]] = {}


class Dimension(_Section):
    """Values that a setting may take in a search: `low` to `high`, both included, evenly, by `log` or in steps of `step`; or one of `choices`."""

    low: StrictInt | StrictFloat | None = None
    high: StrictInt | StrictFloat | None = None
    log: bool = False
    step: StrictInt | StrictFloat | None = None
    choices: list[Any] | None = None

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


class Tune(_Section):
    """The search of `genodl tune`. `trials`: how many in all; the first is the task's own configuration, the first `startup` are drawn at random.

    `parallel`: trials under way at once; 0 for twice the task slots, so that none waits for a long trial. `folds`: of the training rows, where
    the split has no validation rows. `test`: share of the rows that is set aside where the split is a cross-validation. `ensemble`: networks of
    a training set in a trial. `rungs`: shares of the epochs at which a trial ends unless it is among the best 1 / `reduction` of those before it.
    `storage`: URL of Optuna's database; empty: a sqlite file in a local lake, else the table `trials` alone. `space`: setting -> its values.
    """

    trials: int = Field(30, ge=1)
    startup: int = Field(10, ge=1)
    parallel: int = Field(0, ge=0)
    folds: int = Field(5, ge=2, le=127)
    test: float = Field(0.2, gt=0, lt=1)
    ensemble: int = Field(1, ge=1)
    rungs: list[Annotated[float, Field(gt=0, lt=1)]] = [1 / 9, 1 / 3]
    reduction: int = Field(3, ge=2)
    storage: Text = ""
    space: dict[str, Dimension] = {}

    @model_validator(mode="after")
    def _ascending(self) -> Tune:
        if sorted(set(self.rungs)) != self.rungs:
            raise ValueError("rungs in ascending order, each once")
        return self


class Reporting(_Section):
    """`by`: column of the sample table whose values get metrics of their own."""

    by: Text | None = None


class QualityControl(_Section):
    """Quality control of genotypes. `steps`: some of variants, samples, pruning, relatedness, components.

    `min_allele_frequency`, `max_missing`: variants whose rarer allele is less frequent, or that a larger share of samples lacks, take part in
    neither pruning nor relatedness nor components. `kinship`: pairs above it are related; the default is where third degree begins.
    `pruned`: steps that use only variants in approximate linkage equilibrium; `window` (variants, or bases with `window_in_bases`),
    `step` and `r2` are those of PLINK's --indep-pairwise. `depth`: means of DP and GQ, for which all of FORMAT is read.
    """

    steps: Names = ["variants", "samples", "relatedness", "components"]
    min_allele_frequency: float = Field(0.01, ge=0, le=0.5)
    max_missing: float = Field(0.1, ge=0, le=1)
    kinship: float = Field(2**-4.5, ge=-10, le=0.5)
    components: int = Field(10, ge=1)
    pruned: Names = ["components"]
    window: int = Field(50, ge=2)
    window_in_bases: bool = False
    step: int = Field(5, ge=1)
    r2: float = Field(0.2, ge=0, le=1)
    depth: bool = True


class Monitor(_Section):
    """Limits of `genodl monitor`. Of a share, 1 is never exceeded; a `records` or hours of 0 are not checked.

    `psi`: population stability index from which a feature, or the shares of the predicted classes, has drifted (.1 is little, .25 a lot:
    Siddiqi 2006); raised by what is to be expected without drift of so few rows. `alpha`: chance that among all features of a model one
    without drift counts as drifted. `bins`: of a feature, at most; fewer for few rows. `drifted`: share of features that may have drifted.
    `missing`: by how much the share of missing values may exceed that of the training data. `score`: Kolmogorov-Smirnov distance of the
    scores from held-out ones. `unscored`, `stale`: share of a cohort's entities without a prediction, and of predictions whose entity has other
    features since. `prediction_hours`: since the newest prediction. `ingest_hours`: since a cohort's newest file. `quarantined`: share of a
    file's records. `records`: of a file, as a share of the median of its kind in the cohort, from three files on; the default leaves
    chromosomes Y and 21 beside others alone. `worst`: features or files, at most, that have findings of their own.
    """

    psi: float = Field(0.25, ge=0)
    alpha: float = Field(0.01, gt=0, lt=1)
    bins: int = Field(10, ge=2, le=100)
    drifted: float = Field(0.1, ge=0, le=1)
    missing: float = Field(0.1, ge=0, le=1)
    score: float = Field(0.2, ge=0, le=1)
    unscored: float = Field(0.0, ge=0, le=1)
    stale: float = Field(0.0, ge=0, le=1)
    prediction_hours: float = Field(0.0, ge=0)
    ingest_hours: float = Field(0.0, ge=0)
    quarantined: float = Field(0.01, ge=0, le=1)
    records: float = Field(0.02, ge=0, le=1)
    worst: int = Field(20, ge=0)


class OwnCode(_Section):
    """`trusted`: Python files that are stored with a model may run. Without it they do only where today's command names the same file itself."""

    trusted: bool = False


class Maintenance(_Section):
    """What `genodl maintain` keeps. `retention_hours`: files that no version, model, prediction or training run needs any more are removed when
    they have been unneeded for so long. `small_bytes`, `fewest`: partitions with so many files below so many bytes are compacted. `log_versions`:
    a table's log loses the versions that nothing has needed for so long, once they are so many.
    """

    retention_hours: float = Field(168.0, ge=0)
    small_bytes: int = Field(32 << 20, ge=0)
    fewest: int = Field(8, ge=2)
    log_versions: int = Field(50, ge=1)


class Lock(_Section):
    """`wait_seconds`: how long a run waits for another that is in its way, `forget` for those that write and they for it, before it gives up."""

    wait_seconds: float = Field(60.0, ge=0)


class Settings(_Section):
    """Effective settings of one job."""

    spark: dict[str, str] = {}
    seed: int = Field(0, ge=0)
    tracking: Tracking = Tracking()
    ingest: Ingest = Ingest()
    qc: QualityControl = QualityControl()
    implementation: str = ""
    label: Text = "label"
    metric: str = "balanced_accuracy"
    blocks: Names = []
    covariates: Names = []
    min_feature_overlap: float = Field(0.5, ge=0, le=1)
    target: Target = Target()
    split: Split = Split(folds=5)
    quality: Quality = Quality()
    sequence: Sequences = Sequences()
    model: dict[str, Any] = {"kind": "mlp"}
    train: Train = Train()
    feed: Feed = Feed()
    predict: Predict = Predict()
    evaluate: Evaluation = Evaluation()
    tune: Tune = Tune()
    report: Reporting = Reporting()
    monitor: Monitor = Monitor()
    maintain: Maintenance = Maintenance()
    lock: Lock = Lock()
    code: OwnCode = OwnCode()
    task: str = ""  # the TOML's stem: what tables call the task
    _code: dict[str, bytes] = PrivateAttr(default_factory=dict)

    @property
    def code_files(self) -> Code:
        """The Python files that the command names as task or network, or that are stored with a model: content by base name."""
        return self._code

    def with_code(self, code: Code) -> Settings:
        made = self.model_copy()
        made._code = dict(code)
        return made

    def own_code(self) -> dict[str, bytes]:
        """Those of `code_files` that these settings use. InputError where one is not there."""
        names = {"implementation": self.implementation, "model.kind": str(self.model.get("kind"))}
        for key, name in names.items():
            if own_code.is_own(name) and name not in self._code:
                raise InputError(f"found no file {name}; expected the Python file that it names, check its path", key)
        return {name: self._code[name] for name in names.values() if own_code.is_own(name)}


def conf_directory() -> Traversable:
    """conf/ of the checkout, or the copy inside the wheel, which may be a zip on the path (`--py-files`)."""
    inside = resources.files("genodl_spark") / "conf"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "conf"


def task_names() -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in (conf_directory() / "tasks").iterdir() if entry.name.endswith(".toml"))


def task_file(task: str) -> Traversable:
    """The TOML of a task named under conf/tasks/ or given as a path. InputError when there is none."""
    if task.endswith(".toml") or "/" in task:
        path = Path(task)
        if not path.is_file():
            raise InputError("no such task file; expected the path of a TOML, or a name under conf/tasks", task)
        return path
    if task not in task_names():
        raise InputError(f"found no task {task!r}; expected {', '.join(task_names())} or the path of a TOML", "TASK")
    return conf_directory() / "tasks" / f"{task}.toml"


def load(task: str | None = None, config: str | None = None, assignments: list[str] | None = None, place: str = "local") -> Settings:
    """Effective settings of a job that runs on a `place` (local or cluster). InputError, naming file or key, for what is unknown, mistyped
    or unreadable.

    A Python file of the user's own (`implementation`, `model.kind`) is read here: a path in a TOML is one from the TOML's folder, in an
    assignment one from the working directory. Settings keep its base name.
    """
    layers: list[tuple[str | None, dict[str, Any]]] = [(None, _read(conf_directory() / f"{name}.toml")) for name in ("base", place)]
    if task is not None:
        path = task_file(task)
        content = _read(path)
        name = path.name.removesuffix(".toml")
        partition_folder("task", name, str(path))
        layers.append((str(path), {"implementation": name, **content, "task": name}))
    if config is not None:
        if not Path(config).is_file():
            raise InputError("no such file; expected a TOML of settings, check the path", config)
        layers.append((config, _read(Path(config))))
    layers.append((None, _assigned(assignments or [])))
    merged: dict[str, Any] = {}
    code: dict[str, bytes] = {}
    for file, layer in layers:
        _check_values(layer, file)
        redaction.learn(layer)
        merged = _merge(merged, _with_code(_flat_space(layer), Path(file or "").parent, code))
        _validate(merged, file)  # so that an error names the file that brought it
    return _validate(merged, None).with_code(code)


def _with_code(layer: dict[str, Any], folder: Path, code: dict[str, bytes]) -> dict[str, Any]:
    """A layer whose own Python files are named by their base names; adds their content to `code`."""

    def named(value: Any) -> Any:
        if not isinstance(value, str) or not own_code.is_own(value):
            return value
        path = folder / value
        if path.is_file():
            content = path.read_bytes()
            if code.setdefault(path.name, content) != content:
                raise InputError("found another file of the same name; expected names that differ, rename one", str(path))
        return path.name

    found = {**layer, "implementation": named(layer["implementation"])} if "implementation" in layer else dict(layer)
    if isinstance(model := layer.get("model"), dict) and "kind" in model:
        found["model"] = {**model, "kind": named(model["kind"])}
    tune = layer.get("tune")
    space = tune.get("space") if isinstance(tune, dict) else None
    kinds = space.get("model.kind") if isinstance(space, dict) else None
    if isinstance(tune, dict) and isinstance(space, dict) and isinstance(kinds, dict) and isinstance(kinds.get("choices"), list):
        found["tune"] = {**tune, "space": {**space, "model.kind": {**kinds, "choices": [named(choice) for choice in kinds["choices"]]}}}
    return found


FORMAT = 2  # of stored settings; 1 had no number, and the path of a Python file
# What decides which features a model takes, what it answers and how that is measured: these must be read as they were meant.
_SHAPING = ("task", "implementation", "label", "metric", "blocks", "covariates", "target", "split", "quality", "sequence", "model", "seed")


def stored(settings: Settings) -> str:
    """Settings as they are kept in tables: JSON with the number of its format, without secrets."""
    return json.dumps({"format": FORMAT, **redaction.settings(settings.model_dump(mode="json"))})


def from_stored(text: str, place: str) -> tuple[Settings, list[str]]:
    """Settings that `stored` made, of this version or an older one, and the keys that were passed over: those of sections that shape no answer
    of a model and that are not known any more, or mean something else. InputError, with `place`, for what cannot be read."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InputError(f"found stored settings that are no JSON object ({text[:40]!r}); expected those of a model, train it again", place)
    number = document.pop("format", 1)
    kept = {key: value for key, value in document.items() if key in _SHAPING}
    if not isinstance(number, int) or not 1 <= number <= FORMAT:
        raise InputError(f"found stored settings of format {number!r}; expected {FORMAT} or older, use the version that stored them", place)
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
        text = f"found stored settings whose {key} is not known here ({first['msg']}); expected one that is, as it shapes the model's answers"
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
    """Settings with the values of some dotted keys replaced. InputError, naming the key, for one that is unknown or mistyped."""
    content = settings.model_dump()
    for key, value in values.items():
        *parents, last = key.split(".")
        level = content
        for parent in parents:
            level = level.setdefault(parent, {})
        level[last] = value
    return _validate(content, None).with_code(settings.code_files)


_DEPTH = 32  # tables and lists within each other
_LARGEST = 1 << 53  # integers that a double holds
# The time that tomllib takes grows with the square of a dotted key's parts.
_LONG_KEY = re.compile(r"(?<![\w\-.\"' ])(?:[\w\-\"']++[ \t]*+\.[ \t]*+){" + str(_DEPTH) + "}")


def _read(path: Traversable) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if found := _LONG_KEY.search(text):
            line = text.count("\n", 0, found.start()) + 1
            raise InputError(f"found a key of more than {_DEPTH} parts; expected {_DEPTH} at most, shorten it", str(path), line)
        content = tomllib.loads(text)
    except RecursionError as error:
        raise InputError("found values nested too deeply; expected a TOML of settings, mend the file", str(path)) from error
    except ValueError as error:  # of the encoding, the syntax, or a number of thousands of digits
        raise InputError(f"not readable as TOML: {error}; mend the file", str(path)) from error
    if "spark" in content:
        if not isinstance(content["spark"], dict):
            raise InputError(f"spark: found {content['spark']!r:.80}; expected a table of Spark's properties", str(path))
        content["spark"] = _properties(content["spark"])
    return content


def _check_values(layer: dict[str, Any], file: str | None) -> None:
    """InputError for a number that is not finite or beyond what a double holds, and for what is nested too deeply."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), layer)]
    while pending:
        path, value = pending.pop()
        key = ".".join(path)
        text = ""
        if isinstance(value, dict):
            pending += [((*path, name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            pending += [((*path, str(number)), inner) for number, inner in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            text = f"found {value}; expected a finite number"
        elif isinstance(value, int) and abs(value) > _LARGEST:
            text = f"found a number of {value.bit_length()} bits; expected one of 53 at most"
        if len(path) > _DEPTH:
            key, text = ".".join(path[:4]) + "...", f"found more than {_DEPTH} levels of tables and lists; expected fewer"
        if text:
            raise InputError(text if file is None else f"{key}: {text}", key if file is None else file)


def _properties(table: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables of Spark properties as dotted names that begin with `spark.`."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(_properties(value, f"{name}."))
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            flat[name if name.startswith("spark.") else f"spark.{name}"] = text
    return flat


def _assigned(assignments: list[str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise InputError(f"found {assignment!r}; expected KEY=VALUE", "--set")
        if key.count(".") >= _DEPTH:
            raise InputError(f"found a key of more than {_DEPTH} parts; expected {_DEPTH} at most, shorten it", "--set")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            value = text
        if key.startswith("spark."):
            nested.setdefault("spark", {})[key] = str(value).lower() if isinstance(value, bool) else str(value)
            continue
        *parents, last = key.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
            if not isinstance(level, dict):
                raise InputError("a value is set both for this key and below it; set one of them", key)
        level[last] = value
    return nested


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


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # A split is one of three forms, a dimension one of two: keys of two of them mean nothing together.
        whole = key == "split" or (isinstance(value, dict) and value.keys() & {"low", "high", "choices"})
        merged[key] = _merge(merged[key], value) if both and not whole else value
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
