"""README.md and the pages of docs/, taken apart: links, headings, code spans, code blocks and the commands in them.

A comment on the line before a block says what the tests do with it:

    <!-- run -->          its commands, or its Python, are run, page after page in the order
                          of the README's links, in one folder
    <!-- printed -->      that is what the block that was run last has printed, apart from the width of gaps;
                          a line `...` stands for any lines, a word `...` for any word
    <!-- file: NAME -->   the folder holds a file NAME of this content
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
README = "README.md"
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block: the page, the number of its first line (1-based), language, text,
    and its mark or an empty text."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The words of each command of a shell block; a command goes on behind a backslash or within quotes.
        ValueError where it has no end."""
        held = ""
        for line in self.text.splitlines(keepends=True):
            held = held.removesuffix("\\\n") + line
            if held.endswith("\\\n"):
                continue
            try:
                words = shlex.split(held, comments=True)
            except ValueError:  # a quote is open
                continue
            held = ""
            if words:
                yield words
        if held:
            raise ValueError(f"{self.place}: a command without an end: {held!r}")


def pages() -> dict[str, str]:
    """Text of README.md and of every page of docs/, by its path in the project."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for path in [ROOT / README, *sorted((ROOT / "docs").glob("*.md"))]
    }


def blocks(page: str, text: str) -> list[Block]:
    return [
        Block(page, text.count("\n", 0, m.start("text")) + 1, m["language"], m["text"], m["mark"] or "")
        for m in _FENCE.finditer(text)
    ]


def prose(text: str) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """Code within the sentences of a page; a line break within one counts as a blank."""
    return [" ".join(span.split()) for part in prose(text).split("\n\n") for span in re.findall(r"`([^`]+)`", part)]


def links(page: str, text: str) -> list[tuple[str, str]]:
    """Links to files of the project: path (the page itself where a link has none) and anchor, which may be empty."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        whole = PurePosixPath(page).parent / path if path else PurePosixPath(page)
        found.append((whole.as_posix(), anchor))
    return found


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings have where it is shown."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def in_order(texts: dict[str, str]) -> list[str]:
    """README.md and the pages that can be reached from it, in the order of the links."""
    order = [README]
    for page in order:
        order += dict.fromkeys(path for path, _ in links(page, texts[page]) if path in texts and path not in order)
    return order


def verb(words: list[str]) -> tuple[str, list[str]] | None:
    """The verb and arguments of `genodl VERB ARGS` or `spark-submit OPTIONS jobs/VERB.py ARGS`;
    None for another program."""
    program = PurePosixPath(words[0]).name
    if program == "genodl":
        return words[1], words[2:]
    if program == "spark-submit":
        at = next(i for i, word in enumerate(words) if re.fullmatch(r"jobs/\w+\.py", word))
        return PurePosixPath(words[at]).stem, words[at + 1 :]
    return None


def is_printed(shown: str, said: str) -> bool:
    """Whether a block that is marked as printed says what was shown."""
    lines = []
    for line in said.splitlines():
        words = [r"\S+" if word == "..." else re.escape(word) for word in line.split()]
        lines.append(r"(.*\n)*?" if line == "..." else r"[ \t]*" + r"[ \t]+".join(words) + r"[ \t]*\n")
    return re.fullmatch("".join(lines), shown) is not None


def queries(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Every SQL statement of the pages' blocks, alone or in a command, with its place."""
    found = []
    for block in (block for page, text in texts.items() for block in blocks(page, text)):
        if block.language == "sql":
            found.append((block.place, block.text))
        if block.language == "sh":
            asked = (verb(words) for words in block.commands())
            found += [
                (block.place, next(word for word in one[1] if " " in word))
                for one in asked
                if one is not None and one[0] == "query"
            ]
    return found
