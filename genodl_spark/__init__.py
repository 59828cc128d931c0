"""genodl-spark: a lake of genomes, and models trained on it and run back over it."""

from __future__ import annotations

import sys
import zipimport


class _Archive(zipimport.zipimporter):
    """An archive on the path of a Spark worker, listed once.

    pyspark has every finder look again before each task (`importlib.invalidate_caches`), and a zip finder then lists its whole archive, once
    for each package in it: a quarter of a second for Spark's own, which do not change while the worker lives.
    """

    def invalidate_caches(self) -> None:
        pass


if "pyspark.worker" in sys.modules and zipimport.zipimporter in sys.path_hooks:
    sys.path_hooks[sys.path_hooks.index(zipimport.zipimporter)] = _Archive
    for place, finder in list(sys.path_importer_cache.items()):
        if type(finder) is zipimport.zipimporter:
            del sys.path_importer_cache[place]  # found again, as the hook now has it, when it is next looked in
