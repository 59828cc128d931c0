"""Files of values as portals hand them out: whatever is done to their form gives the same values, or is refused with
its place; and public ones have the shapes that they are described with."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats import barcodes, ensembl, gdc_sheet, matrix_files
from genodl_spark.formats.gdc_counts import GdcCounts
from genodl_spark.formats.gdc_sheet import Sheet
from genodl_spark.formats.matrix import MatrixFile

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ORDER = ["type", "vial", "portion", "-plate"]
Values = dict[str, dict[str, float | None]]


def values_of(path: Path, header: MatrixFile) -> Values:
    found: Values = {}
    for run in header.runs(f"file://{path}", 2):
        names, _ = ensembl.without_versions(run.features, str(path))
        assert run.values.dtype == np.float32 and run.values.shape == (len(run.samples), len(names))
        for sample, row in zip(run.samples, run.values.tolist(), strict=True):
            found[sample] = {n: None if v != v else v for n, v in zip(names, row, strict=True)}
    assert list(found) == header.samples
    return found


def read(path: Path, **how: str) -> Values:
    return values_of(path, matrix_files.read_header(f"file://{path}", **how))


def read_all(folder: Path, level: str = "sample") -> tuple[Values, gdc_sheet.Named]:
    """A folder of GDC files with its sheet, as `MatrixKind` reads it."""
    headers = {f"file://{path}": matrix_files.read_header(f"file://{path}") for path in sorted(folder.iterdir())}
    sheets = [header for header in headers.values() if isinstance(header, Sheet)]
    counts = {uri: header for uri, header in headers.items() if isinstance(header, GdcCounts)}
    named = gdc_sheet.named(counts, sheets, level, ORDER)
    found: Values = {}
    tables = {uri: header for uri, header in headers.items() if not isinstance(header, Sheet | GdcCounts)}
    for uri, header in (named.headers | tables).items():
        found |= values_of(Path(uri.removeprefix("file://")), header)
    return found, named


ALIQUOTS = ["TCGA-A1-A0SB-01A-11R-A144-07", "TCGA-A1-A0SD-01A-11R-A115-07", "TCGA-A1-A0SD-11A-33R-A115-07"]
GENES = ["ENSG00000000003.15", "ENSG00000000005.6", "ENSG00000002586.20_PAR_Y"]
COLUMNS = ["gene_id", "gene_name", "gene_type", "unstranded", "stranded_first", "tpm_unstranded"]


def star(seed: int, columns: list[str] = COLUMNS) -> str:
    rows = [dict.fromkeys(COLUMNS, "") | {"gene_id": "N_unmapped", "unstranded": "77", "stranded_first": "7"}]
    for i, gene in enumerate(GENES):
        count = seed * 10 + i
        told = [gene, f"SYM{i}", "protein_coding", str(count), str(count // 2), f"{count / 7:.4f}"]
        rows.append(dict(zip(COLUMNS, told, strict=True)))
    lines = ["# gene-model: GENCODE v36", "\t".join(columns)]
    return "\n".join([*lines, *("\t".join(row[c] for c in columns) for row in rows)]) + "\n"


def sheet(names: list[str]) -> str:
    rows = [
        [f"id{i}", f"f{i}.tsv", "Gene Expression Quantification", name[:12], name[:16], name]
        for i, name in enumerate(names)
    ]
    head = ["File ID", "File Name", "Data Type", "Case ID", "Sample ID", "Aliquot ID"]
    return "\n".join("\t".join(row) for row in [head, *rows]) + "\n"


def portal(folder: Path, change: Callable[[str], str | bytes] = lambda text: text, names: list[str] = ALIQUOTS) -> None:
    folder.mkdir()
    (folder / "sheet.tsv").write_text(sheet(names))
    for i in range(len(names)):
        made = change(star(i + 1))
        (folder / f"f{i}.tsv").write_bytes(made if isinstance(made, bytes) else made.encode())


SERIES = """!Series_title\t"Kidneys"
!Series_geo_accession\t"GSE1"

