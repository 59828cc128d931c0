"""Tables of published linear models, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats import coefficients

HORVATH = "CpGmarker\tCoefficientTraining\tCoefficientTrainingShrunk\n(Intercept)\t0.5\t0.7\ncg1\t1.5\tNA\ncg2\t-2\t3\n"


def written(folder: Path, text: str) -> str:
    (folder / "clock.tsv").write_text(text)
    return str(folder / "clock.tsv")


def test_a_clock_is_read_by_its_first_column_of_coefficients_or_the_one_named(tmp_path: Path) -> None:
    found = coefficients.read(written(tmp_path, HORVATH))
    assert (found.names, found.values.tolist(), found.intercept) == (["cg1", "cg2"], [1.5, -2.0], 0.5)
    shrunk = coefficients.read(written(tmp_path, HORVATH), "CoefficientTrainingShrunk")
    assert (shrunk.names, shrunk.values.tolist(), shrunk.intercept) == (["cg2"], [3.0], 0.7)
    assert found.digest != shrunk.digest
    (tmp_path / "clock.gz").write_bytes(gzip.compress(HORVATH.encode()))
    assert coefficients.read(str(tmp_path / "clock.gz")).digest == found.digest
    plain = coefficients.read(written(tmp_path, "id,weight\ncg1,1.5\n"))
    assert (plain.names, plain.intercept) == (["cg1"], 0.0)


@pytest.mark.parametrize(
    ("text", "column", "found"),
    [
        ("id\tcoefficient\ncg1\t1\ncg1\t2\n", "", "tsv:3: found 'cg1' a second time"),
        ("id\tcoefficient\nIntercept\t1\n(Intercept)\t2\n", "", "a second time"),
        ("id\tcoefficient\ncg1\tmuch\n", "", "tsv:2: found 'much' below coefficient"),
        ("id\ta\tb\ncg1\t1\t2\n", "", "expected one that begins with 'coefficient'"),
        ("id\tcoefficient\ncg1\t1\n", "weight", "clock.column: found no column 'weight'"),
        ("id\tcoefficient\ncg1\tNA\n", "", "found no coefficient below"),
        ("id\tcoefficient\n", "", "no line below a header"),
    ],
)
def test_what_is_no_clock_is_refused(tmp_path: Path, text: str, column: str, found: str) -> None:
    with pytest.raises(InputError) as caught:
        coefficients.read(written(tmp_path, text), column)
    assert found in str(caught.value)
