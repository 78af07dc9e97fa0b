"""One string at a time: which molecule a training sees, or why it sees none."""

import re
from functools import lru_cache
from typing import Any, NamedTuple

from molgen import molecules
from molgen.config import DataConfig
from molgen.standardise import CHANGES, Policy, standardise
from molgen.tokenizer import TokenPattern

VERSION = 2
"""To be raised with every change of what `clean` gives: results are cached."""

# Reasons, as dropped.csv.gz and report.json name them; those of `standardise` are among them.
EMPTY = "empty"
NOT_TOKENISABLE = "not losslessly tokenisable"
UNPARSABLE = "not parsed by RDKit"
TOO_SHORT = "too short"
TOO_LONG = "too long"
DUPLICATE = "duplicate"
RARE_TOKEN = "rare token"
UNKNOWN_TOKEN = "token that training lacks"
KNOWN_TO_INIT = "trained on by the run to start from"
LOST = "RDKit hung or crashed"
NOT_CHOSEN = "not chosen by data.where"
BEYOND_SIZE = "beyond the size asked for"
EXTENSION_CUT = "CXSMILES extension cut"
ENHANCED_STEREO = "enhanced stereo flattened"
ALTERED = (EXTENSION_CUT, ENHANCED_STEREO, *CHANGES)

# A group of the extension: `a:` absolute, `o1:` one of two, `&1:` both; labels and coordinates may look like one.
_LABELS = re.compile(r"\$[^$]*\$|\([^)]*\)")
_STEREO_GROUP = re.compile(r"(?:^|[|,])(?:a|[o&]\d+):\d")


class Clean(NamedTuple):
    """What becomes of a string."""

    smiles: str
    """To train on; empty where there is a reason."""
    group: str
    """Canonical SMILES of the parent, which stays on one side of a split; empty where it is not asked for."""
    reason: str
    """Why it is dropped; else empty."""
    changes: tuple[str, ...]
    """What standardising altered."""


def cut_extension(text: str) -> tuple[str, str]:
    """A SMILES without its CXSMILES part (` |…|` after the first white space), and the alteration, or an empty string.

    With the extension go enhanced stereo groups: a centre keeps the configuration that is drawn.
    """
    smiles, _, rest = text.strip().partition(" ")
    if not rest.lstrip().startswith("|"):
        return text.strip(), ""
    return smiles, ENHANCED_STEREO if _STEREO_GROUP.search(_LABELS.sub("", rest.strip())) else EXTENSION_CUT


def settings(config: DataConfig, longest: int, pattern: str) -> dict[str, Any]:
    """The keyword arguments of `clean` for a `data` section; `longest` is the context, in tokens."""
    return {
        "pattern": pattern,
        "form": config.form,
        "unparsable": config.unparsable,
        "shortest": config.min_tokens,
        "longest": min(longest, config.max_tokens or longest),
        "grouped": config.split == "grouped",
        "policy": [getattr(config, name) for name in Policy._fields],
    }


def clean(
    text: str,
    *,
    pattern: str,
    form: str,
    unparsable: str,
    shortest: int,
    longest: int,
    grouped: bool,
    policy: list[Any],
) -> Clean:
    """What becomes of a string under `settings`.

    The order is fixed: tokens first (so that nothing but printable ASCII reaches RDKit), then RDKit, then the policy,
    then, for the chosen form, the length in tokens. A molecule that the policy alters has its canonical SMILES.
    """
    if not text:
        return _dropped(EMPTY)
    split = _splitter(pattern).split
    if split(text) is None:
        return _dropped(NOT_TOKENISABLE)
    molecule = molecules.parse(text)
    if molecule is None and unparsable == "drop":
        return _dropped(UNPARSABLE)
    chosen = text
    changes: tuple[str, ...] = ()
    if molecule is not None:
        standard = standardise(molecule, Policy(*policy))
        if standard.reason:
            return _dropped(standard.reason)
        changes = standard.changes
        chosen = standard.smiles if changes or form == "canonical" else text
    tokens = split(chosen)
    if tokens is None:
        return _dropped(NOT_TOKENISABLE)
    if len(tokens) < shortest:
        return _dropped(TOO_SHORT)
    if len(tokens) > longest:
        return _dropped(TOO_LONG)
    return Clean(chosen, (molecules.parent(chosen) or chosen) if grouped else "", "", changes)


def _dropped(reason: str) -> Clean:
    return Clean("", "", reason, ())


@lru_cache(maxsize=4)
def _splitter(pattern: str) -> TokenPattern:
    return TokenPattern(pattern)
