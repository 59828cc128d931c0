"""Bgzipped pieces of a VCF, which tasks wrote, put together to one file with its index: BGZF blocks follow each
other in any file."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import BinaryIO

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgzf

log = logging.getLogger("genodl")

LONGEST_TBI = 1 << 29  # bases of a contig, section 5.2 of the SAM specification
LEVEL = 3  # of bgzf: text leaves as fast as it is made
_COPIED = 1 << 22


def target_of(output: str) -> str:
    """Where a VCF that a command line names as `output` goes. InputError for a name of another kind, or a directory."""
    if not output.endswith(".vcf.gz"):
        raise InputError(f"found {output}; expected a name that ends in .vcf.gz", "--output")
    target = storage.absolute(output)
    if storage.kind(target) == "directory":
        raise InputError("a directory is there; expected the name of a file", output)
    return target


def put_together(header: str, pieces: Sequence[str], aside: str, target: str, csi: bool) -> int:
    """Makes the file and its index in the folder `aside` and moves both to `target`; returns the file's bytes.
    The pieces, in this order, are removed."""
    import pysam

    fs, path = storage.filesystem(target)
    with contextlib.ExitStack() as stack:
        # htslib indexes local files.
        folder = (
            storage.local_path(aside)
            if storage.is_local(target)
            else stack.enter_context(tempfile.TemporaryDirectory())
        )
        made = os.path.join(folder, "made.vcf.gz")
        with open(made, "wb") as out:
            writer = bgzf.Writer(out, LEVEL)
            writer.write(header.encode())
            writer.close()
            for uri in pieces:
                out.seek(-len(bgzf.END), os.SEEK_END)  # the block that ends a file ends only the last
                with storage.open_input(uri) as piece:
                    shutil.copyfileobj(piece, out, _COPIED)
                storage.remove_file(uri)
        log.info("indexing")
        suffix = ".csi" if csi else ".tbi"
        pysam.tabix_index(made, preset="vcf", force=True, csi=csi)
        size = os.path.getsize(made)
        moved = [(made, path), (made + suffix, path + suffix)]
        if not storage.is_local(target):
            moved = [(_sent(local, aside, target), to) for local, to in moved]
        for old in (".tbi", ".csi"):  # an index of another file is worse than none
            if storage.is_file(target + old):
                storage.remove_file(target + old)
        for source, to in moved:
            fs.move(source, to)
        return size


def _sent(local: str, aside: str, target: str) -> str:
    """Copies a local file into `aside`; returns its path there, on the filesystem of `target`."""
    fs, path = storage.filesystem(storage.join(aside, os.path.basename(local)))
    content: BinaryIO
    with open(local, "rb") as content, fs.open_output_stream(path, compression=None) as out:
        shutil.copyfileobj(content, out, _COPIED)
    return path
