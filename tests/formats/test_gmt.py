"""Sets of genes in GMT files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats import gmt
from genodl_spark.formats.gmt import GeneSet


def test_sets_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfP_ONE\thttp://x\tTP53\tEGFR\t\tTP53\r\nP two\t\tMYC \r\n\r\nP_3\tna\tA\tB"
    plain, packed = tmp_path / "a.gmt", tmp_path / "a.gmt.gz"
    plain.write_bytes(text)
    packed.write_bytes(gzip.compress(text))
    expected = [
        GeneSet("P_ONE", "http://x", ("TP53", "EGFR")),
        GeneSet("P two", "", ("MYC",)),
        GeneSet("P_3", "na", ("A", "B")),
    ]
    assert gmt.read(str(plain)) == gmt.read(str(packed)) == expected


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"A\td\tG\nB d G\n", 2, "found 1 cell between tabs; expected the name of a set"),
        (b"A\td\n", 1, "found 2 cells between tabs"),
        (b"A\td\tG\n\td\tG\n", 2, "found a set without a name"),
        (b"A\td\tG\n\nA\te\tH\n", 3, "found set A again, as on line 1"),
        (b"A\td\t\t \n", 1, "found no gene in set A"),
        (b"A\td\tG\xff\n", 1, "not UTF-8"),
        (b"\n\n", None, "found no line"),
        (b"", None, "found no line"),
    ],
)
def test_lines_that_are_no_sets_are_refused(tmp_path: Path, content: bytes, line: int | None, said: str) -> None:
    path = tmp_path / "bad.gmt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        gmt.read(str(path))
    assert (caught.value.file, caught.value.line) == (str(path), line) and said in caught.value.message
    with pytest.raises(InputError):
        gmt.read(str(tmp_path / "none.gmt"))
