"""What texts are without a person: only what names the person goes, whatever the person is called."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from genodl_spark.sources import removal
from genodl_spark.sources.person import Person, edited_json, names_people

NAMES = [
    "1",
    "GT",
    "done",
    "a.b",
    "0/1",
    "PASS",
    "ID",
    'O\'Neil "x"',
    "back\\slash",
    "100%",
    "(.*)+[a-z]",
    "Zoë 山",
    "20",
    ".",
]
META = """##fileformat=VCFv4.3
##fileDate=20200101
##contig=<ID=1,length=248956422>
##contig=<ID=20,length=64444167,assembly=GRCh38>
##FILTER=<ID=PASS,Description="All filters passed, done">
##INFO=<ID=NS,Number=1,Type=Integer,Description="Number of Samples With Data, 1 or 20">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype, such as 0/1">
##ALT=<ID=DEL,Description="Deletion (.*)+[a-z] 100% of a.b">
##bcftools_viewCommand=view -r 1 -i 'GT="0/1"' a.b; Date=done
##GATKCommandLine=<ID=SelectVariants,CommandLine="--variant 1.vcf --stand-call-conf 20 --output done",Version="4.1">
##source=20 PASS
##SAMPLE=<ID=other,Genomes=Germline;Tumor,Mixture=1;20,Description="done">
##PEDIGREE=<ID=child,Mother=mother,Father=father>"""


def header(*samples: str, meta: str = META) -> str:
    return meta + "\n" + "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples])


@pytest.mark.parametrize("name", NAMES)
def test_a_header_loses_the_sample_and_nothing_else(name: str) -> None:
    assert Person("c", name).header(header("a", name, f"{name}x", "b")) == header("a", f"{name}x", "b")
    assert Person("c", name).header(header("a", "b")) == header("a", "b")


@pytest.mark.parametrize("name", [*NAMES, "NA12878"])
def test_lines_about_the_sample_go(name: str) -> None:
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    lines = [
        f'##SAMPLE=<ID={quoted},Note="a person, of two">',
        f"##SAMPLE=<ID=t2,SampleName={quoted},Mixture=1>",
        f'##SAMPLE=<ID=t3,Genomes="{quoted[1:-1]};other",Mixture=1;20>',
        f"##PEDIGREE=<ID={quoted},Original=x>",
        f"##PEDIGREE=<ID=kid,Mother={quoted},Father=f>",
        f"##PEDIGREE=<Derived=d,Original={quoted}>",
        f"##tumor_sample={name}",
        f"##source=x --sample-name {name} --threads 2",
        f"##bcftools_viewCommand=view -s ^a,{name},b -Oz",
    ]
    expected = [
        "##SAMPLE=<ID=t2,Mixture=1>",
        '##SAMPLE=<ID=t3,Genomes="withdrawn;other",Mixture=1;20>',
        "##PEDIGREE=<ID=kid,Father=f>",
        "##source=x --sample-name withdrawn --threads 2",
        "##bcftools_viewCommand=view -s ^a,withdrawn,b -Oz",
    ]
    assert Person("c", name).header(header(name, meta=f"{META}\n" + "\n".join(lines))) == header(
        meta=f"{META}\n" + "\n".join(expected)
    )


