"""The best settings of a task and of its baselines, found on training rows alone;
the test rows are asked once, by the model they make.

A trial is one Spark task. What it is trained and measured on is a dataset of its own in the lake: the task's, where its
split has validation rows, else one whose training rows are dealt into inner folds, with the test rows left out.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.session import task_slots
from genodl_spark.job.config import Settings, override
from genodl_spark.job.run import Report, Run, code_of, fingerprint
from genodl_spark.lake.tables.learning import TRIALS
from genodl_spark.learning import baselines, encodings, metrics, tuning
from genodl_spark.learning.baseline_fits import Fits, inner_metric
from genodl_spark.learning.baselines import SPARK_FOREST, baseline_names
from genodl_spark.learning.metrics import headline_metric
from genodl_spark.learning.settings import Dimension, Train
from genodl_spark.learning.splits import Split
from genodl_spark.learning.training import plan, rank
from genodl_spark.learning.tuning import Space, Storage, Study, Trial, as_trial, typed
from genodl_spark.registry import pretrained, strands
from genodl_spark.registry.datasets import dataset_of, heads_of_row, job_of, roles
from genodl_spark.registry.scores import MODEL, fits_of

if TYPE_CHECKING:
    from pyspark.sql import Row

log = logging.getLogger("genodl")
LOSS = "validation_loss"
Verb = Callable[..., None]  # that of `genodl train` or `genodl evaluate`
Alone = Callable[[plan.Job], dict[str, Any]]  # trains in this process; what train.run_alone does


def tune(
    run: Run,
    cohort: str | None,
    label: str | None,
    output: str | None,
    train: Verb,
    evaluate: Verb,
    run_alone: Alone | None = None,
) -> None:
    """Searches, then trains and registers the best network and evaluates it, by those verbs.
    `unchanged` when all of that is there already."""
    run.require_lake()
    s = run.settings
    if s.clock.file:
        text = f"found {s.clock.file}, as it was published; expected none, as a clock leaves tune nothing to search"
        raise InputError(f"{text}: train takes it as it is", "clock.file")
    space = search_space(s)
    baseline_names(s.evaluate, [])
    store = tuning.open_storage(s.tune.storage or tuning.default_storage(run.lake_uri))
    final = s.model_copy(update={"split": outer_split(s)})
    dataset, fresh = dataset_of(run.under(final), cohort, label)
    cohort, label = dataset.cohort, dataset.label_column
    letters = encodings.encoding(dataset.transform, s.code_files).letters
    # Spark ML's forest has fixed settings
    names = [name for name in baseline_names(s.evaluate, heads_of_row(dataset), letters) if name != SPARK_FOREST]
    inner = dataset
    if not roles(run, dataset).get("validation"):
        nested = s.model_copy(update={"split": final.split.model_copy(update={"inner": s.tune.folds})})
        inner, dealt = dataset_of(run.under(nested), cohort, label)
        fresh = fresh or dealt
    search = _Search(strands.decided(run, inner), inner, store)
    best, changed = search.network(space, run_alone or rank.run_alone)
    tuned, wrote = search.baselines(names)
    chosen = best.values | {
        f"evaluate.options.{name}.{key}": value for name, trial in tuned.items() for key, value in trial.values.items()
    }
    settings = override(final, chosen)
    statuses = [_within(run, "train", settings, lambda inside: train(inside, cohort, label, False))]
    model_id = run.report.metrics["train"]["model_id"]
    statuses.append(_within(run, "test", settings, lambda inside: evaluate(inside, cohort, label, model_id)))
    run.report.status = "done" if fresh or changed or wrote or "done" in statuses else "unchanged"
    run.wrote(TRIALS, search.written)
    if output is not None:
        uri = storage.absolute(output)
        comment = f"Best of {s.tune.trials} trials of {search.name(MODEL, space)}: genodl train {s.task} --config FILE"
        storage.write_bytes(uri, tuning.as_toml(chosen, comment).encode())
        run.report.metrics["output"] = uri


def outer_split(s: Settings) -> Split:
    """The split that says which rows are for testing: the task's own, or for a cross-validation shares with the same
    groups, stratified as it is."""
    split = s.split
    if split.folds is None:
        return split.model_copy(update={"inner": None})
    grouped = {"group": split.group, "distance": split.distance}
    return Split(train=1 - s.tune.test, test=s.tune.test, **grouped, stratify=split.stratify or "label")


def _within(run: Run, name: str, settings: Settings, verb: Callable[[Run], None]) -> str:
    """Runs another verb in this run; its metrics go under `name`, what it read,
    wrote and noticed into this run's report."""
    inside = run.under(settings, Report(run.report.job, warnings=run.report.warnings))
    inside.assigned = ()
    verb(inside)
    run.report.metrics[name] = inside.report.metrics
    run.report.written.update(inside.report.written)
    for table, rows in inside.report.rows.items():
        before = run.report.rows.get(table, {"written": 0})["written"]
        run.report.rows[table] = {**rows, "written": rows["written"] + before}
    return inside.report.status


