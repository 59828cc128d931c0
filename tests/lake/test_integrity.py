"""Bytes that change in the lake: every door says which file, or answers as before; verify finds it,
and what it names brings it back."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from genodl_spark.core import storage
from genodl_spark.core.errors import MEND, Damaged
from genodl_spark.genetics import region
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.ingested import SAMPLES, VARIANTS
from jobs import export, ingest, prepare, qc, query, verify

ASKED = (
    "SELECT v.line, dosage(v.gt, v.n_samples) AS d, (SELECT count(*) FROM samples) AS n FROM variants v "
    "WHERE v.file = 'one.vcf' ORDER BY v.line"
)


def write(path: Path, seed: int) -> str:
    rng = np.random.default_rng(seed)
    samples = [f"s{i}" for i in range(30)]
    head = (
        '##fileformat=VCFv4.2\n##FORMAT=<ID=GT,Number=1,Type=String,Description="G">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t"
    )
    lines = [head + "\t".join(samples)]
    for pos in range(1, 121):
        calls = [["0|0", "0|1", "1|1", "./.", "1"][i] for i in rng.choice(5, 30, p=[0.6, 0.2, 0.1, 0.05, 0.05])]
        lines.append("\t".join(["1", str(pos * 10 + seed), ".", "A", "C", ".", "PASS", ".", "GT", *calls]))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def stored_of(lake: Lake, first: str, last: str | None = None) -> Path:
    """The stored file with the rows of one source file, or of several."""
    found = [
        file for file in lake.files(VARIANTS, lake.version(VARIANTS)) if file.ends("file") == (first, last or first)
    ]
    (uri,) = [file.uri for file in found]
    return Path(storage.local_path(uri))


def genotypes_of(path: Path) -> list[int]:
    """Bytes of the column chunks of `gt`, page headers included."""
    footer = pq.read_metadata(path)
    (place,) = [i for i in range(footer.num_columns) if footer.schema.column(i).path == "gt"]
    chunks = [footer.row_group(group).column(place) for group in range(footer.num_row_groups)]
    return [at for c in chunks for at in range(c.data_page_offset, c.data_page_offset + c.total_compressed_size)]


def test_flips_in_the_genotypes_of_a_stored_file(
    lake: Lake, genodl: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--lake", lake.uri)
    one, two = write(tmp_path / "one.vcf", 1), write(tmp_path / "two.vcf", 2)
    people = tmp_path / "people.tsv"
    people.write_text("sample_id\tgroup\n" + "".join(f"s{i}\t{'ab'[i % 2]}\n" for i in range(30)))
    assert genodl(ingest, "vcf", one, two, "--cohort", "c", "--samples", str(people), *at)[0] == 0
    code, report, _ = genodl(query, ASKED, *at)
    assert code == 0 and len(report["result"]) == 120 and report["result"][0]["n"] == 30
    code, _, error = genodl(query, "SELECT alleles(unhex('000201010202' || '0000'), 4) AS a", *at)
    wrong = "found a call that its palette lacks in record 0 of the batch; expected packed genotypes of 4 samples"
    assert (code, error) == (2, f"genodl: error: {wrong}, {MEND}")
    code, verified, _ = genodl(verify, *at)
    stored = sum(len(lake.files(t, lake.version(t))) for t in lake.existing())
    assert (code, verified["status"], verified["metrics"]["findings"]) == (0, "done", [])
    assert (
        verified["metrics"]["files"],
        verified["metrics"]["by_checksum"],
        verified["metrics"]["without_checksum"],
    ) == (stored, stored, 0)
    assert verified["metrics"]["bytes"] == sum(
        file.size for t in lake.existing() for file in lake.files(t, lake.version(t))
    )

    path = stored_of(lake, "one.vcf")
    good, places, random_ = path.read_bytes(), genotypes_of(path), random.Random(3)
    for flip in random_.choices(places, k=200):  # before a plan of the JVM
        changed = bytearray(good)
        changed[flip] ^= 1 << random_.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(Damaged) as raised:
            Lake(lake.spark, lake.uri).read(VARIANTS, cohort="c")
        assert raised.value.file == f"file://{path}"
    region._lake.cache_clear()
    region._footer.cache_clear()
    with pytest.raises(Damaged, match=path.name):
        region.read(lake.uri, "c", "1", 0, 2000)
    doors = [
        (query, (ASKED,)),
        (
            query,
            (
                (
                    "SELECT count(*) FROM (SELECT gt FROM variants WHERE file = 'one.vcf') "
                    "WHERE genotype_at(gt, 30, 0) = '0|1'"
                ),
            ),
        ),
        (
            query,
            (
                (
                    "SELECT sample_id FROM samples WHERE EXISTS (SELECT 1 FROM variants WHERE allele_counts(gt, "
                    "n_samples).copies > 3)"
                ),
            ),
        ),
        (export, ("vcf", "--cohort", "c", "--output", str(tmp_path / "out.vcf.gz"))),
        (qc, ("--cohort", "c", "--set", "qc.steps=variants")),
        (prepare, ("ancestry", "--cohort", "c", "--label", "group")),
    ]
    for door, arguments in doors:
        code, report, error = genodl(door, *arguments, *at)
        assert (code, report["status"]) == (2, "failed"), (door, report)
        assert error.startswith(
            f"genodl: error: file://{path}: found other bytes than were written, between byte 0 "
            f"and {len(good)}; genodl verify"
        ), error
    assert not (tmp_path / "out.vcf.gz").exists()
    code, report, _ = genodl(query, ASKED.replace("one.vcf", "two.vcf"), *at)  # another file: its answer is what it was
    assert code == 0 and len(report["result"]) == 120

    stored = sum(len(lake.files(t, lake.version(t))) for t in lake.existing())  # qc made tables before it read
    code = verify.main([*at, "--master", "local[2]"])
    out, err = capsys.readouterr()
    lines = err.strip().split("\n")
    mend = f"run genodl ingest vcf {storage.absolute(one)} --cohort c"
    wrong = f"found other bytes than were written, between byte 0 and {len(good)}; {MEND}"
    assert code == 2
    assert [line for line in lines if line.startswith("genodl: damaged: ")] == [
        f"genodl: damaged: variants: file://{path}: {wrong}; {mend}"
    ]
    assert (
        lines[-1] == f"genodl: error: {lake.uri}: found 1 of {stored} stored files damaged, file://{path} first; {mend}"
    )
    assert json.loads(out.strip().split("\n")[-1])["metrics"]["findings"] == [
        {"table": "variants", "file": f"file://{path}", "wrong": wrong, "mend": mend}
    ]

    assert genodl(ingest, "vcf", two, "--cohort", "c", *at)[1]["status"] == "unchanged"
    code, report, _ = genodl(ingest, "vcf", one, "--cohort", "c", *at)
    assert (code, report["status"]) == (0, "done")
    assert report["warnings"] == ["1 files are read again, as what the lake holds of them is damaged: one.vcf"]
    assert genodl(query, ASKED, *at)[1]["result"] == verified_answer(genodl, lake, one, tmp_path)
    assert genodl(verify, *at)[0] == 0

    assert lake.compact(VARIANTS, [lake.files(VARIANTS, lake.version(VARIANTS))]) == 1
    path = stored_of(lake, "one.vcf", "two.vcf")
    changed = bytearray(path.read_bytes())
    changed[genotypes_of(path)[9]] ^= 1
    path.write_bytes(changed)
    code, _, error = genodl(ingest, "vcf", two, "--cohort", "c", *at)
    assert code == 2 and error.endswith("rows of one.vcf may stand there too: ingest all of 2 files in one run"), error
    code, report, _ = genodl(ingest, "vcf", one, two, "--cohort", "c", *at)
    assert (code, report["rows"]["variants"]) == (0, {"written": 240, "total": 240, "quarantined": 0})
    assert genodl(query, ASKED, *at)[1]["result"] == verified_answer(genodl, lake, one, tmp_path)

    # What Spark wrote, as a merge does, has no checksum of ours: it is its own pages' that say so,
    # or the file beside it.
    people.write_text("sample_id\tage\n" + "".join(f"s{i}\t{i}\n" for i in range(30)))
    assert genodl(ingest, "phenotypes", str(people), "--cohort", "c", *at)[0] == 0
    assert all(file.checksum is None for file in lake.files(SAMPLES, lake.version(SAMPLES)))
    for file in lake.files(SAMPLES, lake.version(SAMPLES)):
        spark_wrote = Path(storage.local_path(file.uri))
        changed = bytearray(spark_wrote.read_bytes())
        (spark_wrote.parent / f".{spark_wrote.name}.crc").unlink()
        first = pq.read_metadata(spark_wrote).row_group(0).column(1)
        changed[first.data_page_offset + first.total_compressed_size - 2] ^= 1
        spark_wrote.write_bytes(changed)
    code, _, error = genodl(query, "SELECT max(sample_id) FROM samples", *at)
    said = [
        f"genodl: error: {file.uri}: found a file that Spark cannot read ("
        for file in lake.files(SAMPLES, lake.version(SAMPLES))
    ]
    assert code == 2 and error.startswith(tuple(said)), error  # whichever task is first


def verified_answer(genodl: Any, lake: Lake, path: str, tmp_path: Path) -> list[dict]:
    """The same question to a lake of its own."""
    other = ("--lake", str(tmp_path / "other"))
    assert genodl(ingest, "vcf", path, "--cohort", "c", *other)[0] == 0
    return genodl(query, ASKED, *other)[1]["result"]
