"""Clinical files of TCGA in XML, one for each patient: what their elements say, as a row of a sample table."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from xml.etree import ElementTree

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import fault_of_name, known
from genodl_spark.formats.sample_table import SampleTable, column_names, is_missing_at_portals
from genodl_spark.formats.streams import line_blocks

_KEY = "bcr_patient_barcode"


def recognised(head: list[bytes]) -> bool:
    return next((line.lstrip().startswith(b"<") for line in head if line.strip()), False)


def read(uri: str) -> SampleTable:
    """Elements of each `patient`, named after their tags; those of follow-ups, drugs and the like, of which there may
    be several, with the kind of these before it. InputError for what is no XML, and for no patient with a barcode."""
    with storage.open_input(uri) as raw:
        text = b"".join(block for _, block in line_blocks(raw, uri))
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line = error.position[0]
        raise InputError(
            f"found XML that cannot be read ({error}); expected a whole file, fetch it again", uri, line
        ) from error
    said: dict[str, dict[str, list[str]]] = {}
    for patient in (element for element in root.iter() if _tag(element) == "patient"):
        values: dict[str, list[str]] = {}
        for name, cell in _leaves(patient, ""):
            held = values.setdefault(name, [])
            if cell not in held:
                held.append(cell)
        barcode = "; ".join(values.pop(_KEY, []))
        if not barcode or fault_of_name(barcode) is not None or barcode in said:
            raise InputError(f"found {barcode!r} as {_KEY} of a patient; expected one of its own", uri, 1)
        said[barcode] = values
    if not said:
        raise InputError(
            f"found elements {_tag(root)} without a patient; expected clinical data of TCGA, with a {_KEY}", uri, 1
        )
    names = list(dict.fromkeys(name for values in said.values() for name in values))
    stored = column_names(names)
    rows = {barcode: ["; ".join(values[n]) if n in values else None for n in names] for barcode, values in said.items()}
    return SampleTable(list(stored.values()), rows, {}, portal=True, file=posixpath.basename(uri))


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _leaves(element: ElementTree.Element, before: str) -> Iterator[tuple[str, str]]:
    for child in element:
        tag = _tag(child)
        if len(child):
            # `drugs` holds elements `drug`: what these say is of the drug.
            several = _tag(element) in (f"{tag}s", f"{tag}es")
            yield from _leaves(child, f"{before}{tag}_" if several else before)
        elif (text := known(child.text or "")) is not None and not is_missing_at_portals(text):
            yield f"{before}{tag}", text
