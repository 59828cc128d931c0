"""genodl_score_variants: rows of a statement in any order and of any kind, beside the same variants one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.genetics.stored_reference import StoredReference
from genodl_spark.learning import predictor as kernel
from genodl_spark.learning.heads import Head
from genodl_spark.learning.model_files import ModelFiles
from genodl_spark.registry import effects_sql
from genodl_spark.registry.neighbours import Training
from tests.features.test_variant_windows import reference, sites
from tests.learning.test_effects import LENGTH, linear

__all__ = ["reference"]


@pytest.fixture
def given(reference: StoredReference, monkeypatch: pytest.MonkeyPatch) -> effects_sql._Given:
    weight = np.random.default_rng(0).normal(size=(2, 4, LENGTH)).astype(np.float32)
    models = {"m": linear(weight, ["n", "y"]), "v": linear(weight[:1], [])}
    monkeypatch.setattr(kernel, "cached", lambda files, precision, passes: models[files.uri])
    training = Training((), True, LENGTH, (Head("label", "classes", ("n", "y")),))
    named = {name: effects_sql._Model(ModelFiles(name), 0, "t", training) for name in models}
    options = {"precision": "float32", "passes": 0}
    return effects_sql._Given(named, {"a": reference, "b": reference}, "", options, "both")


def asked(given: effects_sql._Given, rows: pd.DataFrame, model: str = "m") -> list[tuple[Any, ...]]:
    columns = (rows[name] for name in ("contig", "pos", "ref", "alt", "reference"))
    found = effects_sql._answers(given, pd.Series([model] * len(rows), rows.index, dtype=str), *columns)
    names = ("value", "probabilities", "distance", "out_of_distribution", "note")
    answers = zip(*(found[name].array for name in names), strict=True)
    return [tuple(None if one is pd.NA else one for one in answer) for answer in answers]


def test_rows_of_a_statement(given: effects_sql._Given, tmp_path: Path) -> None:
    rows = sites(40).to_pandas().assign(reference="a")
    rows.loc[7, "ref"] = None
    rows.loc[9, "reference"] = "b"
    found = asked(given, rows)
    assert found[7] == (None,) * 5
    assert all((row[0] is None) != (row[4] is None) for i, row in enumerate(found) if i != 7)
    assert sum(row[0] is not None for row in found) > 5
    assert [asked(given, rows.iloc[i : i + 1])[0] for i in range(40)] == found
    order = np.random.default_rng(1).permutation(40)
    assert asked(given, rows.iloc[order]) == [found[i] for i in order]
    values = asked(given, rows, "v")
    assert next(dict(row[1]).keys() for row in values if row[1] is not None) == {"ref", "alt"}
    for row, other in zip(found, values, strict=True):
        assert row[4] == other[4] and (row[0] is None) == (other[0] is None)
        if row[1] is not None:
            p = dict(row[1])
            odds = [np.log(p[f"{allele} y"] / p[f"{allele} n"]) for allele in ("ref", "alt")]
            assert row[0] == pytest.approx(odds[1] - odds[0], abs=1e-9) and p["effect y"] == row[0]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("reference", "third", "found reference 'third'; expected one of a, b"),
        ("reference", "", "found no reference for genodl_score_variants; expected one of a, b"),
        ("model", "other", "found model 'other'; expected a text as it stands"),
        ("pos", "somewhere", "expected chrom, ref and alt as texts and pos as a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(given: effects_sql._Given, column: str, value: str, text: str) -> None:
    rows = sites(3).to_pandas().assign(**{"reference": "a", "model": "m", column: value})
    columns = [rows[name] for name in ("model", "contig", "pos", "ref", "alt", "reference")]
    with pytest.raises(InputError, match=text):
        effects_sql._answers(given, *columns)
    with pytest.raises(InputError, match="found 3 arguments of genodl_score_variants; expected a model"):
        effects_sql._answers(given, *columns[:3])