class _Search:
    """Studies on one dataset, whose trials are Spark tasks."""

    def __init__(self, run: Run, dataset: Row, store: Storage) -> None:
        self.run, self.dataset, self.store = run, dataset, store
        self.settings = run.settings
        self.window = self.settings.tune.parallel or 2 * task_slots(run.spark)
        self.written = 0
        run.report.metrics.update({"dataset": dataset.dataset, "parallel": self.window})

    def name(self, predictor: str, space: Space) -> str:
        """Name of a study: with a hash of all that the values of its trials, and their order, depend on."""
        s, d = self.settings, self.dataset
        searched = s.tune.model_dump(include={"startup", "ensemble", "rungs", "reduction"})
        shaped_by: list[Any] = [d.dataset, space.as_json(), space.start, searched, s.seed, code_of(__name__, s)]
        if predictor == MODEL:
            shaped_by += [s.model, s.train.model_dump(exclude={"procs"}), s.quality.model_dump()]
        else:
            shaped_by += [s.metric, s.evaluate.max_rows]
        return f"{d.task}.{d.cohort}.{d.label_column}.{predictor}.{fingerprint(shaped_by)[:12]}"

    def network(self, space: Space, run_alone: Alone) -> tuple[Trial, bool]:
        """The best settings of the network, and whether there were trials to run.
        InputError when no trial came to an end."""
        s, d = self.settings, self.dataset
        name = self.name(MODEL, space)
        staging = storage.join(self.run.lake.uri, "_staging", f"tune-{fingerprint(name)[:12]}")
        for key in pretrained.fixed(self.run):
            if key in space.start:
                text = f"found {key}, which is as it is in the model that networks start from (train.pretrained)"
                raise InputError(f"{text}; expected it left out, or no such model", "tune.space")
        base = replace(job_of(self.run, d, staging), shard=False)  # a trial is one rank
        self.run.pin(staging)
        counts = roles(self.run, d)
        rows = counts.get("fold", 0) + counts.get("train", 0)

        def work(trial: Trial, before: list[Trial]) -> tuning.Work:
            values = override(s, {**trial.values, "train.ensemble": s.tune.ensemble})
            # As in the training of the best on all rows of a cross-validation, which has none to stop by.
            options = values.train.model_copy(update={"blend": [], **({"patience": 0} if d.folds else {})})
            folder = storage.join(staging, str(trial.number))
            job = replace(
                base,
                model={**base.model, **values.model},
                options=options,
                select=values.quality.select,
                staging=folder,
            )
            # a Spark task has one core
            job = replace(job, checkpoint=storage.join(folder, "checkpoint"), validate_folds=bool(d.folds), threads=1)
            limits = tuning.cutoffs([t.rungs for t in before], len(s.tune.rungs), s.tune.reduction)
            stops = tuning.stops(options, rows, s.tune.rungs, base.redrawn > 0, plan.discriminates(job))
            return tuning.Work(trial, job, stops, limits)

        def told(trial: Trial) -> None:
            storage.remove_directory(storage.join(staging, str(trial.number)))

        study, changed = self._run(MODEL, LOSS, space, work, lambda w: network_trial(w, run_alone), told)
        storage.remove_directory(staging)
        best = study.best()
        if best is None:
            raise InputError(
                "found no trial whose loss stayed finite; expected some, search lower values of train.learning_rate",
                "tune.space",
            )
        trials = study.trials()
        states = {
            state: sum(t.state == state for t in trials) for state in (tuning.COMPLETE, tuning.PRUNED, tuning.FAILED)
        }
        self.run.report.metrics.update(
            {"study": name, "objective": LOSS, "trials": len(trials), **states, **_figures(trials[0], best)}
        )
        return best, changed

    def baselines(self, names: list[str]) -> tuple[dict[str, Trial], bool]:
        """The best settings of each baseline that has any to search, by the task's metric on the same inner
        rows, with as many trials."""
        d = self.dataset
        metric = headline_metric(self.settings.metric, heads_of_row(d))
        fits = fits_of(self.run, d, None, self.settings.seed, self.settings.evaluate)
        found: dict[str, Trial] = {}
        changed = False
        for name in names:
            if name not in baselines.SPACES:
                continue
            dimensions = {key: Dimension(**values) for key, values in baselines.SPACES[name].items()}
            space = tuning.typed(dimensions, baselines.STARTS[name], name)

            def work(trial: Trial, before: list[Trial], name: str = name) -> tuple[Trial, Fits]:
                return trial, replace(fits, options={name: trial.values})

            def task(given: tuple[Trial, Fits], name: str = name) -> Trial:
                return tuning.measured(given[0], lambda: inner_metric(given[1], name, metric))

            study, ran = self._run(name, metric, space, work, task)
            changed = changed or ran
            best = study.best()
            if best is not None:
                found[name] = best
                self.run.report.metrics.setdefault("baselines", {})[name] = {
                    "objective": metric,
                    **_figures(study.trials()[0], best),
                }
        return found, changed

    def _run(
        self,
        predictor: str,
        objective: str,
        space: Space,
        work: Callable[[Trial, list[Trial]], Any],
        task: Callable[[Any], Trial],
        told: Callable[[Trial], None] = lambda trial: None,
    ) -> tuple[Study, bool]:
        """Runs what is left of a study: `work` describes a trial, `task` does it on an executor.
        Whether there was anything left."""
        from pyspark.sql import functions as F

        s, context = self.settings, self.run.spark.sparkContext
        name = self.name(predictor, space)
        stored = self.run.lake.read(TRIALS).where(F.col("study") == name).orderBy("number").collect()
        maximise = objective != LOSS and objective not in metrics.LOWER_IS_BETTER
        study = Study(self.store, name, space, maximise, s.seed, s.tune.startup, [as_trial(row) for row in stored])

        def submit(trial: Trial, before: list[Trial]) -> Future[Trial]:
            given = work(trial, before)
            return pool.submit(lambda: context.parallelize([given], 1).map(task).collect()[0])

        def tell(trial: Trial) -> None:
            told(trial)
            best = study.best()
            shown = f"{trial.rungs[-1]:.4f}" if trial.rungs else trial.note
            rest = f"; best {best.value:.4f}, trial {best.number}" if best is not None else ""
            log.info(
                "%s: trial %d of %d %s: %s %s%s",
                predictor,
                trial.number + 1,
                s.tune.trials,
                trial.state,
                objective,
                shown,
                rest,
            )
            if (trial.number + 1) % self.window == 0:
                self._write(name, predictor, objective, space, study.trials())

        with ThreadPoolExecutor(self.window) as pool:
            try:
                tuning.search(study, s.tune.trials, self.window, submit, tell)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                context.cancelAllJobs()  # or the trials under way would be trained to their end
                raise
        trials = study.trials()
        if len(trials) > len(stored):
            self._write(name, predictor, objective, space, trials)
            self.written += len(trials) - len(stored)
        return study, len(trials) > len(stored)

    def _write(self, study: str, predictor: str, objective: str, space: Space, trials: list[Trial]) -> None:
        """All trials of a study, in one commit: what an interrupted run did not write is written by the next."""
        d = self.dataset
        common = {
            "study": study,
            "task": d.task,
            "cohort": d.cohort,
            "label_column": d.label_column,
            "predictor": predictor,
        }
        common |= {"objective": objective, "space": space.as_json(), "dataset": d.dataset}
        common |= {"rung_shares": self.settings.tune.rungs if predictor == MODEL else []}
        rows = [
            {
                **common,
                "number": t.number,
                "state": t.state,
                "value": t.value,
                "rungs": list(t.rungs),
                "params": json.dumps(t.values, sort_keys=True),
                "seconds": t.seconds,
                "started_at": t.started_at,
            }
            for t in trials
        ]
        self.run.lake.replace(TRIALS, self.run.frame(TRIALS, rows), {"study": study})


