"""What a SQL statement asks, judged from its parsed plan before Spark analyses or runs any of it:
one query over the lake's views.

Everything that the parser made is visited, subqueries and arguments of any depth, and has to be known:
a plan node or expression that is not listed here, such as a command, a script or a statement of a later Spark,
is refused. A relation is a name of one part, of a view or of a common table expression in whose scope it stands.
A function is one of the lake's own, or one that comes with Spark and answers from its arguments alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from genodl_spark.core.errors import InputError

_SPARK = "org.apache.spark.sql."
_PLANS = """
    Aggregate Distinct Except Filter Generate GlobalLimit Intersect Join JoinHint LateralJoin LocalLimit LocalRelation
    Offset OneRowRelation Pivot Project RepartitionByExpression Sample Sort SubqueryAlias Union Unpivot UnresolvedHint
    UnresolvedWith WithWindowDefinition
"""
_UNRESOLVED = """
    MultiAlias UnresolvedAlias UnresolvedAttribute UnresolvedExtractValue UnresolvedFunction UnresolvedGenerator
    UnresolvedHaving UnresolvedInlineTable UnresolvedOrdinal UnresolvedPipeAggregateOrdinal UnresolvedRegex
    UnresolvedRelation UnresolvedStar UnresolvedStarExceptOrReplace UnresolvedSubqueryColumnAliases UnresolvedTVFAliases
    UnresolvedTableValuedFunction
"""
_EXPRESSIONS = """
    Add Alias And Ascending$ BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CaseWhen Cast Coalesce Collate Concat
    CreateNamedStruct Cube CurrentDate CurrentRow$ CurrentTimestamp CurrentUser Descending$ Divide EqualNullSafe EqualTo
    Exists ExprId GreaterThan GreaterThanOrEqual GroupingSets ILike In InSubquery IntegralDivide IsNotNull IsNull
    LambdaFunction LateralSubquery LessThan LessThanOrEqual Like LikeAll LikeAny ListQuery Literal LocalTimestamp Lower
    Multiply NamedArgumentExpression Not NotLikeAll NotLikeAny NullsFirst$ NullsLast$ Or Overlay PipeExpression
    PipeOperator RLike RangeFrame$ Remainder Rollup RowFrame$ ScalarSubquery ShiftLeft ShiftRight ShiftRightUnsigned
    SortOrder SpecifiedWindowFrame StringLocate StringTrim StringTrimLeft StringTrimRight Substring Subtract
    TimestampAdd TimestampDiff UnaryMinus UnaryPositive UnboundedFollowing$ UnboundedPreceding$ UnresolvedCollation
    UnresolvedNamedLambdaVariable UnresolvedWindowExpression UnspecifiedFrame$ WindowExpression WindowSpecDefinition
    WindowSpecReference
    aggregate.AggregateExpression aggregate.AnyValue aggregate.Complete$ aggregate.First aggregate.Last
"""
_KNOWN = {
    f"{_SPARK}catalyst.{package}.{name}"
    for package, names in (("plans.logical", _PLANS), ("analysis", _UNRESOLVED), ("expressions", _EXPRESSIONS))
    for name in names.split()
}
# What these hold is text, numbers and types: there is no plan to look for in them.
_LEAVES = {f"{_SPARK}catalyst.expressions.Literal", f"{_SPARK}catalyst.plans.logical.LocalRelation"} | {
    f"{_SPARK}catalyst.analysis.{name}" for name in ("UnresolvedAttribute", "UnresolvedStar", "UnresolvedRegex")
}
_VALUES = re.compile(
    r"org\.apache\.spark\.(sql\.types|unsafe\.types)\.\w+\$?|scala\.(None\$|Enumeration\$Val)|"
    r"java\.((lang|math)\.\w+|util\.UUID)"
)
# Kinds of joins, names, and what holds other values.
_WALKED = re.compile(
    r"org\.apache\.spark\.sql\.catalyst\.(plans\.\w+\$?|AliasIdentifier)|scala\.(Some|Tuple\d)(\$\w+)?"
)
_COLLECTION = re.compile(r"scala\.collection\.(im)?mutable\.[\w$]+")
# Groups that Spark files its functions under. Those of XML read schema files that a statement names;
# of the group `misc` some tell what the machine holds, or call any method of Java.
_GROUPS = """
    agg array bitwise collection conditional conversion csv datetime generator hash json lambda map math predicate
    string struct url variant window
"""
_OTHERS = """
    assert_true bitmap_bit_position bitmap_bucket_number bitmap_count current_catalog current_database current_schema
    current_user hll_sketch_estimate hll_union monotonically_increasing_id raise_error session_user spark_partition_id
    typeof user uuid version
"""
_SHORT_NAMES = {
    "ScriptTransformation": "TRANSFORM",
    "PlanWithUnresolvedIdentifier": "IDENTIFIER",
    "ExpressionWithUnresolvedIdentifier": "IDENTIFIER",
}


@dataclass(frozen=True)
class Statement:
    """One query that may run.

    `plan`: as parsed, in the JVM. `relations`: names of views that it reads, in lower case.
    `functions`: of each function that it calls, by its name in lower case, the first argument of every call
    where that is a text as it stands, else None.
    """

    plan: Any
    relations: frozenset[str]
    functions: dict[str, list[str | None]]


def judged(jvm: Any, parser: Any, sql: str, own: Collection[str] = ()) -> Statement:
    """A statement, parsed by a session's `parser`. `own`: functions that are the lake's.
    InputError where it is no query that may run."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        plan = parser.parsePlan(sql)
    except PySparkException as error:
        raise refusal(first_line(str(error))) from error
    except Py4JJavaError as error:  # such as a stack overflow: parentheses without end
        raise refusal(
            f"a statement that cannot be parsed ({error.java_exception.getClass().getSimpleName()})"
        ) from error
    return _Judge(jvm, own).statement(plan)


