"""MolgenError, the exception for wrong user input, and the hint for a misspelt name."""

import difflib
from collections.abc import Iterable


class MolgenError(Exception):
    """The user's input is wrong; the message says what is wrong, the hint how to correct it.

    The command line prints both on one line and exits with code 2.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.message} ({self.hint})" if self.hint else self.message
        return " ".join(text.split())  # one line, also if the message quotes text with line ends


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the known name that is most like this one; empty if none is."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else ""
