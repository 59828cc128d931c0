"""The search for settings: its space, what a trial must reach, and that neither timing nor
interruptions change what is tried."""

from __future__ import annotations

import json
import math
import random
import threading
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import Row

from genodl_spark.core.errors import InputError
from genodl_spark.job import conf, config
from genodl_spark.learning import baselines, cox, feed, heads, splits, tuning
from genodl_spark.learning.settings import Dimension, Train
from genodl_spark.learning.training import plan
from genodl_spark.learning.tuning import COMPLETE, FAILED, PRUNED, Space, Study, Trial
from genodl_spark.pipelines import report, tune
from genodl_spark.pipelines.tune import outer_split

SPACE = Space(
    {
        "train.learning_rate": Dimension(low=1e-4, high=1.0, log=True),
        "model.hidden": Dimension(choices=[[8], [16, 8], []]),
    },
    {},
)
SPACE.start.update({"train.learning_rate": 0.1, "model.hidden": [8]})


def settings(*assignments: str) -> config.Settings:
    return config.load("tumor_type", None, list(assignments))


# Settings and their space.

OF_SEQUENCES = ("binding", "sequence_class", "sequence_expression", "sequence_pretraining")


def test_every_task_has_a_space_around_its_own_settings() -> None:
    for task in conf.task_names():
        found = tune.search_space(config.load(task))
        assert found.start["train.learning_rate"] == (0.002 if task in OF_SEQUENCES else 0.001)
        again = config.override(config.load(task), found.start)
        assert again == config.load(task)


def test_layers_replace_a_dimension_whole(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[tune.space]\n"train.batch" = {low = 16, high = 64, step = 16}\n[tune.space.train]\nlearning_rate '
        "= {choices = [0.1, 0.001]}\n"
    )
    found = config.load("tumor_type", str(file), ["tune.space.train.batch={low=32, high=128, log=true}"]).tune.space
    assert found["train.learning_rate"].model_dump(exclude_defaults=True) == {"choices": [0.1, 0.001]}
    assert found["train.batch"].model_dump(exclude_defaults=True) == {"low": 32, "high": 128, "log": True}
    assert "model.dropout" in found


@pytest.mark.parametrize(
    ("assignment", "place", "found"),
    [
        (
            "tune.space.train.learning_rat={low=1e-4,high=1e-2}",
            "tune.space.train.learning_rat",
            "such as train.learning_rate",
        ),
        ("tune.space.model.dropuot={low=0.0,high=0.5}", "tune.space.model.dropuot", "model.dropout"),
        ("tune.space.split.folds={low=2,high=5}", "tune.space.split.folds", "not to be searched"),
        ("tune.space.train.procs={low=1,high=4}", "tune.space.train.procs", "not to be searched"),
        ("tune.space.train.learning_rate={low=-1.0,high=1.0}", "train.learning_rate", "greater than 0"),
        ("tune.space.train.learning_rate={low=1e-2,high=1e-4}", "tune.space.train.learning_rate", "low below high"),
        ("tune.space.train.learning_rate={low=0.0,high=1.0,log=true}", "tune.space.train.learning_rate", "low above 0"),
        ("tune.space.train.learning_rate={low=0.1,high=1.0}", "tune.space.train.learning_rate", "own value 0.001"),
        ("tune.space.train.batch={low=16.0,high=64.0}", "tune.space.train.batch", "integers"),
        ("tune.space.train.batch={low=16,high=64,step=7}", "tune.space.train.batch", "leads from low to high"),
        ("tune.space.model.hidden={choices=[[8],[8]]}", "tune.space.model.hidden", "each once"),
        ("tune.space.model.hidden={choices=[[8],[16]]}", "tune.space.model.hidden", "own value [128]"),
        ("tune.space.model.kind={choices=['mlp','nonsense']}", "model.kind", "'nonsense'"),
        ("tune.space.train.batch={low=16,high=64,choices=[1,2]}", "tune.space.train.batch", "not both"),
        ("tune.rungs=[0.5,0.1]", "tune", "ascending"),
    ],
)
def test_a_space_that_is_wrong_is_one_line(assignment: str, place: str, found: str) -> None:
    with pytest.raises(InputError) as caught:
        tune.search_space(settings(assignment))
    assert str(caught.value).startswith(place) and found in str(caught.value)


