"""Files of portals after what happens to them on their way: the twelve kinds of it, in every format that knows them,
give what the plain file gives, or are refused in one line with their place; never fewer rows in silence."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.sources.samples import read_samples
from tests.formats.test_portal_matrices import (
    ALIQUOTS,
    FAMILY,
    GCT,
    GDC_CHANGES,
    SERIES_CHANGES,
    portal,
    read,
    read_all,
    sheet,
)
from tests.formats.test_portal_tables import HEAD, ROWS, XML, mutations

CLINICAL = "case_submitter_id\tgender\trace\nTCGA-A1-A0SB\tfemale\twhite\nTCGA-A1-A0SD\tmale\t'--\n"


def of_sheet(path: Path) -> Any:
    portal(path.parent / "gdc")
    path.rename(path.parent / "gdc" / "sheet.tsv")
    return read_all(path.parent / "gdc")[0]


def of_maf(path: Path) -> Any:
    rows, bad = mutations(path, path.read_bytes())
    for row in rows:
        row["fields"] = sorted(row["fields"])
        del row["line"]  # that of the changed file
    return rows, bad


def of_clinical(path: Path) -> Any:
    table = read_samples(str(path))
    return {name: dict(zip(table.columns, cells, strict=True)) for name, cells in table.rows.items()}


PORTALS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "sheet": (sheet(ALIQUOTS), of_sheet),
    "GCT": (GCT, read),
    "SOFT": (FAMILY, read),
    "MAF": ("#version 2.4\n" + HEAD + ROWS, of_maf),
    "clinical": (CLINICAL, of_clinical),
    "XML": (XML, of_clinical),
}


def turned(text: str) -> str:
    """Columns of the lines between tabs in the other order."""
    return "\n".join("\t".join(line.split("\t")[::-1]) for line in text.split("\n"))


Change = Callable[[str], str | bytes]
ALWAYS: dict[str, tuple[Change, str | None]] = {
    "CRLF": (lambda text: text.replace("\n", "\r\n"), None),
    "BOM": (lambda text: b"\xef\xbb\xbf" + text.encode(), None),
    "gzip": (lambda text: gzip.compress(text.encode()), None),
    "UTF-16": (lambda text: text.encode("utf-16"), ":1: found text in UTF-16; expected text in UTF-8"),
    "UTF-16 without a mark": (lambda text: text.encode("utf-16-be"), ":1: found text in UTF-16; expected"),
    "UTF-16 in gzip": (lambda text: gzip.compress(text.encode("utf-16-le")), ":1: found text in UTF-16; expected"),
}
CHANGES: dict[str, dict[str, tuple[Change, str | None]]] = {
    "sheet": {
        "header a line lower": (
            lambda text: "\n" + text,
            "sheet.tsv:1: the file is empty or starts with an empty line",
        ),
        "header a line higher": (lambda text: text.partition("\n")[2], "sheet.tsv:2: found"),
        "tag renamed": (lambda text: text.replace("File Name", "file_name"), None),
        "column order": (turned, None),
        "duplicated aliquot": (lambda text: text + text.split("\n")[1] + "\n", None),
        "trailing tabs": (lambda text: text.replace("\n", "\t\t\n"), None),
        "an empty table": (lambda text: text.partition("\n")[0] + "\n", "found no file below the header"),
        "a missing tag": (lambda text: text.replace("File Name", "Name"), "sheet.tsv:2: found"),
    },
    "GCT": {
        "header a line lower": (
            lambda text: text.replace("\nName", "\n\nName"),
            ":3: found columns ; expected Name and Description",
        ),
        "header a line higher": (lambda text: text.partition("\n")[2], ":2: found 4 columns; expected 2"),
        "tag renamed": (lambda text: text.replace("Description", "description"), None),
        "column order": (
            lambda text: "\n".join([*text.split("\n")[:2], turned("\n".join(text.split("\n")[2:]))]),
            None,
        ),
        "duplicated aliquot": (lambda text: text.replace("\tB", "\tA"), ":3: column 'A' stands twice"),
        "version suffixes": (lambda text: text.replace("003.1\t", "003.22\t"), None),
        "trailing tabs": (lambda text: text.replace("\n", "\t\t\n"), None),
        "an empty table": (
            lambda text: "\n".join(text.split("\n")[:3]) + "\n",
            ":2: found 0 features, where line 2 says 2",
        ),
        "a missing tag": (
            lambda text: text.replace("Description\t", "").replace("TSPAN6\t", "").replace("TNMD\t", ""),
            ":3: found columns 'Name', 'A', 'B'; expected",
        ),
    },
    "SOFT": {
        "header a line lower": (lambda text: text.replace("ID_REF\tABS", "\nID_REF\tABS"), None),
        "header a line higher": (lambda text: text.partition("\n")[2], None),
        "tag renamed": (lambda text: text.replace("!sample_table", "!Sample_Table"), None),
        "column order": (turned, None),
        "duplicated aliquot": (
            lambda text: text.replace("GSM2", "GSM1"),
            ":16: sample GSM1 stands twice, first on line 8",
        ),
        "two table_begin": (
            lambda text: text.replace("p2\tA", "!sample_table_begin\np2\tA"),
            ":14: found another table",
        ),
        "trailing tabs": (lambda text: text.replace("\n", "\t\n"), None),
        "an empty table": (lambda text: re.sub("(?m)^([pq]\\d|7)\t.*\n", "", text), "none with a table of values"),
        "a missing tag": (
            lambda text: text.replace("\tVALUE", "\tCOUNT"),
            ":12: found columns 'ID_REF', 'ABS_CALL', 'COUNT'; expected VALUE",
        ),
    },
    "MAF": {
        "header a line lower": (lambda text: "\n" + text, None),
        "header a line higher": (lambda text: text.partition("\n")[2], None),
        "tag renamed": (lambda text: text.replace("Start_Position", "Start_position"), None),
        "column order": (lambda text: text.partition("\n")[0] + turned(text[12:]), None),
        "duplicated aliquot": (
            lambda text: text.replace("Matched", "Tumor_Sample_Barcode\tMatched"),
            ":2: column 'Tumor_Sample_Barcode' stands twice",
        ),
        "trailing tabs": (lambda text: text.replace("\n", "\t\t\n"), None),
        "a missing tag": (lambda text: text.replace("Chromosome", "Place"), "expected Chromosome among them"),
    },
    "clinical": {
        "header a line lower": (lambda text: "\n" + text, ":1: found columns ''; expected one called sample_id"),
        "header a line higher": (lambda text: text.partition("\n")[2], ":1: found columns 'TCGA-A1-A0SB', "),
        "tag renamed": (lambda text: text.replace("case_submitter_id", "cases.submitter_id"), None),
        "column order": (turned, None),
        "duplicated aliquot": (lambda text: text + text.split("\n")[1] + "\n", None),
        "trailing tabs": (lambda text: text.replace("\n", "\t\n"), ":1: column '' stands twice, is empty"),
        "an empty table": (lambda text: text.partition("\n")[0] + "\n", ":2: no sample below the header"),
        "a missing tag": (lambda text: text.replace("case_submitter_id", "who"), ":1: found columns 'who', "),
    },
    "XML": {
        "header a line lower": (lambda text: "\n" + text, ":2: found XML that cannot be read"),
        "header a line higher": (lambda text: text.partition("\n")[2], None),
        "column order": (
            lambda text: text.replace("<shared:race></shared:race>", "").replace(
                "<shared:gender>", "<shared:race></shared:race><shared:gender>"
            ),
            None,
        ),
        "duplicated aliquot": (
            lambda text: text.replace(
                "</brca:patient>", "</brca:patient>" + text[text.index("<brca:patient>") : text.index("</brca:tcga")]
            ),
            "found 'TCGA-A1-A0SB' as bcr_patient_barcode of a patient; expected one of its own",
        ),
        "an empty table": (
            lambda text: text[: text.index("<brca:patient>")] + "</brca:tcga_bcr>",
            "found elements tcga_bcr without a patient",
        ),
        "a missing tag": (
            lambda text: text.replace("bcr_patient_barcode", "barcode"),
            "found '' as bcr_patient_barcode",
        ),
    },
}
TWELVE = {
    "header a line lower", "tag renamed", "column order", "duplicated aliquot", "two table_begin", "CRLF", "BOM",
    "version suffixes", "trailing tabs", "an empty table", "a missing tag", "UTF-16",
}  # fmt: skip


def test_the_twelve_are_asked_of_every_format_that_knows_them() -> None:
    asked = {"GDC": set(GDC_CHANGES), "series": set(SERIES_CHANGES)} | {n: {*ALWAYS, *CHANGES[n]} for n in PORTALS}
    assert set.union(*asked.values()) >= TWELVE
    apart = {"two table_begin", "version suffixes", "duplicated aliquot", "an empty table", "trailing tabs"}
    for name, changes in asked.items():
        assert changes >= TWELVE - apart - ({"tag renamed"} if name == "XML" else set()), name


@pytest.mark.parametrize(("portal_", "name"), [(of, name) for of in PORTALS for name in (*ALWAYS, *CHANGES[of])])
def test_a_changed_file_is_read_as_before_or_refused(tmp_path: Path, portal_: str, name: str) -> None:
    text, read_whole = PORTALS[portal_]
    change, refusal = (ALWAYS | CHANGES[portal_])[name]
    made = change(text)
    files = {"plain": text.encode(), "changed": made if isinstance(made, bytes) else made.encode()}
    assert files["plain"] != files["changed"]
    for folder, content in files.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_bytes(content)
    before = read_whole(tmp_path / "plain" / "a.txt")
    if refusal is None:
        assert read_whole(tmp_path / "changed" / "a.txt") == before
        return
    with pytest.raises(InputError) as caught:
        read_whole(tmp_path / "changed" / "a.txt")
    assert refusal in str(caught.value) and caught.value.line and str(tmp_path) in (caught.value.file or "")
