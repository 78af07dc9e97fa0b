"""Structural alerts: MOSES' filter, and RDKit's catalogue. Fingerprints leave only the few patterns that can match."""

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
# in an entry of RDKit's filter catalogue: the length of a binary molecule, then its magic number; after it the least
# number of matches
_PATTERN_START = re.compile(rb" (\d+) (?=\xef\xbe\xad\xde)")
_ONE_MATCH = re.compile(rb" 1 ")
_ALERT_SETS = {"PAINS_A": "PAINS", "PAINS_B": "PAINS", "PAINS_C": "PAINS", "Brenk": "BRENK", "NIH": "NIH"}


def moses_filters(molecule: Any, alert_folder: str) -> list[str]:
    """The causes for which MOSES' filter rejects a molecule; an empty list passes.

    charge: an atom with a formal charge. element: other than C N S O F Cl Br H. ring: of eight or more atoms.
    MCF, PAINS: one of the alerts that MOSES ships matches, hydrogens added. unstable: its flat SMILES does not parse.
    Source: `mol_passes_filters` of MOSES' code, which is stricter than the paper's "MCF and PAINS".
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
    """The structural alerts of RDKit's filter catalogue that match, each as SET:name; SET is PAINS, BRENK or NIH."""
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
    """Patterns with their fingerprints: one can match only where its fingerprint is part of the molecule's."""

    def __init__(self, patterns: Iterable[Any]) -> None:
        self.patterns = list(patterns)
        self._bits = np.array([_words(Chem.PatternFingerprint(pattern)) for pattern in self.patterns], np.uint64)

    def possible(self, bits: npt.NDArray[np.uint64]) -> Iterator[Any]:
        """The few patterns that may match a molecule, by the words of its pattern fingerprint."""
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
    """The two alert lists of MOSES."""
    with (Path(folder) / "mcf.csv").open(encoding="utf-8", newline="") as file:
        mcf = [row["smarts"] for row in csv.DictReader(file)]
    with (Path(folder) / "wehi_pains.csv").open(encoding="utf-8", newline="") as file:
        pains = [row[0] for row in csv.reader(file)]
    return {"MCF": _Alerts(map(Chem.MolFromSmarts, mcf)), "PAINS": _Alerts(map(Chem.MolFromSmarts, pains))}


@lru_cache(maxsize=1)
def _alert_catalog() -> tuple[dict[int, Any], _Alerts, list[Any]]:
    """(entries by their pattern's id, the patterns, entries that must always be asked) of RDKit's catalogue.

    To ask all 765 entries takes 5 ms; the patterns' fingerprints leave a fifth of them. An entry does not give away its
    pattern but in its serialised form: a matcher's only pattern, which one match fulfils. Others are always asked.
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
