"""MolgenError, the exception for wrong user input."""


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
