"""The filter grammar of the API: a JSON tree over item fields, compiled to SQL.

    {"and": [{"in": ["brand", ["a", "b"]]}, {"lt": ["price", 5000]}]}

Every condition has two values only: a field that is absent equals nothing, so
`not` of it is true. All values travel as bound parameters. Comparisons use
operators that are leakproof, so that indexes work under row-level security
(DECISIONS 6).
"""

from abc import ABC, abstractmethod
from datetime import datetime
from math import ceil, floor
from typing import Any, Final, Literal, cast

import msgspec
from msgspec import Struct

from infra.clock import within_reach
from infra.errors import FieldError, Invalid
from tenants.catalog.item import AVAILABILITY_CODE, INDEXED_CHARS

MAX_DEPTH: Final = 8
MAX_CONDITIONS: Final = 100
MAX_VALUES: Final = 1000

Compare = Literal["in", "lt", "lte", "gt", "gte", "exists"]
Scalar = str | bool | int | float


class InvalidFilter(Invalid):
    """The filter is not of the grammar, or names a field that cannot be filtered on."""

    code = "invalid_filter"
    title = "The filter cannot be used"


class Condition(Struct, frozen=True):
    """One comparison; `eq` is an `in` of one value."""

    op: Compare
    field: str
    values: tuple[Scalar, ...]


class Group(Struct, frozen=True):
    """`and` or `or` of filters; an empty `and` is true, an empty `or` false."""

    op: Literal["and", "or"]
    parts: "tuple[Filter, ...]"


class Not(Struct, frozen=True):
    """The opposite of a filter."""

    part: "Filter"


Filter = Condition | Group | Not

_TEXT_COLUMNS: Final = frozenset({"group_id", "brand", "seller_id", "currency", "gtin", "language"})
_MONEY_COLUMNS: Final = frozenset({"price", "sale_price"})
_TIME_COLUMNS: Final = {"available_from": "-infinity", "expires_at": "infinity"}
_MANY_VALUED: Final = frozenset({"categories", "tags"})

FILTERABLE: Final = tuple(
    sorted(_TEXT_COLUMNS | _MONEY_COLUMNS | _TIME_COLUMNS.keys() | _MANY_VALUED | {"id", "availability", "hidden"})
)
"""The fields a filter may name, besides `attributes.<name>`."""

SQL_OPERATOR: Final = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def parse_filter(tree: object) -> Filter:
    """Check a filter as it came over the wire. Raises InvalidFilter naming every fault."""
    return Parser().read(tree)


