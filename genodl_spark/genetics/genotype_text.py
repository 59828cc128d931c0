"""The sample columns of VCF as allele indices and back. Pure NumPy, many records at once.

These are the rules of any ploidy, mixed phase and every version; the compiled kernels read what is plain
(see formats/vcf/reader.py). Allele 0 is the reference. Up to VCF 4.3 the first allele has no phase;
from VCF 4.4 on it has one, stated by a leading separator or implied (section 1.6.2 there).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HIGHEST_ALLELE = {1: 62, 2: 16382}
HIGHEST_PLOIDY = 255
MISSING, ABSENT = -1, -2
_TAB, _COLON, _SLASH, _PIPE, _DOT, _ZERO = (ord(c) for c in "\t:/|.0")


@dataclass(frozen=True)
class Calls:
    """Sample columns of R records x S samples, taken apart.

    `alleles` int16 (R, S, P): allele index, -1 missing, -2 absent. `phased` bool (R, S, P). `ploidy` int (R,):
    highest in the record. `fields`: per record the sample text without GT, None where FORMAT is GT alone.
    `errors`: record -> reason.
    """

    alleles: np.ndarray
    phased: np.ndarray
    ploidy: np.ndarray
    fields: list[bytes | None]
    errors: dict[int, str]


def parse_calls(
    texts: list[bytes], keys: np.ndarray, n_alleles: np.ndarray, samples: int, first_phased: bool = False
) -> Calls:
    """Takes apart the sample columns of records whose first FORMAT key is GT.

    `texts`: per record its sample columns, tab separated, `samples` (at least 1) of them. `keys` int (R,):
    FORMAT keys per record. `n_alleles` int (R,): REF and ALT alleles, the bound of a genotype's indices.
    `first_phased`: the first allele has a phase (VCF 4.4 and later): that of its leading separator,
    else phased when all other alleles are; without it a leading separator is an error.
    """
    records = len(texts)
    data = np.frombuffer(b"\t".join(texts) + b"\t", np.uint8)
    fields: list[bytes | None] = [None] * records
    errors: dict[int, str] = {}
    if (keys > 1).any() or (data == _COLON).any():
        data, fields, errors = _split_gt(data, keys, samples)
    if data.size == 4 * records * samples:
        quads = data.reshape(-1, 4)
        first, separator, second = quads[:, 0], quads[:, 1], quads[:, 2]
        if (
            (quads[:, 3] == _TAB).all()
            and ((separator == _PIPE) | (separator == _SLASH)).all()
            and _one_each(first)
            and _one_each(second)
        ):
            pair = np.stack([first, second], axis=1)
            alleles = (
                np.where(pair == _DOT, MISSING, pair.astype(np.int16) - _ZERO)
                .astype(np.int16)
                .reshape(records, samples, 2)
            )
            phased = np.zeros((records, samples, 2), bool)
            phased[:, :, 1] = (separator == _PIPE).reshape(records, samples)
            if first_phased:
                phased[:, :, 0] = phased[:, :, 1]
            _bound(alleles, n_alleles, errors)
            return Calls(alleles, phased, np.full(records, 2), fields, errors)
    return _parse_tokens(data, records, samples, n_alleles, fields, errors, first_phased)


def _one_each(column: np.ndarray) -> bool:
    return bool((((column >= _ZERO) & (column <= _ZERO + 9)) | (column == _DOT)).all())


def _split_gt(
    data: np.ndarray, keys: np.ndarray, samples: int
) -> tuple[np.ndarray, list[bytes | None], dict[int, str]]:
    """The GT text of every column, tab terminated; and per record the other subfields."""
    ends = np.flatnonzero(data == _TAB)
    starts = np.concatenate([[0], ends[:-1] + 1])
    colon = data == _COLON
    before = np.cumsum(colon, dtype=np.int32)
    base = np.concatenate([[0], before[ends[:-1]]]).astype(np.int32)
    depth = before - np.repeat(base, ends - starts + 1)  # colons in this column up to and with this byte
    subfields = (before[ends] - base + 1).reshape(-1, samples)
    errors = {
        int(r): f"found {subfields[r].max()} subfields in a sample; expected at most {keys[r]}, the keys of FORMAT"
        for r in np.flatnonzero(subfields.max(1) > keys)
    }
    tab = data == _TAB
    first_colon = colon & (depth == 1)
    gt = data[(depth == 0) | first_colon]
    gt = np.where(gt == _COLON, _TAB, gt).astype(np.uint8)
    rest = (depth > 0) & ~first_colon | tab
    kept = data[rest].tobytes()
    upto = np.cumsum(rest)[ends.reshape(-1, samples)[:, -1]]
    fields: list[bytes | None] = []
    start = 0
    for record, end in enumerate(upto.tolist()):
        fields.append(kept[start : end - 1] if keys[record] > 1 else None)
        start = end
    return gt, fields, errors


def _parse_tokens(
    data: np.ndarray,
    records: int,
    samples: int,
    n_alleles: np.ndarray,
    fields: list[bytes | None],
    errors: dict[int, str],
    first_phased: bool,
) -> Calls:
    """Any ploidy, any number of digits, mixed phase, and the leading phase of VCF 4.4."""
    stated = np.zeros(records * samples, np.uint8)  # leading separator of a column, 0 without
    if first_phased:
        lead = np.concatenate([[_TAB], data[:-1]]) == _TAB
        prefixed = lead & ((data == _PIPE) | (data == _SLASH))
        if prefixed.any():
            column = np.cumsum(data == _TAB) - (data == _TAB)
            stated[column[prefixed]] = data[prefixed]
            data = data[~prefixed]
    tab = data == _TAB
    ends = np.flatnonzero(tab | (data == _SLASH) | (data == _PIPE))
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts
    last = tab[ends]  # the token that ends its column
    column = np.cumsum(last) - last
    counts = np.bincount(column, minlength=records * samples)
    place = np.arange(len(ends)) - (np.cumsum(counts) - counts)[column]
    value = np.zeros(len(ends), np.int32)
    bad = (length < 1) | (length > 5)
    for k in range(int(min(length.max(initial=0), 5))):
        inside = length > k
        character = data[np.minimum(starts + k, len(data) - 1)].astype(np.int32)
        bad |= inside & ((character < _ZERO) | (character > _ZERO + 9)) & (character != _DOT)
        value = np.where(inside, value * 10 + character - _ZERO, value)
    dot = (data[np.minimum(starts, len(data) - 1)] == _DOT) & (length > 0)
    bad |= dot & (length > 1)
    bad |= (length > 1) & (np.add.reduceat(data == _DOT, np.minimum(starts, len(data) - 1)) > 0)
    value = np.where(dot, MISSING, value)
    for record in np.unique(column[bad] // samples).tolist():
        errors.setdefault(record, "found a malformed GT; expected allele numbers or . separated by / or |")
    ploidy = counts.reshape(records, samples).max(1)
    for record in np.flatnonzero(ploidy > HIGHEST_PLOIDY).tolist():
        errors.setdefault(record, f"found a call of ploidy {ploidy[record]}; expected at most {HIGHEST_PLOIDY}")
    kept = place < HIGHEST_PLOIDY  # a runaway call must not decide how much memory the batch takes
    alleles = np.full((records * samples, min(int(ploidy.max(initial=1)), HIGHEST_PLOIDY)), ABSENT, np.int16)
    phased = np.zeros(alleles.shape, bool)
    alleles[column[kept], place[kept]] = np.where(bad, MISSING, np.minimum(value, 32767))[kept]
    separator = np.concatenate([[_TAB], data[ends[:-1]]]) == _PIPE
    phased[column[kept], place[kept]] = separator[kept]
    if first_phased:
        implied = (phased[:, 1:] | (alleles[:, 1:] == ABSENT)).all(1)
        phased[:, 0] = np.where(stated == 0, implied, stated == _PIPE)
    shape = (records, samples, alleles.shape[1])
    alleles = alleles.reshape(shape)
    _bound(alleles, n_alleles, errors)
    return Calls(alleles, phased.reshape(shape), ploidy, fields, errors)


def _bound(alleles: np.ndarray, n_alleles: np.ndarray, errors: dict[int, str]) -> None:
    highest = alleles.reshape(len(alleles), -1).max(1, initial=MISSING)
    for record in np.flatnonzero(highest >= n_alleles).tolist():
        errors.setdefault(
            record,
            f"found allele {highest[record]} in GT; expected at most {n_alleles[record] - 1}, "
            "the number of ALT alleles",
        )
    for record in np.flatnonzero(highest > HIGHEST_ALLELE[2]).tolist():
        errors.setdefault(
            record,
            f"found allele {highest[record]} in GT; expected at most {HIGHEST_ALLELE[2]}, "
            "the highest that BCF2 holds in 2 bytes",
        )


def format_calls(alleles: np.ndarray, phased: np.ndarray, first_phased: bool = False) -> list[str]:
    """Text of one record's calls (S, P), as in a VCF.

    `first_phased` (VCF 4.4 and later): the first allele's phase is stated where it is not the implied one.
    """
    texts = []
    for call, phase in zip(alleles.tolist(), phased.tolist(), strict=True):
        implied = all(p for a, p in zip(call[1:], phase[1:], strict=True) if a != ABSENT)
        text = "" if not first_phased or phase[0] == implied else "|" if phase[0] else "/"
        for i, allele in enumerate(call):
            if allele == ABSENT:
                break
            text += ("" if i == 0 else "|" if phase[i] else "/") + ("." if allele == MISSING else str(allele))
        texts.append(text)
    return texts
