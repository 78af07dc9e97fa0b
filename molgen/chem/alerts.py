"""Structural alerts: MOSES' filter and RDKit's filter catalogue, with a fingerprint prefilter for speed."""

import csv
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import Chem, DataStructs
from rdkit.Chem import FilterCatalog

_chem: Any = Chem  # has no type hints
_MOSES_ELEMENTS = frozenset(("C", "N", "S", "O", "F", "Cl", "Br", "H"))
# An entry of RDKit's filter catalogue contains the length of a binary molecule, the molecule, which begins with a magic
# number, and the minimum number of matches.
_PATTERN_START = re.compile(rb" (\d+) (?=\xef\xbe\xad\xde)")
_ONE_MATCH = re.compile(rb" 1 ")
_ALERT_SETS = {"PAINS_A": "PAINS", "PAINS_B": "PAINS", "PAINS_C": "PAINS", "Brenk": "BRENK", "NIH": "NIH"}


def moses_filters(molecule: Any, alert_folder: str) -> list[str]:
    """The reasons why MOSES' filter rejects a molecule; an empty list if it passes.

    charge: an atom has a formal charge. element: other than C N S O F Cl Br H. ring: eight or more atoms.
    MCF, PAINS: an alert of MOSES' lists matches the molecule with explicit hydrogens. unstable: its SMILES without
    stereo does not parse. Source: `mol_passes_filters` in MOSES' code; it is stricter than the paper's "MCF and PAINS".
    """
    causes = []
    atoms = list(molecule.GetAtoms())
    if any(atom.GetFormalCharge() for atom in atoms):
        causes.append("charge")
    if any(atom.GetSymbol() not in _MOSES_ELEMENTS for atom in atoms):
        causes.append("element")
    if any(len(ring) >= 8 for ring in molecule.GetRingInfo().AtomRings()):
        causes.append("ring")
    with_hydrogens = Chem.AddHs(molecule)
    bits = _words(Chem.PatternFingerprint(with_hydrogens))
    for name, alerts in moses_alerts(alert_folder).items():
        if any(with_hydrogens.HasSubstructMatch(pattern) for pattern in alerts.possible(bits)):
            causes.append(name)
    if not causes and Chem.MolFromSmiles(str(Chem.MolToSmiles(molecule, isomericSmiles=False))) is None:
        causes.append("unstable")
    return causes


def alerts(molecule: Any) -> list[str]:
    """The matching structural alerts of RDKit's filter catalogue, each as SET:name; SET is PAINS, BRENK or NIH."""
    entries, patterns, always = _alert_catalog()
    bits = _words(Chem.PatternFingerprint(molecule))
    possible = [*always, *(entries[id(pattern)] for pattern in patterns.possible(bits))]
    found = {
        f"{_ALERT_SETS[entry.GetProp('FilterSet')]}:{_one_word(entry.GetDescription())}"
        for entry in possible
        if entry.HasFilterMatch(molecule)
    }
    return sorted(found)


class _Alerts:
    """Patterns with their fingerprints: a pattern can match only if the molecule's fingerprint has all its bits."""

    def __init__(self, patterns: Iterable[Any]) -> None:
        self.patterns = list(patterns)
        self._bits = np.array([_words(Chem.PatternFingerprint(pattern)) for pattern in self.patterns], np.uint64)

    def possible(self, bits: npt.NDArray[np.uint64]) -> Iterator[Any]:
        """The patterns that may match a molecule; `bits` (words,) is the molecule's pattern fingerprint."""
        if not self.patterns:
            return iter(())
        missing = (self._bits & ~bits).any(1)
        return (self.patterns[i] for i in np.flatnonzero(~missing).tolist())


def _words(fingerprint: Any) -> npt.NDArray[np.uint64]:
    return np.frombuffer(DataStructs.BitVectToBinaryText(fingerprint), np.uint64)


def _one_word(name: str) -> str:
    return re.sub(r"[\s,;]+", "_", name.strip())


@lru_cache(maxsize=1)
def moses_alerts(folder: str) -> dict[str, _Alerts]:
    """The two alert lists of MOSES, read from `folder`."""
    with (Path(folder) / "mcf.csv").open(encoding="utf-8", newline="") as file:
        mcf = [row["smarts"] for row in csv.DictReader(file)]
    with (Path(folder) / "wehi_pains.csv").open(encoding="utf-8", newline="") as file:
        pains = [row[0] for row in csv.reader(file)]
    return {"MCF": _Alerts(map(Chem.MolFromSmarts, mcf)), "PAINS": _Alerts(map(Chem.MolFromSmarts, pains))}


@lru_cache(maxsize=1)
def _alert_catalog() -> tuple[dict[int, Any], _Alerts, list[Any]]:
    """(entries by their pattern's id, the patterns, entries without a prefilter) of RDKit's catalogue.

    A check of all 765 entries takes 5 ms; the fingerprints leave a fifth of them. RDKit exposes an entry's pattern only
    in its serialised form. Entries with one pattern and a minimum of one match are prefiltered, others always checked.
    """
    parameters: Any = FilterCatalog.FilterCatalogParams()
    catalogs = parameters.FilterCatalogs
    for name in (catalogs.PAINS_A, catalogs.PAINS_B, catalogs.PAINS_C, catalogs.BRENK, catalogs.NIH):
        parameters.AddCatalog(name)
    catalog: Any = FilterCatalog.FilterCatalog(parameters)
    entries: dict[int, Any] = {}
    patterns, always = [], []
    for entry in map(catalog.GetEntryWithIdx, range(catalog.GetNumEntries())):
        serialised = bytes(entry.Serialize())
        start = _PATTERN_START.search(serialised)
        end = start.end() + int(start[1]) if start else 0
        if start and _ONE_MATCH.match(serialised, end) and not _PATTERN_START.search(serialised, end):
            pattern = _chem.Mol(serialised[start.end() : end])
            patterns.append(pattern)
            entries[id(pattern)] = entry
        else:
            always.append(entry)
    return entries, _Alerts(patterns), always