!Sample_title\t"one"\t"two"
!Sample_geo_accession\t"GSM1"\t"GSM2"
!Sample_characteristics_ch1\t"tissue: kidney; left"\t"tissue: liver"
!Sample_characteristics_ch1\t"age: 7"\t"Age: 9"
!Sample_contact_email\t"a@b"\t"a@b"
!series_matrix_table_begin
"ID_REF"\t"GSM1"\t"GSM2"
"1007_s_at"\t1.5\t2
"1053_at"\t\t-3
!series_matrix_table_end
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Values, Values]:
    folder = tmp_path_factory.mktemp("plain")
    portal(folder / "gdc")
    (folder / "series.txt").write_text(SERIES)
    return read_all(folder / "gdc")[0], read(folder / "series.txt")


def test_values_of_the_plain_files(plain: tuple[Values, Values]) -> None:
    gdc, series = plain
    genes = ["ENSG00000000003", "ENSG00000000005", "ENSG00000002586_PAR_Y"]
    assert gdc == {
        name[:16]: {gene: seed * 10.0 + i for i, gene in enumerate(genes)} for seed, name in enumerate(ALIQUOTS, 1)
    }
    assert series == {"GSM1": {"1007_s_at": 1.5, "1053_at": None}, "GSM2": {"1007_s_at": 2.0, "1053_at": -3.0}}


def reordered(text: str) -> str:
    head, names, *rows = text.rstrip("\n").split("\n")
    order = [3, 5, 0, 2, 1, 4]
    return "\n".join([head, *("\t".join(line.split("\t")[i] for i in order) for line in [names, *rows])]) + "\n"


def without_versions(text: str) -> str:
    return text.replace(".15\t", "\t").replace(".6\t", "\t").replace(".20_PAR", ".3_PAR")


# what is done to the files of each portal, and what a refusal says; None: the same values
GDC_CHANGES: dict[str, tuple[Callable[[str], str | bytes], str | None]] = {
    "header a line lower": (lambda text: "\n" + text, None),
    "header a line higher": (lambda text: text.partition("\n")[2], None),
    "tag renamed": (lambda text: text.replace("\tunstranded\t", "\tcounts\t"), r":2: .*expected column unstranded"),
    "column order": (reordered, None),
    "CRLF": (lambda text: text.replace("\n", "\r\n"), None),
    "BOM": (lambda text: b"\xef\xbb\xbf" + text.encode(), None),
    "version suffixes": (without_versions, None),
    "trailing tabs": (lambda text: text.replace("\n", "\t\t\n"), None),
    "an empty table": (lambda text: text[: text.index("N_")], "found no gene below the header"),
    "a missing tag": (lambda text: text.replace("gene_id", "id"), r":2: .*expected column gene_id"),
    "UTF-16": (lambda text: text.encode("utf-16"), "text in UTF-16"),
    "duplicated aliquot": (lambda text: text, None),
    "cut off": (lambda text: text[:-9], r":6: found 5 columns; expected 6"),
    "a decimal as a count": (lambda text: text.replace("\t10\t", "\t10.5\t"), r":4: found 10.5 as a count of reads"),
    "a gene twice": (lambda text: text.replace("005.6", "003.15"), r":5: .*stands twice, first on line 4"),
}
SERIES_CHANGES: dict[str, tuple[Callable[[str], str | bytes], str | None]] = {
    "header a line lower": (lambda text: "\n" + text.replace('"ID_REF"', '\n"ID_REF"'), None),
    "tag renamed": (lambda text: text.replace("table_begin", "table_start"), "found a line without a tag before"),
    "column order": (lambda text: "\n".join(map(swapped, text.split("\n"))), None),
    "two table_begin": (
        lambda text: text.replace('"1053', '!series_matrix_table_begin\n"1053'),
        r":12: found a second table",
    ),
    "CRLF": (lambda text: text.replace("\n", "\r\n"), None),
    "BOM": (lambda text: b"\xef\xbb\xbf" + text.encode(), None),
    "trailing tabs": (lambda text: text.replace("\n", "\t\n"), None),
    "an empty table": (
        lambda text: text[: text.index('"1007')] + "!series_matrix_table_end\n",
        r":11: .*without a row",
    ),
    "a missing tag": (
        lambda text: text.replace("!Sample_geo_accession", "!Sample_geo"),
        "without !Sample_geo_accession",
    ),
    "no end": (lambda text: text.replace("!series_matrix_table_end\n", ""), "found no !series_matrix_table_end"),
    "UTF-16": (lambda text: text.encode("utf-16"), "text in UTF-16"),
    "a sample less": (lambda text: text.replace('"GSM2"\n!', '"GSM3"\n!'), r":5: .*GSM2 the first that differs"),
    "gzip": (lambda text: gzip.compress(text.encode()), None),
}