def refusal(found: str) -> InputError:
    return InputError(f"found {found}, expected one query over the lake's views, see genodl list tables", "SQL")


def first_line(message: str) -> str:
    """What Spark says is wrong with a statement, without the statement and its place in it."""
    return message.strip().split("\n")[0].split(" SQLSTATE")[0].rstrip(" .;")


class _Judge:
    def __init__(self, jvm: Any, own: Collection[str]) -> None:
        self.own = own
        registries = jvm.org.apache.spark.sql.catalyst.analysis
        self.builtin = registries.FunctionRegistry.builtin()
        self.tables = registries.TableFunctionRegistry.builtin()
        self.identifier = jvm.org.apache.spark.sql.catalyst.FunctionIdentifier
        self.relations: set[str] = set()
        self.functions: dict[str, list[str | None]] = {}

    def statement(self, plan: Any) -> Statement:
        # A stack of its own: a long condition is a deep tree.
        pending: list[tuple[Any, frozenset[str]]] = [(plan, frozenset())]
        while pending:
            value, scope = pending.pop()
            if value is None or isinstance(value, str | int | float | bytes | bytearray):
                continue
            pending += self._within(value, scope)
        return Statement(plan, frozenset(self.relations), self.functions)

    def _within(self, value: Any, scope: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
        """What a value of the plan holds, each with the names of common table expressions that it can see.
        InputError where it is not known."""
        try:
            name = value.getClass().getName()
        except AttributeError:  # Decimal and other values that arrive as Python's own
            return
        simple = name.rpartition(".")[2]
        if name in _LEAVES or _VALUES.fullmatch(name):
            return
        if _COLLECTION.fullmatch(name):
            yield from ((item, scope) for item in _items(value))
        elif name not in _KNOWN and not _WALKED.fullmatch(name):
            raise refusal(_spoken(simple))
        elif simple == "UnresolvedWith":
            yield from self._with(value, scope)
        elif simple == "UnresolvedRelation":
            self._relation(value, scope)
        else:
            if simple == "UnresolvedFunction":
                self._function(list(_items(value.nameParts())), list(_items(value.arguments())))
            elif simple == "UnresolvedGenerator":
                given = value.name()
                parts = [part.get() for part in (given.catalog(), given.database()) if part.isDefined()]
                self._function([*parts, given.funcName()], list(_items(value.children())))
            elif simple == "UnresolvedTableValuedFunction":
                self._table_function(list(_items(value.name())))
            first = 1 if simple in ("UnresolvedGenerator", "UnresolvedFunction", "UnresolvedTableValuedFunction") else 0
            yield from ((value.productElement(i), scope) for i in range(first, value.productArity()))

    def _with(self, plan: Any, scope: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
        """A common table expression sees those before it, and itself where it is recursive; the query sees all."""
        for pair in _items(plan.cteRelations()):
            inner = scope | {pair._1().lower()}
            yield pair._2(), inner if plan.allowRecursion() else scope
            scope = inner
        yield plan.child(), scope

    def _relation(self, relation: Any, scope: frozenset[str]) -> None:
        parts = list(_items(relation.multipartIdentifier()))
        named = ".".join(part if part.isidentifier() else f"`{part}`" for part in parts)
        if len(parts) != 1:
            raise refusal(f"relation {named}")
        if relation.isStreaming():
            raise refusal(f"a stream of relation {named}")
        if not relation.options().isEmpty():
            raise refusal(f"options of relation {named}")
        if parts[0].lower() not in scope:
            self.relations.add(parts[0].lower())

    def _function(self, parts: list[str], arguments: list[Any]) -> None:
        name = parts[0].lower()
        known = len(parts) == 1 and (name in self.own or self._answers_alone(name))
        if not known:
            raise refusal(f"function {'.'.join(parts)}")
        self.functions.setdefault(name, []).append(_text(arguments[0]) if arguments else None)

    def _answers_alone(self, name: str) -> bool:
        found = self.builtin.lookupFunction(self.identifier(name))
        return found.isDefined() and (
            found.get().getGroup().removesuffix("_funcs") in _GROUPS.split() or name in _OTHERS.split()
        )

    def _table_function(self, parts: list[str]) -> None:
        if len(parts) != 1 or not self.tables.lookupFunction(self.identifier(parts[0].lower())).isDefined():
            raise refusal(f"table function {'.'.join(parts)}")


def _items(collection: Any) -> Iterator[Any]:
    iterator = collection.iterator()
    while iterator.hasNext():
        yield iterator.next()


def _text(argument: Any) -> str | None:
    """The value of a literal text; None of any other expression."""
    if (
        argument.getClass().getSimpleName() != "Literal"
        or argument.dataType().typeName() != "string"
        or argument.value() is None
    ):
        return None
    return str(argument.value().toString())


def _spoken(name: str) -> str:
    """A class of Spark's plans as a statement begins: AddJarsCommand is ADD JARS."""
    name = name.strip("$").rpartition("$")[2]
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name.removesuffix("Command").removesuffix("Statement"))
    return _SHORT_NAMES.get(name, " ".join(words).upper())
