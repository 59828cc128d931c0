"""What of a job does not go with rows in shards."""

from __future__ import annotations

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.learning import encodings
from genodl_spark.learning.encodings.values import Values
from genodl_spark.learning.preprocessing import Chain
from genodl_spark.registry.datasets import _check_shards


class Own(Values):
    def learnt(self, x, learns, scaling, cut):  # type: ignore[no-untyped-def, override]
        return super().learnt(x, learns, scaling, cut)


def test_what_is_learnt_in_one_memory_is_refused() -> None:
    for name in ("none", "asinh", "onehot"):
        _check_shards(None, encodings.encoding(name))
    _check_shards(None, encodings.Shaped())
    chain = Chain(["impute_median"], {}, ["a", "b"], "")
    with pytest.raises(InputError, match=r"^quality.steps: found steps; expected none.*leave them out, or feed.shard$"):
        _check_shards(chain, encodings.encoding("none"))
    with pytest.raises(
        InputError, match=r"quality.transform: found an encoding whose learnt\(\) takes all training rows"
    ):
        _check_shards(None, Own())