def swapped(line: str) -> str:
    cells = line.split("\t")
    return "\t".join([cells[0], cells[2], cells[1]]) if len(cells) == 3 else line


@pytest.mark.parametrize("name", GDC_CHANGES)
def test_changed_counts_are_the_same_or_refused(tmp_path: Path, plain: tuple[Values, Values], name: str) -> None:
    change, refusal = GDC_CHANGES[name]
    more = ALIQUOTS[:1] if name == "duplicated aliquot" else []
    portal(tmp_path / "gdc", change, [*ALIQUOTS, *more])
    if refusal is None:
        values, named = read_all(tmp_path / "gdc")
        assert values == plain[0]
        assert [one.name for one in named.changes if one.action == "dropped"] == more
        return
    with pytest.raises(InputError, match=refusal) as caught:
        read_all(tmp_path / "gdc")
    assert caught.value.file and "/gdc/f0.tsv" in caught.value.file and caught.value.line


@pytest.mark.parametrize("name", SERIES_CHANGES)
def test_changed_series_are_the_same_or_refused(tmp_path: Path, plain: tuple[Values, Values], name: str) -> None:
    change, refusal = SERIES_CHANGES[name]
    made = change(SERIES)
    (tmp_path / "s.txt").write_bytes(made if isinstance(made, bytes) else made.encode())
    if refusal is None:
        assert read(tmp_path / "s.txt") == plain[1]
        return
    with pytest.raises(InputError, match=refusal) as caught:
        read(tmp_path / "s.txt")
    assert caught.value.line


def test_a_series_tells_of_its_samples(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text(SERIES)
    columns = matrix_files.read_header(f"file://{tmp_path}/s.txt").columns
    assert columns is not None and columns.columns == ["title", "geo_accession", "tissue", "age"]
    assert columns.rows == {"GSM1": ["one", "GSM1", "kidney; left", "7"], "GSM2": ["two", "GSM2", "liver", "9"]}


def test_of_several_aliquots_one_stands_by_the_rule_and_all_others_are_told(tmp_path: Path) -> None:
    later, same = "TCGA-A1-A0SB-01A-11R-A999-07", ALIQUOTS[1]
    portal(tmp_path / "gdc", names=[*ALIQUOTS, later, same])
    values, named = read_all(tmp_path / "gdc")
    assert {name: row["ENSG00000000003"] for name, row in values.items()} == {
        "TCGA-A1-A0SB-01A": 40.0,  # the larger plate
        "TCGA-A1-A0SD-01A": 20.0,  # of two files of one aliquot the first by name
        "TCGA-A1-A0SD-11A": 30.0,
    }
    dropped = {(one.name, one.became): one.reason for one in named.changes if one.action == "dropped"}
    assert {key: reason.rpartition(": ")[2] for key, reason in dropped.items()} == {
        (ALIQUOTS[0], "TCGA-A1-A0SB-01A"): "plate A999 before A144",
        (same, "TCGA-A1-A0SD-01A"): "the first by name",
    }
    assert Counter(one.action for one in named.changes) == {"renamed": 3, "dropped": 2}
    cases, named = read_all(tmp_path / "gdc", "case")
    assert sorted(cases) == ["TCGA-A1-A0SB", "TCGA-A1-A0SD"]
    assert "type 01 before 11" in "".join(one.reason for one in named.changes)
    assert named.columns is not None and set(named.columns.rows) == set(cases)
    assert [barcodes.cut(later, level) for level in barcodes.LEVELS] == [later[:12], later[:16], later]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("sheet of others", sheet(ALIQUOTS).replace("f1.tsv", "g1.tsv"), "found no line for the file f1.tsv"),
        (
            "no sample",
            sheet(ALIQUOTS).replace("-01A", "").replace("Aliquot ID", "x").replace("Sample ID", "y"),
            "found no sample",
        ),
        (
            "twice",
            sheet(ALIQUOTS) + sheet(ALIQUOTS).split("\n")[1].replace("01A", "06A") + "\n",
            ":5: file f0.tsv stands twice",
        ),
        ("ragged", sheet(ALIQUOTS) + "id9\tf9.tsv\n", ":5: found 2 columns; expected 6"),
        ("nothing", sheet(ALIQUOTS).split("\n")[0] + "\n", ":2: found no file below the header"),
        ("size", "id\tfilename\tsize\n" + "".join(f"i{i}\tf{i}.tsv\t9\n" for i in range(3)), "expected 9"),
    ],
)
def test_a_sheet_that_does_not_fit_is_refused(tmp_path: Path, name: str, text: str, found: str) -> None:
    portal(tmp_path / "gdc")
    (tmp_path / "gdc" / "sheet.tsv").write_text(text)
    with pytest.raises(InputError, match=found):
        read_all(tmp_path / "gdc")