def test_without_a_space_there_is_nothing_to_search() -> None:
    with pytest.raises(InputError, match=r"tune\.space: found no setting to search"):
        tune.search_space(config.load())


def test_ranges_take_the_type_of_the_setting() -> None:
    found = tune.search_space(
        settings("tune.space.model.dropout={low=0,high=1}", "tune.space.train.batch={low=16,high=256,log=true}")
    )
    assert (found.dimensions["model.dropout"].low, found.dimensions["model.dropout"].high) == (0.0, 1.0)
    assert isinstance(found.dimensions["model.dropout"].high, float)
    study = Study(tuning.open_storage(""), "s", found, False, 0, 5)
    drawn = [study.ask().values for _ in range(20)]
    assert all(isinstance(v["train.batch"], int) and 16 <= v["train.batch"] <= 256 for v in drawn)
    assert all(isinstance(v["model.hidden"], list) for v in drawn)
    assert len({v["model.dropout"] for v in drawn}) == 20


@pytest.mark.parametrize("name", sorted(baselines.SPACES))
def test_every_value_of_a_baselines_space_is_one_that_it_takes(name: str) -> None:
    classes = 0 if name in ("ridge", "kmer_ridge", "markov", *cox.NAMES) else 3
    dimensions = {key: Dimension(**values) for key, values in baselines.SPACES[name].items()}
    space = tuning.typed(dimensions, baselines.STARTS[name], name)
    study = Study(tuning.open_storage(""), name, space, True, 0, 50)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 5)).astype(np.float32), np.arange(30) % 3.0
    x[:, 0] += 3 * y
    if name in baselines.OF_SEQUENCES:
        x = generator.integers(0, 4, (30, 20)).astype(np.int8)
    kept, baselines.TREES = baselines.TREES, 3
    try:
        for _ in range(12):
            if name in cox.NAMES:
                scores = baselines.fit_predict_times(name, x, y + 1, y > 0, x, (), 0, study.ask().values)[:, 0]
            else:
                scores = baselines.fit_predict(name, x, y, x, classes, 0, study.ask().values)
            assert np.isfinite(scores).all() and scores.shape == ((30, 3) if classes else (30,))
        fixed_settings = ("linear_svm", "random_forest", "decision_tree", "gradient_boosting", "nearest_neighbour")
        if name in fixed_settings:  # the others choose their penalty by themselves
            for c in (3, 0):
                fixed = baselines.fit_predict(name, x, y, x, c, 0)
                assert fixed.tolist() == baselines.fit_predict(name, x, y, x, c, 0, baselines.STARTS[name]).tolist()
    finally:
        baselines.TREES = kept
    of_times = (name, x, y + 1, y > 0, x, (), 0)
    fit, given = (
        (baselines.fit_predict_times, of_times)
        if name in cox.NAMES
        else (baselines.fit_predict, (name, x, y, x, classes, 0))
    )
    with pytest.raises(ValueError, match="found option 'depth'"):
        fit(*given, {"depth": 3})


