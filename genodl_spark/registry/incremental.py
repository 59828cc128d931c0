"""Rows that a registered model makes of a cohort, brought up to date: what has changed, one commit, another try.

How far a cohort is done stands with the commit that did it, as numbers beside it: the version of each table that was
read, and of what else shaped the rows a digest. So rows of other settings are made anew, in whatever order settings
change, and of tables that have changed since only the entities that have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from genodl_spark.core.errors import Conflict
from genodl_spark.features.protocol import Changed
from genodl_spark.job.run import Run, fingerprint
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.parts import Part
from genodl_spark.lake.schema import Table
from genodl_spark.registry.models import Chosen
from genodl_spark.registry.predictions import tell_missing

log = logging.getLogger("genodl")

_ATTEMPTS = 3
_SETTINGS = "settings"


def digest(*parts: Any) -> int:
    """JSON-able values as a number that may stand beside a commit."""
    return int(fingerprint(*parts)[:15], 16)


def attempted(table: Table, model: Chosen, work: Callable[[], None]) -> None:
    """Does `work`, which looks at the tables from the start and commits rows of `table`, and does it again where
    another run has come first. Conflict where that happens time and again."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return work()
        except Conflict:
            if attempt == _ATTEMPTS:
                text = (
                    f"found another run that keeps changing the {table.name} of model {model.row.model_id}; "
                    "expected one at a time, run it again"
                )
                raise Conflict(text) from None
            log.info("another run has committed %s of this model first: looking again", table.name)


@dataclass(frozen=True)
class Marks:
    """Numbers beside commits of `table` that say how far a cohort is done; `names`: what each is called, and the table
    whose version it is, or _SETTINGS."""

    table: Table
    names: Mapping[str, str]

    @classmethod
    def of(cls, table: Table, done: str, where: Mapping[str, str], model: Chosen) -> Marks:
        """`done`: what was done to the rows that have `where` in common."""
        said = (*(table.name for table in model.features.tables), _SETTINGS)
        return cls(table, {f"{done} {fingerprint(where)} {name}": name for name in said})

    def read(self, run: Run) -> dict[str, int]:
        """The numbers by what they say, as the last commit has left them."""
        return {self.names[mark]: number for mark, number in run.lake.marked(self.table, self.names).items()}


@dataclass(frozen=True)
class Incremental:
    """Rows of a model and a cohort, which have `where` in common. `shaped_by`: the digest of what shaped them beside
    the tables that the features are read from."""

    run: Run
    model: Chosen
    cohort: str
    marks: Marks
    where: Mapping[str, str]
    shaped_by: int

    @cached_property
    def versions(self) -> dict[str, int]:
        """Of the tables that the features are read from, those that there are."""
        found = {table.name: self.run.sources.version(table) for table in self.model.features.tables}
        return {name: version for name, version in found.items() if version is not None}

    @cached_property
    def _expected(self) -> dict[str, int]:
        return {**self.versions, _SETTINGS: self.shaped_by}

    @cached_property
    def _stored(self) -> dict[str, int]:
        return self.marks.read(self.run)

    @property
    def current(self) -> bool:
        """Whether nothing has changed since the last commit."""
        return self._stored == self._expected

    def unchanged(self) -> None:
        """Reports that there was nothing to be done."""
        self.run.report.status = "unchanged"
        self.run.wrote(self.marks.table, 0)

    def changed(self) -> tuple[pa.Array, Changed] | None:
        """Identifiers of the entities that have come, changed or gone since the last commit, and where they stand; None
        where that is not known, or where all rows are to be made anew."""
        stored, expected = self._stored, self._expected
        if stored.keys() != expected.keys() or stored[_SETTINGS] != expected[_SETTINGS]:
            return None
        changed = self.model.features.changed(self.run.sources, self.cohort, stored)
        if changed is None:
            return None
        entities = changed.identifiers()
        if len(entities):
            log.info("%d entities have come, changed or gone since the last run", len(entities))
        return entities, changed

    def commit(
        self, name: str, make: Callable[[], tuple[list[Part], int, int]], entities: pa.Array | None, reached: bool
    ) -> None:
        """Lets tasks make files named after `name`, and commits them in the stead of the rows of `entities`, of None of
        all. `make` returns the files, their rows, and how many features the cohort lacks. `reached`: whether the cohort
        is done with that. Conflict where another run has committed such rows meanwhile; of what failed no file stays.
        """
        run, table = self.run, self.marks.table
        try:
            parts, rows, missing = make()
        except BaseException:
            discard(run.lake, run.run_id, [table], name)
            raise
        try:
            scope = self.where if entities is None else {**self.where, "entity_id": entities.to_pylist()}
            numbers = {mark: self._expected[of] for mark, of in self.marks.names.items() if of in self._expected}
            run.lake.commit(table, parts, scope, numbers if reached else {}, self.where)
        except Conflict:  # after any other error a version may know of the files
            discard(run.lake, run.run_id, [table], name, over=True)
            raise
        tell_missing(run, self.model, self.cohort, missing)
        run.wrote(table, rows)
        run.report.metrics["missing_features"] = missing
