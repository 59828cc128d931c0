"""Codons and amino acids: the genetic codes, for many codons at once and for one protein. Pure NumPy.

A base code is int8 as in `bases`: A C G T are 0 1 2 3, what is not known is negative. An amino acid is its letter,
uint8 of ASCII: `*` a stop, X where the bases do not tell. A codon whose unknown base does not matter tells.
"""

from __future__ import annotations

import numpy as np

STOP, ANY = ord("*"), ord("X")
# NCBI translation tables 1 and 2, in the order TTT TTC TTA TTG TCT .. GGG that they are published in
_PUBLISHED = "TCAG"
_STANDARD = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
_MITOCHONDRIAL = "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNKKSS**VVVVAAAADDEEGGGG"
_ONE = "ARNDCQEGHILKMFPSTWYV*X"
_NAMES = "AlaArgAsnAspCysGlnGluGlyHisIleLeuLysMetPheProSerThrTrpTyrValTerXaa"
_THREE = {letter: _NAMES[3 * place : 3 * place + 3] for place, letter in enumerate(_ONE)}
THREE = np.array([_THREE.get(chr(letter), "") for letter in range(128)], object)  # by letter


def _table(published: str) -> np.ndarray:
    order = ["ACGT".index(base) for base in _PUBLISHED]
    known = np.zeros((4, 4, 4), np.uint8)
    known[np.ix_(order, order, order)] = np.frombuffer(published.encode(), np.uint8).reshape(4, 4, 4)
    table = np.zeros((5, 5, 5), np.uint8)
    for codon in np.ndindex(5, 5, 5):
        may_be = known[np.ix_(*(range(4) if base == 4 else [base] for base in codon))]
        table[codon] = may_be.flat[0] if (may_be == may_be.flat[0]).all() else ANY
    return table


_TABLES = {False: _table(_STANDARD), True: _table(_MITOCHONDRIAL)}


def code_of(contig: str) -> np.ndarray:
    """The code of a contig, uint8 (5, 5, 5) by base code, 4 for an unknown base: that of vertebrate mitochondria
    for MT, else the standard one."""
    return _TABLES[contig == "MT"]


def amino_acids(codons: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Amino acids uint8 (...) of codons int8 (..., 3)."""
    index = np.where(codons < 0, 4, codons)
    found: np.ndarray = code[index[..., 0], index[..., 1], index[..., 2]]
    return found


def translated(bases: np.ndarray, code: np.ndarray) -> bytes:
    """Amino acids of the whole codons of int8 (n,)."""
    whole = len(bases) // 3 * 3
    return amino_acids(bases[:whole].reshape(-1, 3), code).tobytes()
