"""Which format the file of a matrix is in, by its first lines, 50 at most: never by its name or its place."""

from __future__ import annotations

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import gct, gdc_counts, gdc_sheet, geo_series, geo_soft, matrix
from genodl_spark.formats.matrix import Header, MatrixFile
from genodl_spark.formats.streams import first_lines

_LINES = 50


def read_header(uri: str, lines: str = "auto", gdc_column: str = "unstranded") -> MatrixFile:
    """What the head of a file says; its names where the format has them elsewhere.

    `lines`: whether those of a plain table are features or samples, auto by their names; `gdc_column`: which column of
    GDC counts is read. InputError for a file that is none of the formats, or breaks its own.
    """
    head = first_lines(uri, _LINES)
    if gdc_sheet.recognised(head):
        return gdc_sheet.read(uri)
    if gct.recognised(head):
        return gct.read_header(uri)
    if geo_soft.recognised(head):
        return geo_soft.read_header(uri)
    if geo_series.recognised(head):
        return geo_series.read_header(uri)
    if gdc_counts.recognised(head):
        return gdc_counts.read_header(head, uri, gdc_column)
    with storage.open_input(uri) as raw:
        header = matrix.read_header(raw, uri)
    if lines == "auto":
        with storage.open_input(uri) as raw:
            first = matrix.first_column(raw, header, uri, _LINES)
        lines = "samples" if matrix.orientation(header, first, uri) else "features"
    return by_sample(uri, header) if lines == "samples" else header


def by_sample(uri: str, header: Header) -> MatrixFile:
    """A plain table with samples in lines. InputError where two have one name."""
    with storage.open_input(uri) as raw:
        return matrix.by_sample(raw, header, uri)


def fitted(uri: str, header: MatrixFile, known: set[str], settled: bool) -> MatrixFile:
    """A plain table as a sample table beside it shows it: with samples in lines, where the table has these and not
    the columns. InputError where it has both, unless which they are was `settled`."""
    if not isinstance(header, Header) or settled:
        return header
    columns = known.issuperset(header.samples)
    with storage.open_input(uri) as raw:
        first = matrix.first_column(raw, header, uri, None if not columns else 1)
    if columns and first and first[0] in known:
        raise InputError(
            "found samples of the sample table both in lines and in columns; expected one of them, "
            "say which with --set ingest.lines=samples or --set ingest.lines=features",
            uri,
            1,
        )
    return header if columns or not first or not known.issuperset(first) else by_sample(uri, header)