def test_free_text_loses_a_distinctive_name_as_a_word() -> None:
    who = Person("c", "NA12878")
    lines = (
        "##source=/data/NA12878.g.vcf.gz NA12878-b NA12878.2 xNA12878\n"
        '##INFO=<ID=NA12878,Number=1,Type=String,Description="In NA12878, twice">'
    )
    left = (
        "##source=/data/withdrawn.g.vcf.gz NA12878-b NA12878.2 xNA12878\n"
        '##INFO=<ID=NA12878,Number=1,Type=String,Description="In withdrawn, twice">'
    )
    assert who.header(header("NA12878", "b", meta=lines)) == header("b", meta=left)
    assert [
        Person("c", name).distinctive for name in ("NA12878", "done1", "TCGA-A1-A0SB", "PASS", "sample", "12345", "a1")
    ] == [
        *[True] * 3,
        *[False] * 4,
    ]


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        ("NA12878", "/in/trio.NA12878_chr1.g.vcf.gz", "/in/trio.withdrawn_chr1.g.vcf.gz"),
        ("NA12878", "/in/NA12878_chr1 xNA12878.vcf a-NA12878.vcf NA12878-b.vcf", None),
        ("TCGA-A1-A0SB-01A", "x.TCGA-A1-A0SB-01A-11R-A144-07.htseq.counts", "x.withdrawn.htseq.counts"),
        ("TCGA-A1-A0SB-01A", "TCGA-A1-A0SB-01A-11R, TCGA-A1-A0SB-01B-11R", "withdrawn, TCGA-A1-A0SB-01B-11R"),
        ("TCGA-A1-A0SB", "clinical.TCGA-A1-A0SB.xml of TCGA-A1-A0SBX", "clinical.withdrawn.xml of TCGA-A1-A0SBX"),
        ("PAT-01A", "PAT-01A-11R.tsv", None),
    ],
)
def test_names_within_names(name: str, text: str, left: str | None) -> None:
    who = Person("c", name)
    assert who.words(text) == (text if left is None else left)
    found = pc.match_substring_regex(pa.array([text]), who.around)[0].as_py()
    assert who.word_in(text) == (left is not None) and found >= who.word_in(text)


def test_a_header_of_reads_and_a_list_lose_the_sample_alone() -> None:
    lines = ["@HD\tVN:1.6", "@RG\tID:a\tSM:S-7\tPU:x", "@RG\tID:b\tSM:S-7-b", "@PG\tID:p\tCL:call --sample S-7 -o y"]
    who = Person("c", "S-7")
    assert who.reads_header("\n".join(lines)).split("\n") == [
        lines[0], lines[2], "@PG\tID:p\tCL:call --sample withdrawn -o y"
    ]  # fmt: skip
    assert who.listed("S-7-b, S-7;S-7 |S-7") == "S-7-b, withdrawn;S-7 |withdrawn"


@pytest.mark.parametrize("name", NAMES)
def test_a_run_keeps_all_but_the_name(name: str) -> None:
    who = Person("c", name)
    words = [
        "TASK",
        "--procs",
        name,
        "--cohort",
        name,
        "--set",
        f"train.epochs={name}",
        "--label",
        name,
        f"{name}/x.vcf",
        "--seed=1",
    ]
    assert who.arguments(words, "train") == words
    given = [
        "--sample",
        name,
        "--samples",
        f"a,{name},b",
        f"--samples={name}",
        "--key",
        name,
        "--set",
        f"predict.first={name}",
    ]
    assert who.arguments(given, "predict") == (
        [
            "--sample",
            "withdrawn",
            "--samples",
            "a,withdrawn,b",
            "--samples=withdrawn",
            "--key",
            "withdrawn",
            "--set",
            "predict.first=withdrawn",
        ]
    )
    settings = {
        "seed": 1,
        "label": name,
        "predict": {"first": name, "last": "z", "device": name},
        "split": {"column": name, name: [name, 1]},
    }
    assert who.settings(settings) == {**settings, "predict": {"first": "withdrawn", "last": "z", "device": name}}
    report = {
        "job": name,
        "status": name,
        "rows": {name: {"written": 1, "total": 20, name: 0}},
        "metrics": {"model_id": name, "list": [name, 1, 20.0, None, True]},
        "warnings": [
            "12 of 20 records are in quarantine, first line 1: found PASS done GT 0/1",
            "column a is stored as b",
            f"found sample {name!r} twice",
        ],
        "error": f"found 'x' in age of sample {name!r}; expected a number",
    }
    expected = {
        **report,
        "warnings": [*report["warnings"][:2], "found sample withdrawn twice"],
        "error": "found 'x' in age of sample withdrawn; expected a number",
    }
    assert who.report(report) == expected
    text = json.dumps(report, indent=3)
    assert json.loads(edited_json(text, who.report)) == expected
    untouched = json.dumps({**expected, "warnings": []}, indent=3)
    assert edited_json(untouched, who.report) == untouched