def test_the_older_forms_of_counts(tmp_path: Path) -> None:
    (tmp_path / "a.htseq.counts").write_text("ENSG00000000003.13\t4\nENSG00000000005.5\t0\n__no_feature\t9\n")
    (tmp_path / "b.tsv").write_text("# gene-model: GENCODE v22\n#gene\tunstranded\nENSG00000000003.13\t4\n")
    assert read(tmp_path / "a.htseq.counts") == {"a": {"ENSG00000000003": 4.0, "ENSG00000000005": 0.0}}
    with pytest.raises(InputError, match="whole numbers alone; expected FPKM"):
        read(tmp_path / "a.htseq.counts", gdc_column="fpkm_unstranded")
    (tmp_path / "c.tsv").write_text(star(3))
    header = matrix_files.read_header(f"file://{tmp_path}/c.tsv", gdc_column="tpm_unstranded")
    assert header.unit == "TPM" and values_of(tmp_path / "c.tsv", header)["c"]["ENSG00000000003"] == np.float32(
        "4.2857"
    )
    run = next(header.runs(f"file://{tmp_path}/c.tsv", 1))
    assert run.symbols == ["SYM0", "SYM1", "SYM2"] and run.left == ("N_unmapped",)


GCT = "#1.2\n2\t2\nName\tDescription\tA\tB\nENSG00000000003.1\tTSPAN6\t1\t2.5\nENSG00000000005.1\tTNMD\tNA\t0\n"
GCT3 = "#1.3\n2\t2\t1\t1\nid\tpr_gene_symbol\tA\tB\ntissue\tNA\tliver\tNA\ng1\tTP53\t1\t2.5\ng2\tEGFR\tNA\t0\n"


