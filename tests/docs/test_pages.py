"""README.md and docs/: links, paths, commands, settings and tables that they name are there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.lake.tables import TABLES
from tests.pages import README, ROOT, anchors, blocks, in_order, is_printed, links, pages, spans, verb

_FOLDERS = ("conf", "docker", "docs", "genodl_spark", "jobs", "tests")
_MAKEFILE = (ROOT / "Makefile").read_text()


def wrong_links(texts: dict[str, str]) -> list[str]:
    """Links that lead nowhere, and pages that no link leads to."""
    found = []
    for page, text in texts.items():
        for path, anchor in links(page, text):
            if not (path in texts or (ROOT / path).exists()):
                found.append(f"{page}: no file {path}")
            elif anchor and anchor not in anchors(texts[path]):
                found.append(f"{page}: no heading #{anchor} in {path}")
    reached = in_order(texts)
    return found + [f"{page}: not reached from {README}" for page in texts if page not in reached]


def wrong_paths(texts: dict[str, str]) -> list[str]:
    """Paths in code spans that no file of the project has."""
    named = re.compile(rf"(?:{'|'.join(_FOLDERS)})/[\w./*-]*")
    of_page = [(page, span) for page, text in texts.items() for span in spans(text) if named.fullmatch(span)]
    return [
        f"{page}: no file {span}"
        for page, span in of_page
        if "VERB" not in span and not list(ROOT.glob(span.rstrip("/")))
    ]


def wrong_targets(texts: dict[str, str]) -> list[str]:
    """Targets that the Makefile lacks."""
    code = [
        (page, one)
        for page, text in texts.items()
        for one in [*spans(text), *(b.text for b in blocks(page, text) if b.language == "sh")]
    ]
    named = [(page, target) for page, one in code for target in re.findall(r"^make ([a-z-]+)", one, re.MULTILINE)]
    return [
        f"{page}: no target {target}"
        for page, target in named
        if not re.search(rf"^{target}:", _MAKEFILE, re.MULTILINE)
    ]


def parsed(name: str, arguments: list[str]) -> Any:
    """What a verb's own parser makes of its arguments. InputError where it takes them not."""
    if not (ROOT / "jobs" / f"{name}.py").is_file():
        raise InputError("found no such verb", name)
    module = importlib.import_module(f"jobs.{name}")
    found: list[Any] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "run_job", lambda _, made, work, argv: found.append(made.parse_args(argv)))
        module.main(arguments)
    return found[0]


def wrong_commands(texts: dict[str, str]) -> list[str]:
    """Commands of blocks that their verb's parser, or the settings, do not take;
    programs and scripts that are not there."""
    named = [
        (page, match[1])
        for page, text in texts.items()
        for span in spans(text)
        if (match := re.match(r"genodl ([a-z]+)\b", span))
    ]
    found = [f"{page}: no verb {name}" for page, name in named if not (ROOT / "jobs" / f"{name}.py").is_file()]
    for block in (block for page, text in texts.items() for block in blocks(page, text) if block.language == "sh"):
        for words in block.commands():
            program, asked = PurePosixPath(words[0]).name, verb(words)
            try:
                if asked is not None:
                    arguments = parsed(*asked)
                    task = getattr(arguments, "task", None)
                    config.load(None if task is None or task.endswith(".toml") else task, None, arguments.set)
                elif program == "python":
                    script = (ROOT / words[1]).read_text()
                    found += [
                        f"{block.place}: {words[1]} has no {word}"
                        for word in words[2:]
                        if word[:2] == "--" and f'"{word}"' not in script
                    ]
                elif program not in ("make", "mlflow"):
                    found.append(f"{block.place}: unknown program {program}")
            except (InputError, OSError) as error:
                found.append(f"{block.place}: {error}")
    return found


def wrong_settings(texts: dict[str, str]) -> list[str]:
    """Settings in code spans that there are not, and assignments there that are not taken."""
    kinds = [
        path.stem for path in (ROOT / "genodl_spark" / "learning" / "models").glob("[a-z]*.py") if path.stem != "layers"
    ]
    networks = [importlib.import_module(f"genodl_spark.learning.models.{kind}").Network for kind in kinds]
    options = {f"model.{name}" for network in networks for name in inspect.signature(network.__init__).parameters}
    known = {*config._keys(config.Settings), *options, "model.kind"}
    sections = {key.partition(".")[0] for key in known} - {"spark"}
    found = []
    for page, span in ((page, span) for page, text in texts.items() for span in spans(text)):
        key = re.match(r"[a-z_]+(\.[a-z_0-9]+)+(?=$| ?=)", span)
        if (
            key
            and not key[0].endswith((".py", ".toml", ".json", ".safetensors"))
            and key[0].partition(".")[0] in sections
            and key[0] not in known
        ):
            found.append(f"{page}: no setting {key[0]}")
        for assignment in re.findall(r"--set ([a-z]\S*=\S+)", span):
            try:
                config.load(None, None, [assignment])
            except InputError as error:
                found.append(f"{page}: {error}")
    return found


