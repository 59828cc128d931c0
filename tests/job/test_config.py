"""Settings: layers, the reading of --set, and errors that name the key."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.lake.schema import partition_folder
from genodl_spark.learning import models


def test_layers_go_over_each_other(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nepochs = 7\nbatch = 8\n")
    settings = config.load("tumor_type", str(file), ["train.batch=9", "spark.sql.shuffle.partitions=3"])
    assert (settings.train.epochs, settings.train.batch, settings.task, settings.implementation) == (
        7,
        9,
        "tumor_type",
        "tumor_type",
    )
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
    with pytest.raises(
        InputError,
        match="expected ancestry, binding, biomarkers, expression_pretraining, gene_burden, methylation, multi_omics, "
        "sequence_class, sequence_expression, sequence_pretraining, survival, tumor_type, variant_calling, "
        "variant_effect",
    ):
        config.load("tumour")


DEEP = 10_000


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a = " + "[" * DEEP + "]" * DEEP, "nested too deeply"),
        ("a = " + "{a=" * DEEP + "1" + "}" * DEEP, "nested too deeply"),
        ("[model]\na = " + "[" * 100 + "]" * 100, "more than 32 levels"),
        ("\n".join(["", "b" + ".b" * 20_000 + " = 1"]), r":2: found a key of more than 32 parts"),
        ("[b" + " . b" * DEEP + "]\na = 1", ":1: found a key of more than 32 parts"),
        ('x = {"b"' + ' . "b"' * DEEP + " = 1}", ":1: found a key of more than 32 parts"),
        ("spark = 3", "expected a table"),
        ("spark = [1]", "expected a table"),
        ("train = [1]", "train: found"),
        ("[train]\nepochs = 1979-05-27", "valid integer"),
        ("[train]\nlearning_rate = inf", "finite"),
        ("[train]\nlearning_rate = nan", "finite"),
        ("[train]\nlearning_rate = 1e30", "less than or equal to 1000"),
        ("[train]\nepochs = 1" + "0" * 20, "67 bits; expected one of 53"),
        ("[train]\nepochs = 1" + "0" * 5000, "4300 digits"),
        ("[model]\nbeta = -inf", "model.beta: found -inf"),
        ("[evaluate.options.logistic]\nC = nan", "evaluate.options.logistic.C: found nan"),
        ("tune.rungs = [0.1, inf]", "tune.rungs.1: found inf"),
        ("[monitor]\npsi = inf", "finite"),
        ("".join(f"k{i} = {i}\n" for i in range(20_000)), "k0: unknown key"),
    ],
)
def test_odd_files_are_an_input_error_at_once(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(InputError, match=found) as caught:
        config.load(None, str(path))
    assert caught.value.file == str(path) and "\n" not in str(caught.value) and len(str(caught.value)) < 800
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("assignment", "found"),
    [
        ("a" + ".b" * 20_000 + "=1", "more than 32 parts"),
        ("train.epochs=" + "[" * DEEP, "train.epochs: found"),
        ("train.epochs=" + "x" * 1_000_000, "train.epochs: found"),
        ("train.learning_rate=inf", "finite"),
        ("quality.max_missing=nan", "finite"),
        ("split.test=nan", "finite"),
        ("seed=1" + "0" * 20, "expected one of 53"),
    ],
)
def test_odd_assignments_are_an_input_error_at_once(assignment: str, found: str) -> None:
    with pytest.raises(InputError, match=found) as caught:
        config.load(None, None, [assignment])
    assert len(str(caught.value)) < 800


def test_many_keys_take_no_longer_than_their_number(tmp_path: Path) -> None:
    path = tmp_path / "many.toml"
    path.write_text("[spark]\n" + "".join(f"k{i} = {i}\n" for i in range(20_000)))
    started = time.process_time()
    assert config.load(None, str(path)).spark["spark.k19999"] == "19999"
    assert time.process_time() - started < 5


def test_no_setting_takes_a_number_that_is_not_finite() -> None:
    """Of every section: the rule is one of them all, not of the settings that were thought of."""
    keys = [key for key in config._keys(config.Settings) if isinstance(value_of(key), float)]
    assert {"train.learning_rate", "monitor.psi", "qc.kinship", "split.validation", "maintain.retention_hours"} <= set(
        keys
    )
    for key in keys:
        for word in ("inf", "-inf", "nan"):
            with pytest.raises(InputError, match=key.split(".")[0]):
                config.load(None, None, [f"{key}={word}"])


def value_of(key: str) -> object:
    value: object = config.Settings()
    for part in key.split("."):
        value = getattr(value, part)
    return value


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "mark.toml"
    path.write_bytes(b"\xef\xbb\xbf[train]\nepochs = 7\n")
    assert config.load(None, str(path)).train.epochs == 7


def test_python_files_are_read_from_where_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "own.py").write_text("A = 1\n")
    (tmp_path / "nets" / "net.py").write_text("B = 1\n")
    (tmp_path / "nets" / "own.py").write_text("C = 1\n")
    (tmp_path / "mine.toml").write_text(
        'implementation = "own.py"\n[split]\nfolds = 2\n[model]\nkind = "nets/net.py"\n'
    )
    settings = config.load(str(tmp_path / "mine.toml"))
    assert (settings.implementation, settings.model["kind"]) == ("own.py", "net.py")
    assert settings.own_code() == {"own.py": b"A = 1\n", "net.py": b"B = 1\n"}
    assert config.override(settings, {"train.epochs": 3}).own_code() == settings.own_code()
    assert str(tmp_path) not in config.stored(settings)
    monkeypatch.chdir(tmp_path / "nets")
    assert config.load("tumor_type", None, ["model.kind=net.py"]).own_code() == {"net.py": b"B = 1\n"}
    with pytest.raises(InputError, match="another file of the same name"):
        config.load(str(tmp_path / "mine.toml"), None, ["model.kind=own.py"])
    with pytest.raises(InputError, match=r"model.kind: found no file gone\.py"):
        config.load("tumor_type", None, ["model.kind=gone.py"]).own_code()


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path) -> None:
    assert partition_folder("cohort", "a b/ü") == "cohort=a%20b%2F%C3%BC"
    assert len(partition_folder("cohort", "x" * 248)) == 255
    for name in ("x" * 249, "ü" * 42, "x" * 300):
        with pytest.raises(InputError, match="255 bytes at most") as caught:
            partition_folder("cohort", name, "--cohort")
        assert caught.value.file == "--cohort"


def test_another_kind_of_network_brings_its_own_options(tmp_path: Path) -> None:
    """What a task says of its own kind goes; what is asked for stays, for the network to refuse."""
    asked = config.load("binding", None, ["model.kind=rnn", "model.stem_kernel=3", "model.units=32"])
    assert asked.model == {"kind": "rnn", "pool": 4, "dropout": 0.2, "stem_kernel": 3, "units": 32}
    assert "model.dropout" in asked.tune.space and "model.positional" not in asked.tune.space
    models.build(config.load("binding", None, ["model.kind=rnn"]).model, [1], (4, 40), 2)
    assert config.load("tumor_type", None, ["model.kind=autoencoder"]).model["hidden"] == [128]
    file = tmp_path / "rnn.toml"
    file.write_text('[model]\nkind = "rnn"\nchannels = 16\n[tune.space]\n"model.channels" = { choices = [16, 32] }\n')
    searched = config.load("binding", str(file))
    assert searched.model["channels"] == 16
    assert searched.tune.space["model.channels"].choices == [16, 32]
    assert "model.stem_kernel" not in searched.tune.space