def _figures(first: Trial, best: Trial) -> dict[str, Any]:
    return {"best": {"trial": best.number, "value": best.value, "params": best.values}, "default": first.value}


def network_trial(work: tuning.Work, run_alone: Alone) -> Trial:
    """A trial in its Spark task; a line at its end is told by the driver, and the lines of its epochs by nobody."""
    logging.disable(logging.INFO)
    try:
        return tuning.train_trial(work, run_alone)
    finally:
        logging.disable(logging.NOTSET)


# Of the training loop, what leaves the result as it is, or decides what a loss means: trials would not be comparable.
_NOT_SEARCHED = {"procs", "ensemble", "patience", "dtype"}


def search_space(settings: Settings) -> Space:
    """The space of `tune.space`. InputError, naming the key, for one that is unknown or a value
    that its setting does not take."""
    from genodl_spark.learning import models

    if not settings.tune.space:
        example = '"train.learning_rate" = {low = 1e-4, high = 1e-2, log = true}'
        raise InputError(f"found no setting to search; expected some, such as {example}", "tune.space")
    known: dict[str, Any] = {
        f"train.{name}": getattr(settings.train, name) for name in Train.model_fields if name not in _NOT_SEARCHED
    }
    known["quality.select"] = settings.quality.select
    known["model.kind"] = settings.model.get("kind", "mlp")
    kinds = settings.tune.space["model.kind"].choices if "model.kind" in settings.tune.space else None
    taken = [
        models.options({**settings.model, "kind": kind}, settings.code_files) for kind in kinds or [known["model.kind"]]
    ]
    known |= {
        f"model.{name}": settings.model.get(name, value)
        for name, value in taken[0].items()
        if all(name in other for other in taken)
    }
    for key, dimension in settings.tune.space.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1, 0.5) or sorted(known)
            raise InputError(
                f"unknown, or not to be searched; expected a setting such as {', '.join(close)}", f"tune.space.{key}"
            )
        for value in dimension.choices or (dimension.low, dimension.high):
            override(settings, {key: value})
        whole = isinstance(known[key], int) and not key.startswith("model.")
        if whole and any(isinstance(end, float) for end in (dimension.low, dimension.high, dimension.step)):
            raise InputError(
                "found a range with a decimal point; expected integers, as the setting is one", f"tune.space.{key}"
            )
    return typed(settings.tune.space, {key: known[key] for key in settings.tune.space}, "tune.space")
