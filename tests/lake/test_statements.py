"""SQL that only reads: what is refused before Spark analyses it, at any depth, and what answers."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from genodl_spark.core.errors import InputError
from genodl_spark.lake import statements, views
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import literal
from genodl_spark.lake.stored import StoredLake
from genodl_spark.lake.tables.ingested import SAMPLES
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.lake.tables.operations import FINDINGS, RUNS
from genodl_spark.registry.sql import FUNCTIONS
from jobs import ingest, query
from jobs import list as list_job
from tests.lake.test_readers import WHEN, predictions, samples

REFUSED = {
    # Scripts, in each spelling
    "SELECT TRANSFORM (cohort) USING 'id' FROM samples": "TRANSFORM",
    "MAP cohort USING 'id' FROM samples": "TRANSFORM",
    "SELECT * FROM (FROM samples REDUCE cohort USING 'id' AS x)": "TRANSFORM",
    "SELECT 1 WHERE 'a' IN (SELECT b FROM (SELECT TRANSFORM (cohort) USING 'id' AS b FROM samples))": "TRANSFORM",
    # Relations that are no view
    "SELECT * FROM text.`/etc/passwd`": "relation text.`/etc/passwd`",
    "select * from delta.`/tmp/x` VERSION AS OF 1": "RELATION TIME TRAVEL",
    "TABLE parquet.`/tmp/x`": "relation parquet.`/tmp/x`",
    "SELECT 1 FROM samples WHERE 'x' IN "
    "(SELECT value FROM /* samples */ TeXt . `/etc/passwd`)": "relation TeXt.`/etc/passwd`",
    "WITH a AS (WITH b AS (SELECT * FROM csv.`/x`) SELECT * FROM b) SELECT * FROM a": "relation csv.`/x`",
    "WITH RECURSIVE t(n) AS (SELECT value FROM text.`/x` UNION ALL SELECT n FROM t) "
    "SELECT * FROM t": "relation text.`/x`",
    "SELECT (SELECT max(value) FROM text.`/x`)": "relation text.`/x`",
    "VALUES (1, (SELECT value FROM text.`/x` LIMIT 1))": "relation text.`/x`",
    "SELECT * FROM samples, LATERAL (SELECT * FROM text.`/x`)": "relation text.`/x`",
    "SELECT * FROM samples ORDER BY (SELECT max(value) FROM text.`/x`)": "relation text.`/x`",
    "SELECT * FROM samples JOIN binaryFile.`/x` ON true": "relation binaryFile.`/x`",
    "SELECT * FROM default.samples": "relation default.samples",
    "SELECT * FROM spark_catalog.default.samples": "relation spark_catalog.default.samples",
    "SELECT * FROM global_temp.samples": "relation global_temp.samples",
    "SELECT * FROM IDENTIFIER('text.`/etc/passwd`')": "IDENTIFIER",
    "SELECT * FROM samples VERSION AS OF 0": "RELATION TIME TRAVEL",
    "SELECT * FROM samples WITH ('path' = '/etc/passwd')": "options of relation samples",
    "SELECT * FROM STREAM(samples)": "table function STREAM",
    # Functions that reach out of the statement
    "SELECT reflect('java.lang.System', 'getenv', 'HOME')": "function reflect",
    "SELECT JAVA_METHOD('java.lang.System', 'getenv', 'HOME')": "function JAVA_METHOD",
    "SELECT `try_reflect`('java.lang.System', 'getenv', 'HOME')": "function try_reflect",
    "SELECT system.builtin.reflect('java.lang.System', 'getenv', 'HOME')": "function system.builtin.reflect",
    "SELECT IDENTIFIER('reflect')('java.lang.System', 'getenv', 'HOME')": "IDENTIFIER",
    "SELECT count(*) FROM samples HAVING max(reflect('a', 'b')) > 'c'": "function reflect",
    "SELECT transform(array(1), c -> reflect('a', c))": "function reflect",
    "SELECT * FROM samples LATERAL VIEW explode(array(reflect('a', 'b'))) t AS x": "function reflect",
    "SELECT * FROM samples LATERAL VIEW reflect('a', 'b') t AS x": "function reflect",
    "SELECT * FROM samples PIVOT (max(reflect('a', 'b')) FOR cohort IN ('c'))": "function reflect",
    "SELECT sum(1) OVER (PARTITION BY reflect('a', 'b')) FROM samples": "function reflect",
    "SELECT sum(1) OVER w FROM samples WINDOW w AS (ORDER BY reflect('a', 'b'))": "function reflect",
    "SELECT /*+ REPARTITION(3, reflect('a')) */ 1 FROM samples": "function reflect",
    "SELECT * FROM samples |> WHERE reflect('a', 'b') = 'c'": "function reflect",
    "SELECT count(*) FILTER (WHERE reflect('a', 'b') = 'c') FROM samples": "function reflect",
    "SELECT listagg(cohort) WITHIN GROUP (ORDER BY reflect('a', 'b')) FROM samples": "function reflect",
    "SELECT cohort FROM samples GROUP BY GROUPING SETS ((reflect('a', 'b')), ())": "function reflect",
    "SELECT * FROM samples LIMIT length(reflect('a', 'b'))": "function reflect",
    "SELECT * FROM range(length(reflect('a', 'b')))": "function reflect",
    "SELECT input_file_name() FROM samples": "function input_file_name",
    "SELECT from_xml('<a/>', 'a INT', map('rowValidationXSDPath', '/etc/passwd'))": "function from_xml",
    "SELECT from_protobuf(cohort, 'x', '/etc/passwd') FROM samples": "function from_protobuf",
    "SELECT ai_query('a', 'b')": "function ai_query",
    "SELECT _allele_counts(NULL, 1, 1)": "function _allele_counts",
    "SELECT * FROM read_files('/etc/passwd')": "table function read_files",
    "SELECT * FROM table_changes('samples', 1)": "table function table_changes",
    "SELECT * FROM table_changes_by_path('/tmp/x', 1)": "table function table_changes_by_path",
    # Statements that are no query
    "INSERT INTO samples VALUES (1)": "INSERT INTO",
    "INSERT OVERWRITE DIRECTORY '/tmp/x' USING csv SELECT 1": "INSERT INTO DIR",
    "FROM samples INSERT INTO x SELECT * INSERT INTO y SELECT *": "INSERT INTO",
    "WITH a AS (SELECT 1) INSERT INTO samples SELECT * FROM a": "INSERT INTO",
    "UPDATE samples SET cohort = 'x'": "UPDATE TABLE",
    "DELETE FROM samples": "DELETE FROM TABLE",
    "MERGE INTO samples t USING samples s ON t.cohort = s.cohort WHEN MATCHED THEN DELETE": "MERGE INTO TABLE",
    "CREATE TABLE x AS SELECT 1": "CREATE TABLE AS SELECT",
    "CREATE TEMPORARY VIEW x AS SELECT * FROM text.`/etc/passwd`": "CREATE VIEW",
    "CREATE TEMPORARY FUNCTION f AS 'x' USING JAR 'http://127.0.0.1/y.jar'": "CREATE FUNCTION",
    "/* SELECT 1 */ DROP TABLE samples": "DROP TABLE",
    "ALTER TABLE samples ADD COLUMNS (x INT)": "ADD COLUMNS",
    "SET spark.sql.ansi.enabled = false": "SET",
    "RESET": "RESET",
    "SET VAR x = 1": "SET VARIABLE",
    "DECLARE VARIABLE x INT": "CREATE VARIABLE",
    "ADD JAR '/tmp/x.jar'": "ADD JARS",
    "ADD FILE '/etc/passwd'": "ADD FILES",
    "CACHE TABLE x AS SELECT 1": "CACHE TABLE AS SELECT",
    "REFRESH TABLE samples": "REFRESH TABLE",
    "VACUUM '/tmp/x' RETAIN 0 HOURS": "VACUUM TABLE",
    "OPTIMIZE samples": "OPTIMIZE TABLE",
    "RESTORE TABLE samples TO VERSION AS OF 0": "RESTORE TABLE",
    "CONVERT TO DELTA parquet.`/tmp/x`": "CONVERT TO DELTA",
    "DESCRIBE HISTORY samples": "DESCRIBE DELTA HISTORY",
    "DESCRIBE samples": "DESCRIBE RELATION",
    "EXPLAIN EXTENDED INSERT INTO samples VALUES (1)": "EXPLAIN",
    "SHOW TABLES": "SHOW TABLES",
    "LOAD DATA LOCAL INPATH '/etc/passwd' INTO TABLE samples": "LOAD DATA",
    "USE default": "SET CATALOG AND NAMESPACE",
    "EXECUTE IMMEDIATE 'DROP TABLE samples'": "EXECUTE IMMEDIATE QUERY",
    "CALL system.x()": "CALL",
    "BEGIN SELECT 1; END": "a statement that cannot be parsed (SqlScriptingException)",
    "SELECT 1; DROP TABLE samples": "[PARSE_SYNTAX_ERROR] Syntax error at or near 'DROP'",
    "SELECT :a": "NAMED PARAMETER",
    "SELECT ?": "POS PARAMETER",
}
ACCEPTED = {
    "TABLE samples": {"samples"},
    "VALUES (1, 2)": set(),
    "SELECT cohort, e FROM models LATERAL VIEW OUTER explode(classes) t AS e": {"models"},
    "SELECT * FROM Models, LATERAL (SELECT explode(classes)), range(3) r, LATERAL explode(classes)": {"models"},
    "SELECT * FROM (SELECT cohort, job FROM runs) PIVOT (count(*) FOR job IN ('a', 'b'))": {"runs"},
    "SELECT * FROM samples UNPIVOT (v FOR n IN (a, b))": {"samples"},
    "SELECT /*+ BROADCAST(s), REPARTITION(3, cohort) */ * EXCEPT (cohort) FROM samples TABLESAMPLE (10 PERCENT) s": {
        "samples"
    },
    "SELECT rank() OVER w, sum(x) OVER (PARTITION BY y ORDER BY z ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) "
    "FROM samples WINDOW w AS (PARTITION BY cohort ORDER BY x DESC NULLS LAST)": {"samples"},
    "SELECT cohort, count(*) FILTER (WHERE x > 1), any_value(x) FROM samples GROUP BY GROUPING SETS ((cohort), ()) "
    "HAVING count(*) > 1 UNION ALL (SELECT 1, 2, 3) EXCEPT SELECT 1, 2, 3 INTERSECT SELECT 2, 3, 4 LIMIT 10 OFFSET 2": {
        "samples"
    },
    "SELECT cohort FROM samples GROUP BY cohort WITH ROLLUP ORDER BY 1": {"samples"},
    "SELECT filter(classes, (c, i) -> i > 0), map('a', 1)['a'], named_struct('a', 1).a, CAST(x AS MAP<STRING, "
    "DOUBLE>), x::int, DATE '2020-01-01', INTERVAL 3 DAYS, trim(BOTH 'x' FROM y), substring(a FROM 2 FOR 3), "
    "extract(year FROM d), CASE WHEN a THEN b END, a LIKE ANY ('x', 'y'), a RLIKE 'x', -a, a || b, 1L, X'00', "
    "a IS NOT DISTINCT FROM b, current_date, position('a' IN b), timestampadd(DAY, 1, a) FROM models": {"models"},
    "FROM samples |> WHERE cohort = 'a' |> SELECT cohort |> AGGREGATE count(*) GROUP BY cohort": {"samples"},
    "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t": set(),
    (
        "WITH a AS (SELECT * FROM samples), b AS (SELECT * FROM A) SELECT (SELECT 1 FROM a) FROM b "
        "WHERE EXISTS (SELECT 1 FROM b, models)"
    ): {
        "samples",
        "models",
    },
    "WITH samples AS (SELECT * FROM samples) SELECT * FROM samples": {"samples"},
    "SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a), a": {"a"},  # out of its scope: no view, as register says
    "SELECT * FROM samples a JOIN samples b ON a.x = b.x LEFT ANTI JOIN models USING (cohort) NATURAL JOIN splits": {
        "samples",
        "models",
        "splits",
    },
    "SELECT count(DISTINCT a), percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM samples DISTRIBUTE BY a SORT BY b": {
        "samples"
    },
}
# What may stand around an expression or a relation, and stays accepted or refused by what stands in it.
AROUND_EXPRESSION = (
    "CASE WHEN {} IS NULL THEN 'a' END",
    "coalesce({}, 'x')",
    "(SELECT max({}) FROM samples)",
    "transform(array(1), v -> {})[0]",
    "CAST({} AS STRING)",
    "(/* , */ {} || 'x')",
    "CASE WHEN 'a' IN (SELECT {} FROM samples) THEN 'b' END",
    "(SELECT first(x) FROM (VALUES ({})) t(x))",
    "nAmed_Struct('a', {}).a",
    "(SELECT max(x) OVER (ORDER BY {}) FROM samples LATERAL VIEW explode(array('a')) t AS x LIMIT 1)",
    "(WITH q AS (SELECT {} AS y) SELECT y FROM q)",
)
AROUND_RELATION = (
    "(SELECT * FROM {}) r",
    "(WITH c AS (SELECT * FROM {}) SELECT * FROM c) r",
    "(SELECT * FROM samples WHERE EXISTS (SELECT 1 FROM {})) r",
    "(SELECT 1 AS one UNION ALL SELECT 2 FROM {}) r",
    "(SELECT s.* FROM samples s LEFT JOIN {} ON true) r",
    "(SELECT /*+ REPARTITION(2) */ * FROM samples, LATERAL (SELECT 1 FROM {})) r",
    "(SELECT count(*) FROM samples GROUP BY cohort HAVING count(*) > (SELECT count(*) FROM {})) r",
    "(FROM {} |> LIMIT 3) r",
)
BAD_EXPRESSIONS = (
    "rEFLECT('java.lang.System', 'getenv', 'HOME')",
    "`java_method`('a', 'b')",
    "/* x */ input_file_name()",
    "from_xml('<a/>', 'a INT')",
)
BAD_RELATIONS = (
    "text.`/etc/passwd`",
    "Delta /**/ . `/x`",
    "(SELECT TRANSFORM (1) USING 'id')",
    "a.b.samples",
    "table_changes('samples', 1)",
)


def judged(spark: SparkSession, sql: str) -> statements.Statement:
    return statements.judged(spark._jvm, spark._jsparkSession.sessionState().sqlParser(), sql, FUNCTIONS)


def test_statements_are_judged_from_their_plan(spark: SparkSession, lake: Lake) -> None:
    for sql, found in REFUSED.items():
        with pytest.raises(InputError) as refused:
            judged(spark, sql)
        assert refused.value.file == "SQL" and refused.value.message.startswith(f"found {found}"), sql
        assert ", expected one query over the lake's views, see genodl list tables" in refused.value.message
    for sql, relations in ACCEPTED.items():
        assert judged(spark, sql).relations == relations, sql
    calls = judged(
        spark, "SELECT Genodl_Predict('o''x' '\\t:a', codes), genodl_predict(task, codes), dosage(gt, 1) FROM sequences"
    ).functions
    assert set(calls) == {"genodl_predict", "dosage"} and set(calls["genodl_predict"]) == {"ox\t:a", None}
    for name in ("nowhere", "a", "predictions_nothing", "stream"):
        with pytest.raises(
            InputError,
            match=f"found relation {name}, expected one of the lake's views: alignments, annotations, attributions, "
            "biomarkers, calls, cells, clusters, consequences, datasets, enrichment, evaluations, ",
        ):
            views.register(lake, [name])

    # Whatever stands around it, what is refused is refused; the same around what is harmless is not.
    chosen = random.Random(14)
    for i in range(120):
        wrapped, harmless = (
            (chosen.choice(BAD_EXPRESSIONS), "upper('a')") if i % 2 else (chosen.choice(BAD_RELATIONS), "samples")
        )
        around = [chosen.choice(AROUND_EXPRESSION if i % 2 else AROUND_RELATION) for _ in range(chosen.randint(1, 5))]
        for text in around:
            wrapped, harmless = text.format(wrapped), text.format(harmless)
        form = chosen.choice(
            ("SELECT {}", "VALUES ({})", "SELECT 1 FROM samples ORDER BY {}")
            if i % 2
            else ("SELECT * FROM {}", "FROM {}")
        )
        with pytest.raises(InputError, match=r"^SQL: found (relation|function|table function|TRANSFORM)"):
            judged(spark, form.format(wrapped))
        assert judged(spark, form.format(harmless)).relations <= {"samples"}


@pytest.fixture
def small(lake: Lake, genodl: Any, tmp_path: Path) -> Lake:
    """A lake with a little of what the pages of docs/ ask for."""
    vcf = tmp_path / "x.vcf"
    head = (
        '##fileformat=VCFv4.2\n##FORMAT=<ID=GT,Number=1,Type=String,Description="G">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT"
    )
    lines = [
        f"{head}\tNA12877\tNA12878",
        "20\t150000\t.\tA\tG\tnan\t.\t.\tGT\t0|0\t0|1",
        "20\t160000\t.\tC\tT\tinf\t.\t.\tGT\t0|1\t1|1",
    ]
    vcf.write_text("\n".join([*lines, "20\t300000\t.\tC\tT\t.\t.\t.\tGT\t.|.\t1|1"]) + "\n")
    assert genodl(ingest, "vcf", str(vcf), "--cohort", "mine", "--lake", lake.uri)[0] == 0
    samples(lake)
    predictions(lake)
    model = {column.name: None for column in MODELS.columns} | {
        "model_id": "m",
        "task": "t",
        "label_column": "label",
        "classes": ["a", "b c"],
    }
    model |= dict.fromkeys(("cohort", "dataset", "split_hash", "settings", "code", "fingerprint"), "") | {
        "metrics": {},
        "source_versions": {},
    }
    model |= {"model_version": 1, "n_features": 1, "seed": 1, "ranks": 1, "trained_at": WHEN}
    lake.append(MODELS, lake.spark.createDataFrame([model], MODELS.spark_schema()))
    finding = {column.name: "" for column in FINDINGS.columns} | {
        "found_at": WHEN,
        "value": 0.5,
        "threshold": 0.25,
        "breached": True,
    }
    lake.append(FINDINGS, lake.spark.createDataFrame([finding], FINDINGS.spark_schema()))
    return lake


def test_queries_answer_and_leave_a_row(
    genodl: Any,
    small: Lake,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    at = ("--lake", small.uri)

    def asked(sql: str) -> Any:
        code, report, line = genodl(query, sql, *at)
        assert code == 0, line
        return report["result"]

    latest = (
        "SELECT task, cohort, label_column, predicted, count(*) AS people, round(avg(value), 3) AS mean_probability "
        "FROM predictions_latest GROUP BY ALL ORDER BY task, cohort, predicted"
    )
    row = {"task": "t", "label_column": "label", "people": 1}
    odd = "c'o=h%20 ü"
    assert asked(latest) == [
        {**row, "cohort": "c", "predicted": "b c", "mean_probability": 0.75},
        {**row, "cohort": odd, "predicted": None, "mean_probability": -1.5},
        {**row, "cohort": odd, "predicted": "b c", "mean_probability": 0.75},
    ]
    assert asked(
        "SELECT entity_id, predicted, probabilities FROM predictions_latest ORDER BY entity_id, cohort LIMIT 1"
    ) == [{"entity_id": "e0", "predicted": "b c", "probabilities": {"a": 0.25, "b c": 0.75}}]
    calls = (
        "SELECT v.pos, genotype_at(v.gt, v.n_samples, s.position) AS call FROM variants v JOIN sample_sets s USING "
        "(sample_set) WHERE s.sample_id = 'NA12878' AND v.contig = '20' AND v.pos BETWEEN 100000 AND 200000 ORDER BY 1"
    )
    assert asked(calls) == [{"pos": 150000, "call": "0|1"}, {"pos": 160000, "call": "1|1"}]
    assert asked(
        "SELECT pos, allele_counts(gt, n_samples).copies AS n, dosage(gt, n_samples) AS d "
        "FROM variants WHERE pos = 150000"
    ) == [{"pos": 150000, "n": 1, "d": [0, 1]}]
    typed = (
        "SELECT entity_id, predicted, `probability_b c`, uncertainty FROM predictions_t WHERE NOT coalesce(abstained, "
        "false) ORDER BY ALL LIMIT 1"
    )
    assert asked(typed) == [{"entity_id": "e0", "predicted": "b c", "probability_b c": 0.75, "uncertainty": None}]
    assert asked(
        "SELECT task, cohort, check, subject, value, threshold, message FROM findings WHERE breached ORDER BY found_at"
    ) == [{"task": "", "cohort": "", "check": "", "subject": "", "value": 0.5, "threshold": 0.25, "message": ""}]
    assert asked("SELECT count(*) AS n FROM trials") == [{"n": 0}]  # a table that nothing was written to yet

    # Numbers that JSON lacks, and text that would command a terminal: in cells, names and errors.
    assert asked("SELECT pos, qual FROM variants ORDER BY pos") == [
        {"pos": 150000, "qual": "NaN"},
        {"pos": 160000, "qual": "Infinity"},
        {"pos": 300000, "qual": None},
    ]
    assert (
        query.main(
            [
                (
                    "SELECT 'a\\\\b' || chr(27) || '[31m' || chr(9) AS `x\x1b]0;y`, qual, map('k', "
                    "chr(27)) AS m FROM variants LIMIT 1"
                ),
                *at,
            ]
        )
        == 0
    )
    out = capsys.readouterr().out.split("\n")
    assert out[:2] == ["x\\x1b]0;y\tqual\tm", 'a\\\\b\\x1b[31m\\t\tNaN\t{"k": "\\u001b"}']
    assert "\x1b" not in "".join(out) and json.loads(out[2])["result"][0]["qual"] == "NaN"
    for sql in ("SELECT * FROM text.`/\x1b[2J\u202e`", "SELECT `\x1b[2J` FROM samples", "SELECT '\x1b[2J"):
        code, _, line = genodl(query, sql, *at)
        assert code == 2 and line.startswith("genodl: error: SQL: ") and "\x1b" not in line and "\u202e" not in line

    for sql, found in (
        ("SELECT 1 / 0", "[DIVIDE_BY_ZERO]"),
        ("SELECT CAST(sample_id AS INT) FROM samples", "[CAST_INVALID_INPUT]"),
    ):
        code, _, line = genodl(query, sql, *at)
        assert code == 2 and line.startswith(f"genodl: error: SQL: {found}")

    # The environment is no part of a statement.
    monkeypatch.setenv("GENODL_TEST_SECRET", "secret")
    assert asked("SELECT '${env:GENODL_TEST_SECRET}${system:user.name}' AS s") == [
        {"s": "${env:GENODL_TEST_SECRET}${system:user.name}"}
    ]

    # A table behind its view cannot be changed; what was asked stands in `runs`,
    # answered or refused, without the answer.
    before = small.version(SAMPLES)
    for sql in (
        "UPDATE samples SET cohort = 'x'",
        f"DELETE FROM delta.{literal(small.path(SAMPLES))}",
        "SELECT * FROM nowhere",
    ):
        code, report, line = genodl(query, sql, *at)
        assert code == 2 and line.startswith("genodl: error: SQL: found ") and report["status"] == "failed"
    assert small.version(SAMPLES) == before
    rows = [r for r in small.read(RUNS).orderBy("started_at").collect() if r.job == "query"]
    assert [(json.loads(r.arguments)[0], r.status) for r in rows[:1]] == [(latest, "done")]
    assert json.loads(rows[-1].arguments)[0] == "SELECT * FROM nowhere" and rows[-1].status == "failed"
    assert all("result" not in json.loads(r.report) for r in rows)
    assert genodl(list_job, "runs", *at)[1]["result"][-1]["job"] == "query"

    # Who may only read is answered, and told that nobody will know of it.
    def read_only(*_: Any) -> None:
        raise PermissionError("Read-only file system: '\x1b[2J'")

    caplog.set_level(logging.WARNING)
    with monkeypatch.context() as patched:
        patched.setattr(StoredLake, "append_few", read_only)
        code, report, _ = genodl(query, "SELECT count(*) AS n FROM samples", *at)
    assert (code, report["result"]) == (0, [{"n": 4}])
    assert len(report["warnings"]) == 1 and "missing from table runs" in report["warnings"][0]
    assert small.read(RUNS).where("job = 'query'").count() == len(rows)
