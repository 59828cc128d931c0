"""The compiled kernels (kernels.c, reads.c): loading, and one typed function for each.
Arrays must be contiguous; none is copied.

A packed genotype column is Arrow binary: `data` and int32 `offsets` (V + 1) in it.
What they do stands in genotypes.py, formats/vcf/reader.py, formats/named_columns.py and genome/shuffles.py.
"""

from __future__ import annotations

import atexit
import ctypes
import sysconfig
from contextlib import ExitStack
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pyarrow as pa

_NAME = "_kernels"
_P, _N, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "genodl_counts": (_N, [_P, _P, _N, _N, _P, _P, _P]),
    "genodl_copies": (_N, [_P, _P, _N, _N, _P, _P, _P, _N, _P]),
    "genodl_values": (_N, [_P, _P, _N, _N, _P, _N, _N, _P]),
    "genodl_ploidy": (_N, [_P, _P, _N, _N, _P]),
    "genodl_sample_text": (_N, [_P, _N, _P, _N, _N, _P, _N, _I, _P, _N]),
    "genodl_pack": (_N, [_P, _P, _N, _N, _N, _P, _P]),
    "genodl_bed": (_N, [_P, _N, _N, _P, _P, _P]),
    "genodl_count_lines": (_N, [_P, _N]),
    "genodl_lines": (_N, [_P, _N, _I, _N, _P, _P]),
    "genodl_fixed": (None, [_P, _N, _P, _P, _I, _P, _P, _P, _P, _P, _I, _I, _P, _P, _P, _P, _P]),
    "genodl_samples": (None, [_P, _N, _P, _P, _N, _I, *[_P] * 10]),
    "genodl_gather": (None, [_P, _N, _P, _P, _N, _P, _P]),
    "genodl_gather_lists": (_N, [_P, _N, _P, _P, _N, _I, _P, _P, _P]),
    "genodl_columns": (_N, [_P, _N, _I, _P, _N, _P, _P, _P]),
    "genodl_shuffled": (None, [_P, _N, _N, _P, _P]),
    "genodl_records": (_N, [_P, _N, _N, _N, *[_P] * 6]),
    "genodl_mates": (_N, [*[_P] * 5, _N]),
    "genodl_pileup": (_N, [_P, _P, _N, _P, _N, _N, _I, _P, _N, _P, _P, _P, _P, _N, _P]),
    "genodl_differences": (None, [_P, _P, _N, _P, _N, _N, _I, _P, _P]),
    "genodl_likely": (_N, [_P, _P, _N, _P, _P, _N, _N, _N, _N, _N, _N, _P, _P, _P, ctypes.c_double, _P]),
    "genodl_image": (_N, [_P, _P, _N, _P, _P, _P, _P, _N, _N, _N, _N, _N, _P, _P]),
    "genodl_units": (None, [_P, _N, _N, _P]),
    "genodl_errors": (_N, [_P, _P, _N, _P, _N, _N, _P, _P, _P]),
    "genodl_misread": (_N, [_P, _P, _N, _P, _P, _N, _N, _P, _P, ctypes.c_uint64, _N, _P, _P]),
}


@cache
def _library() -> ctypes.CDLL:
    # In a wheel sent along with --py-files the file lies in a zip: it is unpacked for as long as this process lives.
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    kept = ExitStack()
    atexit.register(kept.close)
    path = kept.enter_context(resources.as_file(resources.files("genodl_spark.native") / f"{_NAME}{suffix}"))
    if not path.is_file():
        raise ImportError(
            f"{path} is not there: the kernels are not compiled; run make setup, or install the wheel of this platform"
        )
    return opened(str(path))


def opened(path: str) -> ctypes.CDLL:
    """A compiled kernels.c, its functions typed."""
    library = ctypes.CDLL(path)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def call(name: str, *arguments: Any) -> int:
    """Calls a kernel: arrays and bytes by address, numbers as they are, None as NULL."""
    return getattr(_library(), f"genodl_{name}")(*(_address(a) for a in arguments)) or 0


def _address(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return value.ctypes.data
    if isinstance(value, pa.Buffer):
        return value.address
    return value
