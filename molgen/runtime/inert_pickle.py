"""The data in a pickle, read without running anything: a class stays a name, an object its name, arguments and state.

Unpickling executes what a file says. The standard library's `pickletools` only decodes the instructions; the few that
data and models of NumPy arrays need are followed here, by hand. Any other instruction is refused. Nothing is imported,
no function is called.
"""

import pickletools
import re
from typing import Any

import numpy as np
import numpy.typing as npt

_MARK = object()
_ARRAY = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NUMBER = re.compile(r"[fiu][1248]|b1")
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_LITERALS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
_VALUES = ("BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "BINBYTES", "SHORT_BINBYTES")


class Inert:
    """What a pickle would have built: the name of a class or function, its arguments, its state."""

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None


def read_pickle(content: bytes) -> Any:
    """The values of a pickle, with objects as Inert. Raises ValueError for instructions that it does not know."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        place = max(i for i, item in enumerate(stack) if item is _MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    for operation, argument, _ in pickletools.genops(content):
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "BINPUT" | "LONG_BINPUT":
                memo[int(str(argument))] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[int(str(argument))])
            case "GLOBAL":
                stack.append(Inert(str(argument)))
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append(_EMPTY[operation.name]())
            case "NONE" | "NEWFALSE" | "NEWTRUE":
                stack.append(_LITERALS[operation.name])
            case name if name in _VALUES:
                stack.append(argument)
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(operation.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                items = since_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = since_mark()
                stack[-1].extend(items)
            case "NEWOBJ" | "REDUCE":
                arguments, made = stack.pop(), stack.pop()
                stack.append(Inert(made.name, arguments))
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], Inert):
                    raise ValueError("not plain data: an object's state")
                stack[-1].state = state
            case other:
                raise ValueError(f"not plain data: {other} {argument!s:.80}")
    raise ValueError("not plain data: it has no end")


def plain(value: Any) -> Any:
    """The same with NumPy arrays, counters as dictionaries, and bytes in place of Inert.

    Raises ValueError for any other Inert.
    """
    match value:
        case dict():
            return {plain(key): plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case tuple():
            return tuple(plain(item) for item in value)
        case Inert(name="collections Counter"):
            return plain(value.arguments[0])
        case Inert(name="_codecs encode"):  # bytes, as protocol 2 writes them
            return str(value.arguments[0]).encode("latin-1")
        case Inert():
            return _array(value)
        case _:
            return value


def array_of(value: Any) -> npt.NDArray[Any]:
    """The NumPy array of numbers that an Inert stands for. Raises ValueError if it stands for none."""
    array = plain(value)
    if not isinstance(array, np.ndarray):
        raise ValueError("not plain data: no array of numbers")
    return array


def _array(value: Inert) -> npt.NDArray[Any] | list[Any]:
    """An array of its state: version, shape, type, whether in Fortran order, content; a list for one of objects."""
    if value.name not in _ARRAY or not isinstance(value.state, tuple):
        raise ValueError(f"not plain data: {value.name:.80}")
    _, shape, kind, fortran, content = value.state
    content = plain(content)
    if isinstance(content, list):
        return content
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
        raise ValueError(f"not plain data: an array of {code}")
    number: np.dtype[Any] = np.dtype(code).newbyteorder(state[1] if state[1] in "<>" else "=")
    return number
