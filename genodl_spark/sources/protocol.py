"""What `genodl ingest` asks of a kind of source, and the usual kind: files that are read record by record.
See the package for the contract.

SourceKind      anything that fills a table from files
RecordSource    its files are cut into pieces, which tasks read; a record is stored or set aside by its number
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import streams
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.formats.streams import Note, Split
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.schema import OF_TASK, PERSON, Table
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.ingested import QUARANTINE
from genodl_spark.sources.engine import Brought, Counts, Piece, Reader, SourceFile, counts, ingest_files

if TYPE_CHECKING:
    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts
    from genodl_spark.sources.arrival import Arrival

BLOCK, REFERENCE, TRACKS, TRUTH = (
    "block",
    "reference",
    "tracks",
    "truth",
)  # what options of the command line a kind may take
_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]*")
_KEPT = 4096  # characters of a record in quarantine
_NEEDED = ("cohort", "file")  # by which what a file brought is found again


class SourceKind(ABC):
    """One kind of source. `name`: what the manifest calls it; `code`: hash of the user's own file, else empty."""

    # names of the files that a directory stands for; None: all that are not hidden
    files: ClassVar[re.Pattern[str] | None] = None
    table: Table
    also: ClassVar[tuple[Table, ...]] = ()  # tables that its files fill beside, with a column `file` too
    # files that are read with others go by the name of their folder too: they are called alike in every folder
    by_folder: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset()
    # what a file brings is added to what is there: it takes nothing away when it comes again
    adds: ClassVar[bool] = False
    joins: ClassVar[bool] = False  # a row may hold values of several files

    def __init__(self, name: str, code: str = "") -> None:
        self.name, self.code = name, code

    def is_one(self, uri: str) -> bool:
        """Whether a file of a directory is one of the kind's, where its name says that it may be."""
        return True

    def fits(self, uri: str) -> bool:
        """Whether a file that came with others is one of the kind's, by its name and by itself."""
        return (self.files is None or self.files.search(uri) is not None) and self.is_one(uri)

    def beside(self, uri: str) -> Sequence[str]:
        """Files that belong to the one at `uri`, as a .bim to its .bed: their content counts as its own.
        InputError where one is missing."""
        return ()

    def header(self, uri: str, settings: Settings) -> Any:
        """What the head of a file says. InputError for a file that is not of this kind;
        nothing has been written then."""
        return None

    def samples(self, header: Any) -> list[str] | None:
        """Samples that the file has data of, in its order: each gets a row in `samples`.
        None where that is known only later."""
        return None

    def people(self, header: Any) -> list[str]:
        """Samples that the file names, in its order: none of them may have withdrawn consent."""
        return self.samples(header) or []

    def together(self, run: Run, headers: dict[str, Any], table: SampleTable | None) -> dict[str, Any]:
        """Headers by URI as all files of a command, and the sample table beside them, show them: files that say how
        others are called are not among them, nor are files that others stand for."""
        return headers

    def with_tracks(
        self, headers: Mapping[str, Any], tracks: Mapping[str, str], reference: str | None
    ) -> dict[str, Any]:
        """Headers of files of a kind that takes TRACKS, to whose rows values of these come, URIs of bigWigs by name.
        InputError where they do not go together; nothing has been written then."""
        return dict(headers)

    def with_truth(
        self, headers: Mapping[str, Any], truth: str, confident: str, reference: str | None
    ) -> dict[str, Any]:
        """Headers of files of a kind that takes TRUTH, whose rows get labels from these: a VCF, and where it is sure
        (BED), both URIs. InputError where they do not go together; nothing has been written then."""
        return dict(headers)

    def tables(self, headers: Mapping[str, Any]) -> list[SampleTable]:
        """What the files themselves say of their samples, beside their data."""
        return []

    def options(self, settings: Settings, reference: str | None) -> str:
        """What shapes the rows beside the content of the files. A file that the lake has,
        read with other options, is read again."""
        return ""

    def all_options(self, settings: Settings, reference: str | None) -> str:
        """The same with the hash of the user's own file: one that was changed reads its files again."""
        return " ".join(filter(None, (self.options(settings, reference), f"code={self.code}" if self.code else "")))

    def manifest(self, header: Any) -> dict[str, Any]:
        """Columns of `sources` that the header gives: `header` and `build` of a VCF."""
        return {}

    def tell(self, run: Run, headers: Mapping[str, Any]) -> None:
        """Tells the user how the files are read; headers by URI."""
        return None

    def check(self, run: Run, cohort: str, files: Mapping[SourceFile, Any]) -> None:
        """InputError where files do not go with what the cohort has. Asked before they are read,
        and once more where another run has come first."""
        return None

    def outdated(self, run: Run, cohort: str, files: set[str]) -> set[str]:
        """Those of the cohort's files that are to be read again though they are the same:
        an older version stored them otherwise."""
        return set()

    @property
    def about(self) -> str:
        """The kind of entity that rows of the table are about, and so those of a sample table beside the files."""
        return self.table.kind if self.table.entity and self.table.kind != OF_TASK else PERSON

    def stored_samples(self, run: Run, cohort: str, block: str, files: list[str]) -> dict[str, set[str]]:
        """Samples of files of these names that the lake has, as far as it knows them by file."""
        return {}

    @abstractmethod
    def bring(self, arrival: Arrival, files: dict[SourceFile, Any]) -> dict[str, Counts]:
        """Puts files (with their headers) into the lake; what each brought, by name.
        `arrival.settle()` comes before the first commit."""

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        """What a page about a cohort's data says of what this kind has brought, beside counts of files and records.
        Figures are added up where the rows are (`lake/summaries.py`); none where there is nothing to be said."""
        return []

    def declare(self, place: str) -> None:
        """Makes the table of a user's own kind one of a lake: it says that this kind brings its rows,
        and which file each is from.

        InputError, at `place`, where it cannot be one.
        """
        table = getattr(self, "table", None)
        if not isinstance(table, Table):
            raise InputError(
                "found no table; expected one of genodl_spark/lake/tables, or a Table of the file's own", place
            )
        lacking = [name for name in _NEEDED if name not in table.column_names]
        if TABLES.get(table.name) == table:
            if lacking and not self.adds:
                raise InputError(
                    f"found table {table.name}, which does not say what file a row is from; expected one that does",
                    place,
                )
            return
        if table.name in TABLES or not _TABLE_NAME.fullmatch(table.name) or table.name.startswith("predictions_"):
            raise InputError(
                f"found {table.name!r} as the name of a table; expected lower-case letters, "
                "digits and _, and none of genodl's",
                place,
            )
        if lacking or not set(table.key) <= set(table.column_names) or not table.key:
            found = f"table {table.name} with columns {', '.join(table.column_names)} and key {', '.join(table.key)}"
            raise InputError(
                f"found {found}; expected columns {' and '.join(_NEEDED)}, and a key of its columns", place
            )
        if table.packed_by:
            raise InputError(
                f"found table {table.name} packed by {table.packed_by}; expected rows of one person each, "
                "forget knows no others",
                place,
            )
        try:
            table.arrow_schema()
            table.spark_schema()
        except ValueError as error:
            raise InputError(
                f"found a type of table {table.name} that is none ({error}); expected those of Spark SQL", place
            ) from error
        self.table = replace(table, file="file", made_by=f"ingest {self.name}")


