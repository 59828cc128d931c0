"""Settings: layers, the reading of --set, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from genodl_spark import config
from genodl_spark.errors import InputError


def test_layers_go_over_each_other(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nepochs = 7\nbatch = 8\n")
    settings = config.load("tumor_type", str(file), ["train.batch=9", "spark.sql.shuffle.partitions=3"])
    assert (settings.train.epochs, settings.train.batch, settings.task, settings.implementation) == (7, 9, "tumor_type", "tumor_type")
    assert settings.spark["spark.sql.shuffle.partitions"] == "3"
    assert settings.spark["spark.sql.adaptive.enabled"] == "true"


def test_a_split_key_replaces_the_whole_split() -> None:
    settings = config.load("ancestry", None, ["split.folds=4", "split.repeats=2"])
    assert settings.split.model_dump(exclude_none=True) == {"folds": 4, "repeats": 2, "validation": 0.0}


def test_lists_take_commas_and_digits() -> None:
    settings = config.load(None, None, ["blocks=mrna,mirna", "target.classes=1,2", "covariates=age"])
    assert (settings.blocks, settings.target.classes, settings.covariates) == (["mrna", "mirna"], ["1", "2"], ["age"])


@pytest.mark.parametrize(
    ("assignment", "place", "found"),
    [
        ("train.epohcs=3", "train.epohcs", "such as train.epochs"),
        ("train.epochs=many", "train.epochs", "'many'"),
        ("split.folds=1", "split.folds", "greater than or equal to 2"),
        ("split.train=0.5", "split", "add up to 1"),
        ("nonsense", "--set", "KEY=VALUE"),
    ],
)
def test_errors_name_the_key(assignment: str, place: str, found: str) -> None:
    with pytest.raises(InputError) as caught:
        config.load(None, None, [assignment])
    assert place in str(caught.value)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="expected ancestry, binding, sequence_expression, tumor_type"):
        config.load("tumour")
