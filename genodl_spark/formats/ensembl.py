"""Identifiers of Ensembl with the version behind them, and without."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genodl_spark.core.errors import InputError

_VERSIONED = re.compile(r"(ENS[A-Z]{0,6}[GTPE]\d{11})\.\d+(_PAR_Y)?", re.ASCII)


def without_versions(names: Sequence[str], file: str) -> tuple[list[str], dict[str, str]]:
    """Names without the versions of Ensembl, and those that changed: old to new. What follows a version, as _PAR_Y
    does, stays. InputError where two of them become one."""
    changed: dict[str, str] = {}
    for name in names:
        if name.startswith("ENS") and (found := _VERSIONED.fullmatch(name)):
            changed[name] = found.group(1) + (found.group(2) or "")
    if not changed:
        return list(names), {}
    made = [changed.get(name, name) for name in names]
    if len(set(made)) != len(made):
        first: dict[str, str] = {}
        for name, short in zip(names, made, strict=True):
            if short in first:
                raise InputError(
                    f"found {first[short]} and {name}, which are one feature without their versions; "
                    "expected each once: merge them, or --set ingest.ensembl_versions=keep",
                    file,
                )
            first[short] = name
    return made, changed