def test_options_of_baselines_change_the_fit() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(60, 4)).astype(np.float32), generator.integers(0, 2, 60).astype(float)
    stump = baselines.fit_predict("decision_tree", x, y, x, 2, 0, {"max_depth": 1})
    assert len({tuple(row) for row in stump}) == 2
    assert (
        len({tuple(row) for row in baselines.fit_predict("decision_tree", x, y, x, 2, 0, {"min_samples_leaf": 30})})
        == 2
    )
    strong = baselines.fit_predict("logistic", x, y, x, 2, 0, {"C": 1e-6})
    assert strong[:, 1] == pytest.approx(np.full(60, y.mean()), abs=1e-3)
    flat = baselines.fit_predict("ridge", x, y, x, 0, 0, {"alpha": 1e9})
    assert flat == pytest.approx(np.full(60, y.mean()), abs=1e-3)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,5}\.[a-z]{1,6}(\.[a-z]{1,4})?", fullmatch=True),
        st.one_of(
            st.integers(-(2**60), 2**60),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
            st.text(st.characters(codec="utf-8", exclude_characters="\x7f")),
            st.lists(st.integers(0, 9)),
        ),
        max_size=4,
    )
)
def test_toml_reads_back(values: dict[str, Any]) -> None:
    parents = {key.rpartition(".")[0] for key in values}
    values = {key: value for key, value in values.items() if key not in parents}

    def leaves(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in table.items():
            flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return flat

    assert leaves(tomllib.loads(tuning.as_toml(values, "a\nb"))) == values


# Splits: the rows of trials.


def test_inner_folds_hold_no_row_for_testing_and_keep_groups() -> None:
    entities = [f"e{i:03d}" for i in range(200)]
    labels = [("a", "b", "b")[i % 3] for i in range(200)]
    groups = [f"g{i // 4}" for i in range(200)]
    shares = splits.Split(train=0.8, test=0.2, group="g", stratify="label")
    outer = splits.assign(entities, labels, groups, None, shares, 3)
    inner = splits.assign(entities, labels, groups, None, shares.model_copy(update={"inner": 4}), 3)
    splits.audit(inner, entities, groups)
    training = outer.codes[:, 0] == splits.TRAIN
    assert inner.folds == 4
    assert (inner.codes[~training] == splits.UNUSED).all()
    assert sorted(set(inner.codes[training, 0])) == [0, 1, 2, 3]
    assert np.bincount(inner.codes[training, 0]).min() >= 35
    for fold in range(4):
        mine = inner.codes[:, 0] == fold
        assert np.mean([label == "b" for label, m in zip(labels, mine, strict=True) if m]) == pytest.approx(
            2 / 3, abs=0.08
        )
    order = np.random.default_rng(0).permutation(200)
    shuffled = splits.assign(
        [entities[i] for i in order],
        [labels[i] for i in order],
        [groups[i] for i in order],
        None,
        shares.model_copy(update={"inner": 4}),
        3,
    )
    assert (shuffled.codes == inner.codes[order]).all()


def test_inner_folds_of_a_published_split_leave_validation_rows_out() -> None:
    published = ["train", "validation", "test", None, "train", "train", "train"]
    found = splits.assign(
        [*"abcdefg"], ["x", "y"] * 3 + ["x"], None, published, splits.Split(column="split", inner=2), 0
    )
    assert (found.codes[[1, 2, 3], 0] == splits.UNUSED).all() and sorted(set(found.codes[[0, 4, 5, 6], 0])) == [0, 1]


def test_a_cross_validation_sets_test_rows_aside() -> None:
    s = settings("split.folds=5", "split.group=tcga_patient", "tune.test=0.25")
    found = outer_split(s)
    assert found.model_dump(exclude_defaults=True) == {
        "train": 0.75,
        "test": 0.25,
        "group": "tcga_patient",
        "stratify": "label",
    }
    kept = config.load("ancestry")
    assert outer_split(kept) == kept.split
    with pytest.raises(ValueError, match="inner together"):
        splits.Split(folds=3, inner=2)


# A trial.


def entry(epoch: int, validation: list[float], sets: list[tuple[int, int]]) -> dict[str, Any]:
    return {"epoch": epoch, "validation": validation, "sets": sets, "train": [0.0] * len(sets)}


def test_the_loss_of_a_trial() -> None:
    fixed = [entry(1, [1.0, 2.0], [(0, -1)]), entry(2, [3.0, 1.0], [(0, -1)])]
    assert tuning.loss(fixed, 0, False) == 2.0  # at the last epoch
    assert tuning.loss(fixed, 0, True) == 1.0  # each network at its best
    # Two members each; the set behind the registered model holds nothing out; two groups, one after another.
    first, second = [(0, 0), (0, 1)], [(0, 2), (0, -1)]
    folded = [
        entry(1, [9.0] * 4, first),
        entry(2, [1.0, 2, 3, 4], first),
        entry(1, [8.0] * 4, second),
        entry(2, [5.0, 9, math.nan, math.nan], second),
    ]
    assert tuning.loss(folded, 3, False) == 4.0
    assert tuning.loss([*folded[::-1], folded[1]], 3, False) == 4.0  # in any order, an epoch told twice
    with pytest.raises(FloatingPointError):
        tuning.loss([entry(1, [math.inf, 1.0], [(0, -1)])], 0, False)


def test_stops() -> None:
    options = Train(batch=10, epochs=9, min_steps=0)
    assert tuning.stops(options, 100, [1 / 9, 1 / 3]) == [1, 3, 9]
    assert tuning.stops(options.model_copy(update={"min_steps": 900}), 100, [1 / 9, 1 / 3]) == [10, 30, 90]
    assert tuning.stops(options.model_copy(update={"epochs": 2}), 100, [1 / 9, 1 / 3]) == [1, 1, 2]
    assert tuning.stops(options, 100, []) == [9]
    fresh = options.model_copy(update={"redrawn_epochs": 24})
    assert [tuning.stops(fresh, 100, [], redrawn)[-1] for redrawn in (False, True)] == [9, 24]
    assert tuning.stops(fresh, 2000, [], True) == [12]  # no more than 2,400 steps of ten rows
    assert tuning.stops(fresh, 20_000, [], True) == [9]


def test_cutoffs_are_those_of_successive_halving() -> None:
    assert tuning.cutoffs([], 2, 3) == [math.inf, math.inf]
    assert tuning.cutoffs([(1.0,)], 1, 3) == [math.inf]
    assert tuning.cutoffs([(1.0,), (2.0,)], 1, 3) == [1.0]  # the best of three
    assert tuning.cutoffs([(5.0, 1.0), (4.0,), (3.0,), (2.0, 7.0), (1.0, 3.0)], 2, 3) == [2.0, 1.0]


@given(st.lists(st.floats(0, 10), max_size=30), st.floats(0, 10), st.integers(2, 5))
def test_a_trial_goes_on_when_it_is_among_the_best(before: list[float], value: float, reduction: int) -> None:
    goes_on = value <= tuning.cutoffs([(b,) for b in before], 1, reduction)[0]
    kept = (len(before) + 1) // reduction
    assert goes_on == (kept == 0 or sum(b < value for b in before) < kept)


JOB = plan.Job(
    [],
    feed.Layout(100, 3, "float32", 1),
    "pyarrow",
    1,
    heads.one("label", ["a", "b"]),
    0,
    "none",
    1.0,
    0,
    {"kind": "mlp"},
    Train(patience=0),
    0,
    "",
)


def trainer(losses: Callable[[int], float], calls: list[int], total: int = 9) -> Callable[[Any], dict[str, Any]]:
    """A loop in place of the real one: the loss after each epoch; goes on where the last call stopped."""

    def run_alone(job: Any) -> dict[str, Any]:
        stop = job.stop_epoch or total
        start, calls[:] = (calls[-1] if calls else 0), [*calls, stop]
        return {"history": [entry(e, [losses(e)], [(0, -1)]) for e in range(start + 1, stop + 1)]}

    return run_alone


def test_a_trial_goes_from_rung_to_rung_while_it_is_good_enough() -> None:
    def run(losses: Callable[[int], float], cutoffs: list[float], stops: list[int]) -> tuple[Trial, list[int]]:
        calls: list[int] = []
        return tuning.train_trial(tuning.Work(Trial(4, {"a": 1}), JOB, stops, cutoffs), trainer(losses, calls)), calls

    done, calls = run(lambda e: 1 / e, [1.0, 0.5], [1, 3, 9])
    assert (done.state, done.rungs, done.value, calls) == (COMPLETE, (1.0, 1 / 3, 1 / 9), 1 / 9, [1, 3, 9])
    assert (done.number, done.values) == (4, {"a": 1}) and done.started_at is not None and done.seconds >= 0
    pruned, calls = run(lambda e: 1 / e, [1.0, 0.3], [1, 3, 9])
    assert (pruned.state, pruned.rungs, pruned.value, calls) == (PRUNED, (1.0, 1 / 3), None, [1, 3])
    twice, calls = run(lambda e: 1 / e, [2.0, 2.0], [1, 1, 9])  # few epochs: two rungs in one place
    assert (twice.rungs, calls) == ((1.0, 1.0, 1 / 9), [1, 9])
    failed, calls = run(lambda e: math.nan if e > 1 else 1.0, [2.0, 2.0], [1, 3, 9])
    assert (failed.state, failed.rungs, failed.value, calls) == (FAILED, (1.0,), None, [1, 3])
    assert "not finite" in failed.note

    def raising(job: Any, key: str = "train.learning_rate") -> dict[str, Any]:
        raise InputError("found a loss that is not finite", key)

    assert tuning.train_trial(tuning.Work(Trial(0, {}), JOB, [9], []), raising).state == FAILED
    with pytest.raises(InputError, match="model: found"):
        tuning.train_trial(tuning.Work(Trial(0, {}), JOB, [9], []), lambda job: raising(job, "model"))


def test_an_undefined_metric_fails_a_trial() -> None:
    assert tuning.measured(Trial(0, {}), lambda: 0.5).value == 0.5
    assert tuning.measured(Trial(0, {}), lambda: math.nan).state == FAILED


# A study.


def outcome(trial: Trial, before: list[Trial]) -> Trial:
    """What a trial comes to: a known function of its values."""
    base = (math.log10(trial.values["train.learning_rate"]) + 2.5) ** 2 + len(trial.values["model.hidden"])
    if trial.values["train.learning_rate"] > 0.9:
        return replace(trial, state=FAILED)
    limits = tuning.cutoffs([t.rungs for t in before], 1, 3)
    rungs = (base + 1, base)
    return (
        replace(trial, state=PRUNED, rungs=rungs[:1])
        if rungs[0] > limits[0]
        else replace(trial, state=COMPLETE, rungs=rungs)
    )


class Interrupted(Exception):
    pass


def study_of(store: Any, seed: int = 3) -> Study:
    return Study(store, "s", SPACE, False, seed, 4)


def run(store: Any, wanted: int, window: int, slow: int = 0, stop_after: int = -1, seed: int = 3) -> list[Trial]:
    """Runs a study whose trials take random times; interrupted after so many have been told."""
    delays, told = random.Random(slow), []

    def submit(trial: Trial, before: list[Trial]) -> Future[Trial]:
        delay = delays.random() * 0.01 if slow else 0
        assert [t.number for t in before] == list(range(trial.number - window + 1))

        def work() -> Trial:
            time.sleep(delay)
            return outcome(trial, before)

        return pool.submit(work)

    def tell(trial: Trial) -> None:
        told.append(trial)
        if len(told) == stop_after:
            raise Interrupted

    study = study_of(store, seed)
    with ThreadPoolExecutor(window) as pool:
        tuning.search(study, wanted, window, submit, tell)
    return study.trials()


def summary(trials: list[Trial]) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, t.values, t.rungs, t.value) for t in trials]


