"""BCF 2.2 (VCF specification, section 6) as the VCF text that it stands for, through htslib."""

from __future__ import annotations

import contextlib
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pysam

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgzf
from genodl_spark.formats.streams import BLOCK, LONGEST

_MAGIC = b"BCF\2\2"
_HEADER, _RECORD = struct.Struct("<5sI"), struct.Struct("<2I")


def is_bcf(first: bytes) -> bool:
    """Whether a file with these first bytes (some hundred are enough) is a BCF file,
    which is BGZF with BCF's mark inside."""
    try:
        return bgzf.is_bgzf(first) and zlib.decompressobj(wbits=31).decompress(first, len(_MAGIC)) == _MAGIC
    except zlib.error:
        return False


def line_blocks_of_bcf(uri: str, size: int = BLOCK, longest: int = LONGEST) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the first line, block) as `line_blocks` does for the same file as VCF text, header and records.

    The text is that of `bcftools view`. A file that is not local is copied to the temporary directory first.
    InputError, before any text, for a file that is cut off or corrupt, or has a record of more than `longest` bytes;
    and for one whose records htslib cannot read.
    """
    with _local(uri) as path:
        expected = _count_records(path, uri, longest)
        number, lines, held, records = 1, [], 0, 0
        try:
            with _opened(path) as file:
                lines = [str(file.header)]
                for record in file:
                    lines.append(str(record))
                    records += 1
                    held += len(lines[-1])
                    if held >= size:
                        block = "".join(lines).encode()
                        lines, held = [], 0
                        yield number, block
                        number += block.count(b"\n")
        except (OSError, ValueError) as error:
            raise _unreadable(f"record {records + 1} of a BCF file that htslib cannot read ({error})", uri) from error
        if records != expected:
            raise _unreadable(f"{records} readable records in a BCF file of {expected}", uri)
        if lines:
            yield number, "".join(lines).encode()


def header_block(uri: str) -> Iterator[tuple[int, bytes]]:
    """Yields the header alone, as `line_blocks_of_bcf` does at first, without reading the records.
    InputError where htslib cannot read it."""
    with _local(uri) as path:
        try:
            with _opened(path) as file:
                text = str(file.header).encode()
        except (OSError, ValueError) as error:
            raise _unreadable(f"the header of a BCF file that htslib cannot read ({error})", uri) from error
    yield 1, text


def _opened(path: str) -> pysam.VariantFile:
    verbosity = pysam.set_verbosity(0)  # or it tells that there is no index, which nobody needs here
    try:
        return pysam.VariantFile(path)
    finally:
        pysam.set_verbosity(verbosity)


def _unreadable(found: str, uri: str) -> InputError:
    return InputError(f"found {found}; expected sound BCF 2.2, fetch or make the file again", uri)


@contextlib.contextmanager
def _local(uri: str) -> Iterator[str]:
    """A path to the file's bytes."""
    if storage.is_local(uri):
        yield storage.local_path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="genodl-") as folder:
        path = str(Path(folder, "copy.bcf"))
        with storage.open_input(uri) as raw, open(path, "wb") as copy:
            shutil.copyfileobj(raw, copy, 1 << 20)
        yield path


def _count_records(path: str, uri: str, longest: int) -> int:
    """Records of a BCF file, from their lengths. InputError unless every block is sound, the last record whole
    and none above `longest` bytes.

    htslib alone may take a file that ends early for a short one.
    """
    held, skip, size, records = b"", 0, _HEADER.size, -1
    try:
        with storage.open_input(path) as raw:
            for _, text in bgzf.blocks(raw.read):
                held, skip = held + text[skip:], max(0, skip - len(text))
                at = 0
                while at + size <= len(held):
                    if records < 0:
                        magic, length = _HEADER.unpack_from(held, at)
                        if magic != _MAGIC:
                            raise _unreadable(f"{magic!r} at the start", uri)
                    else:
                        length = sum(_RECORD.unpack_from(held, at))
                        if length > longest:
                            raise _unreadable(
                                f"{length:,} bytes in record {records + 1} of a BCF file, more than "
                                f"the {longest:,} allowed",
                                uri,
                            )
                    at += size + length
                    records, size = records + 1, _RECORD.size
                held, skip = held[at:], skip + max(0, at - len(held))
    except bgzf.Broken as broken:
        place = "" if broken.at is None else f" at byte {broken.at}"
        raise InputError(f"{broken}{place}; expected a whole file, fetch or compress it again", uri) from broken
    if held or skip or records < 0:
        raise _unreadable("a BCF file that is cut off within a record", uri)
    return records