class Parser:
    """Reads the tree and collects every fault; a subclass says which fields there are and what they take."""

    fields = 'item fields and "attributes.<name>"'
    """What can be filtered on, for who gets it wrong."""

    def __init__(self) -> None:
        self.faults: list[FieldError] = []
        self.conditions = 0

    def read(self, tree: object) -> Filter:
        """The filter. Raises InvalidFilter naming every fault."""
        parsed = self.parse(tree, "/filter", 1)
        if self.faults or parsed is None:
            raise InvalidFilter(
                "Mend the filter; `errors` says where. The grammar is and, or, not, eq, in, lt, lte, gt, gte, exists "
                f"over {self.fields}.",
                errors=self.faults,
            )
        return parsed

    def fail(self, pointer: str, code: str, message: str) -> Filter | None:
        """Note a fault."""
        self.faults.append(FieldError(pointer=pointer, code=code, message=message))
        return None

    def parse(self, tree: object, pointer: str, depth: int) -> Filter | None:
        """The filter, or None; then, and maybe else, `faults` says why."""
        if not isinstance(tree, dict) or len(tree) != 1:
            return self.fail(
                pointer, "wrong_type", 'A filter is an object with one operator, as {"eq": [field, value]}.'
            )
        if depth > MAX_DEPTH:
            return self.fail(pointer, "too_deep", f"A filter nests at most {MAX_DEPTH} levels.")
        op, body = next(iter(tree.items()))
        at = f"{pointer}/{op}"
        if op in ("and", "or"):
            if not isinstance(body, list):
                return self.fail(at, "wrong_type", f"`{op}` takes a list of filters.")
            parts = [self.parse(part, f"{at}/{index}", depth + 1) for index, part in enumerate(body[:MAX_CONDITIONS])]
            if len(body) > MAX_CONDITIONS:
                return self.fail(at, "too_many", f"A filter has at most {MAX_CONDITIONS} conditions.")
            return Group(op, tuple(part for part in parts if part is not None))
        if op == "not":
            part = self.parse(body, at, depth + 1)
            return None if part is None else Not(part)
        return self._condition(str(op), body, at)

    def _condition(self, op: str, body: object, at: str) -> Filter | None:
        self.conditions += 1
        if self.conditions > MAX_CONDITIONS:
            return self.fail(at, "too_many", f"A filter has at most {MAX_CONDITIONS} conditions.")
        if op == "exists":
            field = body[0] if isinstance(body, list) and len(body) == 1 else body
            if not self.known(field, at):
                return None
            return Condition("exists", cast(str, field), ())
        if op not in ("eq", "in", "lt", "lte", "gt", "gte"):
            return self.fail(at, "unknown_operator", f"There is no operator `{op}`.")
        if not isinstance(body, list) or len(body) != 2:
            return self.fail(at, "wrong_type", f"`{op}` takes [field, value].")
        field, value = body
        if not self.known(field, f"{at}/0"):
            return None
        values = value if op == "in" else [value]
        if not isinstance(values, list):
            return self.fail(f"{at}/1", "wrong_type", "`in` takes [field, [value, …]].")
        if len(values) > MAX_VALUES:
            return self.fail(f"{at}/1", "too_many", f"`in` takes at most {MAX_VALUES} values.")
        ordered = op not in ("eq", "in")
        good = []
        for index, single in enumerate(values):
            where = f"{at}/1/{index}" if op == "in" else f"{at}/1"
            converted = self.value(field, single, ordered, where)
            if converted is not None:
                good.append(converted)
        name = "in" if op == "eq" else op
        return Condition(cast(Compare, name), field, tuple(good))

    def known(self, field: object, at: str) -> bool:
        """Whether there is such a field; a fault where not."""
        named = isinstance(field, str) and (field in FILTERABLE or names_attribute(field))
        if not named:
            names = ", ".join(FILTERABLE)
            self.fail(at, "unknown_field", f"Cannot filter on {field!r}; the fields are {names} and attributes.<name>.")
        return named

    def value(self, field: str, value: object, ordered: bool, at: str) -> Scalar | None:
        """The value as the field takes it; None and a fault where it does not. `ordered`: for lt, lte, gt, gte."""
        expected: str | None = None
        if field in _MONEY_COLUMNS:
            if not is_number(value):
                expected = "a number (minor units)"
        elif field in _TIME_COLUMNS:
            if not isinstance(value, str) or _moment(value) is None:
                expected = "a time as in RFC 3339, with its offset"
        elif field == "hidden":
            if not isinstance(value, bool) or ordered:
                expected = "true or false, with eq"
        elif field == "availability":
            if ordered or not isinstance(value, str) or value not in AVAILABILITY_CODE:
                expected = "one of " + ", ".join(AVAILABILITY_CODE) + ", with eq or in"
        elif field.startswith("attributes."):
            if ordered and not is_number(value):
                expected = "a number"
            elif not isinstance(value, str | bool) and not is_number(value):
                expected = "a string, a number or a boolean"
        elif not isinstance(value, str) or ordered:
            expected = "a string, with eq or in"
        if expected is None and isinstance(value, str) and "\0" in value:
            expected = "no NUL character"
        if expected is not None:
            self.fail(at, "wrong_type", f"`{field}` takes {expected}.")
            return None
        return cast(Scalar, value)


def names_attribute(field: str) -> bool:
    """Whether the field is `attributes.<name>`."""
    return field.startswith("attributes.") and 11 < len(field) <= 139 and "\0" not in field


def is_number(value: object) -> bool:
    """Whether the value is a number, and one that can be compared."""
    # Whole numbers come in any size; comparing never overflows, converting would. Infinity and NaN fail it too.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _moment(raw: str) -> datetime | None:
    try:
        moment = msgspec.convert(raw, datetime)
    except msgspec.ValidationError:
        return None
    return within_reach(moment) if moment.tzinfo is not None else None


