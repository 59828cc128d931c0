"""Sources: files as they come, into tables of the lake. Each file here with a class `Source` is one kind;
`genodl ingest` names the file.

A user's own kind is a Python file anywhere: `genodl ingest ./NAME.py`. Its name is NAME, the name of its file.
A `Source` is a `protocol.SourceKind`, most simply a `protocol.RecordSource`:

    files, table, takes           which names of a directory are its files; the table that they fill;
                                  which of --block, --reference and --tracks it takes
    is_one(uri), beside(uri)      whether a file of such a name is one of them; files that belong to it, as .bim to .bed
    header(uri, settings)         what the head of a file says, for what follows; InputError, before anything is written
    samples(header)               who the file has data of; None where that is known only when its records are read
    options(settings, reference)  what else shapes its rows, as it stands in `sources`: a file that is sent again
                                  with other options is read again
    check(run, cohort, files)     InputError where the files do not go together with what the cohort has
    read(piece, header, cohort, note)   for a piece of a file, in a task: Arrow batches of `table` and of `quarantine`;
                                        records have numbers of the
                                  `unit` that is counted, lines or records
    facts(lake, cohort)           what the page of a cohort's data says of what it brought
    bring(arrival, files)         all of it, for a kind that is not read record by record;
                                  by default `engine.ingest_files` around `read`

The engine commits many files in one transaction, each in place of what it brought before, and knows no kind.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from genodl_spark.core import own_code
from genodl_spark.core.errors import InputError

if TYPE_CHECKING:
    from genodl_spark.sources.protocol import SourceKind

_HAS_SOURCE = re.compile(r"^class Source\b", re.MULTILINE)
_OWN_NAME = re.compile(r"[A-Za-z]\w*")
_RESERVED = ("samples",)  # what the manifest calls the tables of --samples


class _Kinds(list[str]):
    """The kinds of this package, and every Python file."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and own_code.is_own(name))


@cache
def kinds() -> _Kinds:
    """Names of the kinds of source, found without importing one; a path of a .py is among them as well."""
    files = [entry for entry in resources.files(__name__).iterdir() if entry.name.endswith(".py")]
    return _Kinds(
        sorted(entry.name.removesuffix(".py") for entry in files if _HAS_SOURCE.search(entry.read_text("utf-8")))
    )


def load(name: str) -> SourceKind:
    """The kind of source of a name, or that which the Python file at a path declares.
    InputError where there is none, or it lacks something.

    The file runs as the command names it itself; nothing of it is kept in the lake.
    """
    if own_code.is_own(name):
        return _own(name)
    if name not in kinds():
        raise InputError(f"found {name!r}; expected {', '.join(kinds())}, or the path of a .py", "SOURCE")
    made: SourceKind = importlib.import_module(f"{__name__}.{name}").Source(name)
    return made


def _own(path: str) -> SourceKind:
    from pyspark.cloudpickle import register_pickle_by_value

    from genodl_spark.sources.protocol import SourceKind

    file, name = Path(path), Path(path).stem
    if not file.is_file():
        raise InputError("no such file; expected the Python file of a source, check its path", path)
    if not _OWN_NAME.fullmatch(name) or name in (*kinds(), *_RESERVED):
        taken = f"none of {', '.join((*kinds(), *_RESERVED))}"
        raise InputError(
            f"found {name} as the name of a source; expected letters, digits and _, and {taken}: rename the file", path
        )
    content = file.read_bytes()
    module = own_code.module(file.name, {file.name: content}, "SOURCE")
    register_pickle_by_value(module)  # executors do not have the file: they get what this process read
    found = getattr(module, "Source", None)
    if not (isinstance(found, type) and issubclass(found, SourceKind)):
        raise InputError(
            "found no class Source made from SourceKind or RecordSource of genodl_spark.sources.protocol; expected one",
            path,
        )
    try:
        made = found(name, own_code.sha256(content)[:16])
    except TypeError as error:  # an abstract method
        raise InputError(f"{error}; expected a class that has all that a source needs", path) from error
    made.declare(path)
    return made
