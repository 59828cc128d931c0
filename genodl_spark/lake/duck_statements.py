"""Which statements DuckDB answers as Spark does, judged from DuckDB's own parse before anything is run.

One SELECT over the lake's views. What is listed here means the same in both, to the letter of the answer; anything
else is refused, be it harmful, unknown, or only rounded, counted or quoted in another way. Texts in double quotes,
backslashes in texts, division by zero, lists that count from 0 and names of columns without AS are among what differs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genodl_spark.core.errors import InputError

if TYPE_CHECKING:
    import duckdb

FUNCTIONS = {"count", "count_star", "sum", "avg", "min", "max", "round", "abs", "lower", "upper", "length"}
_OPERATORS = {"+", "-", "*", "/", "~~", "!~~", "~~*", "!~~*"}
_LIKE = {"~~", "!~~", "~~*", "!~~*"}
_CLASSES = {
    "COLUMN_REF": {"COLUMN_REF"},
    "CONSTANT": {"VALUE_CONSTANT"},
    "COMPARISON": {
        *("COMPARE_EQUAL", "COMPARE_NOTEQUAL", "COMPARE_LESSTHAN", "COMPARE_GREATERTHAN", "COMPARE_LESSTHANOREQUALTO"),
        *("COMPARE_GREATERTHANOREQUALTO", "COMPARE_DISTINCT_FROM", "COMPARE_NOT_DISTINCT_FROM"),
    },
    "CONJUNCTION": {"CONJUNCTION_AND", "CONJUNCTION_OR"},
    "BETWEEN": {"COMPARE_BETWEEN", "COMPARE_NOT_BETWEEN"},
    "OPERATOR": {
        *(
            "OPERATOR_NOT",
            "OPERATOR_IS_NULL",
            "OPERATOR_IS_NOT_NULL",
            "OPERATOR_COALESCE",
            "COMPARE_IN",
            "COMPARE_NOT_IN",
            "ARRAY_EXTRACT",
        ),
    },
    "CASE": {"CASE_EXPR"},
    "CAST": {"OPERATOR_CAST"},
    "FUNCTION": {"FUNCTION"},
    "SUBQUERY": {"SUBQUERY"},
    "STAR": {"STAR"},
    "WINDOW": {"WINDOW_ROW_NUMBER", "WINDOW_RANK", "WINDOW_RANK_DENSE", "WINDOW_AGGREGATE"},
}
_NODES = {
    "SELECT_NODE",
    "SET_OPERATION_NODE",
    "ORDER_MODIFIER",
    "LIMIT_MODIFIER",
    "DISTINCT_MODIFIER",
    "BASE_TABLE",
    "JOIN",
    "SUBQUERY",
    "EMPTY",
}
_KINDS = {"INTEGER", "NUMERIC", "STRING", "BOOLEAN", "NULL"}
_ABSENT = (
    "sample",
    "qualify",
    "at_clause",
    "exclude_list",
    "replace_list",
    "rename_list",
    "qualified_exclude_list",
    "expr",
    "columns",
    "unpacked",
)  # of Spark's none
# A text, or what is outside of texts and DuckDB reads in a way of its own.
_STRANGE = re.compile(r"""'[^'\\]*'(?!\s*')|(["`\\$#@^'])|\b(\d[\d.]*(?:[LSYDF]|BD))\b""", re.IGNORECASE)
_LARGEST = {"INTEGER": float(1 << 63), "NUMERIC": math.inf}
_DECIMAL = re.compile(r"\d*\.\d*")


@dataclass(frozen=True)
class Statement:
    """One statement that DuckDB answers as Spark does. `relations`: views that it reads, in lower case;
    `names`: of its columns as Spark has them, None where they are as DuckDB has them."""

    sql: str
    relations: frozenset[str]
    names: list[str] | None


def judged(connection: duckdb.DuckDBPyConnection, sql: str) -> Statement:
    """A statement, parsed but not run. InputError where DuckDB is not to be asked."""
    for found in _STRANGE.finditer(sql):
        if strange := found.group(1) or found.group(2):
            raise refusal(f"{strange} in the statement, which DuckDB reads in another way")
    try:
        return _parsed(connection, sql)
    except (RecursionError, UnicodeError) as error:
        raise refusal(
            "a statement that cannot be parsed, of parentheses without end or bytes that are no text"
        ) from error


def _parsed(connection: duckdb.DuckDBPyConnection, sql: str) -> Statement:
    parsed = json.loads(connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0])
    if parsed["error"]:
        raise refusal(parsed["error_message"].split("\n")[0])
    if len(parsed["statements"]) != 1:
        raise refusal(f"{len(parsed['statements'])} statements in place of one")
    node = parsed["statements"][0]["node"]
    judge = _Judge()
    judge.walk(node, frozenset(), top=True)
    return Statement(sql, frozenset(judge.relations), _names(node))


