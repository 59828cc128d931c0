"""What code a stage runs: a hash of the modules of this package that it imports, directly or through
others, read from their sources.

Comments, docstrings, descriptions of settings, type annotations that only a checker imports, and the layout of lines do
not count. Modules that are found by name at run time (tasks, networks) are no imports: whoever asks names them.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

PACKAGE = "genodl_spark"


@cache
def of_modules(*modules: str) -> str:
    """Hash (16 hexadecimal digits) of modules, given by their full names, and of all
    that they import of this package."""
    return closure_hash(resources.files(PACKAGE), modules)


@cache
def of_package() -> str:
    """Hash of every source of the package as it stands: two runs with the same one ran the same code."""
    found = {name: file.read_bytes() for name, file in _sources(resources.files(PACKAGE), "")}
    return _digest(found.items())


def closure_hash(root: Traversable, modules: Iterable[str]) -> str:
    """`of_modules` of the package whose folder is `root`."""
    sources = dict(_sources(root, ""))
    pending, seen = list(modules), dict[str, bytes]()
    while pending:
        name = pending.pop()
        file = next((path for path in _files_of(name) if path in sources), None)
        if file is None or file in seen:
            continue
        package = name if file.endswith("/__init__.py") else name.rpartition(".")[0]
        imported, seen[file] = _read(sources[file].read_bytes(), package)
        pending += [found for one in imported for found in _parents(one)]
        compiled = file.removesuffix(".py") + ".c"
        if compiled in sources:
            seen[compiled] = sources[compiled].read_bytes()
    return _digest(seen.items())


@cache  # a run asks for the code of several stages, which share most of their modules
def _read(source: bytes, package: str) -> tuple[tuple[str, ...], bytes]:
    """What a module of `package` imports, and all of it that counts."""
    tree = ast.parse(source)
    imported = tuple(_imports(tree, package))
    return imported, ast.dump(_bare(tree)).encode()


def _digest(contents: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(contents):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    """Python and C files below a folder, by their path with a leading slash."""
    for entry in folder.iterdir():
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            yield from _sources(entry, name)
        elif name.endswith((".py", ".c")):
            yield name, entry


def _files_of(module: str) -> list[str]:
    """Where a module of the package may stand; nowhere for one of another."""
    first, *rest = module.split(".")
    path = "".join(f"/{part}" for part in rest)
    return [f"{path}.py", f"{path}/__init__.py"] if first == PACKAGE else []


def _parents(module: str) -> list[str]:
    """A module and the packages that are imported before it."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """What a module imports, wherever in it, but for what only a type checker does; `package`: the one it is in."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module or "") if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        pending += ast.iter_child_nodes(node)


def _bare(tree: ast.Module) -> ast.Module:
    """The same without docstrings and descriptions of fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree
