"""Sets of genes in GMT files, as MSigDB, Reactome and others hand them out: a line for each, its name, a description,
and its genes, with tabs between them."""

from __future__ import annotations

from dataclasses import dataclass

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import streams
from genodl_spark.formats.delimited import Unreadable, text_of


@dataclass(frozen=True)
class GeneSet:
    """`genes`: each once, in the order of the file."""

    name: str
    description: str
    genes: tuple[str, ...]


def read(uri: str) -> list[GeneSet]:
    """The sets of a file, gzipped or not, in its order. InputError, naming file and line, for a line that is none, and
    for a name that two sets have."""
    found: dict[str, tuple[int, GeneSet]] = {}
    with storage.open_input(uri) as raw:
        for first, block in streams.line_blocks(raw, uri):
            for number, line in enumerate(block.split(b"\n")[:-1], first):
                if not line.strip():
                    continue
                try:
                    cells = [cell.strip() for cell in text_of(line).split("\t")]
                except Unreadable as error:
                    raise InputError(str(error), uri, number) from error
                if len(cells) < 3:
                    said = f"found {len(cells)} cell{'s' * (len(cells) > 1)} between tabs"
                    raise InputError(f"{said}; expected the name of a set, a description, and genes", uri, number)
                name, description, *genes = cells
                if not name:
                    raise InputError("found a set without a name; expected one in front of the first tab", uri, number)
                if name in found:
                    text = f"found set {name} again, as on line {found[name][0]}; expected each name once"
                    raise InputError(text, uri, number)
                own = tuple(dict.fromkeys(gene for gene in genes if gene))
                if not own:
                    raise InputError(f"found no gene in set {name}; expected some behind its description", uri, number)
                found[name] = (number, GeneSet(name, description, own))
    if not found:
        raise InputError("found no line; expected a set of genes in each", uri)
    return [one for _, one in found.values()]
