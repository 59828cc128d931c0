"""What each setting is, printed."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any

from genodl_spark.core.output import printable
from genodl_spark.job.described import Described, described
from genodl_spark.job.run import Run


def explain(run: Run, key: str | None) -> None:
    """Prints the settings of a key, or all, and puts them into the report as `result`.
    InputError for a key that there is not."""
    found = described(run.settings, key)
    run.report.result = [
        {"key": one.key, "of": one.of, "type": one.type, "default": one.default, "value": one.value} for one in found
    ]
    for one in found:
        print("\n".join(map(printable, _lines(one))))
    sys.stdout.flush()


def _lines(one: Described) -> list[str]:
    said = textwrap.wrap(one.description, 112, initial_indent="    ", subsequent_indent="    ")
    if one.section:
        return [f"[{one.key}]", *said]
    default = "" if one.value == one.default else f"; default {_written(one.default)}"
    return [
        f"{one.key} = {_written(one.value)}{f'    (kind {one.of})' if one.of else ''}",
        f"    {one.type}{default}",
        *said,
    ]


def _written(value: Any) -> str:
    return "(not set)" if value is None else json.dumps(value, ensure_ascii=False)
