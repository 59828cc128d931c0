"""Intervals of a genome in BED, plain or gzipped."""

from __future__ import annotations

import numpy as np

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import shown
from genodl_spark.formats import streams
from genodl_spark.genome.loci import union

_HEADINGS = (b"#", b"track", b"browser")


def read_bed(uri: str) -> dict[str, np.ndarray]:
    """Intervals [start, end) of each contig, 0-based: int64 (n, 2), sorted, those that touch or overlap made one.

    Contigs are named as in the file. InputError, with the line, for one that has fewer than three columns or no whole
    numbers, ends before it starts, and for a file that is not whole.
    """
    found: dict[bytes, list[tuple[int, int]]] = {}
    with storage.open_input(uri) as raw:
        for number, block in streams.line_blocks(raw, uri):
            for i, line in enumerate(block.split(b"\n")):
                if not line.strip() or line.startswith(_HEADINGS):
                    continue
                columns = line.split(b"\t") if b"\t" in line else line.split()
                try:
                    contig, start, end = columns[0], int(columns[1]), int(columns[2])
                except (IndexError, ValueError):
                    text = shown(line.decode("utf-8", "replace"))
                    what = f"found {text}; expected BED: contig, start (0-based) and end, with tabs between them"
                    raise InputError(what, uri, number + i) from None
                if not 0 <= start <= end:
                    raise InputError(f"found start {start} and end {end}; expected 0 <= start <= end", uri, number + i)
                if start < end:
                    found.setdefault(contig, []).append((start, end))
    return {contig.decode("utf-8", "replace"): union(np.array(pairs, np.int64)) for contig, pairs in found.items()}
