"""Barcodes of TCGA: which case, sample and aliquot a name is of, and which of several aliquots stands for a sample."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from genodl_spark.core.errors import InputError

PARTS = ("type", "vial", "portion", "plate")
LEVELS = ("case", "sample", "aliquot")
_BARCODE = re.compile(
    r"(?P<case>TCGA-\w\w-\w{4})(?:-(?P<type>\d\d)(?P<vial>[A-Z])?(?:-(?P<portion>\d\d)(?P<analyte>[A-Z])?"
    r"(?:-(?P<plate>\w{4})(?:-(?P<center>\w\w))?)?)?)?",
    re.ASCII,
)


def parts(name: str) -> dict[str, str]:
    """What a barcode says, by `case` and `PARTS`; nothing for any other name."""
    found = _BARCODE.fullmatch(name)
    return {} if found is None else {key: text for key, text in found.groupdict().items() if text is not None}


def cut(name: str, level: str) -> str:
    """The case or the sample of a barcode; a name that is none, or tells of less, as it is."""
    found = parts(name)
    if level == "aliquot" or not found or "type" not in found:
        return name
    return found["case"] if level == "case" else f"{found['case']}-{found['type']}{found.get('vial', '')}"


def check_order(order: Sequence[str], place: str) -> None:
    """InputError for what is no order of aliquots: parts of a barcode, with - where the largest comes first."""
    for one in order:
        if one.removeprefix("-") not in PARTS:
            raise InputError(
                f"found {one!r}; expected {', '.join(PARTS)}, with - in front for the largest first", place
            )


def rank(name: str, order: Sequence[str]) -> tuple[Any, ...]:
    """The place of an aliquot among others of its sample, the first of which stands for it. What its barcode does
    not tell comes last; names decide where the rest is the same."""
    found = parts(name)
    key: list[Any] = []
    for one in order:
        text = found.get(one.removeprefix("-"))
        codes = tuple(map(ord, text or ""))
        key.append((text is None, tuple(-code for code in codes) if one.startswith("-") else codes))
    return (*key, name)


def deciding(first: str, other: str, order: Sequence[str]) -> str:
    """By what `first` comes before `other`, for messages."""
    for one, a, b in zip(order, rank(first, order), rank(other, order), strict=False):
        if a != b:
            part = one.removeprefix("-")
            theirs = [parts(name).get(part, "none") for name in (first, other)]
            return f"{part} {theirs[0]} before {theirs[1]}"
    return "the first by name"
