"""genodl-spark: a lake of genomes, and models trained on it and run back over it."""

from __future__ import annotations

import contextlib
import os
import zipimport

_read = zipimport.zipimporter.invalidate_caches


def _invalidate_caches(importer: zipimport.zipimporter) -> None:
    """Reads the directory of an importer's archive again if the archive is another file than the last time.

    Before every task a Python worker of Spark calls importlib.invalidate_caches(), with pyspark.zip and Spark's jar on its path. Python
    3.11 then reads their directories as often as they have packages that are imported: 0.2 CPU seconds. From 3.12 on it does not.
    """
    stamp = None
    with contextlib.suppress(OSError):
        found = os.stat(importer.archive)
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
    if stamp is None or stamp != getattr(importer, "_stamp", None):
        _read(importer)
        importer._stamp = stamp  # type: ignore[attr-defined]


zipimport.zipimporter.invalidate_caches = _invalidate_caches  # type: ignore[assignment, method-assign]
