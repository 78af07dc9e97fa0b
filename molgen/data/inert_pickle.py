"""The data in a pickle, read without running anything: a class stays a name, an object its name, arguments and state.

The standard library's `pickletools` only parses the instructions; the few that models of NumPy arrays need are followed
here, by hand. Any other instruction is refused. Nothing is imported, no function is called.
"""

import pickletools
import re
from typing import Any

import numpy as np
import numpy.typing as npt

_MARK = object()
_ARRAY = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NUMBER = re.compile(r"[fiu][1248]|b1")


class Inert:
    """What a pickle would have built: the name of a class or function, its arguments, its state."""

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None


def read_pickle(content: bytes) -> Any:
    """The plain values of a pickle, with objects as Inert. Raises ValueError for instructions that it does not know."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for operation, argument, _ in pickletools.genops(content):
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                break
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                stack.append(_MARK)
            case "GLOBAL":
                stack.append(Inert(argument))
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[operation.name]())
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[operation.name])
            case "BININT" | "BININT1" | "BININT2" | "BINFLOAT" | "BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES":
                stack.append(argument)
            case "TUPLE":
                stack.append(tuple(_since_mark(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(operation.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "SETITEMS":
                items = _since_mark(stack)
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "APPENDS":
                items = _since_mark(stack)
                stack[-1].extend(items)
            case "NEWOBJ" | "REDUCE":
                arguments, made = stack.pop(), stack.pop()
                stack.append(Inert(made.name, arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case other:
                raise ValueError(f"instruction {other} in a pickle of arrays")
    return stack[-1]


def array_of(value: Any) -> npt.NDArray[Any]:
    """The NumPy array that an Inert stands for. Raises ValueError if it stands for none of plain numbers."""
    if not isinstance(value, Inert) or value.name not in _ARRAY or not isinstance(value.state, tuple):
        raise ValueError("no array")
    _, shape, kind, fortran, content = value.state
    return np.frombuffer(content, _dtype(kind)).reshape(shape, order="F" if fortran else "C")


def _dtype(value: Inert) -> np.dtype[Any]:
    """The type of an array: a number, or a record of numbers."""
    code, state = value.arguments[0], value.state
    if state[3] is not None:  # a record: names, {name: (type, offset)}, size
        names, fields = state[3], state[4]
        layout: Any = {
            "names": list(names),
            "formats": [_dtype(fields[name][0]) for name in names],
            "offsets": [fields[name][1] for name in names],
            "itemsize": state[5],
        }
        record: np.dtype[Any] = np.dtype(layout)
        return record
    if not _NUMBER.fullmatch(code):
        raise ValueError(f"an array of {code}")
    number: np.dtype[Any] = np.dtype(code).newbyteorder(state[1] if state[1] in "<>" else "=")
    return number


def _since_mark(stack: list[Any]) -> list[Any]:
    """Removes and returns what is above the last mark."""
    place = len(stack) - 1 - next(i for i, item in enumerate(reversed(stack)) if item is _MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items
