"""Settings of data sets, training, search, evaluation and prediction."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, StrictFloat, StrictInt, model_validator

from genodl_spark.core.toml import Names, Section, Text


class Quality(Section):
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


class Sequences(Section):
    """`length`: bases of a sequence that networks see, aligned at the centre; 0 for the longest of the cohort."""

    length: int = Field(0, ge=0)


class Train(Section):
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


class Feed(Section):
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


class Predict(Section):
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


class Evaluation(Section):
    """`baselines`: fitted on the same splits. `resamples`: of the group bootstrap. `max_rows`: training rows per baseline fit.

    `null`: the model's network, trained again on shuffled labels, stands beside it as the baseline `shuffled_labels`; that takes as long as the
    training did. `options`: baseline -> option -> value, in place of the fixed ones of genodl_spark/learning/baselines.py.
    """

    null: bool = False
    baselines: Names = Field(["majority", "linear_svm", "random_forest", "decision_tree", "logistic"])
    resamples: int = Field(1000, ge=0)
    max_rows: int = Field(20_000, ge=1)
    options: dict[str, dict[str, Any]] = Field({})


class Dimension(Section):
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


class Tune(Section):
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
    rungs: list[Annotated[float, Field(gt=0, lt=1)]] = Field([1 / 9, 1 / 3])
    reduction: int = Field(3, ge=2)
    storage: Text = ""
    space: dict[str, Dimension] = Field({})

    @model_validator(mode="after")
    def _ascending(self) -> Tune:
        if sorted(set(self.rungs)) != self.rungs:
            raise ValueError("rungs in ascending order, each once")
        return self
