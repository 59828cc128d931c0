"""genodl-spark: a lake of genomes, and models trained on it and run back over it."""

from __future__ import annotations

import sys
import zipimport


class _Archive(zipimport.zipimporter):
    """An archive on the path of a Spark worker, listed once.

    pyspark has every finder look again before each task (`importlib.invalidate_caches`),
    and a zip finder then lists its whole archive, once for each package in it: a tenth of a second for Spark's own,
    which do not change while the worker lives.
    """

    def invalidate_caches(self) -> None:
        pass


def _list_archives_once() -> None:
    hooks, known = sys.path_hooks, sys.path_importer_cache
    if zipimport.zipimporter in hooks:
        hooks[hooks.index(zipimport.zipimporter)] = _Archive
        for place in [place for place, finder in known.items() if type(finder) is zipimport.zipimporter]:
            del known[place]  # found again, by the hook as it is now, when it is next looked in


if "pyspark.worker" in sys.modules:
    _list_archives_once()