def test_the_first_trial_is_the_tasks_own_configuration_and_the_search_finds_the_best() -> None:
    trials = run(tuning.open_storage(""), 40, 1)
    assert trials[0].values == SPACE.start and trials[0].state == COMPLETE
    assert [t.number for t in trials] == list(range(40))
    best = study_of_best(trials)
    assert best.values["model.hidden"] == [] and best.values["train.learning_rate"] == pytest.approx(10**-2.5, rel=0.5)
    assert sum(t.state == PRUNED for t in trials) >= 15


def study_of_best(trials: list[Trial]) -> Trial:
    return min((t for t in trials if t.value is not None), key=lambda t: t.value or 0)


@pytest.mark.parametrize("window", [1, 4])
def test_the_same_seed_tries_the_same_whatever_the_timing(window: int) -> None:
    first = summary(run(tuning.open_storage(""), 20, window, slow=1))
    assert first == summary(run(tuning.open_storage(""), 20, window, slow=2))
    assert first == summary(run(tuning.open_storage(""), 20, window))
    assert first != summary(run(tuning.open_storage(""), 20, window, seed=4))


@pytest.mark.parametrize(("window", "stop_after"), [(1, 1), (3, 6)])
def test_an_interrupted_study_goes_on_as_if_nothing_had_happened(tmp_path: Path, window: int, stop_after: int) -> None:
    expected = summary(run(tuning.open_storage(""), 11, window))
    folder = tmp_path / "a lake, 100% {odd}"
    folder.mkdir()
    url = tuning.default_storage(str(folder))
    with pytest.raises(Interrupted):
        run(tuning.open_storage(url), 11, window, slow=1, stop_after=stop_after)
    assert (folder / "_tuning" / "studies.db").is_file()
    assert len(study_of(tuning.open_storage(url)).trials()) == stop_after
    assert summary(run(tuning.open_storage(url), 11, window, slow=2)) == expected
    assert summary(run(tuning.open_storage(url), 11, window)) == expected  # nothing left to do
    more = summary(run(tuning.open_storage(url), 12, window))
    assert more[:11] == expected and len(more) == 12


