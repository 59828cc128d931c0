"""A user's own files: what they imported before the package was divided into rooms is found where it stands now."""

from __future__ import annotations

import pytest

from genodl_spark.core import own_code
from genodl_spark.core.errors import InputError
from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.features.protocol import ROWS
from genodl_spark.lake.tables.ingested import EXPRESSION
from genodl_spark.learning.models.mlp import Network

BEFORE = b"""
from genodl_spark.errors import InputError
from genodl_spark.features import ROWS, MatrixFeatures as Matrix
from genodl_spark.tables import EXPRESSION


def network():
    if EXPRESSION:
        from genodl_spark.models.mlp import Network
    return Network
"""


def test_imports_of_before_lead_to_where_names_stand_now() -> None:
    made = own_code.module("a/before.py", {"before.py": BEFORE}, "implementation")
    assert (made.InputError, made.ROWS, made.Matrix, made.EXPRESSION, made.network()) == (
        InputError,
        ROWS,
        MatrixFeatures,
        EXPRESSION,
        Network,
    )


def test_imports_of_now_and_of_other_packages_stay_as_they_are() -> None:
    text = (
        b"import json\nfrom genodl_spark.features.protocol import ROWS\nfrom genodl_spark.core import own_code as o\n"
        b"from json import loads as l\n"
    )
    made = own_code.module("now.py", {"now.py": text}, "implementation")
    assert (made.ROWS, made.o, made.l) == (ROWS, own_code, made.json.loads)


@pytest.mark.parametrize(
    "text",
    [
        b"from genodl_spark.features import Gone",
        b"from genodl_spark.gone import A",
        b"from genodl_spark.models.gone import A",
    ],
)
def test_a_name_that_is_nowhere_is_an_import_error(text: bytes) -> None:
    with pytest.raises(ImportError):
        own_code.module("gone.py", {"gone.py": text}, "implementation")


def test_a_mistake_is_told_with_its_line() -> None:
    with pytest.raises(InputError, match=r"bad\.py:2: not readable as Python"):
        own_code.module("bad.py", {"bad.py": b"a = 1\nb = (\n"}, "implementation")