class TreeCompiler(ABC):
    """Turns a tree into a SQL condition; a subclass says what a single comparison is.

    `args` are the statement's parameters so far and grow.
    """

    def __init__(self, args: list[Any]) -> None:
        self.args = args

    def bind(self, value: object, kind: str) -> str:
        """Add a parameter; returns how to write it."""
        self.args.append(value)
        return f"${len(self.args)}::{kind}"

    def sql(self, part: Filter) -> str:
        """The condition, in parentheses."""
        match part:
            case Group(op, parts):
                if not parts:
                    return "true" if op == "and" else "false"
                return "(" + f" {op} ".join(self.sql(inner) for inner in parts) + ")"
            case Not(inner):
                return f"(not {self.sql(inner)})"
            case Condition():
                return self.condition(part)

    @abstractmethod
    def condition(self, c: Condition) -> str:
        """One comparison, in parentheses; never null."""


class Compiler(TreeCompiler):
    """Over `item_facets f`; `tenant` is how the statement writes the tenant, as `$2::uuid`."""

    def __init__(self, args: list[Any], *, tenant: str, alias: str = "f") -> None:
        super().__init__(args)
        self._tenant = tenant
        self._f = alias

    def condition(self, c: Condition) -> str:
        """One comparison of an item."""
        if c.field == "id":
            return self._by_id(c)
        if c.field in _MANY_VALUED or c.field.startswith("attributes."):
            return self._many_valued(c)
        column = f"{self._f}.{c.field}"
        if c.field in _TIME_COLUMNS:
            return self._time(c, column)
        if c.op == "exists":
            return "true" if c.field in ("availability", "hidden") else f"({column} is not null)"
        if c.field in _MONEY_COLUMNS:
            return f"({column} is not null and {self._money(c, column)})"
        if c.field == "availability":
            codes = [AVAILABILITY_CODE[cast(str, value)] for value in c.values]
            return f"({column} = any({self.bind(codes, 'int2[]')}))"
        kind = "bool[]" if c.field == "hidden" else "text[]"
        return f"({column} is not null and {column} = any({self.bind(list(c.values), kind)}))"

    def _by_id(self, c: Condition) -> str:
        if c.op == "exists":
            return "true"
        ids = self.bind(list(c.values), "text[]")
        return (
            f"({self._f}.item_no in (select d.item_no from item_ids d "
            f"where d.tenant_id = {self._tenant} and d.external_id = any({ids})))"
        )

    def _many_valued(self, c: Condition) -> str:
        name = self.bind(c.field, "text")
        tests = "true" if c.op == "exists" else self._attribute(c)
        return (
            f"({self._f}.item_no in (select a.item_no from item_attrs a "
            f"where a.tenant_id = {self._tenant} and a.name = {name} and {tests}))"
        )

    def _attribute(self, c: Condition) -> str:
        if c.op != "in":
            return f"a.value_num {SQL_OPERATOR[c.op]} {self.bind(float(c.values[0]), 'float8')}"
        texts = [attribute_text(value) for value in c.values if isinstance(value, str | bool)]
        numbers = [float(value) for value in c.values if is_number(value)]
        tests = []
        if texts:
            tests.append(f"a.value_text = any({self.bind(texts, 'text[]')})")
        if numbers:
            tests.append(f"a.value_num = any({self.bind(numbers, 'float8[]')})")
        return "(" + (" or ".join(tests) or "false") + ")"

    def _money(self, c: Condition, column: str) -> str:
        if c.op == "in":
            whole = [int(number) for number in map(float, c.values) if number.is_integer() and abs(number) < 2**63]
            return f"{column} = any({self.bind(whole, 'int8[]')})"
        limit = c.values[0]
        # Prices are whole numbers, so a fraction moves to the next one and the index stays usable.
        rounded = ceil(limit) if c.op in ("lt", "gte") else floor(limit)  # type: ignore[arg-type]
        bounded = max(-(2**63), min(2**63 - 1, rounded))
        return f"{column} {SQL_OPERATOR[c.op]} {self.bind(bounded, 'int8')}"

    def _time(self, c: Condition, column: str) -> str:
        given = f"{column} <> '{_TIME_COLUMNS[c.field]}'::timestamptz"
        if c.op == "exists":
            return f"({given})"
        moments = [_moment(cast(str, value)) for value in c.values]
        if c.op == "in":
            return f"({given} and {column} = any({self.bind(moments, 'timestamptz[]')}))"
        return f"({given} and {column} {SQL_OPERATOR[c.op]} {self.bind(moments[0], 'timestamptz')})"


def attribute_text(value: str | bool) -> str:
    """How a string or boolean attribute is stored and compared."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value[:INDEXED_CHARS]
