"""One molecule → all that the metrics need of it, from a single parse. Runs in the worker processes.

Strings in, JSON values out: `describe` computes the parts that are asked for. A fingerprint is packed and in base64.
"""

import csv
import importlib.util
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import Chem, DataStructs, RDConfig
from rdkit.Chem import QED, Descriptors, FilterCatalog, Fragments, rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold

from molgen.chem.smiles import failure, parse, quiet
from molgen.chem.standardize import parent_of, tautomer_of

_chem: Any = Chem  # these have no type hints, or too narrow ones
_murcko: Any = MurckoScaffold
_qed: Any = QED
_descriptors: Any = Descriptors

VERSION = "2"
"""Goes up when a part or a cached table changes its meaning, so that what was cached is computed anew."""
GUACAMOL_DESCRIPTORS = (
    "BertzCT",
    "MolLogP",
    "MolWt",
    "TPSA",
    "NumHAcceptors",
    "NumHDonors",
    "NumRotatableBonds",
    "NumAliphaticRings",
    "NumAromaticRings",
)
PROPERTIES = ("logP", "SA", "QED", "weight")
_MOSES_ELEMENTS = frozenset(("C", "N", "S", "O", "F", "Cl", "Br", "H"))
# in an entry of RDKit's filter catalogue: the length of a binary molecule, then its magic number; after it the least
# number of matches
_PATTERN_START = re.compile(rb" (\d+) (?=\xef\xbe\xad\xde)")
_ONE_MATCH = re.compile(rb" 1 ")
_ALERT_SETS = {"PAINS_A": "PAINS", "PAINS_B": "PAINS", "PAINS_C": "PAINS", "Brenk": "BRENK", "NIH": "NIH"}


def describe(smiles: str, parts: Sequence[str], alert_folder: str = "") -> dict[str, Any]:
    """The named parts of a valid molecule, or {"failure": cause} of an invalid one.

    Every part is listed in `PARTS`. `alert_folder` holds mcf.csv and wehi_pains.csv of MOSES, for `filters`.
    A cause is what `failure` says.
    """
    molecule = parse(smiles)
    if molecule is None:
        return {"failure": failure(smiles)}
    with quiet():
        return {
            part: moses_filters(molecule, alert_folder) if part == "filters" else PARTS[part](molecule)
            for part in parts
        }


def flat(molecule: Any) -> str:
    """Canonical SMILES without stereo."""
    return str(Chem.MolToSmiles(molecule, isomericSmiles=False))


def fingerprint(molecule: Any) -> str:
    """Morgan fingerprint of radius 2 in 1,024 bits, as MOSES takes it."""
    return _packed(_morgan(1024).GetFingerprint(molecule))


def fingerprint_4096(molecule: Any) -> str:
    """ECFP4 in 4,096 bits, as GuacaMol takes it."""
    return _packed(_morgan(4096).GetFingerprint(molecule))


def fragments(molecule: Any) -> list[str]:
    """BRICS fragments (Degen et al. 2008) as MOSES counts them: the pieces' SMILES with their dummy atoms."""
    return str(Chem.MolToSmiles(Chem.FragmentOnBRICSBonds(molecule))).split(".")


def scaffold(molecule: Any) -> list[Any]:
    """[SMILES, rings] of the Bemis–Murcko scaffold as RDKit takes it; ["", 0] of an acyclic molecule."""
    try:
        core = _murcko.GetScaffoldForMol(molecule)
    except (ValueError, RuntimeError):
        return ["", 0]
    return [str(Chem.MolToSmiles(core)), core.GetRingInfo().NumRings()]


def properties(molecule: Any) -> list[float]:
    """Crippen logP, synthetic accessibility (Ertl and Schuffenhauer 2009), QED, molecular weight in g/mol."""
    return [
        float(_descriptors.MolLogP(molecule)),
        float(sa_scorer().calculateScore(molecule)),
        qed(molecule),
        float(_descriptors.MolWt(molecule)),
    ]


