"""One string at a time: which molecule a training sees, or why it sees none."""

from functools import lru_cache

from molgen import molecules
from molgen.tokenizer import TokenPattern

VERSION = 1
"""To be raised with every change of what `clean` gives: results are cached."""

# Reasons, as dropped.csv.gz and report.json name them.
EMPTY = "empty"
NOT_TOKENISABLE = "not losslessly tokenisable"
UNPARSABLE = "not parsed by RDKit"
TOO_SHORT = "too short"
TOO_LONG = "too long"
DUPLICATE = "duplicate"
LOST = "RDKit hung or crashed"
NOT_CHOSEN = "not chosen by data.where"
EXTENSION_CUT = "CXSMILES extension cut"
ALTERED = (EXTENSION_CUT,)


def cut_extension(text: str) -> tuple[str, bool]:
    """A SMILES without its CXSMILES part (` |…|` after the first white space), and whether it had one."""
    smiles, _, rest = text.strip().partition(" ")
    return (smiles, True) if rest.lstrip().startswith("|") else (text.strip(), False)


def clean(
    text: str, *, pattern: str, form: str, unparsable: str, shortest: int, longest: int, grouped: bool
) -> tuple[str, str, str]:
    """(string to train on, group, "") of a molecule that stays, or ("", "", reason) of one that does not.

    The order is fixed: tokens first (so that nothing but printable ASCII reaches RDKit), then RDKit, then, for the
    chosen form, the length in tokens. The group is the parent's canonical SMILES, or empty when `grouped` is false.
    """
    if not text:
        return "", "", EMPTY
    split = _splitter(pattern).split
    if split(text) is None:
        return "", "", NOT_TOKENISABLE
    chosen: str | None = text
    if form == "canonical" or unparsable == "drop":
        canonical = molecules.canonical(text)
        if canonical is None:
            return "", "", UNPARSABLE
        chosen = canonical if form == "canonical" else text
    assert chosen is not None
    tokens = split(chosen)
    if tokens is None:
        return "", "", NOT_TOKENISABLE
    if len(tokens) < shortest:
        return "", "", TOO_SHORT
    if len(tokens) > longest:
        return "", "", TOO_LONG
    return chosen, (molecules.parent(chosen) or chosen) if grouped else "", ""


@lru_cache(maxsize=4)
def _splitter(pattern: str) -> TokenPattern:
    return TokenPattern(pattern)
