"""Settings explained: type and bounds, default, effective value and what each means, from where it is declared.

Sections describe their fields themselves. Options of networks are read from the source of their class,
which would load torch, and those of baselines from what a search may choose for them.
"""

from __future__ import annotations

import ast
import difflib
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from genodl_spark.core import redaction
from genodl_spark.core.errors import InputError
from genodl_spark.job.config import Settings

BASELINES, STEPS = "evaluate.options", "quality.options"
_WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    dict: "table",
    list: "list",
    Any: "any value",
}
# in sources
_NAMES = {"bool": _WORDS[bool], "int": _WORDS[int], "float": _WORDS[float], "str": _WORDS[str], "Any": _WORDS[Any]}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Described:
    """One setting. `of`: the kind of network that has it, empty where all do;
    `section`: whether others stand below it."""

    key: str
    type: str
    default: Any
    value: Any
    description: str
    of: str = ""
    section: bool = False


def described(settings: Settings, key: str | None = None) -> list[Described]:
    """The setting of a dotted key, with those below it; every one without a key. InputError, with a close match,
    for a key that there is not."""
    found = [*_section(type(settings), "", settings, Settings()), *_networks(settings)]
    if key is None:
        return found
    if f"{key}.".startswith(f"{BASELINES}."):
        found += _baselines(settings)
    if f"{key}.".startswith(f"{STEPS}."):
        found += _steps(settings)
    if key.startswith("spark.") and key.removeprefix("spark.") not in ("", "."):
        info = Settings.model_fields["spark"]
        return [
            Described(
                key,
                "text",
                None,
                redaction.settings(settings.spark.get(key), key),
                f"A property of Spark. {info.description}",
            )
        ]
    wanted = [one for one in found if one.key == key or one.key.startswith(f"{key}.")]
    if not wanted:
        close = difflib.get_close_matches(key, [one.key for one in found], 1, 0.5)
        hint = (
            f"one such as {close[0]}"
            if close
            else f"one of {', '.join(dict.fromkeys(one.key.partition('.')[0] for one in found))}"
        )
        raise InputError(f"found no setting {key!r}; expected {hint}", "KEY")
    return wanted