def wrong_python(texts: dict[str, str]) -> list[str]:
    """Modules, and names of the package's own, that blocks of Python import and that there are not."""
    found = []
    for block in (block for page, text in texts.items() for block in blocks(page, text) if block.language == "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Import):
                found += [
                    f"{block.place}: no module {alias.name}"
                    for alias in node.names
                    if importlib.util.find_spec(alias.name) is None
                ]
            elif isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                names = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                found += [
                    f"{block.place}: no {node.module}.{name}"
                    for name in names
                    if importlib.util.find_spec(f"{node.module}.{name}") is None
                ]
    return found


CHECKS = (wrong_links, wrong_paths, wrong_targets, wrong_commands, wrong_settings, wrong_python)


@pytest.mark.parametrize("check", CHECKS)
def test_what_the_pages_name_is_there(check: Any) -> None:
    assert check(pages()) == []


def test_what_is_not_there_is_found() -> None:
    door = """# Door

[A page](docs/a.md#part-1) [gone](docs/b.md) [a part](docs/a.md#part-2) [elsewhere](https://example.org/x)
`conf/base.toml` `conf/bases.toml` `genodl_spark/tasks/` `genodl_spark/gone/` `make test` `make tests` `jobs/VERB.py` \
`genodl list x` `genodl lists`
`train.batch` `train.batches` `model.dropout` `model.drop_out` `region.read` `train.py` \
`evaluate --set evaluate.nil=true`

```sh
make demos
.venv/bin/genodl train ancestry --lake LAKE \\
    --set train.batch=none   # two faults in one command: the settings are asked once the options are right
.venv/bin/genodl predict --lake LAKE
genodl query "SELECT 1
    FROM samples" --lakes LAKE
genodl trains ancestry
spark-submit --master x jobs/ingest.py vcfs x.vcf --lake LAKE
.venv/bin/python tests/bench/feed.py --repeat 3 --rounds 2
```

```python
from genodl_spark.genetics import region, regions
```
"""
    texts = {README: door, "docs/a.md": "# A\n\n## Part: 1\n\n```sh\n# Part 2\n```\n", "docs/c.md": "# C\n"}
    assert wrong_links(texts) == [
        "README.md: no file docs/b.md",
        "README.md: no heading #part-2 in docs/a.md",
        "docs/c.md: not reached from README.md",
    ]
    assert wrong_paths(texts) == ["README.md: no file conf/bases.toml", "README.md: no file genodl_spark/gone/"]
    assert wrong_targets(texts) == ["README.md: no target tests", "README.md: no target demos"]
    found = wrong_commands(texts)
    told = (
        "train.batch: found 'none'",
        "arguments: the following",
        "arguments: the following",
        "trains: found no such verb",
        "SOURCE: invalid choice",
    )
    assert found[0] == "README.md: no verb lists" and found[6:] == ["README.md:8: tests/bench/feed.py has no --rounds"]
    assert all(one.startswith(f"README.md:8: {what}") for one, what in zip(found[1:6], told, strict=True)), found
    assert wrong_settings(texts)[:2] == ["README.md: no setting train.batches", "README.md: no setting model.drop_out"]
    assert [one.split(";")[0] for one in wrong_settings(texts)[2:]] == ["README.md: evaluate.nil: unknown key"]
    assert wrong_python(texts) == ["README.md:20: no genodl_spark.genetics.regions"]


def test_what_is_printed_is_compared_word_by_word() -> None:
    shown = "name\tn\nx\t1\ny\t2\n"
    for said in ("name n\nx 1\ny 2\n", "name n\n...\n", "name  n\nx     ...\ny     2\n", "...\ny 2\n"):
        assert is_printed(shown, said), said
    for said in ("name n\nx 1\n", "name n\nx 11\ny 2\n", "name n\ny 2\nx 1\n", "name n\nx ... 1\ny 2\n", "n\n...\n"):
        assert not is_printed(shown, said), said


def test_the_readme_is_a_door() -> None:
    text = pages()[README]
    assert len(text.splitlines()) <= 130
    assert all(command in text for command in ("make setup", "make demo", "make test"))


def test_sketches_of_the_project_name_what_is_there() -> None:
    """The README has every room, the page of the architecture every file but those that are found by name."""
    package = ROOT / "genodl_spark"
    found = {
        page: b.text
        for page, text in pages().items()
        for b in blocks(page, text)
        if re.match(r"(jobs|genodl_spark)/\s", b.text)
    }
    assert found.keys() == {README, "docs/architecture.md"}
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    for sketch in found.values():
        named = set(re.findall(r"(?:^|\s)([a-z_]+)/", sketch))
        there = {path.name for path in ROOT.rglob("*") if path.is_dir()}
        assert rooms - named == named - there == set()
    files = {
        path.stem
        for path in package.rglob("*.py")
        if path.name != "__init__.py" and path.parent.name not in ("pipelines", "tasks", "models")
    }
    assert files - set(re.findall(r"\w+", found["docs/architecture.md"])) == set()


def test_every_page_begins_with_what_it_answers() -> None:
    for page, text in pages().items():
        if page != README:
            assert re.match(r"# [^\n]+\n\nThis page answers ", text), page


def test_the_page_of_tables_says_what_is_declared() -> None:
    said = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", Path(ROOT, "docs/tables.md").read_text(), re.MULTILINE)
    assert said == [(name, table.doc, ", ".join(table.key)) for name, table in TABLES.items()]
