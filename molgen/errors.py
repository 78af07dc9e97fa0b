"""The one exception that a person is meant to read."""


class MolgenError(Exception):
    """The user's input is wrong: what is wrong, and what to do about it.

    The command line prints both on one line and exits with code 2.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.message} ({self.hint})" if self.hint else self.message
        return " ".join(text.split())  # one line, whatever the message quotes
