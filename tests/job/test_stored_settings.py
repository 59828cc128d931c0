"""Settings as they stand beside models of this and of older versions stay readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.learning.settings import Feed

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"settings-{number}.json").read_text())
    return found


def test_settings_that_older_versions_stored_are_read() -> None:
    """Of each format one, as it was written then: what shapes the model's answers comes back as it stands there."""
    for number, changed in (
        (1, {"implementation": "own.py", "model": {**golden(1)["model"], "kind": "net.py"}}),
        (2, {}),
    ):
        stored = golden(number)
        settings, passed = config.from_stored(json.dumps(stored), "model m")
        assert passed == []
        assert stored.get("format", 1) == number
        read = settings.model_dump(mode="json")
        for key in (
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
            "model",
            "seed",
        ):
            expected = changed.get(key, stored[key])
            if key in ("target", "quality", "sequence", "split"):  # what came later is as it is by itself
                expected = {**getattr(config.Settings(), key).model_dump(mode="json"), **expected}
            assert read[key] == expected, key
        train = {**config.Settings().train.model_dump(mode="json"), **stored["train"]}
        assert read["predict"]["batch"] == 128 and read["train"] == train


def test_what_is_not_known_any_more_is_passed_over_where_it_shapes_no_answer() -> None:
    stored = golden(2)
    stored["monitor"]["renamed"] = 1
    stored["train"]["schedule"] = "a word of another version"
    stored["train"]["warmup"] = {"epochs": 3}
    stored["telemetry"] = {"on": True}
    stored["feed"] = "none"
    settings, passed = config.from_stored(json.dumps(stored), "model m")
    assert passed == ["monitor.renamed", "train.schedule", "train.warmup", "telemetry", "feed"] or sorted(
        passed
    ) == sorted(["monitor.renamed", "train.schedule", "train.warmup", "telemetry", "feed"])
    assert (settings.train.epochs, settings.train.schedule, settings.feed) == (30, "cosine", Feed())
    assert settings.monitor == config.Monitor(**{k: v for k, v in stored["monitor"].items() if k != "renamed"})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"quality": {"max_missing": 0.2, "renamed": 1}}, "quality.renamed"),
        ({"split": {"folds": 1}}, "split.folds"),
        ({"model": [1]}, "model"),
        ({"format": 3}, "format 3"),
        ({"format": "x"}, "format 'x'"),
    ],
)
def test_what_shapes_answers_is_not_guessed(change: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=found) as caught:
        config.from_stored(json.dumps({**golden(2), **change}), "model m")
    assert (caught.value.file == "model m" and "train it again" in str(caught.value)) or "use the version" in str(
        caught.value
    )


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000])
def test_what_is_no_settings_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="model m: found stored settings"):
        config.from_stored(text, "model m")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_json_file_that_has_been_cut_off_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "history.json").write_bytes(content)
    with pytest.raises(InputError, match=r"history\.json: not readable as JSON"):
        storage.read_json(str(tmp_path / "history.json"))
