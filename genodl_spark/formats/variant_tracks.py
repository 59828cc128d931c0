"""Values of tracks (bigWig) at variants: of the bases whose place an allele takes, or, where it takes none, of the two
that it comes between."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import InputError
from genodl_spark.formats.bigwig import Track
from genodl_spark.formats.streams import Note
from genodl_spark.genome.builds import build_called, build_of
from genodl_spark.genome.consequences import Variants
from genodl_spark.genome.contigs import shared_contig

_EXAMPLES = 3
_MITOCHONDRION = "MT"
Reaches = Mapping[str | None, Mapping[str, tuple[int, bool]]]


class VariantTracks:
    """Open tracks by the names of the columns that they make."""

    def __init__(self, uris: Mapping[str, str], reaches: Reaches | None) -> None:
        """`reaches`: by build of a reference, and contig without chr, its last base that is known, and whether the
        contig ends there; None for no reference.

        InputError for a file that is no bigWig, or not whole, and for one of another build than the reference. A
        mitochondrion of another length (those of hg19 and GRCh37 are two) is passed over.
        """
        self._tracks = {name: Track(uri) for name, uri in uris.items()}
        self._builds: dict[str, str | None] = {}  # which rows a track is for, where there are several builds
        self._other: dict[str, bool] = {}
        for name, track in self._tracks.items():
            build = build_of(dict(track.contigs))
            if reaches is not None and len(reaches) > 1:
                if build not in {build_called(one or "") for one in reaches}:
                    named = " and ".join(sorted(map(str, reaches)))
                    raise InputError(
                        f"found contigs of {build or 'no known build'}; expected those of {named}, as the reference "
                        "has it: give a track of one of them",
                        track.uri,
                    )
                self._builds[name] = build
            mine = [contigs for one, contigs in (reaches or {}).items() if self._for(name, one)]
            for one in reaches or {}:
                if self._for(name, one) and build is not None and build_called(one or "") not in (None, build):
                    raise InputError(
                        f"found contigs of {build}; expected those of {one}, as the reference has it", track.uri
                    )
            wrong = self._unlike(track, mine)
            self._other[name] = any(shared_contig(contig) == _MITOCHONDRION for contig in wrong)
            wrong = {contig: text for contig, text in wrong.items() if shared_contig(contig) != _MITOCHONDRION}
            if wrong:
                more = f", and {len(wrong) - _EXAMPLES} more" if len(wrong) > _EXAMPLES else ""
                raise InputError(
                    f"found {', '.join(list(wrong.values())[:_EXAMPLES])}{more}; expected contigs as long as those of "
                    "the reference: is it the same build?",
                    track.uri,
                )

    @staticmethod
    def _unlike(track: Track, reaches: list[Mapping[str, tuple[int, bool]]]) -> dict[str, str]:
        """Contigs of a track that a reference says otherwise of, and what both say."""
        found = {}
        for contigs in reaches:
            for name, (last, whole) in contigs.items():
                own = track.contig(name)
                bases = 0 if own is None else track.contigs[own]
                if own is not None and (bases != last if whole else bases < last):
                    found[own] = f"{bases:,} bases of {own[:40]} where the reference has {last:,}"
        return found

    def _for(self, name: str, build: str | None) -> bool:
        """Whether a track is for rows of a build."""
        return name not in self._builds or build_called(build or "") == self._builds[name]

    def texts(
        self, columns: Mapping[str, pa.Array], builds: pa.Array | None, lines: np.ndarray, note: Note
    ) -> dict[str, pa.Array]:
        """Values of each track as text, string (N,), the shortest that is the same float32; empty where it has none,
        which `note` is told of by `lines`. `columns`: chrom, pos (1-based), ref and alt as text in upper case, `-` for
        none. `builds`: of each row, where the reference has several."""
        alleles = (pc.if_else(pc.equal(columns[name], "-"), "", columns[name]) for name in ("ref", "alt"))
        variants = Variants.of_alleles(columns["pos"].cast(pa.int64()).to_numpy(), *alleles)
        between = variants.start == variants.end
        start = np.maximum(variants.start - between, 0)
        end = variants.end + between
        contigs = columns["chrom"].dictionary_encode()
        number = contigs.indices.to_numpy(zero_copy_only=False)
        found = {}
        for name, track in self._tracks.items():
            values = np.full(len(number), np.nan, np.float32)
            unknown = np.zeros(len(number), bool)
            mine = np.ones(len(number), bool)
            if builds is not None:
                coded = builds.dictionary_encode()
                ours = np.array([self._for(name, build) for build in coded.dictionary.to_pylist()], bool)
                mine = ours[coded.indices.to_numpy(zero_copy_only=False)]
            for place, contig in enumerate(contigs.dictionary.to_pylist()):
                rows = np.flatnonzero((number == place) & mine)
                own = track.contig(contig)
                if own is None or (self._other[name] and shared_contig(contig) == _MITOCHONDRION):
                    unknown[rows] = True
                else:
                    values[rows] = track.means(own, start[rows], end[rows])
            for what, which in (
                (f"are of a build that {name} is not of", ~mine),
                (f"are of a contig that {name} does not have", unknown),
                (f"have no value of {name}", mine & ~unknown & np.isnan(values)),
            ):
                for row in np.flatnonzero(which).tolist():
                    note(int(lines[row]), what)
            texts = pa.array(values).cast(pa.string())
            found[name] = pc.if_else(pa.array(np.isnan(values)), "", texts)
        return found
