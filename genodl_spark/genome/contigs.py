"""Names of contigs."""

from __future__ import annotations

import re

_SHARED_NAME = re.compile(r"(?:chr)?([0-9]{1,2}|X|Y|M|MT)")


def shared_contig(name: str) -> str:
    """The name under which cohorts share a contig: human chromosomes without chr, the mitochondrion MT,
    all others as they are."""
    match = _SHARED_NAME.fullmatch(name)
    return name if match is None else "MT" if match.group(1) == "M" else match.group(1)
