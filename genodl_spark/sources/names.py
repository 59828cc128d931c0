"""Names by which a cohort's files are told apart: the base name, with as many folders before it as that takes.

A file is the one that the lake has when it comes from the same place, or with the same content under the same base
name. One of that base name from another folder is another file where the two share no sample: it is kept beside.
Where they share some, or have none, nobody can tell a new edition from another part of a cohort (chr1/calls.vcf.gz,
chr2/calls.vcf.gz), and `ingest.same_name` says which it is. Files given together are several.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from genodl_spark.core.errors import InputError
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.ingested import SOURCES
from genodl_spark.sources.engine import SourceFile
from genodl_spark.sources.protocol import SourceKind


@dataclass(frozen=True)
class _Stored:
    """A file that the lake has."""

    file: str
    uri: str
    sha256: str


def named_files(
    run: Run, cohort: str, kind: SourceKind, block: str, files: list[SourceFile], samples: Mapping[str, Sequence[str]]
) -> list[SourceFile]:
    """`files` under the names that the cohort has or will have them by. `samples` of each, by URI,
    as far as they are known before reading.

    InputError for one that may or may not be another edition of what the lake has, and for one that would take
    the place of other people's data.
    """
    known = _known(run, cohort, kind.name, block) if files else []
    at, given = {row.uri: row for row in known}, {file.uri for file in files}
    called: defaultdict[str, list[_Stored]] = defaultdict(list)
    for row in known:
        if row.uri not in given:
            called[row.uri.rpartition("/")[2]].append(row)
    alike = {
        file.uri: [row for row in called.get(file.uri.rpartition("/")[2], []) if _ends_alike(row.uri, file)]
        for file in files
        if file.uri not in at
    }
    asked = [row.file for rows in alike.values() for row in rows] + [
        at[f.uri].file for f in files if f.uri in at and at[f.uri].sha256 != f.sha256
    ]
    people = kind.stored_samples(run, cohort, block, asked) if asked and not kind.adds else {}
    held = {row.sha256: row.file for row in reversed(known)}
    taken, given_out = {row.file for row in known}, set[str]()
    ends = _Ends(given)
    found: dict[str, str] = {}
    for file in files:
        own = set(samples.get(file.uri, ()))
        if file.uri in at:
            found[file.uri] = at[file.uri].file
            given_out.add(found[file.uri])
            _check_same_people(run, file, cohort, people.get(found[file.uri], set()), own)
            continue
        free = [row for row in alike[file.uri] if row.file not in given_out]
        same = next((row for row in free if row.sha256 == file.sha256), None)
        edition = same or next(
            (row for row in free if not kind.adds and _may_be(people.get(row.file, set()), own)), None
        )
        if edition is not None and (edition is same or _is_edition(run, file, cohort, edition)):
            found[file.uri] = edition.file
        else:
            found[file.uri] = ends.distinct(file.uri, (taken, given_out), file.name.count("/") + 1)
            twin = held.get(file.sha256)
            if twin is not None and not kind.adds:
                run.report.warn(
                    f"{found[file.uri]} has the content of {twin}, which cohort {cohort} has: "
                    "all that is in it stands there twice"
                )
        given_out.add(found[file.uri])
    return [replace(file, name=found[file.uri]) for file in files]


def _known(run: Run, cohort: str, source: str, block: str) -> list[_Stored]:
    mine = {"cohort": cohort, "source": source, "block": block}
    rows = run.lake.rows(SOURCES, mine, columns=["file", "uri", "sha256"]).to_pylist()
    return sorted((_Stored(**row) for row in rows), key=lambda row: row.file)


def _may_be(theirs: set[str], own: set[str]) -> bool:
    return not theirs or not own or bool(theirs & own)


def _is_edition(run: Run, file: SourceFile, cohort: str, other: _Stored) -> bool:
    """Whether `file` replaces `other`, as the setting says."""
    says = run.settings.ingest.same_name
    if says == "ask":
        found = f"the name of {other.uri}, which cohort {cohort} has, and no other samples"
        raise InputError(
            f"found {found}; expected to know which it is: --set ingest.same_name=edition replaces that file, "
            "--set ingest.same_name=file keeps both",
            file.uri,
        )
    return says == "edition"


def _check_same_people(run: Run, file: SourceFile, cohort: str, theirs: set[str], own: set[str]) -> None:
    """What a file took with it when it came anew. InputError where it holds nobody of those that it held before."""
    if not theirs or not own or theirs <= own:
        return
    if not theirs & own and run.settings.ingest.same_name != "edition":
        found = f"none of the {len(theirs)} samples that cohort {cohort} has from there"
        raise InputError(
            f"found {found}; expected some: give the file another name, or --set ingest.same_name=edition "
            "takes their data away",
            file.uri,
        )
    run.report.warn(
        f"{file.name} comes without {len(theirs - own)} samples that it had, such as {min(theirs - own)}: "
        "their data from it is gone"
    )


def _ends_alike(uri: str, file: SourceFile) -> bool:
    """Whether a file has the name of another, with its folder where it goes by that too."""
    return uri.split("/")[-file.name.count("/") - 1 :] == file.name.split("/")


class _Ends:
    """What the files of a command end in."""

    def __init__(self, uris: Iterable[str]) -> None:
        self._parts = [uri.split("/") for uri in uris]
        self._times: dict[int, Counter[str]] = {}

    def distinct(self, uri: str, taken: Sequence[set[str]], least: int) -> str:
        """The shortest end of one of the files, of whole names, `least` or more, that no other has and that is not
        `taken`."""
        parts = uri.split("/")
        for size in range(least, len(parts)):
            name = "/".join(parts[-size:])
            if self._of(size)[name] == 1 and not any(name in names for names in taken):
                return name
        return uri

    def _of(self, size: int) -> Counter[str]:
        if size not in self._times:
            self._times[size] = Counter("/".join(parts[-size:]) for parts in self._parts)
        return self._times[size]
