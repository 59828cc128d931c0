"""What a cell of a text table says: nothing, a number or a text; and which names may stand
for a sample, a feature or a column.

Matrices, sample tables, sequence tables, labels and covariates are all read by these rules.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Sequence

MISSING = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "NULL", "null"})
# Words that other programs write for a missing value, and that may as well be one:
# a class None, the strand -, a measurement of -9.
DOUBTFUL = frozenset({"None", "none", "na", "Na", ".", "-", "-9", "?", "#N/A", "<NA>", "missing"})
WORDS = "NA, N/A, NaN, null or an empty cell"  # how messages name MISSING
LONGEST = 100_000  # characters of a cell; behind a longer one is a quote that does not end, or another kind of file
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?(?:[0-9]+,[0-9]*|,[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BREAKING = {"Cc", "Zl", "Zp"}  # Unicode's categories of control characters and line ends
_SHOWN = 40


def known(text: str) -> str | None:
    """The text without blanks around it; None where it says that the value is missing."""
    trimmed = text.strip()
    return None if trimmed in MISSING else trimmed


def number(text: str) -> float | None:
    """A finite decimal number, perhaps with blanks around it; None for anything else that Python reads too,
    as 1_000, inf or other digits."""
    trimmed = text.strip()
    value = float(trimmed) if _NUMBER.fullmatch(trimmed) else math.inf
    return value if math.isfinite(value) else None


def with_point(text: str) -> str:
    """A number with a decimal comma as one with a point; any other text as it is."""
    trimmed = text.strip()
    return trimmed.replace(",", ".") if _DECIMAL_COMMA.fullmatch(trimmed) else text


def shown(text: str) -> str:
    """A text for a message: in quotes, so that blanks show, and not longer than a line."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text):,} characters)"


def character(letter: str) -> str:
    """A character for a message, with its code point where it is not plain ASCII."""
    return f"{letter!r}" if letter.isascii() and letter.isprintable() else f"{letter!r} (U+{ord(letter):04X})"


def fault_of_name(name: str) -> str | None:
    """What is wrong with an identifier, as "found ..., expected ..." goes on after "found";
    None for one that may stand."""
    if not name:
        return "an empty name"
    if name != name.strip():
        return f"blanks around the name {shown(name)}"
    breaking = (
        None
        if name.isprintable()
        else next((letter for letter in name if unicodedata.category(letter) in _BREAKING), None)
    )
    if breaking is not None:
        return f"the control character {character(breaking)} in the name {shown(name)}"
    if len(name) > LONGEST:
        return f"a name of {len(name):,} characters, {shown(name)}"
    return None


def order_hash(names: Sequence[str]) -> str:
    """Identifier of an ordered list of names: 16 hexadecimal digits of SHA-256.

    Over the lines that the names make, as all stored lakes have it, where every name is one line;
    else over their lengths too.
    """
    lines = "\n".join(names)
    if lines.count("\n") != max(len(names) - 1, 0):
        # no line is empty in the other form but of one empty name
        lines = "\n\n" + "".join(f"{len(name)}:{name}" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