class RecordSource(SourceKind):
    """Files of records. Each piece of a file is a task's; what it reads comes as Arrow batches."""

    unit: ClassVar[str] = "line"

    @abstractmethod
    def read(self, piece: Piece, header: Any, cohort: str, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        """Batches of (`table`, those of `also`, `quarantine`) rows of a piece, whose first line or record is number
        `piece.first`; see `refused`. Runs in a task.

        `note(number, what)` tells the user of a record that is not stored as it is.
        InputError for a file that cannot be read on.
        """

    def splits(self, uri: str, target: int) -> list[Split]:
        """Pieces of about `target` stored bytes that can be read on their own. A file without lines is one,
        unless it says otherwise."""
        return streams.splits(uri, target) if self.unit == "line" else [Split(0, storage.size(uri))]

    def length(self, piece: Piece) -> int:
        """Lines or records of a piece."""
        if self.unit != "line":
            raise NotImplementedError(f"a source whose files are several pieces of {self.unit}s counts them")
        return streams.count_lines(piece.uri, piece.split)

    def reader(self, run: Run, cohort: str, files: Mapping[SourceFile, Any]) -> Reader:
        """What the engine asks for the records of files."""
        headers = {file.uri: header for file, header in files.items()}
        targets = [(table, run.lake.path(table)) for table in (self.table, *self.also, QUARANTINE)]
        return _Reader(self, cohort, headers, targets, self.name, self.unit)

    def bring(self, arrival: Arrival, files: dict[SourceFile, Any]) -> dict[str, Counts]:
        run, cohort = arrival.run, arrival.cohort
        check = partial(self.check_brought, run, cohort, list(files))
        reader = self.reader(run, cohort, files)
        return counts(ingest_files(run, cohort, self.table, reader, list(files), arrival.settle, check, also=self.also))

    def check_brought(self, run: Run, cohort: str, files: list[SourceFile], brought: dict[str, Brought]) -> None:
        """InputError where what has come may not be stored: here, where a file has no row that can be.
        Asked before the commit, and once more where another run has come first."""
        for file in files:
            if not brought[file.name].rows:
                bad = brought[file.name].first_bad
                what = f"found no row for {self.table.name} in the file"
                if bad is not None:
                    what = f"{what}: {bad[1]}"
                raise InputError(
                    what if bad is not None else f"{what}; expected at least one",
                    file.uri,
                    None if bad is None else bad[0],
                )

    def refused(self, cohort: str, file: str, bad: Iterable[tuple[int, str, str]] = ()) -> pa.RecordBatch:
        """Rows of `quarantine` for records: number, what was found and expected, and the record as text."""
        columns = list(zip(*bad, strict=True)) or [(), (), ()]
        count = len(columns[0])
        texts = [text[:_KEPT] for text in columns[2]]
        rows = [[cohort] * count, [self.name] * count, [file] * count, columns[0], columns[1], texts]
        schema = QUARANTINE.arrow_schema()
        return pa.RecordBatch.from_arrays(
            [pa.array(values, f.type) for values, f in zip(rows, schema, strict=True)], schema=schema
        )


@dataclass(frozen=True)
class _Reader(Reader):
    """Reads files of a source that fills one table; `headers` by URI."""

    kind: RecordSource
    cohort: str
    headers: dict[str, Any]
    places: list[tuple[Table, str]]
    source: str
    unit: str

    def splits(self, uri: str, target: int) -> list[Split]:
        return self.kind.splits(uri, target)

    def length(self, piece: Piece) -> int:
        return self.kind.length(piece)

    def targets(self, piece: Piece) -> list[tuple[Table, str]]:
        return self.places

    def batches(self, piece: Piece, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        return self.kind.read(piece, self.headers[piece.uri], self.cohort, note)