def test_gct(tmp_path: Path) -> None:
    (tmp_path / "a.gct").write_text(GCT)
    (tmp_path / "b.gct").write_text(GCT3)
    assert read(tmp_path / "a.gct") == {
        "A": {"ENSG00000000003": 1.0, "ENSG00000000005": None},
        "B": {"ENSG00000000003": 2.5, "ENSG00000000005": 0.0},
    }
    header = matrix_files.read_header(f"file://{tmp_path}/b.gct")
    assert values_of(tmp_path / "b.gct", header) == {"A": {"g1": 1.0, "g2": None}, "B": {"g1": 2.5, "g2": 0.0}}
    assert header.columns is not None and header.columns.rows == {"A": ["liver"], "B": [None]}
    assert next(header.runs(f"file://{tmp_path}/b.gct", 5)).symbols == ["TP53", "EGFR"]


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        (GCT.replace("2\t2\n", "3\t2\n", 1), 2, "found 2 features, where line 2 says 3"),
        (GCT.replace("2\t2\n", "2\t3\n", 1), 3, "found 2 samples, where line 2 says 3"),
        (GCT.replace("2\t2\n", "2\n", 1), 2, "found no 2 counts"),
        (GCT.replace("Description", "About"), 3, "expected Name and Description"),
        (GCT.replace("2.5", "2.5x"), 4, "'2.5x' in column 4"),
        (GCT.replace("005.1", "003.1"), 5, "for the second time, first on line 4"),
        (GCT.replace("\t0\n", "\n"), 5, "found 3 columns; expected 4"),
        (GCT3.replace("tissue\tNA\tliver\tNA", "tissue\tNA"), 4, "found 2 columns; expected 4"),
        ("id\tGSM1\nTCGA-A1-A0SB\t1\n", 1, None),
        ("gene\tENSG00000000003\nTCGA-A1-A0SB\t1\n", 1, "found lines that are samples"),
        ("sample_id\tGSM1\tGSM2\ng1\t1\t2\n", 1, "say which with --set ingest.lines"),
        ("^DATASET = GDS1\n!dataset_table_begin\nID_REF\tGSM1\n", 3, "found no !..._table_end"),
        ("^SAMPLE = GSM1\n!sample_table_begin\nID_REF\tV\na\t1\n!sample_table_end\n", 3, "expected VALUE"),
        ("^SAMPLE = GSM1\n!Sample_title = x\n", 1, "none with a table of values"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_with_its_place(
    tmp_path: Path, text: str, line: int, found: str | None
) -> None:
    (tmp_path / "m.tsv").write_text(text)
    if found is None:
        with pytest.raises(InputError, match="found lines that are samples"):
            read(tmp_path / "m.tsv")
        return
    with pytest.raises(InputError, match=found) as caught:
        read(tmp_path / "m.tsv")
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("corner", "columns", "lines", "by_sample"),
    [
        ("gene", "s1 s2", "A B", False),
        ("sample", "A B", "s1 s2", True),
        ("", "ENSG00000000003 ENSG00000000005", "x y", True),
        ("x", "cg00000029 cg00000108", "s1 s2", True),
        ("x", "TCGA-A1-A0SB TCGA-A1-A0SD", "g1 g2", False),
        ("x", "a b", "GSM1 GSM2", True),
        ("x", "a b", "1007_s_at 1053_at", False),
        ("x", "a b", "c d", False),
    ],
)
def test_lines_are_features_or_samples_by_their_names(
    tmp_path: Path, corner: str, columns: str, lines: str, by_sample: bool
) -> None:
    (a, b), (p, q) = columns.split(), lines.split()
    (tmp_path / "m.tsv").write_text(f"{corner}\t{a}\t{b}\n{p}\t1\t2\n{q}\t3\t4\n")
    header = matrix_files.read_header(f"file://{tmp_path}/m.tsv")
    assert ("samples in lines" in header.described()) == header.odd == by_sample
    expected = {p: {a: 1.0, b: 2.0}, q: {a: 3.0, b: 4.0}} if by_sample else {a: {p: 1.0, q: 3.0}, b: {p: 2.0, q: 4.0}}
    assert read(tmp_path / "m.tsv") == expected


def test_a_sample_table_beside_tells_lines_from_columns(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text("x\ta\tb\np\t1\t2\nq\t3\t4\n")
    uri = f"file://{tmp_path}/m.tsv"
    header = matrix_files.read_header(uri)
    assert matrix_files.fitted(uri, header, {"a", "b", "c"}, False) is header
    turned = matrix_files.fitted(uri, header, {"p", "q", "r"}, False)
    assert values_of(tmp_path / "m.tsv", turned) == {"p": {"a": 1.0, "b": 2.0}, "q": {"a": 3.0, "b": 4.0}}
    with pytest.raises(InputError, match="both in lines and in columns"):
        matrix_files.fitted(uri, header, {"a", "b", "p", "q"}, False)


FAMILY = """^DATABASE = GeoMiame
^PLATFORM = GPL1
!platform_table_begin
ID\tGene Symbol\tx
p1\tTP53\t
p2\t---\t
!platform_table_end
^SAMPLE = GSM1
!Sample_platform_id = GPL1
!Sample_characteristics_ch1 = sex: F
!sample_table_begin
ID_REF\tABS_CALL\tVALUE
p1\tP\t1.5
p2\tA\tnull
!sample_table_end
^SAMPLE = GSM2
!Sample_platform_id = GPL2
!Sample_characteristics_ch1 = sex: M
!sample_table_begin
VALUE\tID_REF
7\tq1
!sample_table_end
^SAMPLE = GSM3
!sample_table_begin
ID_REF\tVALUE
!sample_table_end
"""


def test_a_family_of_samples_on_two_platforms(tmp_path: Path) -> None:
    (tmp_path / "f.soft").write_text(FAMILY)
    header = matrix_files.read_header(f"file://{tmp_path}/f.soft")
    assert values_of(tmp_path / "f.soft", header) == {"GSM1": {"p1": 1.5, "p2": None}, "GSM2": {"q1": 7.0}}
    assert [run.symbols for run in header.runs(f"file://{tmp_path}/f.soft", 9)] == [["TP53", None], None]
    assert header.notes == ("1 samples without a table of values are left out, GSM3 the first",)
    assert header.columns is not None and header.columns.rows["GSM2"][header.columns.columns.index("sex")] == "M"
