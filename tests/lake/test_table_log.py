"""The log of a table as files: the newest version by few questions, and what of a long log nothing needs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from genodl_spark.core import storage
from genodl_spark.lake import table_log

NOW = 1_700_000_000


def entries(folder: Path, versions: list[int], checkpoint: int | None = None) -> str:
    for version in versions:
        (folder / f"{version:020}.json").write_text('{"remove":{"path":"x"}}\n')
        (folder / f"{version:020}.crc").write_text("{}")
    if checkpoint is not None:
        (folder / f"{checkpoint:020}.checkpoint.parquet").write_bytes(b"PAR1")
        (folder / "_last_checkpoint").write_text(json.dumps({"version": checkpoint, "size": 3}))
    return f"file://{folder}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the file system is asked: listings, and whether an entry is there."""
    found: list[str] = []
    for name in ("kind", "files_under"):
        real = getattr(storage, name)
        monkeypatch.setattr(
            storage, name, lambda uri, *more, real=real, name=name: (found.append(name), real(uri, *more))[1]
        )
    return found


@pytest.mark.parametrize("known", [None, 0, 700, 949, 950, 999])
@pytest.mark.parametrize("newest", [950, 951, 957, 999])
def test_the_newest_version_is_found_by_few_questions(
    tmp_path: Path, asked: list[str], newest: int, known: int | None
) -> None:
    uri = entries(tmp_path, [3, *range(900, newest + 1)], 950)
    assert table_log.newest(uri, known) == newest
    if known is None or known <= newest:
        assert "files_under" not in asked and len(asked) <= 14


def test_a_log_without_checkpoint_is_listed_once(tmp_path: Path, asked: list[str]) -> None:
    assert table_log.newest(f"file://{tmp_path}/absent") is None
    uri = entries(tmp_path, list(range(30)))
    assert table_log.newest(uri) == 29
    asked.clear()
    assert table_log.newest(uri, 29) == 29 and asked == ["kind", "kind"]
    (tmp_path / "_last_checkpoint").write_text('{"vers')
    assert table_log.newest(uri) == 29
    (tmp_path / "_last_checkpoint").write_text('{"version": 80}')  # of a log that was made anew
    assert table_log.newest(uri) == 29


def test_what_nothing_needs(tmp_path: Path) -> None:
    uri = entries(tmp_path, list(range(20)), 4)
    (tmp_path / f".{2:020}.json.crc").write_bytes(b"x")
    (tmp_path / "unknown.json").write_bytes(b"x")
    for path in tmp_path.iterdir():
        version = int(path.name.strip(".")[:20]) if path.name.strip(".")[:20].isdigit() else 0
        os.utime(path, (NOW + version, NOW + version))
    # 13 is the first that came since, 12 was the newest then
    found = table_log.unneeded(uri, [4, 7, 18, 99], NOW + 12.5)
    assert (found.base, found.checkpoints) == (12, [7, 12])
    gone = sorted(os.path.basename(name) for name, _ in found.files)
    expected = [f"{v:020}.{kind}" for v in (0, 1, 2, 3, 5, 6, 8, 9, 10, 11) for kind in ("json", "crc")]
    assert gone == sorted([*expected, f".{2:020}.json.crc"]) and found.versions == 10
    assert table_log.unneeded(uri, range(20), NOW + 12.5).files == []
    assert table_log.recent(uri, NOW + 17.5) == [18, 19]
    assert table_log.unneeded(uri, [], NOW - 1) == table_log.Unneeded(0, [], [])
