"""Packed genotypes: a decoder in plain Python, written from the layout in genotypes.py alone,
and mutations that it is held against."""

from __future__ import annotations

import random

import numpy as np

from genodl_spark.genetics import genotype_text, genotypes
from genodl_spark.native import kernels

Call = list[tuple[int, bool]]  # allele (-1 missing) and phase of each place
STANDARD = {1: ["0|0", "1|0", "0|1", "1|1"], 2: ["0|0", "1|0", "0|1", "1|1"], 3: ["0/0", "0/1", "1/1", "./."]}
HIGHEST_DOSAGE = 127


class Refused(Exception):
    pass


def _standard(palette: int) -> list[Call]:
    found = []
    for text in STANDARD[palette]:
        phased = text[1] == "|"
        found.append(
            [
                (-1 if text[0] == "." else int(text[0]), phased and palette == 2),
                (-1 if text[2] == "." else int(text[2]), phased),
            ]
        )
    return found


def _call(data: bytes, ploidy: int, width: int) -> Call:
    values = [int.from_bytes(data[i * width : (i + 1) * width], "little", signed=True) for i in range(ploidy)]
    end = -127 if width == 1 else -32767
    while values and values[-1] == end:
        values.pop()
    if any(value < 0 for value in values):
        raise Refused("a value that is no allele")
    return [((value >> 1) - 1, bool(value & 1)) for value in values]


