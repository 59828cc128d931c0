"""Search for the settings of a task: its space, the study that proposes trials, and what a trial does.
The only file that imports Optuna.

A search is reproducible, however many trials are under way at once and however often it is interrupted:
trials are told to the study in the order of their numbers, trial n is drawn from a seed of its own when exactly
the trials up to n - window have been told, and what it must reach at each rung follows from the values of those alone.
Nothing depends on which trial ends first.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.learning.settings import Dimension, Train
from genodl_spark.learning.training import plan

if TYPE_CHECKING:
    import optuna
    from pyspark.sql import Row

Storage: TypeAlias = "optuna.storages.BaseStorage"
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
IMPORTANCE_TRIALS = 10  # fewer say little of which setting matters
_DIVERGED = "train.learning_rate"  # what the training loop names where its loss is not finite
_SALT = 0x7E57


@dataclass(frozen=True)
class Space:
    """Settings to search by dotted key; `start`: the values of the first trial, those that the task has anyway."""

    dimensions: dict[str, Dimension]
    start: dict[str, Any]

    def as_json(self) -> str:
        return json.dumps(
            {key: d.model_dump(exclude_defaults=True) for key, d in self.dimensions.items()}, sort_keys=True
        )


def typed(dimensions: Mapping[str, Dimension], start: Mapping[str, Any], place: str) -> Space:
    """A space whose ranges have the type of the values to start from. InputError where such
    a value lies outside its range."""
    made = {}
    for key, d in dimensions.items():
        value = start[key]
        if (
            d.low is not None
            and d.high is not None
            and any(isinstance(v, float) for v in (value, d.low, d.high, d.step))
        ):
            d = d.model_copy(
                update={"low": float(d.low), "high": float(d.high), "step": None if d.step is None else float(d.step)}
            )
        if not _inside(d, value):
            shown = d.model_dump(exclude_defaults=True)
            raise InputError(
                f"found {shown}, without the task's own value {value!r}; expected a range around it, "
                "as the first trial is the task as it is",
                f"{place}.{key}",
            )
        made[key] = d
    return Space(made, dict(start))


def _inside(d: Dimension, value: Any) -> bool:
    if d.choices is not None:
        return json.dumps(value) in {json.dumps(choice) for choice in d.choices}
    assert d.low is not None and d.high is not None
    if isinstance(value, bool) or not isinstance(value, int | float) or not d.low <= value <= d.high:
        return False
    return d.step is None or abs((value - d.low) / d.step - round((value - d.low) / d.step)) < 1e-6


def cutoffs(before: Sequence[Sequence[float]], rungs: int, reduction: int) -> list[float]:
    """What a trial must not exceed at each rung to go on: there it has to be among the best 1 / `reduction`
    of itself and those `before`.

    `before`: of each trial its values at the rungs that it reached. Infinity where fewer than `reduction` would
    be compared (successive halving without waiting: Li et al. 2020, ASHA).
    """
    found = []
    for rung in range(rungs):
        values = sorted(trial[rung] for trial in before if len(trial) > rung)
        kept = (len(values) + 1) // reduction
        found.append(values[kept - 1] if kept else math.inf)
    return found


def stops(options: Train, rows: int, rungs: Sequence[float], redrawn: bool = False, started: bool = False) -> list[int]:
    """Epochs after which a trial is looked at, the last of them the end, for `options` of the training
    loop and `rows` to train on, of which negatives may be `redrawn` in each; `started` as `plan.epochs` has it."""
    epochs = plan.epochs(options, rows, redrawn, started)
    return [math.ceil(share * epochs) for share in rungs] + [epochs]


def loss(history: Sequence[Mapping[str, Any]], folds: int, best_epoch: bool) -> float:
    """Mean validation loss over training sets and their networks, at the last epoch,
    or with `best_epoch` each at its best.

    `history` as of the training loop. With folds the set behind the registered model counts for nothing:
    it holds no row out. FloatingPointError when the loss is not finite.
    """
    groups: dict[tuple[tuple[int, int], ...], dict[int, list[float]]] = {}
    for entry in history:
        sets = tuple((int(repeat), int(fold)) for repeat, fold in entry["sets"])
        groups.setdefault(sets, {})[int(entry["epoch"])] = entry["validation"]
    found = []
    for sets, epochs in groups.items():
        values = np.array([epochs[epoch] for epoch in sorted(epochs)], float)
        counts = np.repeat([not folds or fold != plan.REGISTERED for _, fold in sets], values.shape[1] // len(sets))
        found.append((values.min(0) if best_epoch else values[-1])[counts])
    mean = float(np.mean(np.concatenate(found)))
    if not math.isfinite(mean):
        raise FloatingPointError("found a validation loss that is not finite")
    return mean


@dataclass(frozen=True)
class Trial:
    """A trial as the study tells it: `values` by dotted key, `rungs` as in the table `trials`,
    `note` on one that failed."""

    number: int
    values: dict[str, Any]
    state: str = ""
    rungs: tuple[float, ...] = ()
    seconds: float = 0.0
    started_at: datetime | None = None
    note: str = ""

    @property
    def value(self) -> float | None:
        return self.rungs[-1] if self.state == COMPLETE else None


@dataclass(frozen=True)
class Work:
    """All that the Spark task of a trial needs: the job, the epochs at which it is looked at,
    and what it must not exceed at each but the last."""

    trial: Trial
    job: plan.Job
    stops: list[int]
    cutoffs: list[float]


def train_trial(work: Work, run_alone: Callable[[plan.Job], dict[str, Any]]) -> Trial:
    """Trains from rung to rung for as long as the loss is low enough; the loop's checkpoint carries it over.
    A loss that is not finite fails it."""
    started, clock = datetime.now(UTC), time.perf_counter()
    job = work.job
    history: list[dict[str, Any]] = []
    rungs: list[float] = []
    state, note = COMPLETE, ""
    reached = 0
    try:
        for stop, cutoff in zip(work.stops, [*work.cutoffs, math.inf], strict=True):
            if stop > reached:
                last = stop == work.stops[-1]
                history += run_alone(replace(job, stop_epoch=0 if last else stop))["history"]
                reached = stop
            rungs.append(loss(history, job.folds, bool(job.options.patience)))
            if rungs[-1] > cutoff:
                state = PRUNED
                break
    except (FloatingPointError, InputError) as error:
        if isinstance(error, InputError) and error.file != _DIVERGED:
            raise
        state, note = FAILED, str(error)
    return replace(
        work.trial, state=state, rungs=tuple(rungs), seconds=time.perf_counter() - clock, started_at=started, note=note
    )


def measured(trial: Trial, measure: Callable[[], float]) -> Trial:
    """A trial of one measurement; it has failed where that is undefined."""
    started, clock = datetime.now(UTC), time.perf_counter()
    value = measure()
    rungs, state, note = ((value,), COMPLETE, "") if math.isfinite(value) else ((), FAILED, "the metric is undefined")
    return replace(trial, state=state, rungs=rungs, seconds=time.perf_counter() - clock, started_at=started, note=note)


def default_storage(lake: str) -> str:
    """URL of the studies of a lake: a sqlite file in a local one; empty for any other."""
    if not storage.is_local(lake):
        return ""
    folder = os.path.join(storage.local_path(storage.absolute(lake)), "_tuning")
    os.makedirs(folder, exist_ok=True)
    # Optuna takes braces for a template
    path = os.path.join(folder, "studies.db").replace("{", "{{").replace("}", "}}")
    return f"sqlite:///{path}"


def open_storage(url: str) -> Storage:
    """Optuna's storage at `url`, in memory where that is empty. InputError when it cannot be opened."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if not url:
        return optuna.storages.InMemoryStorage()
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # whatever the database's client raises
        raise InputError(
            f"not opened: {str(error).splitlines()[0]}; expected a database that Optuna can use", "tune.storage"
        ) from error


