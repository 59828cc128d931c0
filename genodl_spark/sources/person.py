"""A person's identifier taken out of what is no column of its own: VCF headers, command lines,
settings, run reports, messages.

Parsed values are edited, never text as such, so that whoever is called `1`, `GT` or `done` takes nothing
of others along. A value is the identifier where it stands in a place that names a sample: a sample's column,
SAMPLE and PEDIGREE lines, options such as --samples, columns such as `father`. In free text that is not enough to know;
there an identifier is taken out as a word only where it is distinctive: of five characters at least,
among them a letter and a digit, as NA12878. Where another may mean something else it stays, and is counted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from genodl_spark.formats import barcodes
from genodl_spark.formats.vcf.header import PAIR
from genodl_spark.lake.schema import PERSON

WITHDRAWN = "withdrawn"

# Names of columns, attributes and header keys whose values name samples or people.
_ROLE = (
    r"sample|specimen|individual|patient|subject|donor|person|participant|proband|"
    r"father|mother|parent|paternal|maternal"
)
_NAMES_PEOPLE = re.compile(
    rf"(?:(?:tumou?r|normal|germline|control|original|derived)[ _.-]?)?(?:{_ROLE})s?(?:[ _.-]?(?:id|name|barcode))?s?",
    re.I,
)
_ALSO_IN_HEADERS = re.compile(r"genomes?|original|derived|child|name[_-]?\d*", re.I)
_DECLARATIONS = {"fileformat", "INFO", "FORMAT", "FILTER", "ALT", "contig", "assembly", "reference"}
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
# An option that takes samples, in a command line that a program left in a header, and what of its list
# stands before the one looked for.
_OPTION = (
    r"(?:(?<![\w-])-{1,2}(?:s|sn|samples?|sample[-_]?names?|tumou?r(?:[-_]?sample)?|normal(?:[-_]?sample)?)(?:\s+|=)"
    r"|(?<![\w-])(?:SM[:=]|(?:\w+_)?samples?(?:_?names?)?=))"
)
_BEFORE = r"""(?:\\?["'\[])?\^?(?:[^\s,]+,)*"""
_AFTER = r"""(?=\\?["'\]]|[,;>)\s]|$)"""
_OF_FILES = (
    r"\.(?:g\.)?(?:vcf|bcf|bam|cram|sam|bed|bim|fam|bgen|gz|bgz|fastq|fq|fa|fasta|tsv|csv|txt|idat|bw|h5|h5ad|mtx|maf|"
    r"soft|gct|xml|counts|json|html|log)\b"
)
_NAMING_OPTIONS = ("--sample", "--samples", "--key")
_NAMING_SETTINGS = ("predict.first", "predict.last")


def names_people(column: str) -> bool:
    """Whether the values of a sample table's column of this name are people: father, patient_id, sample_barcode, ..."""
    return _NAMES_PEOPLE.fullmatch(column) is not None


def before_name(cohort: str, kind: str | None = None) -> str:
    """What a hash in `forgotten` is of, up to the name; without `kind` as older versions have it."""
    return "".join(f"{part}\0" for part in (cohort, kind) if part is not None)


@dataclass(frozen=True)
class Person:
    """A sample of a cohort, and what texts are without it. All methods return what they were given
    where it does not name the person.

    `kind`: what the name is that of. A sequence, variant, cell or site can be taken out of a lake
    like a person, and is none.
    """

    cohort: str
    name: str
    kind: str = PERSON

    @property
    def hash(self) -> str:
        """What is kept of a person who was forgotten, so that data sent again is noticed:
        SHA-256 of cohort, kind and identifier, with zero bytes between."""
        return hashlib.sha256(f"{before_name(self.cohort, self.kind)}{self.name}".encode()).hexdigest()

    @property
    def hash_of_any_kind(self) -> str:
        """What older versions kept, which knew no kinds: it stands for whatever had the name."""
        return hashlib.sha256(f"{before_name(self.cohort)}{self.name}".encode()).hexdigest()

    @property
    def hashes(self) -> list[str]:
        return [self.hash, self.hash_of_any_kind]

    @property
    def alias(self) -> str:
        """What stands for the person where others' rows refer to it, so that those who belong together still do."""
        return f"{WITHDRAWN}-{self.hash_of_any_kind[:8]}"

    @property
    def distinctive(self) -> bool:
        return len(self.name) >= 5 and any(map(str.isalpha, self.name)) and any(map(str.isdigit, self.name))

    @cached_property
    def _word(self) -> re.Pattern[str]:
        # Barcodes of a sample's portions and aliquots begin with its own.
        name = re.escape(self.name) + (r"(?:-[0-9A-Z]+)*" if barcodes.parts(self.name) else "")
        # A file's suffix may follow, but no other part of a name; in a file's name others stand around it.
        alone = rf"(?<![\w.-]){name}(?![\w-])(?!\.(?!{_OF_FILES[2:]})\w)"
        return re.compile(rf"{alone}|(?<![a-zA-Z0-9-]){name}(?=(?:[._][\w.-]*)?{_OF_FILES})")

    @cached_property
    def _option(self) -> re.Pattern[str]:
        return re.compile(rf"({_OPTION}{_BEFORE}){re.escape(self.name)}{_AFTER}")

    @cached_property
    def _message(self) -> re.Pattern[str]:
        forms = "|".join(
            re.escape(form)
            for form in dict.fromkeys((repr(self.name), json.dumps(self.name), f"'{self.name}'", f'"{self.name}"'))
        )
        return re.compile(
            rf"{forms}|(?<=\b(?:sample|entity|person) ){re.escape(self.name)}(?![\w.-])|(?<=\bsequence "
            rf"){re.escape(self.name)}(?![\w.-])"
        )

    @property
    def around(self) -> str:
        """What `word_in` finds at least, as a regular expression of RE2."""
        special = re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", self.name)
        return rf"(?:^|[^a-zA-Z0-9-]){special}(?:$|[^a-zA-Z0-9{'' if barcodes.parts(self.name) else '-'}])"

    def assigned(self, text: str) -> str:
        """COLUMN=VALUE, with an alias where the value is the person."""
        column, separator, value = text.partition("=")
        return (
            f"{column}={self.alias}" if separator and value == self.name and names_people(column) else self.words(text)
        )

    def word_in(self, text: str) -> bool:
        """Whether the identifier stands in a text as a word, whatever it means there."""
        return self.name in text and self._word.search(text) is not None

    def words(self, text: str) -> str:
        """Free text without the identifier, where it is distinctive."""
        return self._word.sub(WITHDRAWN, text) if self.distinctive and self.name in text else text

    def message(self, text: str) -> str:
        """A message of this package, which names samples in quotes or after the word sample, sequence or entity."""
        return self.words(self._message.sub(WITHDRAWN, text))

    def header(self, text: str) -> str:
        """A VCF header without the sample's column, and without what its meta lines say of it."""
        edited = (self._line(line) for line in text.split("\n"))
        return "\n".join(line for line in edited if line is not None)

    def reads_header(self, text: str) -> str:
        """The header of a BAM without the read groups of the sample, and without what its other lines say of it."""
        kept = (
            line for line in text.split("\n") if not line.startswith("@RG") or f"SM:{self.name}" not in line.split("\t")
        )
        return "\n".join(
            self.words(self._option.sub(rf"\1{WITHDRAWN}", line)) if self.name in line else line for line in kept
        )

    def listed(self, text: str) -> str:
        """A list between commas or semicolons, or other text."""
        parts = re.split(r"([,;|]\s*)", text)
        return self.words("".join(WITHDRAWN if part == self.name else part for part in parts))

    def _line(self, line: str) -> str | None:
        """A line of a header; None where it is about the person alone."""
        if line.startswith("#CHROM"):
            return "\t".join(cell for i, cell in enumerate(line.split("\t")) if i < 9 or cell != self.name)
        key, _, value = line[2:].partition("=")
        if key in ("SAMPLE", "PEDIGREE"):
            return self._about_samples(line, key, value)
        if key in _DECLARATIONS:
            return _QUOTED.sub(lambda quoted: self.words(quoted.group()), line) if self.distinctive else line
        if names_people(key) and _unquoted(value) == self.name:
            return None
        return self.words(self._option.sub(rf"\1{WITHDRAWN}", line) if self.name in line else line)

    def _about_samples(self, line: str, key: str, value: str) -> str | None:
        """A SAMPLE or PEDIGREE line: it goes where its first value is the person, else the attributes
        go that name the person."""
        pairs = _pairs(value)
        if pairs is None:
            return self.words(line)
        kept = []
        for number, (name, text) in enumerate(pairs):
            naming = (
                key == "PEDIGREE" or name == "ID" or names_people(name) or _ALSO_IN_HEADERS.fullmatch(name) is not None
            )
            parts = _unquoted(text).split(";")
            if naming and self.name in (_unquoted(text), *parts):
                if number == 0 or name == "ID":
                    return None
                if len(parts) == 1 or _unquoted(text) == self.name:
                    continue
                # Other attributes have a value for each name of the list.
                rest = ";".join(WITHDRAWN if part == self.name else part for part in parts)
                text = f'"{rest}"' if text.startswith('"') else rest
            kept.append((name, self.words(text)))
        if kept == pairs:
            return line
        return (
            None
            if key == "PEDIGREE" and len(kept) < 2
            else f"##{key}=<{','.join(f'{name}={text}' for name, text in kept)}>"
        )

    def arguments(self, words: list[str], job: str) -> list[str]:
        """A command line."""
        return [self._argument(word, before, job) for before, word in zip(["", *words], words, strict=False)]

    def _argument(self, word: str, before: str, job: str) -> str:
        if before == "--cohort":
            return word
        option, separator, value = word.partition("=")
        if before in _NAMING_OPTIONS:
            return self._listed(word)
        if separator and option in _NAMING_OPTIONS:
            return f"{option}={self._listed(value)}"
        assigned = word if before == "--set" else word.removeprefix("--set=")
        key, separator, value = assigned.partition("=")
        if separator and key in _NAMING_SETTINGS and _unquoted(value) == self.name:
            return f"{word[: len(word) - len(value)]}{WITHDRAWN}"
        # identifiers in SQL are quoted, as in messages
        return self.message(word) if job == "query" else self.words(word)

    def _listed(self, text: str) -> str:
        return (
            WITHDRAWN
            if text == self.name
            else ",".join(WITHDRAWN if one == self.name else one for one in text.split(","))
        )

    def settings(self, value: Any) -> Any:
        """Settings of a run or a model."""

        def edited(path: tuple[str, ...], text: str) -> str:
            return WITHDRAWN if text == self.name and ".".join(path) in _NAMING_SETTINGS else self.words(text)

        return _walked(value, edited)

    def report(self, value: Any) -> Any:
        """A run report."""

        def edited(path: tuple[str, ...], text: str) -> str:
            if path[:1] in (("warnings",), ("error",)):
                return self.message(text)
            names = path[:1] == ("result",) and bool(path[1:]) and (names_people(path[-1]) or path[-1] == "entity_id")
            return WITHDRAWN if names and text == self.name else self.words(text)

        return _walked(value, edited)


def edited_json(text: str, edit: Callable[[Any], Any]) -> str:
    """JSON with a value in place of another, written the way it was; as it is where that is the same,
    or where the text is no JSON."""
    try:
        value = json.loads(text)
        changed = edit(value)
    except (ValueError, RecursionError):
        return text
    if changed == value:
        return text
    ways: list[dict[str, Any]] = [
        {"ensure_ascii": plain, "separators": marks} for plain in (True, False) for marks in ((", ", ": "), (",", ":"))
    ]
    return json.dumps(changed, **next((way for way in ways if json.dumps(value, **way) == text), {}))


def _walked(value: Any, edit: Callable[[tuple[str, ...], str], str], path: tuple[str, ...] = ()) -> Any:
    """A JSON value with its texts edited, by the keys that lead to them; keys, numbers and lists' lengths stay."""
    if isinstance(value, dict):
        return {key: _walked(inner, edit, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_walked(inner, edit, path) for inner in value]
    return edit(path, value) if isinstance(value, str) else value


def _pairs(value: str) -> list[tuple[str, str]] | None:
    """Attributes of a structured meta line in order, quotes included; None where it is none."""
    if not (value.startswith("<") and value.endswith(">")):
        return None
    found, at, inside = [], 0, value[1:-1]
    while at < len(inside):
        pair = PAIR.match(inside, at)
        if pair is None:
            return None
        found.append((pair.group(1), pair.group(2)))
        at = pair.end()
    return found


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if len(text) > 1 and text[0] == text[-1] == '"' else text
