"""genodl VERB ARGS: the same function as spark-submit jobs/VERB.py ARGS."""

from __future__ import annotations

import ast
import importlib
import sys
from importlib import resources

import jobs


def _summary(verb: str) -> str:
    """First paragraph of what its file says of itself, read without running it."""
    source = resources.files(jobs).joinpath(f"{verb}.py").read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].split())


def main() -> int:
    verbs = jobs.verbs()
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help", "help"):
        print("genodl VERB ARGS: a lake of genomes, and models trained on it and run back over it\n")
        for name in verbs:
            print(f"  {name:<10} {_summary(name)}")
        print("\ngenodl VERB --help tells more.")
        return 0
    if verb not in verbs:
        print(f"genodl: error: VERB: found {verb!r}; expected one of {', '.join(verbs)}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"jobs.{verb}").main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
