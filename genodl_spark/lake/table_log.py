"""The log of a table as files: its newest version without listing all of them, what commits say,
and which entries nothing needs any more.

`uri` is that of the log everywhere: the folder `_delta_log` of a table. Entries are contiguous from some version
on to the newest; of older ones those that are pinned are there, each with a checkpoint of its own.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError

ENTRY = re.compile(r"/(\d{20})\.json$")
OF_VERSION = re.compile(r"/\.?(\d{20})\.(?:json|crc|checkpoint(?:\.[\w.-]+)?\.parquet)(?:\.crc)?$")


def entry(uri: str, version: int) -> str:
    return storage.join(uri, f"{version:020}.json")


def newest(uri: str, known: int | None = None) -> int | None:
    """The newest version; None where there is none.

    `known`: one that was the newest at some time. From there, or from the last checkpoint,
    a few questions lead to the newest, however many there are; a log without either is listed.
    """
    last = _last_checkpoint(uri)
    start = max((version for version in (known, last) if version is not None), default=None)
    if start is None or not _there(uri, start):
        found = [ENTRY.search(name) for name in storage.files_under(uri, ".json")]
        return max((int(one.group(1)) for one in found if one), default=None)
    step = 1
    while _there(uri, start + step):
        start, step = start + step, 2 * step
    above = start + step
    while above - start > 1:
        middle = (start + above) // 2
        start, above = (middle, above) if _there(uri, middle) else (start, middle)
    return start


def _there(uri: str, version: int) -> bool:
    return storage.is_file(entry(uri, version))


def _last_checkpoint(uri: str) -> int | None:
    with contextlib.suppress(InputError, ValueError, KeyError, TypeError):
        return int(storage.read_json(storage.join(uri, "_last_checkpoint"))["version"])
    return None


def actions(uri: str, version: int) -> Iterator[dict[str, Any]]:
    """What a commit holds. InputError where its entry is gone."""
    for line in storage.read_bytes(entry(uri, version)).decode().splitlines():
        yield json.loads(line)


def metadata(uri: str, version: int) -> dict[str, Any] | None:
    """A version's schema, partitioning and properties; None where neither what Delta keeps beside it nor
    the entries up to it have them."""
    with contextlib.suppress(InputError, ValueError, KeyError):
        found: dict[str, Any] = storage.read_json(storage.join(uri, f"{version:020}.crc"))["metadata"]
        return found
    with contextlib.suppress(FileNotFoundError, InputError):
        for number in range(version, -1, -1):
            for action in actions(uri, number):
                if "metaData" in action:
                    stored: dict[str, Any] = action["metaData"]
                    return stored
    return None


def recent(uri: str, since: float) -> list[int]:
    """Versions whose entries were written since then (seconds of the epoch), sorted."""
    found = [(modified, ENTRY.search(name)) for name, modified, _ in storage.listing(uri)]
    return sorted(int(one.group(1)) for modified, one in found if one and modified >= since)


@dataclass(frozen=True)
class Unneeded:
    """Files of a log (URI, bytes) that may go once every version of `checkpoints` has a checkpoint;
    `base`: the least of the contiguous ones."""

    base: int
    checkpoints: list[int]
    files: list[tuple[str, int]]

    @property
    def versions(self) -> int:
        return sum(1 for name, _ in self.files if ENTRY.search(name))


def unneeded(uri: str, pinned: Iterable[int], before: float) -> Unneeded:
    """What a log holds of versions that are neither `pinned` nor were the newest at any time since
    `before` (seconds of the epoch)."""
    files = [
        (name, modified, size, int(found.group(1)))
        for name, modified, size in storage.listing(uri)
        if (found := OF_VERSION.search(name))
    ]
    entries = {version: modified for name, modified, _, version in files if ENTRY.search(name)}
    if not entries:
        return Unneeded(0, [], [])
    base = max(entries)
    while base - 1 in entries and entries[base] >= before:
        base -= 1
    kept = {base, *(version for version in pinned if version in entries and version < base)}
    with_checkpoint = {version for name, _, _, version in files if ".checkpoint." in name and name.endswith(".parquet")}
    gone = [(name, size) for name, _, size, version in files if version < base and version not in kept]
    return Unneeded(base, sorted(kept - with_checkpoint) if gone else [], gone)


def announces(uri: str, version: int) -> bool:
    """Whether readers find a checkpoint at `version`, or one after it, without listing the log."""
    known = _last_checkpoint(uri)
    return known is not None and known >= version