class Study:
    """Trials of one space, in the order of their numbers; kept in Optuna's storage under `name`.

    `before`: trials that the lake knows, from number 0 on, for a storage that has none of this name:
    `known` is what they came to.
    """

    def __init__(
        self,
        store: Storage,
        name: str,
        space: Space,
        maximise: bool,
        seed: int,
        startup: int,
        before: Sequence[Trial] = (),
    ) -> None:
        import optuna

        self.space, self.maximise, self.seed, self.startup = space, maximise, seed, startup
        self._study = optuna.create_study(
            storage=store,
            study_name=name,
            direction="maximize" if maximise else "minimize",
            load_if_exists=True,
            sampler=self._sampler(0),
        )
        self._open: dict[int, optuna.Trial] = {}
        self.known: dict[int, Trial] = {}
        if not self._study.get_trials(deepcopy=False):
            # They are asked for and told again, in turn with those to come, which are drawn
            # as if nothing had been lost.
            self.known = {trial.number: trial for trial in before}
            for values in [trial.values for trial in before] or [space.start]:
                self._study.enqueue_trial({key: _encode(d, values[key]) for key, d in space.dimensions.items()})

    def _sampler(self, number: int) -> optuna.samplers.TPESampler:
        import optuna

        seed = int(np.random.SeedSequence([self.seed, number, _SALT]).generate_state(1)[0])
        return optuna.samplers.TPESampler(n_startup_trials=self.startup, seed=seed)

    def trials(self) -> list[Trial]:
        """Trials that have been told, by number."""
        return [_told(self.space, t) for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]

    def unfinished(self) -> list[Trial]:
        """Trials that were proposed to a run that did not tell their end; the same numbers with the same values."""
        import optuna

        found = []
        for t in self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            # a trial may have been left before all of its values were drawn
            self._study.sampler = self._sampler(t.number)
            found.append(self._proposed(optuna.Trial(self._study, t._trial_id)))
        return found

    def ask(self) -> Trial:
        """The next trial."""
        asked = sum(t.state.name != "WAITING" for t in self._study.get_trials(deepcopy=False))
        self._study.sampler = self._sampler(asked)
        proposed = self._study.ask()
        assert proposed.number == asked
        return self._proposed(proposed)

    def _proposed(self, proposed: optuna.Trial) -> Trial:
        self._open[proposed.number] = proposed
        return Trial(
            proposed.number, {key: _decode(d, _suggest(proposed, key, d)) for key, d in self.space.dimensions.items()}
        )

    def tell(self, trial: Trial) -> None:
        import optuna

        proposed = self._open.pop(trial.number)
        for key, value in _attributes(trial).items():
            proposed.set_user_attr(key, value)
        for rung, value in enumerate(trial.rungs[:-1] if trial.state == COMPLETE else trial.rungs):
            proposed.report(value, rung)
        states = {
            COMPLETE: optuna.trial.TrialState.COMPLETE,
            PRUNED: optuna.trial.TrialState.PRUNED,
            FAILED: optuna.trial.TrialState.FAIL,
        }
        self._study.tell(proposed, trial.value, states[trial.state])

    def best(self) -> Trial | None:
        return best_of(self.trials(), self.maximise)


