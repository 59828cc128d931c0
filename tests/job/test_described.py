"""Every setting is explained: what it is, its type and bounds, its default and the value that a run would have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.job.described import described
from jobs import settings as settings_job


def fields(section: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Descriptions by key, of sections within tables too."""
    found = {}
    for name, info in section.model_fields.items():
        found[prefix + name] = info.description or ""
        inner = [info.annotation, *getattr(info.annotation, "__args__", ())]
        for one in inner:
            if isinstance(one, type) and issubclass(one, BaseModel):
                found[prefix + name] = one.__doc__ or ""
                found |= fields(one, f"{prefix}{name}.")
    return found


def test_every_key_of_the_settings_has_a_description() -> None:
    said = fields(config.Settings)
    assert set(config._keys(config.Settings)) <= set(said) and len(said) > 120
    assert [key for key, text in said.items() if len(text) < 15 or not text.rstrip().endswith(".")] == []
    shown = {one.key: one.description for one in described(config.load())}
    assert {key.replace("tune.space.", "tune.space.NAME.") for key in said} <= set(shown)
    assert all(shown.values())


def test_a_setting_has_its_bounds_default_and_value() -> None:
    settings = config.load("binding", None, ["train.batch=32", "train.ema=0.5"])
    found = {one.key: (one.type, one.default, one.value) for one in described(settings) if not one.of}
    assert found["train.batch"] == ("whole number, at least 1, at most 16777216", 64, 32)
    assert found["train.ema"] == ("number, at least 0, below 1", 0.0, 0.5)
    assert found["train.epochs"] == ("whole number, at least 1, at most 1000000", 40, 6)
    assert found["train.launcher"] == ("one of spark, horovodrun, process", "spark", "spark")
    assert found["split.folds"] == ("whole number, or not set, at least 2, at most 127", 5, None)
    assert found["target.classes"] == ("list of texts", [], [])
    assert found["tune.space.NAME.low"] == ("number, or not set", None, None)
    assert found["tune.space"][2]["model.channels"] == {"choices": [[32, 48], [32, 64], [64]], "log": False}
    assert [one.key for one in described(settings, "lock")] == ["lock", "lock.wait_seconds"]
    assert [(one.key, one.value) for one in described(settings, "spark.sql.adaptive.enabled")] == [
        ("spark.sql.adaptive.enabled", "true")
    ]


def test_options_of_networks_come_from_their_constructors(tmp_path: Path) -> None:
    settings = config.load("binding", None, ["model.dropout=0.4"])
    assert {one.of: (one.type, one.default, one.value) for one in described(settings, "model.channels")} == {
        "cnn": ("list of whole numbers", [64], [32, 48]),
        "pileup": ("list of whole numbers", None, None),
        "rnn": ("whole number", 64, 64),
    }
    assert {one.type for one in described(settings, "model.pooling")} == {"text or list of texts"}
    dropout = {one.of: (one.value, one.description) for one in described(settings, "model.dropout")}
    assert (
        set(dropout) == {"autoencoder", "cnn", "fusion", "mlp", "pileup", "rnn"}
        and dropout["cnn"][0] == 0.4
        and dropout["rnn"][0] == 0.0
    )
    assert all("dropped in training" in text for _, text in dropout.values())
    assert {one.of for one in described(settings, "model")} == {"", "late", *dropout}
    own = tmp_path / "net.py"
    own.write_text(
        'class Network:\n    """A net. `width`: of it."""\n\n    def __init__(self, seeds, inputs, '
        "outputs, width: int = 3): ...\n"
    )
    mine = described(config.load("binding", None, [f"model={{kind = '{own}', width = 5}}"]), "model.width")
    assert [(one.of, one.type, one.default, one.value, one.description) for one in mine] == [
        ("net.py", "whole number", 3, 5, "`width`: of it.")
    ]


def test_options_of_baselines_are_those_that_a_search_may_choose() -> None:
    settings = config.load(None, None, ["evaluate.options.logistic.C=3"])
    found = {one.key: (one.default, one.value, one.description) for one in described(settings, "evaluate.options")}
    assert found["evaluate.options.logistic.C"][:2] == (10.0, 3)
    assert found["evaluate.options.random_forest.max_depth"][2].startswith("random_forest: 500 trees")
    assert [one.key for one in described(settings, "evaluate.options.ridge")] == ["evaluate.options.ridge.alpha"]


@pytest.mark.parametrize(
    ("key", "close"), [("train.bacth", "train.batch"), ("ingst", "ingest"), ("zzz", "one of spark, seed, tracking")]
)
def test_an_unknown_key_is_told_with_a_close_one(key: str, close: str) -> None:
    with pytest.raises(InputError, match=close) as caught:
        described(config.load(), key)
    assert str(caught.value).startswith("KEY: found no setting")


def test_secrets_are_hidden() -> None:
    settings = config.load(
        None, None, ["spark.hadoop.fs.s3a.secret.key=abcdef123", "tracking.uri=postgresql://u:abcdef456@h/d"]
    )
    found = {one.key: json.dumps(one.value) for one in described(settings)}
    assert "abcdef" not in "".join(found.values()) and "***" in found["spark"] and "***" in found["tracking.uri"]


def test_the_verb_prints_them_without_a_lake(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings_job.main(["train.batch", "--task", "binding", "--set", "train.epochs=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["train.batch = 128", "    whole number, at least 1, at most 16777216; default 64"] and lines[
        2
    ].startswith("    Rows of")
    assert json.loads(lines[-1])["result"] == [
        {
            "key": "train.batch",
            "of": "",
            "type": "whole number, at least 1, at most 16777216",
            "default": 64,
            "value": 128,
        }
    ]
    assert settings_job.main(["trian"]) == 2
    assert "genodl: error: KEY: found no setting 'trian'; expected one such as train" in capsys.readouterr().err
    program = (
        "import sys; from jobs import settings; settings.main(['train']); print(sorted({'torch', 'sklearn', "
        "'pyspark'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
