"""Motifs as MEME's minimal text format has them, which its tools (Tomtom, FIMO) and others read
(https://meme-suite.org/meme/doc/meme-format.html)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def text(motifs: Iterable[tuple[str, str, np.ndarray, int]], background: Sequence[float], both_strands: bool) -> str:
    """Motifs, each its name, another name, shares of A, C, G, T (W, 4), and the sites that it was made of.
    `background`: shares of the bases in the sequences."""
    lines = ["MEME version 5", "", "ALPHABET= ACGT", ""]
    lines += ["strands: + -" if both_strands else "strands: +", "", "Background letter frequencies"]
    lines.append(" ".join(f"{base} {share:.6f}" for base, share in zip("ACGT", background, strict=True)))
    for name, other, shares, sites in motifs:
        lines += ["", f"MOTIF {name} {other}"]
        lines.append(f"letter-probability matrix: alength= 4 w= {len(shares)} nsites= {sites} E= 0")
        lines += [" " + "  ".join(f"{share:.6f}" for share in _to_one(row)) for row in shares]
    return "\n".join(lines) + "\n"


def _to_one(shares: np.ndarray) -> np.ndarray:
    """Shares whose six digits add up to 1: what is lacking goes to the largest."""
    rounded = np.round(shares / shares.sum(), 6)
    rounded[rounded.argmax()] += 1 - rounded.sum()
    return rounded