def best_of(trials: Sequence[Trial], maximise: bool) -> Trial | None:
    """The complete trial of the best value, the first of equals; None where none is complete."""
    done = [t for t in trials if t.value is not None]
    return min(done, key=lambda t: ((-1 if maximise else 1) * (t.value or 0.0), t.number), default=None)


def search(
    study: Study,
    wanted: int,
    window: int,
    submit: Callable[[Trial, list[Trial]], Future[Trial]],
    told: Callable[[Trial], None] = lambda trial: None,
) -> None:
    """Goes on with a study until it has `wanted` trials, `window` of them under way at once.

    `submit(trial, before)` starts a trial, given those whose values it may be compared with;
    `told` is called after each one.
    """
    under_way: deque[Trial | Future[Trial]] = deque()

    def start(trial: Trial) -> None:
        known = study.known.get(trial.number)
        under_way.append(known or submit(trial, [t for t in study.trials() if t.number <= trial.number - window]))

    for trial in study.unfinished():
        start(trial)
    count = len(study.trials()) + len(under_way)
    while under_way or count < wanted:
        while len(under_way) < window and count < wanted:
            start(study.ask())
            count += 1
        first = under_way.popleft()
        done = first if isinstance(first, Trial) else first.result()
        study.tell(done)
        if done is not first:
            told(done)


