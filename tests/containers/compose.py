"""docker/compose.yaml as compose reads it: merged, and with the values of the environment in place of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness import ROOT

FILE = ROOT / "docker" / "compose.yaml"
_NAME = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_]\w*)(?:(?P<sign>:\?|:-)(?P<rest>[^}]*))?\})")


class Refused(Exception):
    """What compose says where a variable has no value that has to have one."""


def interpolated(value: Any, environment: Mapping[str, str]) -> Any:
    """`${NAME:?message}`, `${NAME:-default}`, `${NAME}` and `$$` within all texts of a document."""
    if isinstance(value, dict):
        return {name: interpolated(one, environment) for name, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, environment) for one in value]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        found = environment.get(match["name"], "")
        if not found and match["sign"] == ":?":
            raise Refused(f"{match['name']} {match['rest']}")
        return found or (match["rest"] if match["sign"] == ":-" else "") or ""

    return _NAME.sub(put, value)


def document(text: str | None = None) -> dict[str, Any]:
    """As it is written, but for YAML's own merges."""
    return dict(yaml.safe_load(FILE.read_text() if text is None else text))


def services(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services, every variable replaced. Refused where one is missing."""
    return dict(interpolated(document()["services"], environment))


def secrets(text: str) -> set[str]:
    """Variables that have to have a value."""
    return {match["name"] for match in _NAME.finditer(text) if match["sign"] == ":?"}


def target(service: Mapping[str, Any]) -> str:
    """The stage of the Dockerfile that a service runs."""
    return str(service["build"]["target"])


def volumes(service: Mapping[str, Any]) -> dict[str, str]:
    """Where each named volume of a service is mounted."""
    return {name: path for name, path, *_ in (one.split(":") for one in service.get("volumes", []))}


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, of lines that go on joined, without comments."""
    text = re.sub(r"^\s*#.*\n", "", Path(ROOT, "docker/Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(words[0], words[1]) for line in lines if len(words := line.split(maxsplit=1)) == 2]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, those of the stages that it is made from before them."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for instruction, arguments in dockerfile():
        if instruction == "FROM":
            parent, _, name = arguments.split()
            current = found[name] = list(found.get(parent, []))
        current.append((instruction, arguments))
    return found
