"""Consequences of variants for transcripts, as the picked row of `consequences` has them, as numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genome.consequences import TERMS

READ = ["terms", "cds_position", "protein_position", "codons", "amino_acids"]
_RESIDUES = "ACDEFGHIKLMNPQRSTVWY*"
NUMBERS = ("cds_position", "protein_position")
FEATURES = [
    *(f"term:{term}" for term in TERMS),
    *(f"codon_position:{place}" for place in (1, 2, 3)),
    *(f"amino_acid:{residue}" for residue in _RESIDUES),
    *(f"becomes:{residue}" for residue in _RESIDUES),
    *NUMBERS,
]


def encoded(batch: pa.RecordBatch) -> np.ndarray:
    """Values of FEATURES, float32 (n, F), of rows with READ of `consequences`: whether each term of the Sequence
    Ontology holds (`term:missense_variant`), which base of its codon is changed (`codon_position:2`), the amino acid
    that was there and the one that is, of changes of one (`amino_acid:R`, `becomes:Q`), 1 or 0; positions in the coding
    sequence and the protein, NaN outside."""
    n = batch.num_rows
    x = np.zeros((n, len(FEATURES)), np.float32)
    terms = batch.column("terms")
    place = pc.index_in(terms.flatten(), pa.array(TERMS))
    known = place.is_valid().to_numpy(zero_copy_only=False)
    x[pc.list_parent_indices(terms).to_numpy()[known], place.drop_null().to_numpy()] = 1
    for name in NUMBERS:
        x[:, FEATURES.index(name)] = batch.column(name).cast(pa.float32()).to_numpy(zero_copy_only=False)
    found = pc.fill_null(pc.find_substring_regex(batch.column("codons"), "[A-Z]"), -1).to_numpy()
    changed = np.flatnonzero((found >= 0) & (found < 3))  # upper case of a codon, as in cGg/cAg
    x[changed, FEATURES.index("codon_position:1") + found[changed]] = 1
    residues = batch.column("amino_acids")
    single = pc.fill_null(pc.match_substring_regex(residues, "^[A-Z*](/[A-Z*])?$"), False)
    rows = np.flatnonzero(single.to_numpy(zero_copy_only=False))
    texts = residues.filter(single)
    for name, place in (("amino_acid", 0), ("becomes", -1)):
        letters = pc.utf8_slice_codeunits(texts, place, None if place else 1)
        of = pc.fill_null(pc.index_in(letters, pa.array(list(_RESIDUES))), -1).to_numpy()
        x[rows[of >= 0], FEATURES.index(f"{name}:A") + of[of >= 0]] = 1
    return x
