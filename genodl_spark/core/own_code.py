"""A user's own code: one Python file of a task or a network, as the bytes that were read, and as a module.

Bytes go from the file that a command names to training, into the lake beside the model, and from there to whoever scores with it. A path
is read once, by `config.load`; nothing here opens a file.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import PurePath
from types import ModuleType

from genodl_spark.core.errors import InputError

Code = Mapping[str, bytes]  # base name of a file -> its content


def is_own(name: str) -> bool:
    """Whether an implementation or a kind of network is a Python file of the user's, not a module of this package."""
    return name.endswith(".py")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def module(name: str, code: Code, key: str) -> ModuleType:
    """The module that the file `name` makes; executed once in a process for each content. `key`: the setting that named it.

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
        compiled = compile(code[base], base, "exec")
    except (SyntaxError, ValueError) as error:
        raise InputError(f"not readable as Python ({error}); mend the file", base, getattr(error, "lineno", None)) from error
    sys.modules[made.__name__] = made  # before it runs: dataclasses look their module up
    try:
        exec(compiled, made.__dict__)
    except BaseException:
        del sys.modules[made.__name__]
        raise
    return made
