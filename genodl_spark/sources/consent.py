"""People who have withdrawn consent: data that brings them again is refused, or taken back."""

from __future__ import annotations

from collections.abc import Iterable

from genodl_spark.core.errors import InputError
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.ingested import SAMPLES
from genodl_spark.lake.tables.operations import FORGOTTEN
from genodl_spark.sources.person import Person
from genodl_spark.sources.removal import remove


def withdrawn_people(run: Run, cohort: str) -> list[str]:
    """Hashes of the cohort's people who were forgotten."""
    return sorted(run.lake.rows(FORGOTTEN, {"cohort": cohort}).column("person").to_pylist()) if run.lake.exists(FORGOTTEN) else []


def refuse_withdrawn(run: Run, cohort: str, samples: Iterable[str], file: str) -> None:
    """InputError where one of `samples`, in the order of the file, has withdrawn consent; no name is in the message."""
    people = set(withdrawn_people(run, cohort))
    places = [number for number, sample in enumerate(samples, 1) if Person(cohort, sample).hash in people] if people else []
    if places:
        found = f"found {len(places)} samples that have withdrawn consent, the first of them at place {places[0]} of the file"
        raise InputError(f"{found}; expected none, leave them out of it", file)


def take_back_withdrawn(run: Run, cohort: str, samples: Iterable[str] = ()) -> None:
    """InputError where one of `samples`, or of the cohort's people in the lake, has withdrawn consent: they did while this run brought them,
    and are removed again."""
    from pyspark.sql import functions as F

    people = withdrawn_people(run, cohort)
    if not people:
        return
    mine = run.lake.read(SAMPLES).where(F.col("cohort") == cohort)
    stored = mine.where(F.sha2(F.concat(F.lit(f"{cohort}\0"), "sample_id"), 256).isin(people)).select("sample_id").collect()
    back = {row.sample_id for row in stored} | {sample for sample in samples if Person(cohort, sample).hash in people}
    for sample in sorted(back):
        remove(run, Person(cohort, sample))
    if back:
        raise InputError(f"found {len(back)} samples that have withdrawn consent while they were ingested; expected none, leave them out", cohort)