def _section(section: type[BaseModel], prefix: str, value: BaseModel, default: BaseModel) -> Iterator[Described]:
    for name, info in section.model_fields.items():
        key, effective, usual = f"{prefix}{name}", getattr(value, name), getattr(default, name)
        inner = _inner(info.annotation)
        if inner is not None and get_origin(info.annotation) is not dict:
            yield Described(key, "section", None, None, _first(inner), section=True)
            yield from _section(inner, f"{key}.", effective, usual)
            continue
        yield Described(key, _type(info), _plain(usual, key), _plain(effective, key), info.description or "")
        if inner is not None:  # a table of sections, by the user's own names
            yield from _section(inner, f"{key}.NAME.", inner.model_construct(), inner.model_construct())


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation is of, or a table of."""
    last = get_args(annotation)[-1] if get_origin(annotation) is dict else annotation
    return last if isinstance(last, type) and issubclass(last, BaseModel) else None


def _first(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split("\n\n")[0].split())


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        value = {
            name: one.model_dump(exclude_none=True) if isinstance(one, BaseModel) else one
            for name, one in value.items()
        }
    return redaction.settings(value, key)


def _type(info: FieldInfo) -> str:
    """The type and its bounds or choices in words."""
    bounds = [
        f"{word} {bound}"
        for m in info.metadata
        for name, word in _BOUNDS.items()
        if (bound := getattr(m, name, None)) is not None
    ]
    patterns = [m.pattern for m in info.metadata if getattr(m, "pattern", None)]
    choices = [found[1].split("|") for pattern in patterns if (found := re.fullmatch(r"\^\(([\w|]+)\)\$", pattern))]
    if choices:
        return f"one of {', '.join(choices[0])}"
    return ", ".join([_word(info.annotation), *bounds, *(f"of the form {pattern}" for pattern in patterns)])


def _word(annotation: Any) -> str:
    origin, inner = get_origin(annotation), [one for one in get_args(annotation) if one is not types.NoneType]
    if origin is Annotated:
        return _word(inner[0])
    if origin in (Union, types.UnionType):
        words = list(dict.fromkeys(map(_word, inner)))
        return " or ".join(["number"] if {"number", "whole number"} == set(words) else words) + ", or not set"
    if origin is list:
        return f"list of {_word(inner[0])}s" if inner[0] is not Any else "list"
    return _WORDS.get(origin or annotation, "table")


def _networks(settings: Settings) -> Iterator[Described]:
    """Options of each kind of network, as their constructors and the docstrings of their classes have them."""
    folder = resources.files("genodl_spark.learning").joinpath("models")
    sources = {
        entry.name.removesuffix(".py"): entry.read_bytes()
        for entry in folder.iterdir()
        if re.fullmatch(r"[a-z]\w*\.py", entry.name)
    }
    chosen = str(settings.model.get("kind", "mlp"))
    kinds = ", ".join(sorted(kind for kind in sources if kind != "layers"))
    yield Described(
        "model.kind", f"one of {kinds}, or the path of a Python file", "mlp", chosen, "The kind of network."
    )
    for kind, source in sorted({**sources, **settings.code_files}.items()):
        networks = [
            node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Network"
        ]
        for network in networks:
            for name, type_, default in _options(network):
                value = redaction.settings(settings.model.get(name, default), name) if kind == chosen else default
                said = " ".join(_sentences(ast.get_docstring(network) or "", f"`{name}`"))
                yield Described(
                    f"model.{name}",
                    type_,
                    default,
                    value,
                    said or "The class Network does not say what it is.",
                    of=kind,
                )


def _options(network: ast.ClassDef) -> Iterator[tuple[str, str, Any]]:
    """Name, type and default of the options of a network's constructor; the default of a list is what stands
    in its place where it is None."""
    for made in (node for node in network.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"):
        instead = {ast.unparse(n.test): n.body for n in ast.walk(made) if isinstance(n, ast.IfExp)}
        arguments = [*made.args.args, *made.args.kwonlyargs]
        defaults = [
            *[None] * (len(made.args.args) - len(made.args.defaults)),
            *made.args.defaults,
            *made.args.kw_defaults,
        ]
        for argument, default in zip(arguments, defaults, strict=True):
            if default is None:
                continue  # what the caller gives: seeds, inputs, outputs
            written = ast.unparse(argument.annotation).removesuffix(" | None") if argument.annotation else "Any"
            word = " or ".join(map(_named, written.split(" | ")))
            try:
                yield argument.arg, word, ast.literal_eval(instead.get(f"{argument.arg} is None", default))
            except ValueError:
                yield argument.arg, word, ast.unparse(default)


def _named(written: str) -> str:
    listed = re.fullmatch(r"list\[(\w+)\]", written)
    return f"list of {_NAMES.get(listed[1], listed[1])}s" if listed else _NAMES.get(written, written)


def _baselines(settings: Settings) -> Iterator[Described]:
    from genodl_spark.learning import baselines

    text = f"{baselines.fit_predict.__doc__} {baselines.fit_predict_times.__doc__}"
    for baseline, space in baselines.SPACES.items():
        said = " ".join(_sentences(text, rf"\b{baseline}\b"))
        for option, values in space.items():
            choices = (
                f"one of {', '.join(map(str, values['choices']))}"
                if "choices" in values
                else f"from {values['low']:g} to {values['high']:g}"
            )
            default = baselines.STARTS[baseline][option]
            value = settings.evaluate.options.get(baseline, {}).get(option, default)
            yield Described(f"{BASELINES}.{baseline}.{option}", f"searched: {choices}", default, value, said)


def _steps(settings: Settings) -> Iterator[Described]:
    """Options of every step before networks, which their classes describe."""
    from genodl_spark.learning import preprocessing

    for name in preprocessing.names():
        step = preprocessing.step_of(name, {})
        chosen = settings.quality.options.get(name, {})
        for option, info in type(step).model_fields.items():
            said = f"{_first(type(step))} {info.description}"
            usual = getattr(step, option)
            yield Described(f"{STEPS}.{name}.{option}", _type(info), usual, chosen.get(option, usual), said)


def _sentences(text: str, pattern: str) -> list[str]:
    """Those of a docstring in which a pattern stands."""
    return [one for one in re.split(r"(?<=\.)\s+(?=[`A-Za-z])", " ".join(text.split())) if re.search(pattern, one)]