@pytest.mark.parametrize("values", [0, 1])
def test_a_trial_left_between_its_values_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    expected = summary(run(tuning.open_storage(""), 8, 2))
    url = tuning.default_storage(str(tmp_path))
    count = [0]
    real = tuning._suggest

    def dying(trial: Any, key: str, d: Dimension) -> Any:
        count[0] += 1
        if count[0] == 11 + values:  # of trial 5
            raise Interrupted
        return real(trial, key, d)

    monkeypatch.setattr(tuning, "_suggest", dying)
    with pytest.raises(Interrupted):
        run(tuning.open_storage(url), 8, 2)
    monkeypatch.setattr(tuning, "_suggest", real)
    assert summary(run(tuning.open_storage(url), 8, 2)) == expected


def test_a_study_rebuilt_from_its_trials_goes_on_the_same_way() -> None:
    """What the table `trials` holds is enough where no database is kept."""
    whole = run(tuning.open_storage(""), 16, 3)
    study = Study(tuning.open_storage(""), "s", SPACE, False, 3, 4, before=run(tuning.open_storage(""), 9, 3))
    trained: list[int] = []
    with ThreadPoolExecutor(3) as pool:
        tuning.search(
            study,
            16,
            3,
            lambda trial, before: pool.submit(outcome, trial, before),
            lambda trial: trained.append(trial.number),
        )
    assert summary(study.trials()) == summary(whole)
    assert trained == list(range(9, 16))


