"""Regions of a genome as command lines name them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from genodl_spark.core.errors import InputError

_REGION = re.compile(r"(?P<contig>\S+?)(?::(?P<first>[0-9][0-9,]*)(?P<range>-(?P<last>[0-9][0-9,]*)?)?)?")
_LAST = (1 << 63) - 1


@dataclass(frozen=True)
class Region:
    """Records wanted: contig as given, first and last base, 1-based, closed.
    `text`: all that was given, as it may be a name."""

    text: str
    contig: str
    first: int
    last: int


def parse_region(text: str) -> Region:
    """CONTIG, CONTIG:POS, CONTIG:FROM- or CONTIG:FROM-TO, thousands with or without commas.
    InputError for anything else."""
    match = _REGION.fullmatch(text)
    if match is None:
        raise InputError(f"found {text[:60]!r}; expected CONTIG:FROM-TO, such as chr20:1,000-2,000", "--region")
    first = 0 if match["first"] is None else int(match["first"].replace(",", ""))
    last = _LAST
    if match["last"] is not None:
        last = int(match["last"].replace(",", ""))
    elif match["first"] is not None and match["range"] is None:
        last = first
    if match["first"] is not None and not 1 <= first <= last:
        raise InputError(f"found {text[:60]!r}; expected FROM of at least 1 and at most TO", "--region")
    return Region(text, match["contig"], first, min(last, _LAST))
