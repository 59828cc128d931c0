"""Sections of settings, and the layers of TOML and KEY=VALUE that fill them. An unknown key is an error,
and so is a number that is not finite."""

from __future__ import annotations

import math
import re
import tomllib
from importlib.resources.abc import Traversable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from genodl_spark.core.errors import InputError


def as_names(value: Any) -> Any:
    """A comma list, a number or a list of either, as a list of strings."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        return [str(part) for part in value]
    return [str(value)]


def as_numbers(value: Any) -> Any:
    return (
        [part for part in value.split(",") if part.strip()]
        if isinstance(value, str)
        else value
        if isinstance(value, list)
        else [value]
    )


Names = Annotated[list[str], BeforeValidator(as_names)]
Numbers = Annotated[list[int], BeforeValidator(as_numbers)]
Text = Annotated[str, BeforeValidator(lambda value: value if value is None else str(value))]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


_DEPTH = 32  # tables and lists within each other
_LARGEST = 1 << 53  # integers that a double holds
# The time that tomllib takes grows with the square of a dotted key's parts.
_LONG_KEY = re.compile(r"(?<![\w\-.\"' ])(?:[\w\-\"']++[ \t]*+\.[ \t]*+){" + str(_DEPTH) + "}")


def read(path: Traversable) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if found := _LONG_KEY.search(text):
            line = text.count("\n", 0, found.start()) + 1
            raise InputError(
                f"found a key of more than {_DEPTH} parts; expected {_DEPTH} at most, shorten it", str(path), line
            )
        content = tomllib.loads(text)
    except RecursionError as error:
        raise InputError(
            "found values nested too deeply; expected a TOML of settings, mend the file", str(path)
        ) from error
    except ValueError as error:  # of the encoding, the syntax, or a number of thousands of digits
        raise InputError(f"not readable as TOML: {error}; mend the file", str(path)) from error
    if "spark" in content:
        if not isinstance(content["spark"], dict):
            raise InputError(
                f"spark: found {content['spark']!r:.80}; expected a table of Spark's properties", str(path)
            )
        content["spark"] = properties(content["spark"])
    return content


def check_values(layer: dict[str, Any], file: str | None) -> None:
    """InputError for a number that is not finite or beyond what a double holds, and for what is nested too deeply."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), layer)]
    while pending:
        path, value = pending.pop()
        key = ".".join(path)
        text = ""
        if isinstance(value, dict):
            pending += [((*path, name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            pending += [((*path, str(number)), inner) for number, inner in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            text = f"found {value}; expected a finite number"
        elif isinstance(value, int) and abs(value) > _LARGEST:
            text = f"found a number of {value.bit_length()} bits; expected one of 53 at most"
        if len(path) > _DEPTH:
            key, text = (
                ".".join(path[:4]) + "...",
                f"found more than {_DEPTH} levels of tables and lists; expected fewer",
            )
        if text:
            raise InputError(text if file is None else f"{key}: {text}", key if file is None else file)


def properties(table: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables of Spark properties as dotted names that begin with `spark.`."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(properties(value, f"{name}."))
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            flat[name if name.startswith("spark.") else f"spark.{name}"] = text
    return flat


def assigned(assignments: list[str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise InputError(f"found {assignment!r}; expected KEY=VALUE", "--set")
        if key.count(".") >= _DEPTH:
            raise InputError(f"found a key of more than {_DEPTH} parts; expected {_DEPTH} at most, shorten it", "--set")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            value = text
        if key.startswith("spark."):
            nested.setdefault("spark", {})[key] = str(value).lower() if isinstance(value, bool) else str(value)
            continue
        *parents, last = key.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
            if not isinstance(level, dict):
                raise InputError("a value is set both for this key and below it; set one of them", key)
        level[last] = value
    return nested
