"""Cleaning of one input string: the SMILES to train on, or the reason why it is dropped."""

import re
from functools import lru_cache
from typing import Any, NamedTuple

from molgen.chem.smiles import failure, parse, without_stereo_at
from molgen.chem.standardize import CHANGES, Policy, group_of, standardise
from molgen.config import DataConfig
from molgen.tokenizer import TokenPattern

VERSION = 3
"""Increase it when the results of `clean` change, because they are cached."""

# Reasons as in dropped.csv.gz and report.json, together with those of `standardise`.
EMPTY = "empty"
UNPARSABLE = "not parsed by RDKit"
"""In a reason, a colon and the cause follow."""
NOT_TOKENISABLE = "not losslessly tokenisable"
TOO_SHORT = "too short"
TOO_LONG = "too long"
DUPLICATE = "duplicate"
REPLICATE = "further measurement of a molecule"
RARE_TOKEN = "rare token"
UNKNOWN_TOKEN = "token that training lacks"
KNOWN_TO_INIT = "trained on by the run to start from"
LOST = "RDKit hung or crashed"
NOT_CHOSEN = "not chosen by data.where"
BEYOND_SIZE = "beyond the size asked for"
EXCLUDED = "in data.exclude"
"""In a reason, a colon and the source of data.exclude follow."""
RESEMBLES_EXCLUDED = "similar to a molecule in data.exclude"
HELD_OUT = "held out elsewhere in the mixture"
EXTENSION_CUT = "CXSMILES extension cut"
ENHANCED_STEREO = "enhanced stereo flattened"
STEREO_UNDEFINED = "racemic or relative stereo made undefined"
NO_SUCH_ATOM = "stereo group of an atom that is not there"
ALTERED = (EXTENSION_CUT, ENHANCED_STEREO, STEREO_UNDEFINED, *CHANGES)

# Stereo groups of a CXSMILES extension: `a:` absolute, `o1:` one of two, `&1:` both. Labels and coordinates are removed
# first, because they may look like a group.
_LABELS = re.compile(r"\$[^$]*\$|\([^)]*\)")
_STEREO_GROUP = re.compile(r"(?:(?<=[|,])|^)(a|[o&]\d*):(\d+(?:,\d+)*)")


class Clean(NamedTuple):
    """The result of cleaning one string."""

    smiles: str
    """The SMILES to train on; empty if the string is dropped."""
    group: str
    """Key of the group of related molecules that a split keeps together; empty if not requested."""
    reason: str
    """Why the string is dropped; else empty."""
    changes: tuple[str, ...]
    """What standardisation changed."""


def cut_extension(text: str) -> tuple[str, str]:
    """(the SMILES without its CXSMILES part, the change or ""); that part is ` |…|` after the first white space.

    This removes enhanced stereo groups too: a centre keeps the configuration that the SMILES has.
    """
    smiles, rest = _halves(text)
    if not rest:
        return smiles, ""
    return smiles, ENHANCED_STEREO if _groups(rest) else EXTENSION_CUT


def undefined(text: str) -> tuple[str, str]:
    """As `cut_extension`, but removes the configuration of centres that are known only relative to each other.

    These are the atoms of the groups `&n` (a racemate) and `on` (one enantiomer, unknown which). If a group refers to
    an atom that does not exist, the SMILES is empty and the change is NO_SUCH_ATOM.
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
    """(the SMILES, its CXSMILES part or "")."""
    parts = text.strip().split(maxsplit=1)
    if len(parts) == 2 and parts[1].startswith("|"):
        return parts[0], parts[1]
    return text.strip(), ""


def _groups(extension: str) -> list[tuple[str, str]]:
    """(kind, atoms) of each enhanced stereo group."""
    return _STEREO_GROUP.findall(_LABELS.sub("", extension))


def settings(config: DataConfig, longest: int, pattern: str) -> dict[str, Any]:
    """The keyword arguments of `clean` for a `data` section; `longest` is the context in tokens."""
    return {
        "pattern": pattern,
        "form": config.form,
        "unparsable": config.unparsable,
        "lengths": [config.min_tokens, min(longest, config.max_tokens or longest)],
        "grouped": config.split == "grouped" or bool(config.exclude) or config.sources is not None,
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
    """Cleans a string, which may have a CXSMILES part; the keyword arguments come from `settings`.

    The checks have a fixed order: printable ASCII (RDKit silently strips other characters), parsing, the policy,
    tokenisation of the chosen form, number of tokens. A changed molecule gets its canonical SMILES. If `form` keeps the
    string as given, and under rules 1, the string is tokenised before parsing.
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
