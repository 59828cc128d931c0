"""People who have withdrawn consent: data that brings them again is refused, or taken back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from genodl_spark.core.errors import InputError
from genodl_spark.job.run import Run
from genodl_spark.lake.entities import rows_about
from genodl_spark.lake.schema import ENTITIES, PERSON, identifier
from genodl_spark.lake.tables.ingested import LABELS
from genodl_spark.lake.tables.operations import FORGOTTEN
from genodl_spark.sources.person import Person, before_name
from genodl_spark.sources.removal import remove

if TYPE_CHECKING:
    from pyspark.sql import Column


def withdrawn(run: Run, cohort: str) -> list[str]:
    """Hashes of the cohort's people, and of what else of it was forgotten."""
    return (
        sorted(run.lake.rows(FORGOTTEN, {"cohort": cohort}).column("person").to_pylist())
        if run.lake.exists(FORGOTTEN)
        else []
    )


def is_withdrawn(hashes: list[str], cohort: str, kind: str, name: str) -> Column:
    """Whether a column names an entity of a kind that was forgotten."""
    from pyspark.sql import functions as F

    before = (before_name(cohort, kind), before_name(cohort))
    first, second = (F.sha2(F.concat(F.lit(text), F.col(identifier(name))), 256).isin(hashes) for text in before)
    return first | second


def refuse_withdrawn(run: Run, cohort: str, samples: Iterable[str], file: str, kind: str = PERSON) -> None:
    """InputError where one of `samples`, in the order of the file, has withdrawn consent; no name is in the message.
    `kind`: what they are."""
    people = set(withdrawn(run, cohort))
    places = (
        [
            number
            for number, sample in enumerate(samples, 1)
            if not people.isdisjoint(Person(cohort, sample, kind).hashes)
        ]
        if people
        else []
    )
    if places:
        found = (
            f"found {len(places)} samples that have withdrawn consent, the first of them "
            f"at place {places[0]} of the file"
        )
        raise InputError(f"{found}; expected none, leave them out of it", file)


def take_back_withdrawn(run: Run, cohort: str, samples: Iterable[str] = ()) -> None:
    """InputError where one of `samples`, or of the cohort's people in the lake, has withdrawn consent:
    they did while this run brought them, and are removed again."""
    from pyspark.sql import functions as F

    hashes = withdrawn(run, cohort)
    if not hashes:
        return
    back = {Person(cohort, sample) for sample in samples}
    back = {person for person in back if not set(hashes).isdisjoint(person.hashes)}
    for kind in ENTITIES if run.lake.exists(LABELS) else (PERSON,):
        rows = rows_about(run.lake, kind).where(F.col("cohort") == cohort)
        found = rows.where(is_withdrawn(hashes, cohort, kind, "entity_id")).select("entity_id").collect()
        back |= {Person(cohort, row.entity_id, kind) for row in found}
    for person in sorted(back, key=lambda person: (person.kind, person.name)):
        remove(run, person)
    if back:
        raise InputError(
            f"found {len(back)} samples that have withdrawn consent while they were ingested; "
            "expected none, leave them out",
            cohort,
        )