def decode(data: bytes, samples: int) -> tuple[list[Call | None], int]:
    """The calls of a packed record, None for one whose values are none, and its ploidy."""
    if not data:
        raise Refused("nothing")
    form, palette, at = data[0] & 15, data[0] >> 4, 1
    if palette > 3 or form not in (0, 1, 2, 4, 8, 15) or (palette and form == 15):
        raise Refused("first byte")
    if palette:
        calls, ploidy = _standard(palette), 2
    else:
        if len(data) < 4:
            raise Refused("cut off")
        ploidy, width, n = data[1:4]
        at = 4
        if not ploidy or width not in (1, 2):
            raise Refused("head")
        if form == 15:
            if n or len(data) - at != samples * ploidy * width:
                raise Refused("size")
            found: list[Call | None] = []
            for s in range(samples):
                try:
                    found.append(_call(data[at + s * ploidy * width : at + (s + 1) * ploidy * width], ploidy, width))
                except Refused:
                    found.append(None)
            return found, ploidy
        if not n or ploidy > 4 or len(data) - at < n * ploidy * width:
            raise Refused("palette")
        calls = [_call(data[at + c * ploidy * width : at + (c + 1) * ploidy * width], ploidy, width) for c in range(n)]
        at += n * ploidy * width
    if form == 0:
        if at >= len(data):
            raise Refused("cut off")
        base = data[at]
        at += 1
        codes, place = [base] * samples, 0
        while at < len(data):
            value = shift = 0
            while True:
                if at >= len(data) or shift > 56:
                    raise Refused("varint")
                byte = data[at]
                value |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if byte < 128:
                    break
            if len(calls) == 1:
                raise Refused("another call of one")
            place += value // (len(calls) - 1)
            code = value % (len(calls) - 1)
            if place >= samples:
                raise Refused("no such sample")
            codes[place] = code + (code >= base)
            place += 1
    else:
        bits = "".join(f"{byte:08b}"[::-1] for byte in data[at:])
        if len(data) - at != -(-samples * form // 8) or "1" in bits[samples * form :]:
            raise Refused("size")
        codes = [int(bits[s * form : (s + 1) * form][::-1], 2) for s in range(samples)]
        base = 0
    if base >= len(calls) or any(code >= len(calls) for code in codes):
        raise Refused("code")
    return [calls[code] for code in codes], ploidy


def counted(calls: list[Call], allele: int) -> list[int]:
    out = [0] * 7
    for call in calls:
        alleles = [a for a, _ in call]
        out[0] += alleles.count(allele) if allele >= 0 else 0
        out[1] += len(alleles) - alleles.count(-1)
        if not alleles or -1 in alleles:
            out[6] += 1
            continue
        out[2] += 1
        out[3 if set(alleles) == {0} else 5 if len(set(alleles)) == 1 else 4] += 1
    return out


def text_of(call: Call, first_phased: bool) -> str:
    if not call:
        return ""
    implied = all(phase for _, phase in call[1:])
    text = "" if not first_phased or call[0][1] == implied else "|" if call[0][1] else "/"
    for i, (allele, phase) in enumerate(call):
        text += ("" if i == 0 else "|" if phase else "/") + ("." if allele < 0 else str(allele))
    return text


def seeds(rng: np.random.Generator) -> list[tuple[bytes, int]]:
    """Packed records of every form, and their numbers of samples."""
    made = []
    for samples in (0, 1, 2, 3, 7, 8, 9, 16, 33, 70):
        for ploidy, highest in ((1, 1), (2, 1), (2, 1), (2, 2), (2, 9), (3, 1), (4, 80), (2, 300), (6, 2), (130, 1)):
            for rare in (True, False):
                alleles = rng.integers(-1 if rng.random() < 0.5 else 0, highest + 1, (1, samples, ploidy)).astype(
                    np.int16
                )
                if rare:
                    alleles = np.where(rng.random((1, samples, 1)) < 0.9, 0, alleles).astype(np.int16)
                if rng.random() < 0.3:
                    alleles = np.where(
                        np.arange(ploidy) < rng.integers(1, ploidy + 1, (1, samples, 1)), alleles, genotype_text.ABSENT
                    ).astype(np.int16)
                phased = (
                    (np.arange(ploidy) > (0 if rng.random() < 0.8 else -1))
                    & (rng.random() < 0.5)
                    & (alleles != genotype_text.ABSENT)
                )
                made.append((genotypes.pack(alleles, phased)[0].as_py(), samples))
    return made


def mutated(random_: random.Random, payload: bytes, samples: int, others: list[tuple[bytes, int]]) -> tuple[bytes, int]:
    data = bytearray(payload)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        kind = random_.randrange(9)
        at = random_.randrange(min(len(data), 8) if random_.random() < 0.5 else len(data)) if data else 0
        if kind < 3 and data:
            data[at] ^= 1 << random_.randrange(8)
        elif kind == 3 and data:
            data[at] = random_.choice((0, 1, 2, 3, 4, 15, 16, 127, 128, 254, 255, random_.randrange(256)))
        elif kind == 4:
            data[at:at] = bytes(random_.randrange(256) for _ in range(random_.choice((1, 1, 2, 9))))
        elif kind == 5:
            del data[at : at + random_.choice((1, 1, 2, 9))]
        elif kind == 6:
            other = random_.choice(others)[0]
            data = data[:at] + other[random_.randrange(len(other) + 1) :]
        elif kind == 7:
            samples = max(0, samples + random_.choice((-8, -1, 1, 8)))
        else:
            data += bytes(random_.choice((1, 3)))
    return bytes(data), samples


def run(n: int, seed: int) -> tuple[int, int]:
    """Holds the kernels against `decode` on `n` mutated records; how many were accepted and refused.
    AssertionError where they differ."""
    random_, begun = random.Random(seed), seeds(np.random.default_rng(seed))
    accepted = 0
    for i in range(n):
        payload, samples = mutated(random_, *random_.choice(begun), begun) if i >= len(begun) else begun[i]
        try:
            accepted += check(random_, payload, samples)
        except AssertionError as error:
            raise AssertionError(f"payload {i} of seed {seed}: {payload.hex()} of {samples} samples") from error
    return accepted, n - accepted


def check(random_: random.Random, payload: bytes, samples: int) -> bool:
    data, offsets = (
        np.frombuffer(bytearray(payload) or bytearray(1), np.uint8)[: len(payload)].copy(),
        np.array([0, len(payload)], np.int32),
    )
    try:
        calls, ploidy = decode(payload, samples)
    except Refused:
        calls, ploidy = [], 0
    readable = ploidy > 0
    allele = random_.choice((0, 1, 1, 1, 2, 62, 300, -1))
    alleles, chosen = np.array([allele], np.int32), None
    if samples and random_.random() < 0.5:
        chosen = np.array([random_.randrange(samples) for _ in range(random_.randrange(4))], np.int32)
    wanted = calls if chosen is None or not readable else [calls[s] for s in chosen.tolist()]
    size = samples if chosen is None else len(chosen)

    found = np.zeros(1, np.int32)
    # The head alone tells the ploidy: a body that is none is met where it is read.
    if not kernels.call("ploidy", data, offsets, 1, samples, found) and readable:
        assert found[0] == ploidy
    else:
        assert not readable

    mask = np.array([random_.random() < 0.5 for _ in range(samples)], np.uint8) if random_.random() < 0.3 else None
    totals = np.zeros(7, np.int64)
    wrong = kernels.call("counts", data, offsets, 1, samples, alleles, mask, totals)
    assert bool(wrong) == (not readable or None in calls), wrong
    if not wrong:
        assert totals.tolist() == counted(
            [call for s, call in enumerate(calls) if call is not None and (mask is None or mask[s])], allele
        )

    exchanged = np.array([random_.random() < 0.5], np.uint8)
    copies = np.zeros(size, np.int8)
    wrong = kernels.call("copies", data, offsets, 1, samples, alleles, exchanged, chosen, size, copies)
    dosages = []
    for call in wanted:
        numbers = [a for a, _ in call or []]
        copied = numbers.count(allele) if allele >= 0 else 0
        dosages.append(-1 if not numbers or -1 in numbers else len(numbers) - copied if exchanged[0] else copied)
    if not wrong:
        assert readable and None not in wanted and copies.tolist() == dosages
    else:
        assert not readable or None in wanted or wrong & 255 == 6, wrong
        assert wrong & 255 != 6 or ploidy > HIGHEST_DOSAGE

    room = max(ploidy, 1)
    values = np.zeros((size, room), np.int16)
    wrong = kernels.call("values", data, offsets, 1, samples, chosen, size, room, values)
    assert bool(wrong) == (not readable or None in wanted), wrong
    if not wrong:
        expected = [[(a + 1) << 1 | phase for a, phase in call or []] for call in wanted]
        assert values.tolist() == [row + [-32767] * (room - len(row)) for row in expected]

    first_phased = random_.random() < 0.3
    try:
        text: bytes | None = genotypes.sample_text(payload, None, samples, first_phased, chosen)
    except genotypes.Damaged:
        text = None
    assert (text is None) == (not readable or None in wanted)
    if text is not None:
        assert text.decode() == "\t".join(text_of(call or [], first_phased) for call in wanted)
    return readable and None not in calls