def qed(molecule: Any) -> float:
    """Quantitative estimate of drug-likeness (Bickerton et al. 2012, Nat. Chem. 4:90), as RDKit's QED.qed.

    That function works on a copy, which has to compute anew what the molecule knows already; this one does not.
    """
    has_hydrogens = any(atom.GetAtomicNum() == 1 for atom in molecule.GetAtoms())
    bare = Chem.RemoveHs(molecule) if has_hydrogens else molecule
    acceptors = sum(len(bare.GetSubstructMatches(pattern)) for pattern in QED.Acceptors)
    aromatic = Chem.DeleteSubstructs(Chem.Mol(bare), QED.AliphaticRings)
    values = _qed.QEDproperties(
        MW=_descriptors.MolWt(bare),
        ALOGP=_descriptors.MolLogP(bare),
        HBA=acceptors,
        HBD=rdMolDescriptors.CalcNumHBD(bare),
        PSA=rdMolDescriptors.CalcTPSA(bare),
        ROTB=rdMolDescriptors.CalcNumRotatableBonds(bare, rdMolDescriptors.NumRotatableBondsOptions.Strict),
        AROM=len(Chem.GetSSSR(aromatic)),
        ALERTS=sum(bare.HasSubstructMatch(pattern) for pattern in QED.StructuralAlerts),
    )
    return float(_qed.qed(bare, qedProperties=values))


def guacamol_descriptors(molecule: Any) -> list[float]:
    """The nine descriptors of GuacaMol's KL score in their order; 0 for one that is not finite."""
    values = [float(getattr(_descriptors, name)(molecule)) for name in GUACAMOL_DESCRIPTORS]
    return [value if abs(value) < float("inf") else 0.0 for value in values]


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
    if not causes and Chem.MolFromSmiles(flat(molecule)) is None:
        causes.append("unstable")
    return causes


def flaws(molecule: Any) -> list[int]:
    """[radical electrons, fragments, net charge]."""
    radicals = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    return [radicals, len(Chem.GetMolFrags(molecule)), Chem.GetFormalCharge(molecule)]


def elements(molecule: Any) -> list[str]:
    """Symbols of the elements, without hydrogen that is implied."""
    return sorted({str(atom.GetSymbol()) for atom in molecule.GetAtoms()})


def charged_atoms(molecule: Any) -> int:
    """Atoms with a formal charge."""
    return sum(atom.GetFormalCharge() != 0 for atom in molecule.GetAtoms())


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


def ring_systems(molecule: Any) -> list[str]:
    """Canonical SMILES of the ring systems: rings that share an atom, with the atoms doubly bonded to them."""
    systems: list[set[int]] = []
    for ring in molecule.GetRingInfo().AtomRings():
        own = set(ring)
        for other in [s for s in systems if s & own]:
            own |= other
            systems.remove(other)
        systems.append(own)
    found = set()
    for system in systems:
        outside = {
            bond.GetOtherAtomIdx(i)
            for i in system
            for bond in molecule.GetAtomWithIdx(i).GetBonds()
            if bond.GetBondType() == Chem.BondType.DOUBLE
        }
        found.add(str(Chem.MolFragmentToSmiles(molecule, sorted(system | outside), isomericSmiles=False)))
    return sorted(found)


def functional_groups(molecule: Any) -> list[str]:
    """Names of RDKit's 85 fragment counts (`fr_*`) that are not zero, without the prefix."""
    return [name for name, count in _group_counters() if count(molecule)]


PARTS: dict[str, Callable[[Any], Any]] = {
    "canonical": lambda molecule: str(Chem.MolToSmiles(molecule)),
    "flat": flat,
    "fingerprint": fingerprint,
    "fingerprint_4096": fingerprint_4096,
    "fragments": fragments,
    "scaffold": scaffold,
    "properties": properties,
    "guacamol": guacamol_descriptors,
    "parent": parent_of,
    "tautomer": tautomer_of,
    "flaws": flaws,
    "elements": elements,
    "charged_atoms": charged_atoms,
    "alerts": alerts,
    "ring_systems": ring_systems,
    "functional_groups": functional_groups,
}
"""Each part by name; `filters` is one more, which needs MOSES' alert lists."""


def _packed(bits: Any) -> str:
    return b64encode(DataStructs.BitVectToBinaryText(bits)).decode("ascii")


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


@lru_cache
def _morgan(bits: int) -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=bits)


@lru_cache(maxsize=1)
def sa_scorer() -> Any:
    """RDKit ships the score outside of its package, as a script beside its table of fragment scores."""
    path = Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    specification = importlib.util.spec_from_file_location("sascorer", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


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


@lru_cache(maxsize=1)
def _group_counters() -> list[tuple[str, Any]]:
    return [(name[3:], getattr(Fragments, name)) for name in sorted(dir(Fragments)) if name.startswith("fr_")]
