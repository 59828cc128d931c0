"""Columns of tables between tabs, mutated, against a line split by Python."""

from __future__ import annotations

import itertools
import random

import numpy as np

from genodl_spark.native import kernels

BITS = ["", "A", "ENSG1.2", "N_x", "7", "0", "007", "16777217", "123456789012345", "x" * 40]
ODD = [b"\t", b"\n", b"\n\n", b'"', b"\r", b"\xc3\xa9", b"-1", b"1.5", b" ", b"1234567890123456", b"\0"]


def expected(text: bytes, width: int, role: list[int]) -> tuple[list[list[bytes]], list[list[float]]] | None:
    """Texts and numbers by column; None for what the kernel has to refuse."""
    if not text.isascii() or b'"' in text or b"\r" in text or (text and not text.endswith(b"\n")):
        return None
    rows = [line.split(b"\t") for line in text.split(b"\n")[:-1]]
    if any(len(row) != width for row in rows):
        return None
    texts = [[row[role.index(k)] for row in rows] for k in range(1, max(role) + 1)]
    cells = [[row[role.index(-k)] for row in rows] for k in range(1, 1 - min(role))]
    if any(not (0 < len(cell) < 16 and cell.isdigit()) for column in cells for cell in column):
        return None
    return texts, [[float(np.float32(int(cell))) for cell in column] for column in cells]


def run(n: int, seed: int) -> tuple[int, int]:
    """Reads `n` tables; returns how many are read and refused. AssertionError where one is read as Python does not."""
    random_, accepted = random.Random(seed), 0
    for i in range(n):
        width = random_.randrange(2, 6)
        role = [0] * width
        order = random_.sample(range(width), width)
        n_texts = random_.randrange(1, width)
        for k, place in enumerate(order[:n_texts], 1):
            role[place] = k
        role[order[n_texts]] = -1
        lines = [
            "\t".join(random_.choice(BITS[4:9] if role[c] < 0 else BITS) for c in range(width))
            for _ in range(random_.randrange(0, 6))
        ]
        text = "".join(f"{line}\n" for line in lines).encode()
        for _ in range(random_.choice((0, 0, 1, 2))):
            at = random_.randrange(len(text) + 1)
            text = text[:at] + random_.choice(ODD) + text[at + random_.randrange(3) :]
        room = len(text) // width
        copied = np.frombuffer(text, np.uint8).copy()  # so that the sanitizer sees its ends
        cells, ends = np.empty((n_texts, len(text)), np.uint8), np.empty((n_texts, room + 1), np.int32)
        values = np.empty((1, room), np.float32)
        of = np.array(role, np.int8)
        rows = kernels.call("columns", copied, len(text), width, of, room, cells, ends, values)
        wanted = expected(text, width, role)
        said = f"table {i} of seed {seed}: {text!r}, {role}"
        assert (rows < 0) == (wanted is None), said
        if wanted is not None:
            accepted += 1
            found = [
                [cell[a:b].tobytes() for a, b in itertools.pairwise(end[: rows + 1].tolist())]
                for cell, end in zip(cells, ends, strict=True)
            ]
            assert (found, [values[0, :rows].tolist()]) == wanted, said
    return accepted, n - accepted