def refusal(found: str) -> InputError:
    return InputError(
        f"found {found.rstrip('. ')}; expected what DuckDB answers as Spark does: "
        "leave --engine out, and Spark answers",
        "SQL",
    )


class _Judge:
    def __init__(self) -> None:
        self.relations: set[str] = set()

    def walk(
        self, value: Any, scope: frozenset[str], top: bool = False, named: bool = True, compared: bool = False
    ) -> None:
        """Goes through a part of the parse; `scope`: common table expressions that it sees,
        `named`: whether its columns get a name that counts, `compared`: whether it is a side of a comparison."""
        if isinstance(value, list):
            for one in value:
                self.walk(one, scope, compared=compared)
        if not isinstance(value, dict):
            return
        for key in _ABSENT:
            if value.get(key):
                raise refusal(f"what is written as {key.replace('_', ' ')}")
        kind = value.get("class")
        if kind is not None:
            self._expression(value, scope, compared)
            return
        type_ = value.get("type")
        if type_ is not None and type_ not in _NODES and not str(type_).endswith("ENDING") and type_ != "ORDER_DEFAULT":
            raise refusal(str(type_).lower().replace("_", " "))
        if "cte_map" in value:
            scope = self._tables(value["cte_map"], scope)
        if type_ == "SELECT_NODE":
            if len(value["group_sets"]) > 1:
                raise refusal("grouping sets")
            if not top and named:
                _Judge._must_be_named(value["select_list"])
            if any(_is(one, "STAR") for one in value["select_list"]) and value["from_table"]["type"] == "JOIN":
                raise refusal("* over a join")
        elif type_ == "BASE_TABLE":
            self._relation(value, scope)
        elif type_ == "JOIN" and (
            value["ref_type"] not in ("REGULAR", "CROSS", "NATURAL") or value["join_type"] not in _JOINS
        ):
            raise refusal(f"a join of type {value['join_type']} {value['ref_type']}".lower())
        elif type_ == "DISTINCT_MODIFIER" and value["distinct_on_targets"]:
            raise refusal("DISTINCT ON")
        elif type_ == "LIMIT_MODIFIER" and value.get("limit_type", "ROW_COUNT") != "ROW_COUNT":
            raise refusal("LIMIT of a share")
        for key, inner in value.items():
            if key == "node" or (key == "children" and type_ == "SET_OPERATION_NODE"):
                for one in inner if isinstance(inner, list) else [inner]:
                    self.walk(one, scope, top=top, named=named)
            elif key != "cte_map":
                self.walk(inner, scope)

    def _tables(self, stated: dict[str, Any], scope: frozenset[str]) -> frozenset[str]:
        for entry in stated["map"]:
            if entry["value"].get("key_targets"):
                raise refusal("WITH ... USING KEY")
            self.walk(entry["value"]["query_node"], scope)
            scope = scope | {entry["key"].lower()}
        return scope

    def _relation(self, value: dict[str, Any], scope: frozenset[str]) -> None:
        if value["schema_name"] or value["catalog_name"]:
            raise refusal(f"relation {value['schema_name']}.{value['table_name']}")
        if value["table_name"].lower() not in scope:
            self.relations.add(value["table_name"].lower())

    def _expression(self, value: dict[str, Any], scope: frozenset[str], compared: bool) -> None:
        kind, type_ = value["class"], value["type"]
        if kind not in _CLASSES or type_ not in _CLASSES[kind]:
            raise refusal(f"{str(type_).lower().replace('_', ' ')}")
        if kind == "FUNCTION" or type_ == "WINDOW_AGGREGATE":
            self._function(value)
        elif kind == "CONSTANT":
            literal = value["literal"]
            if literal["kind"] not in _KINDS:
                raise refusal(f"a literal of kind {literal['kind'].lower()}")
            if (
                literal["kind"] in ("INTEGER", "NUMERIC")
                and not abs(float(literal["text"])) < _LARGEST[literal["kind"]]
            ):
                raise refusal(f"the number {literal['text'][:40]}")
            if literal["kind"] == "NUMERIC" and not compared and _DECIMAL.fullmatch(literal["text"]):
                raise refusal(
                    f"the decimal {literal['text']} outside of a comparison (as "
                    f"{float(literal['text']):e} it is a double)"
                )
        elif kind == "CAST":
            target = value["type_expr"]["type_name"]
            of_text = _is(value["child"], "CONSTANT") and value["child"]["literal"]["kind"] == "STRING"
            if value["try_cast"] or not (
                target == "DOUBLE" or (of_text and target in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"))
            ):
                raise refusal(f"a cast to {target}")
            self.walk(value["child"], scope)
            return
        elif type_ == "ARRAY_EXTRACT":
            index = value["children"][1]
            if not (_is(index, "CONSTANT") and index["literal"]["kind"] == "STRING"):
                raise refusal("an element that is not named by a text")
        sides = kind in ("COMPARISON", "BETWEEN") or type_ in ("COMPARE_IN", "COMPARE_NOT_IN")
        for key, inner in value.items():
            if key == "subquery" and isinstance(inner, dict):
                self.walk(inner.get("node"), scope, named=False)
            else:
                self.walk(inner, scope, compared=sides)

    def _function(self, value: dict[str, Any]) -> None:
        name = value["function_name"].lower()
        arguments = [one.get("expression", one) for one in value.get("arguments", value.get("children", []))]
        if (
            value.get("schema")
            or value.get("catalog")
            or name not in (_OPERATORS if value.get("is_operator") else FUNCTIONS)
        ):
            raise refusal(f"function {name}")
        if name in _LIKE and not _is(arguments[1], "CONSTANT"):
            raise refusal("LIKE with a pattern that is no text")
        if value.get("order_bys", {}).get("orders"):
            raise refusal(f"ORDER BY within {name}")

    @staticmethod
    def _must_be_named(columns: list[dict[str, Any]]) -> None:
        for column in columns:
            if not column["alias"] and not _is(column, "COLUMN_REF") and not _is(column, "STAR"):
                raise refusal("a column without a name: give it one with AS")


_JOINS = ("INNER", "LEFT", "RIGHT", "OUTER", "FULL", "SEMI", "ANTI", "CROSS")


def _is(value: dict[str, Any], kind: str) -> bool:
    return value.get("class") == kind


def _names(node: dict[str, Any]) -> list[str] | None:
    """Names of a statement's columns as Spark makes them. InputError for an expression that it names
    in a way that is not known here."""
    while node["type"] == "SET_OPERATION_NODE":
        node = node["children"][0] if node.get("children") else node["left"]
    columns = node["select_list"]
    if any(_is(column, "STAR") for column in columns):
        _Judge._must_be_named(columns)
        return None
    return [column["alias"] or _name(column) for column in columns]


def _name(value: dict[str, Any]) -> str:
    if _is(value, "COLUMN_REF"):
        return str(value["column_names"][-1])
    if _is(value, "CONSTANT") and value["literal"]["kind"] in ("INTEGER", "STRING"):
        return str(value["literal"]["text"])
    if _is(value, "FUNCTION") and not value["is_operator"] and not value["filter"]:
        if value["function_name"] == "count_star":
            return "count(1)"
        inner = ", ".join(_name(argument["expression"]) for argument in value["arguments"])
        return f"{value['function_name'].lower()}({'DISTINCT ' if value['distinct'] else ''}{inner})"
    raise refusal("a column without a name: give it one with AS")


def known(relations: Collection[str], names: Collection[str]) -> None:
    """InputError where a relation is no view of the lake."""
    for name in relations:
        if name not in names:
            raise InputError(
                f"found relation {name}, expected one of the lake's views: {', '.join(sorted(names))}", "SQL"
            )
