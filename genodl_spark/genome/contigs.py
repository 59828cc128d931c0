"""Names of contigs."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SHARED_NAME = re.compile(r"(?:chr)?([0-9]{1,2}|X|Y|M|MT)")


def shared_contig(name: str) -> str:
    """The name under which cohorts share a contig: human chromosomes without chr, the mitochondrion MT,
    all others as they are."""
    match = _SHARED_NAME.fullmatch(name)
    return name if match is None else "MT" if match.group(1) == "M" else match.group(1)


_NUMBERED = {"23": "X", "24": "Y", "25": "XY", "26": "MT"}  # of PLINK, for people


def numbered_contig(name: str, human: bool = True) -> str:
    """The same for files that may write chromosomes as numbers, 01 for 1; those of people as PLINK does: X 23, Y 24,
    the pseudo-autosomal region of X 25 (XY), MT 26."""
    number = name.lstrip("0") or "0" if name.isdecimal() else name
    return _NUMBERED[number] if human and number in _NUMBERED else shared_contig(number)


def is_human(names: Iterable[str]) -> bool:
    """Whether numbers from 23 on may mean what they do for people: no chromosome has a higher one than 26."""
    return not any(name.isdecimal() and int(name) > 26 for name in names)
