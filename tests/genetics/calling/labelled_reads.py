"""A small set of reads whose truth is known: files as `genodl ingest alignments --truth` takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pysam

from tests.genetics.calling import diploid, sequencing
from tests.genetics.calling.diploid import Rates
from tests.genetics.calling.sequencing import Machine

CONTIGS, SAMPLE = ("1", "2", "3", "4"), "S"


def written(folder: Path, length: int, depth: float, sure: tuple[int, int]) -> list[str]:
    """Writes reads of four contigs, their reference, truth and confident regions, `sure` of each; what follows the
    source on the command line."""
    random = np.random.default_rng(7)
    text = {name: "".join(random.choice(list("ACGT"), length)) for name in CONTIGS}
    (folder / "ref.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in text.items()))
    pysam.faidx(str(folder / "ref.fa"))
    rates = Rates(snv=1 / 150, indel=1 / 400, margin=300)
    genomes = {name: diploid.genome(name, text[name], 200, length - 200, k, rates) for k, name in enumerate(CONTIGS)}
    of = {name: sequencing.sequenced(one, 1, Machine(depth=depth), name, "g") for name, one in genomes.items()}
    sequencing.write(folder / "reads.bam", of, sequencing.header(text, {"g": SAMPLE}))
    lines = ["##fileformat=VCFv4.3", *(f"##contig=<ID={name},length={length}>" for name in CONTIGS)]
    lines.append('##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">')
    lines.append(f"#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT {SAMPLE}".replace(" ", "\t"))
    for name, one in genomes.items():
        for v in one.variants:
            genotype = "|".join(map(str, v.genotype))
            record = (name, v.pos + 1, ".", v.ref, ",".join(v.alts), ".", "PASS", ".", "GT", genotype)
            lines.append("\t".join(map(str, record)))
    (folder / "truth.vcf").write_text("\n".join(lines) + "\n")
    pysam.tabix_index(str(folder / "truth.vcf"), preset="vcf", force=True)
    (folder / "sure.bed").write_text("".join(f"{name}\t{sure[0]}\t{sure[1]}\n" for name in CONTIGS))
    return [
        str(folder / "reads.bam"), "--reference", str(folder / "ref.fa"),
        "--truth", str(folder / "truth.vcf.gz"), "--confident", str(folder / "sure.bed"),
    ]  # fmt: skip