def test_never_more_trials_under_way_than_the_window() -> None:
    lock, running, most = threading.Lock(), [0], [0]
    first = threading.Barrier(3)

    def work(trial: Trial, before: list[Trial]) -> Trial:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if trial.number < 3:
            first.wait(60)  # the window is full once, however slow the machine is
        time.sleep(0.005)
        with lock:
            running[0] -= 1
        assert all(t.number <= trial.number - 3 for t in before)
        return outcome(trial, before)

    with ThreadPoolExecutor(8) as pool:
        tuning.search(study_of(tuning.open_storage("")), 15, 3, lambda trial, before: pool.submit(work, trial, before))
    assert most[0] == 3


def test_the_best_of_a_metric_is_the_highest_and_the_first_of_equals() -> None:
    study = Study(tuning.open_storage(""), "m", SPACE, True, 0, 4)
    for value in (0.5, 0.9, 0.9, 0.1):
        study.tell(tuning.measured(study.ask(), lambda value=value: value))
    best = study.best()
    assert best is not None and (best.number, best.value) == (1, 0.9)


def test_a_storage_that_cannot_be_opened_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tune\.storage: not opened"):
        tuning.open_storage(f"sqlite:///{tmp_path}/no/such/folder/x.db")
    with pytest.raises(InputError, match=r"tune\.storage: not opened"):
        tuning.open_storage("nonsense://x")