def importance(space: Space, trials: Sequence[Trial], rungs: int) -> tuple[dict[str, float], int]:
    """Share of each setting in the variance of the objective (fANOVA, Hutter et al.
    2014), and the rung it is measured at.

    That is the last rung, of `rungs` before the end, that enough trials have reached: few come to the end.
    Empty where none has enough.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for rung in range(rungs, -1, -1):
        reached = [t for t in trials if len(t.rungs) > rung]
        values = {t.rungs[rung] for t in reached}
        if len(reached) < IMPORTANCE_TRIALS or len(values) < 2:
            continue
        study = optuna.create_study()
        for t in reached:
            study.add_trial(_frozen(space, replace(t, state=COMPLETE, rungs=(t.rungs[rung],))))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator), rung
    return {}, 0


def as_toml(values: Mapping[str, Any], comment: str) -> str:
    """A TOML file of settings by dotted key, under a line of comment."""
    tables: dict[str, list[str]] = {}
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        tables.setdefault(table, []).append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    lines = [f"# {' '.join(comment.split())}"]
    for table in sorted(tables):
        lines += ["", *([f"[{table}]"] if table else []), *tables[table]]
    return "\n".join(lines) + "\n"


def _distribution(d: Dimension) -> optuna.distributions.BaseDistribution:
    import optuna

    if d.choices is not None:  # as JSON: a list, such as the widths of layers, is no choice for Optuna's databases
        return optuna.distributions.CategoricalDistribution([json.dumps(choice) for choice in d.choices])
    assert d.low is not None and d.high is not None
    if isinstance(d.low, int):  # and so are the others: see `typed`
        return optuna.distributions.IntDistribution(int(d.low), int(d.high), log=d.log, step=int(d.step or 1))
    return optuna.distributions.FloatDistribution(
        float(d.low), float(d.high), log=d.log, step=None if d.step is None else float(d.step)
    )


def _suggest(trial: optuna.Trial, key: str, d: Dimension) -> Any:
    import optuna

    distribution = _distribution(d)
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, log=distribution.log, step=distribution.step)
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    return trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log, step=distribution.step)


def _encode(d: Dimension, value: Any) -> Any:
    return json.dumps(value) if d.choices is not None else value


def _decode(d: Dimension, value: Any) -> Any:
    return json.loads(value) if d.choices is not None else value


def _attributes(trial: Trial) -> dict[str, Any]:
    return {
        "seconds": trial.seconds,
        "started_at": trial.started_at.isoformat() if trial.started_at else "",
        "note": trial.note,
    }


def _frozen(space: Space, trial: Trial) -> optuna.trial.FrozenTrial:
    """A told trial as Optuna holds it."""
    import optuna

    states = {
        COMPLETE: optuna.trial.TrialState.COMPLETE,
        PRUNED: optuna.trial.TrialState.PRUNED,
        FAILED: optuna.trial.TrialState.FAIL,
    }
    return optuna.trial.create_trial(
        state=states[trial.state],
        value=trial.value,
        params={key: _encode(d, trial.values[key]) for key, d in space.dimensions.items()},
        distributions={key: _distribution(d) for key, d in space.dimensions.items()},
        intermediate_values=dict(enumerate(trial.rungs[:-1] if trial.state == COMPLETE else trial.rungs)),
        user_attrs=_attributes(trial),
    )


def _told(space: Space, frozen: optuna.trial.FrozenTrial) -> Trial:
    rungs = [frozen.intermediate_values[step] for step in sorted(frozen.intermediate_values)]
    state = {"COMPLETE": COMPLETE, "PRUNED": PRUNED}.get(frozen.state.name, FAILED)
    if state == COMPLETE and frozen.value is not None:
        rungs.append(frozen.value)
    attrs = frozen.user_attrs
    started = attrs.get("started_at")
    return Trial(
        frozen.number,
        {key: _decode(d, frozen.params[key]) for key, d in space.dimensions.items() if key in frozen.params},
        state,
        tuple(rungs),
        float(attrs.get("seconds", 0.0)),
        datetime.fromisoformat(started) if started else None,
        str(attrs.get("note", "")),
    )


def as_trial(row: Row) -> Trial:
    """A trial out of its row in `trials`."""
    return Trial(
        row.number, json.loads(row.params), row.state, tuple(row.rungs), row.seconds, row.started_at.astimezone(UTC)
    )
