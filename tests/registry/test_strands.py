"""reverse_complement=auto of networks that start from a model: as its trunk has it, else as the training rows say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from genodl_spark.registry import pretrained, strands


class _Settings(SimpleNamespace):
    def model_copy(self, update: dict[str, Any]) -> _Settings:
        return _Settings(**{**vars(self), **update})


def run_of(settings: _Settings) -> Any:
    return SimpleNamespace(settings=settings, report=SimpleNamespace(metrics={}), under=run_of)


@pytest.mark.parametrize(
    ("begun", "one", "chosen"),
    [
        ({}, True, "equivariant"),
        ({}, False, "none"),
        ({"model.reverse_complement": "none"}, True, "augment"),
        ({"model.reverse_complement": "none"}, False, "none"),
        ({"model.reverse_complement": "equivariant"}, True, "equivariant"),
        ({"model.reverse_complement": "equivariant"}, False, "equivariant"),
    ],
)
def test_strands_are_one_where_the_trunk_shares_them(
    begun: dict[str, str], one: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "fixed", lambda run: begun)
    monkeypatch.setattr(strands, "_one", lambda run, dataset: one)
    asked = run_of(_Settings(model={"kind": "cnn", "channels": [8], "reverse_complement": "auto"}, code_files={}))
    found = strands.decided(asked, SimpleNamespace(transform="onehot"))  # type: ignore[arg-type]
    assert found.settings.model["reverse_complement"] == chosen
    assert asked.report.metrics == {"reverse_complement": chosen}
