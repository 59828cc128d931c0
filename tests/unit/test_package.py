"""What the package changes for the process that imports it."""

from __future__ import annotations

import importlib
import sys
import zipfile
import zipimport
from pathlib import Path

import pytest

import genodl_spark


def archive(path: Path, value: int) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("zipped_for_a_test.py", f"value = {value}\n")
        made.writestr(f"zipped_{value}_for_a_test.py", "")


def test_an_archive_is_read_again_when_it_is_another_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "modules.zip"
    archive(path, 1)
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.delitem(sys.modules, "zipped_for_a_test", raising=False)
    assert importlib.import_module("zipped_for_a_test").value == 1
    read: list[str] = []
    plain = genodl_spark._read
    monkeypatch.setattr(genodl_spark, "_read", lambda importer: (read.append(importer.archive), plain(importer)))
    for _ in range(3):
        importlib.invalidate_caches()
    assert read.count(str(path)) == 1  # the first time it is not known what was read
    path.unlink()
    archive(path, 22)
    importlib.invalidate_caches()
    assert read.count(str(path)) == 2
    assert importlib.import_module("zipped_22_for_a_test").__file__ == str(path / "zipped_22_for_a_test.py")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("zipped_1_for_a_test")
    path.unlink()
    importlib.invalidate_caches()
    importer = sys.path_importer_cache[str(path)]
    assert isinstance(importer, zipimport.zipimporter)
    assert importer.find_spec("zipped_22_for_a_test") is None
