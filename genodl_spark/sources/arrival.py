"""Files on their way into a cohort: what was found of them, what may refuse them, and the order
in which runs commit to one cohort.

Runs read their files side by side. From `settle` to its end a run has the cohort for itself,
and commits what it has checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from genodl_spark.core.errors import Conflict
from genodl_spark.job.run import Run
from genodl_spark.lake.schema import PERSON
from genodl_spark.lake.tables.ingested import SOURCES
from genodl_spark.sources.consent import refuse_withdrawn, take_back_withdrawn
from genodl_spark.sources.engine import SourceFile
from genodl_spark.sources.manifest import new_files
from genodl_spark.sources.names import named_files
from genodl_spark.sources.protocol import SourceKind


@dataclass
class Lot:
    """Files of one kind as they were given, by the names that the cohort has or will have them by.

    `headers` by URI; `block`, `options`: as in the manifest. `place`: what messages call the one file.
    `about`: the kind of entity whose names headers have. `fresh`: those that the lake does not have
    with the same content, read the same way.
    """

    kind: SourceKind
    files: list[SourceFile]
    headers: dict[str, Any]
    block: str = ""
    options: str = ""
    place: str | None = None
    about: str = PERSON
    fresh: list[SourceFile] = field(default_factory=list)

    @property
    def samples(self) -> dict[str, list[str]]:
        """Samples that files have data of, by URI, as far as they are known before reading."""
        found = {uri: self.kind.samples(header) for uri, header in self.headers.items()}
        return {uri: samples for uri, samples in found.items() if samples is not None}

    @property
    def fresh_headers(self) -> dict[SourceFile, Any]:
        return {file: self.headers[file.uri] for file in self.fresh}

    def named(self, run: Run, cohort: str) -> list[SourceFile]:
        return named_files(run, cohort, self.kind, self.block, self.files, self.samples)


class Arrival:
    """Data files, and perhaps a sample table beside them, that come into a cohort in one run.
    `reference`: the FASTA that alleles are aligned to."""

    def __init__(
        self, run: Run, cohort: str, data: Lot, beside: Lot | None = None, reference: str | None = None
    ) -> None:
        """InputError for a file that may or may not be another edition of what the lake has, and for one that would
        take the place of other people's data."""
        self.run, self.cohort, self.data, self.beside, self.reference = run, cohort, data, beside, reference
        self._lots = [data] if beside is None else [data, beside]
        self._seen = run.lake.version(SOURCES)
        for lot in self._lots:
            lot.files = lot.named(run, cohort)
        for lot in self._lots:
            lot.fresh = new_files(run, cohort, lot.kind, lot.block, lot.files, lot.options)

    @property
    def is_known(self) -> bool:
        """Whether the lake has all of it already."""
        return not any(lot.fresh for lot in self._lots)

    def refuse(self) -> None:
        """InputError where a fresh file, or one of the data that comes beside it, names somebody who has withdrawn
        consent: before anything is written, what `take_back` would find behind it."""
        for lot in self._lots:
            for file in lot.files if lot is self.data and lot.fresh else lot.fresh:
                header = lot.headers[file.uri]
                refuse_withdrawn(self.run, self.cohort, lot.kind.people(header), lot.place or file.uri, lot.about)

    def check(self) -> None:
        """InputError where fresh files do not go with what the cohort has."""
        for lot in self._lots:
            if lot.fresh:
                lot.kind.check(self.run, self.cohort, lot.fresh_headers)

    def settle(self) -> None:
        """Has runs that ingest into one cohort commit one after another, each to what it has checked:
        this one from here to its end.

        Conflict, InputError where what another has brought since this one looked changes what is to be done.
        """
        self.run.keep(f"cohort {self.cohort}")
        self.refuse()
        if self.run.lake.version(SOURCES) != self._seen:
            if any(lot.named(self.run, self.cohort) != lot.files for lot in self._lots):
                found = f"found files of the same names just brought into cohort {self.cohort} by another run"
                raise Conflict(f"{found}; expected none, run this one again")
            self.check()

    def take_back(self) -> None:
        """Removes people who have withdrawn consent while they were brought, and then InputError."""
        people = {person for header in self.data.headers.values() for person in self.data.kind.people(header)}
        take_back_withdrawn(self.run, self.cohort, people)
