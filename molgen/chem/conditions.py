"""Conditions on a table's columns, such as `pIC50 > 7 and units == "nM"`: parsed once, never executed.

Python's parser reads the text. Only a few kinds of syntax nodes are allowed, and they are evaluated here for each row.
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from molgen.errors import MolgenError, did_you_mean

Value = str | float | bool | None

MOST_CHARACTERS = 1_000
_DEEPEST = 50
_HINT = "comparisons joined by and, or, not; a column name with spaces or signs goes in `backquotes`"
# quoted strings (group 1), which do not change, and names in backquotes (group 2)
_QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|`([^`]*)`""")
_OPERATORS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class Condition:
    """Comparisons (`<` `<=` `>` `>=` `==` `!=` `in` `not in`) of columns with numbers, strings or each other.

    Numbers compare as numbers, also those that a table holds as text (`true` and `false` are 1 and 0), strings as
    strings. Comparisons with a missing value, or between text and a number, are false, also `!=` and `not in`. So
    `x == x` is true if x has a value, and `not (x > 7)` is true if x is missing.
    """

    def __init__(self, text: str) -> None:
        """Raises MolgenError if the text is not such a condition."""
        self.text = text
        if len(text) > MOST_CHARACTERS:
            raise MolgenError(f"the condition has {len(text)} characters", f"at most {MOST_CHARACTERS:,}")
        if not text.strip():
            raise MolgenError("the condition is empty", 'write one such as "pIC50 > 7"')
        self._source, self._quoted = self._without_backquotes(text.strip())
        self._columns: dict[str, str] = {}  # identifier → column
        self._with_numbers: set[str] = set()
        self._with_strings: set[str] = set()
        self._ordered: set[str] = set()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python warns about unknown escapes in strings
                self._root = ast.parse(self._source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            single = re.search(r"(?<![<>=!])=(?!=)", _QUOTED.sub("", text))
            raise self._refusal("not understood", "write == for equality" if single else _HINT) from None
        self._check_truth(self._root, 0)
        if not self._columns:
            raise self._refusal("names no column", _HINT)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the condition, in the order of the text."""
        return tuple(dict.fromkeys(self._columns.values()))

    @property
    def numeric(self) -> frozenset[str]:
        """The columns compared with numbers, or by order (`<` and the like) with another column."""
        return frozenset(self._columns[i] for i in self._with_numbers | self._ordered)

    @property
    def textual(self) -> frozenset[str]:
        """The columns compared with strings."""
        return frozenset(self._columns[i] for i in self._with_strings)

    @property
    def ordered(self) -> frozenset[str]:
        """The numeric columns that are compared only with columns, so they may contain text, such as dates."""
        return self.numeric - {self._columns[i] for i in self._with_numbers}

    def check(self, known: Iterable[str], source: str = "condition") -> None:
        """Raises MolgenError if a column of the condition is not among the known ones."""
        columns = list(known)
        for name in self.names:
            if name not in columns:
                shown = ", ".join(columns[:12]) + (", …" if len(columns) > 12 else "")
                raise MolgenError(
                    f"{source}: no column {name!r}, which the condition names",
                    f"{did_you_mean(name, columns)} columns: {shown or 'none'}".lstrip(),
                )

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether a row satisfies the condition; a column that is not in the row counts as missing."""
        return self._truth(self._root, values)

    def _truth(self, node: ast.expr, values: Mapping[str, Value]) -> bool:
        match node:
            case ast.BoolOp(op=ast.And()):
                return all(self._truth(part, values) for part in node.values)
            case ast.BoolOp():
                return any(self._truth(part, values) for part in node.values)
            case ast.UnaryOp():
                return not self._truth(node.operand, values)
            case ast.Compare():
                sides = [node.left, *node.comparators]
                return all(
                    self._compare(left, comparison, right, values)
                    for left, comparison, right in zip(sides, node.ops, sides[1:], strict=False)
                )
        raise AssertionError(node)

    def _compare(self, left: ast.expr, comparison: ast.cmpop, right: ast.expr, values: Mapping[str, Value]) -> bool:
        match comparison:
            case ast.In():
                return any(self._compare(left, ast.Eq(), item, values) for item in _items(right))
            case ast.NotIn():
                return all(self._compare(left, ast.NotEq(), item, values) for item in _items(right))
        a, b = self._value(left, values), self._value(right, values)
        if missing(a) or missing(b):
            return False
        compare = _OPERATORS[type(comparison)]
        numbers = number(a), number(b)
        # two columns of numbers compare as numbers, but "007" in quotes is a string
        quoted = isinstance(left, ast.Constant) or isinstance(right, ast.Constant) or numbers == (None, None)
        unordered = isinstance(comparison, ast.Eq | ast.NotEq) and None in numbers
        if (quoted or unordered) and isinstance(a, str) and isinstance(b, str):
            return compare(a, b)
        return None not in numbers and compare(*numbers)

    def _value(self, node: ast.expr, values: Mapping[str, Value]) -> Value:
        match node:
            case ast.Name():
                return values.get(self._columns[node.id])
            case ast.UnaryOp(operand=ast.Constant(value=positive)):
                return -positive  # type: ignore[operator, return-value] # checked when parsed
            case ast.Constant(value=constant):
                return constant  # type: ignore[return-value]
        raise AssertionError(node)

    def _check_truth(self, node: ast.expr, depth: int) -> None:
        if depth > _DEEPEST:
            raise self._refusal("too deeply nested", "fewer parentheses")
        match node:
            case ast.BoolOp():
                for part in node.values:
                    self._check_truth(part, depth + 1)
            case ast.UnaryOp(op=ast.Not()):
                self._check_truth(node.operand, depth + 1)
            case ast.Compare():
                for left, comparison, right in zip(
                    (node.left, *node.comparators), node.ops, node.comparators, strict=False
                ):
                    self._check_value(left)  # also in a chain such as `a in (1, 2) < b`
                    self._note_kinds(left, comparison, right)
                    if isinstance(comparison, ast.In | ast.NotIn):
                        items = _items(right)
                        if not items or not all(isinstance(item, ast.Constant | ast.UnaryOp) for item in items):
                            raise self._refusal("`in` without a list", 'write x in (1, 2) or x in ("a", "b")')
                        for item in items:
                            self._check_value(item)
                    elif type(comparison) in _OPERATORS:
                        self._check_value(right)
                    else:
                        raise self._refusal("`is` is not known", "write == for equality")
            case _:
                raise self._refusal(f"{self._part(node)} is not a comparison", _HINT)

    def _note_kinds(self, left: ast.expr, comparison: ast.cmpop, right: ast.expr) -> None:
        """Records which columns are compared with numbers and which with strings."""
        listed = isinstance(comparison, ast.In | ast.NotIn)
        pairs = [(left, item) for item in _items(right)] if listed else [(left, right), (right, left)]
        for column, other in pairs:
            if isinstance(column, ast.Name):
                if isinstance(other, ast.Constant) and isinstance(other.value, str):
                    self._with_strings.add(column.id)
                elif not isinstance(other, ast.Name):
                    self._with_numbers.add(column.id)
                elif not isinstance(comparison, ast.Eq | ast.NotEq):
                    self._ordered.add(column.id)

    def _check_value(self, node: ast.expr) -> None:
        match node:
            case ast.Name():
                # the name as written: Python's parser turns the micro sign into a Greek letter
                written = ast.get_source_segment(self._source, node) or node.id
                self._columns[node.id] = self._quoted.get(node.id, written)
            case ast.Constant(value=bool() | str()):
                pass
            case (
                ast.Constant(value=int() | float())
                | ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float()))
            ):
                pass
            case _:
                raise self._refusal(f"{self._part(node)} is neither a column nor a number nor a string", _HINT)

    def _part(self, node: ast.expr) -> str:
        """The text of a node, shortened."""
        part = ast.get_source_segment(self._source, node) or "a part of it"
        for placeholder, name in self._quoted.items():
            part = part.replace(placeholder, f"`{name}`")
        return part if len(part) <= 60 else f"{part[:59]}…"

    def _refusal(self, message: str, hint: str) -> MolgenError:
        shown = self.text.strip()
        return MolgenError(f"condition {shown[:79] + '…' if len(shown) > 80 else shown}: {message}", hint)

    def _without_backquotes(self, text: str) -> tuple[str, dict[str, str]]:
        """(the text with a placeholder for each name in backquotes, placeholder → name)."""
        prefix = "column_"
        while prefix in text:
            prefix += "_"
        names: dict[str, str] = {}

        def replace(match: re.Match[str]) -> str:
            if match[1] is not None:
                return match[1]
            if not match[2].strip():
                raise self._refusal("empty name in backquotes", _HINT)
            placeholder = f"{prefix}{len(names)}_"
            names[placeholder] = match[2].strip()
            return placeholder

        return _QUOTED.sub(replace, text), names


def _items(node: ast.expr) -> Sequence[ast.expr]:
    """The list after `in`; a single value, as in `x in ("a")`, is a list of one."""
    return node.elts if isinstance(node, ast.Tuple | ast.List) else [node]


def missing(value: Value) -> bool:
    """Whether a cell is empty."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # NaN differs from itself


def number(value: Value) -> float | None:
    """A cell as a number; None for text."""
    if isinstance(value, str):
        value = {"true": "1", "false": "0"}.get(value.strip().lower(), value)
        if "_" in value:  # 1_000 is a number to Python only
            return None
    try:
        found = float(value)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
    return found if found == found else None