def test_importance_finds_the_setting_that_matters() -> None:
    generator = np.random.default_rng(0)
    trials = []
    for number in range(40):
        values = {"train.learning_rate": 10 ** generator.uniform(-4, 0), "model.hidden": [[8], [16, 8], []][number % 3]}
        base = math.log10(values["train.learning_rate"]) ** 2 + 0.1 * (number % 3)
        trials.append(
            Trial(number, values, PRUNED, (base,)) if number % 4 else Trial(number, values, COMPLETE, (base, -base))
        )
    found, rung = tuning.importance(SPACE, trials, 1)
    assert rung == 1  # ten came to the end
    assert sum(found.values()) == pytest.approx(1) and found["train.learning_rate"] > 0.8
    assert tuning.importance(SPACE, trials, 1) == (found, rung)
    assert tuning.importance(SPACE, trials[:-4], 1)[1] == 0  # nine
    assert tuning.importance(SPACE, trials[:9], 1) == ({}, 0)


def test_a_report_takes_the_newest_search_and_the_baselines_of_its_dataset() -> None:
    space = Space({"train.learning_rate": Dimension(low=1e-4, high=1.0, log=True)}, {"train.learning_rate": 0.1})

    def row(
        study: str, predictor: str, number: int, rungs: list[float], state: str, at: int, dataset: str = "d"
    ) -> Row:
        searched = space if predictor == "model" else Space({"C": Dimension(low=0.1, high=1.0)}, {"C": 0.5})
        return Row(
            study=study,
            number=number,
            task="t",
            cohort="c",
            label_column="l",
            predictor=predictor,
            objective="validation_loss" if predictor == "model" else "accuracy",
            state=state,
            value=rungs[-1] if state == COMPLETE else None,
            rungs=rungs,
            rung_shares=[0.5] if predictor == "model" else [],
            params=json.dumps({key: searched.start[key] / (number + 1) for key in searched.dimensions}),
            space=searched.as_json(),
            seconds=1.0,
            dataset=dataset,
            started_at=datetime(2026, 1, 1, at),
        )

    rows = [
        row("new", "model", 1, [0.3, 0.2], COMPLETE, 3),
        row("new", "model", 0, [0.5, 0.4], COMPLETE, 2),
        row("new", "model", 2, [0.9], PRUNED, 2),
    ]
    rows += [row("old", "model", 0, [0.1, 0.1], COMPLETE, 1)]
    rows += [row("s", "linear_svm", 0, [0.7], COMPLETE, 2), row("s", "linear_svm", 1, [0.9], COMPLETE, 2)]
    rows += [row("o", "logistic", 0, [0.7], COMPLETE, 2, "other")]
    (found,) = report.studies(rows)
    assert (found.study, found.states, found.rungs) == (
        "new",
        [COMPLETE, COMPLETE, PRUNED],
        [(0.5, 0.4), (0.3, 0.2), (0.9,)],
    )
    assert found.settings == {"train.learning_rate": ("0.1", "0.05")}
    assert found.baselines == {"linear_svm": ("accuracy", 0.7, 0.9, "C 0.25")}
    assert found.importance == {} and found.shares == [0.5]
