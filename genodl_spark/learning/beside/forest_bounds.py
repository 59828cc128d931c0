"""What random forests of values may cost (Breiman 2001, doi:10.1023/A:1010933404324): the blended one (forest.py)
and the baseline. A tree sorts, at every level, rows x features of a node numbers, so that both are bounded."""

from __future__ import annotations

ROWS = 5_000  # that each tree draws at most, with replacement
WIDEST = 200  # features that a node looks at
SORTED = 160_000  # numbers at the root of a tree


def candidates(features: int, rows: int) -> int:
    """Features that each node of a tree of values looks at: a third of all, at most WIDEST, and at most so many that
    SORTED numbers are sorted at the root of a tree of `rows` rows. Below 800 rows the last bounds nothing."""
    return max(1, min(-(-features // 3), WIDEST, SORTED // max(rows, 1)))
