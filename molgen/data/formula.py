"""Arithmetic on a table's columns, such as `9 - log10(IC50_nM)`: parsed once, never executed.

Python's parser reads the text. Only a few kinds of syntax nodes are allowed, and they are evaluated here for each row.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping

from molgen.errors import MolgenError

_MOST_CHARACTERS, _DEEPEST, _LARGEST_POWER = 500, 30, 100.0
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "log10": math.log10,
    "log2": math.log2,
    "ln": math.log,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "abs": abs,
}
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_BACKQUOTED = re.compile(r"`([^`]*)`")
_HINT = f"numbers, column names, + - * / **, parentheses and {', '.join(_FUNCTIONS)}; odd names go in `backquotes`"
_STEP = 1e-6


class Formula:
    """An expression of columns. Raises MolgenError if the text is not such an expression."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self._columns: dict[str, str] = {}  # identifier → column
        if not self.text or len(self.text) > _MOST_CHARACTERS:
            raise self._refusal("empty" if not self.text else "too long")
        quoted: dict[str, str] = {}

        def replaced(match: re.Match[str]) -> str:
            quoted[f"column_{len(quoted)}_"] = match[1].strip()
            return f"column_{len(quoted) - 1}_"

        try:
            self._root = ast.parse(_BACKQUOTED.sub(replaced, self.text), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._refusal("not understood") from None
        self._check(self._root, quoted, 0)
        if not self._columns:
            raise self._refusal("names no column")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, in the order of the text."""
        return tuple(dict.fromkeys(self._columns.values()))

    def __call__(self, values: Mapping[str, float]) -> float | None:
        """Its value for a row with a number in each column; None if it has none, such as the logarithm of 0."""
        try:
            found = self._value(self._root, values)
        except (ValueError, ZeroDivisionError, OverflowError):
            return None
        return found if isinstance(found, float | int) and math.isfinite(found) else None

    def direction(self, column: str, values: Mapping[str, float]) -> int:
        """1 if it rises with a column at this row, -1 if it falls, 0 if it does neither or has no value."""
        moved = dict(values)
        moved[column] += _STEP * max(abs(moved[column]), 1e-9)
        before, after = self(values), self(moved)
        if before is None or after is None or before == after:
            return 0
        return 1 if after > before else -1

    def _value(self, node: ast.expr, values: Mapping[str, float]) -> float:
        match node:
            case ast.Constant(value=number):
                return float(number)  # type: ignore[arg-type] # checked when parsed
            case ast.Name(id=name):
                return values[self._columns[name]]
            case ast.UnaryOp(op=ast.USub()):
                return -self._value(node.operand, values)
            case ast.UnaryOp():
                return self._value(node.operand, values)
            case ast.Call(func=ast.Name(id=name)):
                return float(_FUNCTIONS[name](self._value(node.args[0], values)))
            case ast.BinOp():
                left, right = self._value(node.left, values), self._value(node.right, values)
                if isinstance(node.op, ast.Pow) and abs(right) > _LARGEST_POWER:
                    raise OverflowError
                return _OPERATORS[type(node.op)](left, right)
        raise AssertionError(node)

    def _check(self, node: ast.expr, quoted: Mapping[str, str], depth: int) -> None:
        if depth > _DEEPEST:
            raise self._refusal("too deeply nested")
        match node:
            case ast.Constant(value=bool()):
                raise self._refusal("true and false are no numbers")
            case ast.Constant(value=int() | float() as number) if abs(number) < 1e300:
                pass
            case ast.Name(id=name):
                self._columns[name] = quoted.get(name, name)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                self._check(node.operand, quoted, depth + 1)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
                self._check(argument, quoted, depth + 1)
            case ast.Call(func=ast.Name(id="log")):
                raise self._refusal("`log` has two meanings: write log10 or ln")
            case ast.BinOp() if type(node.op) in _OPERATORS:
                self._check(node.left, quoted, depth + 1)
                self._check(node.right, quoted, depth + 1)
            case _:
                raise self._refusal(f"{ast.unparse(node)[:60]!r} is not arithmetic")

    def _refusal(self, message: str) -> MolgenError:
        return MolgenError(f"formula {self.text[:80]}: {message}", _HINT)
