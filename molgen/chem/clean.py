"""One string at a time: which molecule a training sees, or why it sees none."""

import re
from functools import lru_cache
from typing import Any, NamedTuple

from molgen.chem.smiles import failure, parse, without_stereo_at
from molgen.chem.standardize import CHANGES, Policy, group_of, standardise
from molgen.config import DataConfig
from molgen.tokenizer import TokenPattern

VERSION = 3
"""To be raised with every change of what `clean` gives: results are cached."""

# Reasons, as dropped.csv.gz and report.json name them; those of `standardise` are among them.
EMPTY = "empty"
UNPARSABLE = "not parsed by RDKit"
"""A colon and the cause follow it."""
NOT_TOKENISABLE = "not losslessly tokenisable"
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
STEREO_UNDEFINED = "racemic or relative stereo made undefined"
NO_SUCH_ATOM = "stereo group of an atom that is not there"
ALTERED = (EXTENSION_CUT, ENHANCED_STEREO, STEREO_UNDEFINED, *CHANGES)

# A group of the extension: `a:` absolute, `o1:` one of two, `&1:` both; labels and coordinates may look like one.
_LABELS = re.compile(r"\$[^$]*\$|\([^)]*\)")
_STEREO_GROUP = re.compile(r"(?:(?<=[|,])|^)(a|[o&]\d*):(\d+(?:,\d+)*)")


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
    smiles, rest = _halves(text)
    if not rest:
        return smiles, ""
    return smiles, ENHANCED_STEREO if _groups(rest) else EXTENSION_CUT


def undefined(text: str) -> tuple[str, str]:
    """As `cut_extension`, but centres known only relative to each other are no longer said to have a configuration.

    Those are the atoms of the groups `&n` (a racemate) and `on` (one enantiomer, unknown which). The alteration is
    NO_SUCH_ATOM, and the SMILES empty, where a group names an atom that the molecule lacks.
    """
    smiles, alteration = cut_extension(text)
    relative = [int(atom) for kind, atoms in _groups(_halves(text)[1]) if kind != "a" for atom in atoms.split(",")]
    if not relative:
        return smiles, alteration
    found = without_stereo_at(smiles, relative)
    if found is None:
        return "", NO_SUCH_ATOM
    return found, STEREO_UNDEFINED


def _halves(text: str) -> tuple[str, str]:
    """(the SMILES, its CXSMILES part, empty where what follows is none)."""
    parts = text.strip().split(maxsplit=1)
    if len(parts) == 2 and parts[1].startswith("|"):
        return parts[0], parts[1]
    return text.strip(), ""


def _groups(extension: str) -> list[tuple[str, str]]:
    """(kind, atoms) of each enhanced stereo group."""
    return _STEREO_GROUP.findall(_LABELS.sub("", extension))


def settings(config: DataConfig, longest: int, pattern: str) -> dict[str, Any]:
    """The keyword arguments of `clean` for a `data` section; `longest` is the context, in tokens."""
    return {
        "pattern": pattern,
        "form": config.form,
        "unparsable": config.unparsable,
        "lengths": [config.min_tokens, min(longest, config.max_tokens or longest)],
        "grouped": config.split == "grouped",
        "stereo_groups": config.stereo_groups,
        "policy": [getattr(config, name) for name in Policy._fields],
    }


def clean(
    text: str,
    *,
    pattern: str,
    form: str,
    unparsable: str,
    lengths: list[int],
    grouped: bool,
    stereo_groups: str,
    policy: list[Any],
) -> Clean:
    """What becomes of a string, with its CXSMILES part if it has one, under `settings`.

    The order is fixed: printable ASCII first (RDKit strips the rest without a word), then RDKit, then the policy, then
    the tokens of the chosen form, and their number. A molecule that is altered has its canonical SMILES. Where the
    string itself is kept, and under rules 1, its tokens come before RDKit.
    """
    smiles, alteration = cut_extension(text)
    if not smiles:
        return _dropped(EMPTY)
    rules, split = Policy(*policy), _splitter(pattern).split
    as_given = rules.rules == 1 or form != "canonical"
    if split(smiles) is None if as_given else not (smiles.isascii() and smiles.isprintable() and " " not in smiles):
        return _dropped(NOT_TOKENISABLE)
    if stereo_groups == "undefined" and alteration == ENHANCED_STEREO:
        smiles, alteration = undefined(text)
        if not smiles:
            return _dropped(alteration)
    molecule = parse(smiles)
    if molecule is None and unparsable == "drop":
        return _dropped(NOT_TOKENISABLE if split(smiles) is None else f"{UNPARSABLE}: {failure(smiles)}")
    chosen = smiles
    changes: tuple[str, ...] = ()
    if molecule is not None:
        standard = standardise(molecule, rules)
        if standard.reason:
            return _dropped(standard.reason)
        changes = standard.changes
        chosen = standard.smiles if changes or form == "canonical" else smiles
    tokens = split(chosen)
    if tokens is None:
        return _dropped(NOT_TOKENISABLE)
    shortest, longest = lengths
    if len(tokens) < shortest:
        return _dropped(TOO_SHORT)
    if len(tokens) > longest:
        return _dropped(TOO_LONG)
    group = group_of(chosen, rules.rules) if grouped else ""
    return Clean(chosen, group, "", tuple(filter(None, [alteration, *changes])))


def _dropped(reason: str) -> Clean:
    return Clean("", "", reason, ())


@lru_cache(maxsize=4)
def _splitter(pattern: str) -> TokenPattern:
    return TokenPattern(pattern)
