"""Which of two aliquots stands when they come in two commands: the one that would stand within one."""

from __future__ import annotations

import itertools

import pytest

from genodl_spark.formats.gdc_sheet import Aliquot, Row, standing
from genodl_spark.sources import aliquots, phenotypes

ORDER = ["type", "vial", "portion", "-plate"]
CASE = "TCGA-A1-A0SB"
NAMES = [f"{CASE}-01A-11R-A144-07", f"{CASE}-01A-11R-A999-07", f"{CASE}-11A-33R-A115-07", f"{CASE}-01A-11R-A144-07"]


@pytest.mark.parametrize("order", itertools.permutations(range(4)))
def test_commands_one_after_another_leave_what_one_command_does(order: tuple[int, ...]) -> None:
    files = [Aliquot(name, f"f{i}.tsv", f"f{i}.tsv") for i, name in enumerate(NAMES)]
    stands, dropped = standing(files, CASE, "case", ORDER)
    held, told = files[order[0]], set[str]()
    for i in order[1:]:
        made = aliquots.settled({CASE: files[i]}, {CASE: [held]}, "case", ORDER)
        (change,) = made.changes
        assert (change.action, change.became) == ("dropped", CASE)
        told.add(change.uri)
        if made.left:
            assert made.left == {CASE} and not made.replaced and change.uri == files[i].uri
        else:
            assert made.replaced == [change.uri] == [held.uri]
            held = files[i]
    assert held == stands == files[1] and told == {one.uri for one in dropped}


def test_samples_that_the_lake_has_from_no_file_of_counts_come_as_they_are() -> None:
    made = aliquots.settled(
        {CASE: Aliquot(NAMES[0], "f", "f")}, {"other": [Aliquot(NAMES[1], "g", "g")]}, "case", ORDER
    )
    assert made == aliquots.Settled()


def test_a_sheet_of_aliquots_alone_says_whose_they_are_by_their_barcodes() -> None:
    def levels(**of: str) -> list[str | None]:
        row = Row(2, "id", "f.tsv", None, None, of, {})
        return [phenotypes._of(row, level) for level in ("aliquot", "sample", "case")]

    assert levels(aliquot=NAMES[0]) == [NAMES[0], f"{CASE}-01A", CASE]
    both = f"{NAMES[0]}, {NAMES[2]}"
    assert levels(aliquot=both) == [both, f"{CASE}-01A, {CASE}-11A", CASE]
    assert levels(sample="S1", case="P1") == [None, "S1", "P1"]
    assert levels() == [None, None, None]