def test_sql_and_paths_lose_the_name() -> None:
    sql = "SELECT * FROM samples WHERE sample_id = 'GT' AND x = 1"
    assert Person("c", "GT").arguments([sql], "query") == [sql.replace("'GT'", "withdrawn")]
    assert Person("c", "NA12878").arguments(["vcf", "/data/NA12878.vcf.gz"], "ingest") == [
        "vcf",
        "/data/withdrawn.vcf.gz",
    ]


@pytest.mark.parametrize("text", ["", "{", "nan", "[" * 100_000, "\x00"])
def test_what_is_no_json_stays(text: str) -> None:
    assert edited_json(text, Person("c", "1").report) == text


@pytest.mark.parametrize("name", [*NAMES, "NA12878"])
def test_arrow_looks_for_a_word_as_python_does(name: str) -> None:
    who = Person("c", name)
    texts = [
        name,
        f"x {name}",
        f"x={name};y",
        f"({name})",
        f"{name}.vcf",
        f"x{name}",
        f"{name}1",
        f"-{name}",
        f"é{name}",
        "",
        "nothing",
        f"\n{name}\n",
    ]
    found = pc.match_substring_regex(pa.array(texts), who.around).to_pylist()
    assert all(at_least or not who.word_in(text) for text, at_least in zip(texts, found, strict=True))
    assert [who.word_in(text) for text in texts] == [True] * 5 + [False] * 6 + [True]


def test_rows_refer_to_the_person_by_an_alias() -> None:
    who = Person("c", "1")
    where = {"cohort": ["c"], "split_hash": ["s"]}
    columns = {
        "cohort": ["c", "c", "d", "c", "c"],
        "split_hash": ["s", "s", "s", "t", "s"],
        "group": ["1", "11", "1", "1", None],
        "fold": [1] * 5,
    }
    change = removal._Aliased(who, where, ["group"])
    rows = pa.table(columns)
    assert (
        change.columns == ["cohort", "split_hash", "group"]
        and change.concerns(rows)
        and not change.concerns(rows.slice(1))
    )
    assert change.apply(rows).to_pydict() == {**columns, "group": [who.alias, "11", "1", "1", None]}
    assert who.alias == "withdrawn-" + hashlib.sha256(b"c\x001").hexdigest()[:8]
    assert [who.assigned(text) for text in ("patient=1", "batch=1", "1", "")] == [
        f"patient={who.alias}",
        "batch=1",
        "1",
        "",
    ]


def test_rows_of_runs_on_other_cohorts_stay() -> None:
    def row(cohort: str) -> dict[str, str]:
        arguments = json.dumps(["vcf", "--cohort", cohort, "--sample", "1"])
        return {
            "job": "export",
            "arguments": arguments,
            "settings": '{"predict":{"first":"1"},"seed":1}',
            "report": '{"status":"done"}',
        }

    rows = pa.Table.from_pylist([row("c"), row("d")])
    change = removal.Edited(Person("c", "1"), "runs")
    assert change.concerns(rows) and not change.concerns(rows.slice(1))
    first = {
        **row("c"),
        "arguments": row("c")["arguments"].replace('"1"', '"withdrawn"'),
        "settings": '{"predict":{"first":"withdrawn"},"seed":1}',
    }
    assert change.apply(rows).to_pylist() == [first, row("d")]


def test_columns_that_name_people() -> None:
    naming = [
        "father",
        "Mother_ID",
        "patient",
        "patient_id",
        "patient barcode",
        "donor",
        "PaternalID",
        "subjects",
        "normal_sample",
    ]
    others = [
        "label",
        "batch",
        "age",
        "sample_type",
        "case",
        "control",
        "father_age",
        "patients_seen",
        "group",
        "twin",
        "split",
    ]
    assert [names_people(name) for name in naming + others] == [True] * len(naming) + [False] * len(others)
