"""A user's own code: one Python file of a task or a network, as the bytes that were read, and as a module.

Bytes go from the file that a command names to training, into the lake beside the model, and from there to whoever
scores with it. A path is read once, by `config.load`; nothing here opens a file.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
from collections.abc import Mapping
from pathlib import PurePath
from types import ModuleType
from typing import Any

from genodl_spark.core.errors import InputError

PACKAGE = "genodl_spark"
# Where names of this package stand that own files imported from elsewhere before the package was divided into rooms:
# module of then -> those of now.
_MOVED = {
    "errors": ["core.errors"],
    "features": [
        "features.protocol",
        "features.matrices",
        "features.genotypes",
        "features.sequences",
        "features.covariates",
    ],
    "lake": ["lake.delta", "lake.snapshot"],
    "models": ["learning.models"],
    "stored_files": ["lake.files"],
    "tables": ["lake.schema", "lake.tables", "lake.tables.ingested", "lake.tables.learning", "lake.tables.operations"],
}

Code = Mapping[str, bytes]  # base name of a file -> its content


def is_own(name: str) -> bool:
    """Whether an implementation or a kind of network is a Python file of the user's, not a module of this package."""
    return name.endswith(".py")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def module(name: str, code: Code, key: str) -> ModuleType:
    """The module that the file `name` makes; executed once in a process for each content.
    `key`: the setting that named it.

    InputError where `code` has no such file, or it is no Python.
    """
    base = PurePath(name).name
    if base not in code:
        raise InputError(f"found no file {base}; expected the Python file that the settings name, check its path", key)
    # The name says which content it is: two models may each have a task.py.
    made = ModuleType(f"genodl_own_{PurePath(base).stem}_{sha256(code[base])[:12]}")
    if made.__name__ in sys.modules:
        return sys.modules[made.__name__]
    try:
        compiled = compile(_moved(ast.parse(code[base], base)), base, "exec")
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"not readable as Python ({error}); mend the file", base, getattr(error, "lineno", None)
        ) from error
    sys.modules[made.__name__] = made  # before it runs: dataclasses look their module up
    try:
        exec(compiled, made.__dict__)
    except BaseException:
        del sys.modules[made.__name__]
        raise
    return made


def named(name: str, package: str, kind: str, code: Code, key: str) -> Any:
    """The class `kind` of a file of `package`, or of a file of the user's own among `code`.
    `key`: the setting that named it.

    InputError for a file that is not there, and one without the class.
    """
    if is_own(name):
        found: Any = module(name, code, key)
    else:
        try:
            if not name.isidentifier():
                raise ModuleNotFoundError(name)
            found = importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            raise InputError(
                f"found {name!r}; expected a file under {package.replace('.', '/')}, or the path of a .py", key
            ) from error
    if not hasattr(found, kind):
        raise InputError(f"found no class {kind} in {name}; expected a file that has one", key)
    return getattr(found, kind)


def _moved(tree: ast.Module) -> ast.Module:
    """The same with names of this package imported from where they stand now:
    a file that is stored with a model stays as it was written."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                setattr(node, field, [part for statement in block for part in _imported(statement)])
    return ast.fix_missing_locations(tree)


def _imported(statement: ast.stmt) -> list[ast.stmt]:
    """A statement, or, of an import from a module of before, one import for each name that has another module now."""
    package, _, rest = (
        (statement.module or "").partition(".") if isinstance(statement, ast.ImportFrom) else ("", "", "")
    )
    first, _, inner = rest.partition(".")
    if not isinstance(statement, ast.ImportFrom) or statement.level or package != PACKAGE or first not in _MOVED:
        return [statement]
    made: list[ast.stmt] = []
    for alias in statement.names:
        places = [".".join(filter(None, (PACKAGE, place, inner))) for place in _MOVED[first]]
        found = next((place for place in places if _has(place, alias.name)), statement.module)
        made.append(ast.copy_location(ast.ImportFrom(found, [alias], 0), statement))
    return made


def _has(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return False
