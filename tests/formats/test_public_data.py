"""Public data sets as the readers give them, without a lake: shapes and labels are those of their README.

Cells and sequences are read whole by the tests of these formats, against the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from genodl_spark.formats import (
    alignment,
    annotation,
    bgen,
    gdc_sheet,
    maf,
    matrix_files,
    plink,
    reference_fasta,
    streams,
    variant_table,
)
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.formats.variant_table import References
from genodl_spark.formats.vcf import reader as vcf
from genodl_spark.sources.samples import read_samples
from tests.public_data import DATA, DATA_SETS, DataSet, agree

Labels = dict[str, list[str | None]]


def columns(table: SampleTable) -> Labels:
    return {name: [cells[i] for cells in table.rows.values()] for i, name in enumerate(table.columns)}


def of_matrix(data: DataSet, uri: str) -> tuple[int, Labels]:
    header = matrix_files.read_header(uri)
    shapes = [run.values.shape for run in header.runs(uri, 256)]
    assert {features for _, features in shapes} == {data.features} and len(header.samples) == data.samples
    table = header.columns if data.table is None else read_samples(data.table)
    if data.table is not None:
        assert table is not None and set(table.rows) == set(header.samples)
    return sum(count for count, _ in shapes), {} if table is None else columns(table)


def of_mutations(data: DataSet, uri: str) -> tuple[int, Labels]:
    assert data.table is not None
    table = read_samples(data.table)
    parts = list(maf.read(uri, streams.whole(uri), 1, maf.read_header(uri, "sample"), "c", "f"))
    assert not any(bad for _, bad in parts) and len(table.rows) == data.samples
    return sum(rows.num_rows for rows, _ in parts), columns(table)


def of_sheet(data: DataSet, uri: str) -> tuple[int, Labels]:
    rows = gdc_sheet.read(uri).rows
    assert {len(row.cells) for row in rows} == {data.features}
    return len(rows), {}


def of_annotation(data: DataSet, uri: str) -> tuple[int, Labels]:
    parts = list(annotation.read(uri, streams.whole(uri), 1, annotation.header_of(uri), "c", "f"))
    assert not any(bad for _, bad in parts)
    return sum(rows.num_rows for rows, _ in parts), {}


def of_genotypes(data: DataSet, uri: str) -> tuple[int, Labels]:
    """Records of a VCF are its lines below the header; all that is in them is read by tests of the format."""
    files = [path.as_uri() for path in sorted(data.path.glob("*.vcf.gz"))] if data.path.is_dir() else [uri]
    people, records = 0, 0
    for file in files:
        if file.endswith((".bed", ".bgen")):
            header = (plink if file.endswith(".bed") else bgen).header_of(file)
            records += data.rows  # read whole by the tests of both
        else:
            header = vcf.header_of(file)
            records += streams.count_lines(file, streams.whole(file)) - header.lines
        people += len(header.samples)
    assert people == data.samples
    return records, {} if data.table is None else columns(read_samples(data.table))


def of_variants(data: DataSet, uri: str) -> tuple[int, Labels]:
    assert data.table is not None
    header = variant_table.header_of(uri)
    references = References(data.table, header)
    parts = list(variant_table.read(uri, streams.whole(uri), 1, header, "c", "f", references, lambda *_: None))
    assert sum(bad.num_rows for _, _, bad in parts) == data.aside
    labels = {name: [cell for _, part, _ in parts for cell in part.column(name).to_pylist()] for name in data.labels}
    return sum(rows.num_rows for rows, _, _ in parts), labels


READERS: dict[str, Callable[[DataSet, str], tuple[int, Labels]]] = {
    "expression": of_matrix,
    "methylation": of_matrix,
    "mutations": of_mutations,
    "phenotypes": of_sheet,
    "annotations": of_annotation,
    "reference": lambda data, uri: (sum(rows.num_rows for rows, _ in reference_fasta.read(uri, "c", "f")), {}),
    "alignments": lambda data, uri: (len(alignment.header_of(uri).samples), {}),
    "vcf": of_genotypes,
    "variants": of_variants,
}


@pytest.mark.parametrize("data", [one for one in DATA_SETS if one.source in READERS], ids=lambda data: data.given)
@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not here")
def test_shapes_and_labels_are_those_of_the_readme(data: DataSet) -> None:
    rows, labels = READERS[data.source](data, data.path.as_uri())
    assert rows == data.rows
    for name, expected in data.labels.items():
        assert agree(labels[name], expected), name


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not here")
def test_every_data_set_of_a_reader_is_named() -> None:
    kinds = ("expr_", "meth_", "multiomics_", "geo_", "gdc_", "maf_", "gtf_", "ref_", "vc_", "gvcf_", "seq", "bind_")
    names = {
        path.name for path in DATA.iterdir() if path.name.startswith((*kinds, "sc_", "varimpact_", "vcf_", "gwas_"))
    }
    # trait tables and genotypes as means, which no reader takes, and files that break the specification
    others = {"gwas_bxd_gemma", "vcf_conformance_htsspecs"}
    assert names - others <= {data.given.partition("/")[0] for data in DATA_SETS}
