"""A parsed molecule → the one to train on, by a policy: fragments, charges, stereo, isotopes, radicals, elements.

The chemistry is RDKit's MolStandardize; what is done, and in which order, is said here.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from rdkit import Chem
from rdkit.Chem import Descriptors, rdMolHash
from rdkit.Chem.MolStandardize import rdMolStandardize

from molgen.chem.counterions import is_counterion, uncharged
from molgen.chem.smiles import canonical, parse, query_of, quiet

# Reasons for which a policy drops a molecule, and the changes it makes to one that stays.
WILDCARD = "wildcard atom"
QUERY_BOND = "query bond"
QUERY_ATOM = "query atom"
ATOM_MAP = "atom map"
FRAGMENTS = "several fragments"
ISOTOPE = "isotope"
ELEMENT = "element not in data.elements"
NO_CARBON = "no carbon"
RADICAL = "radical"
FAILED = "not standardised by RDKit"
FRAGMENTS_CUT = "smaller fragments cut"
ISOTOPES_STRIPPED = "isotopes stripped"
NEUTRALISED = "neutralised"
STEREO_STRIPPED = "stereo stripped"
CHANGES = (FRAGMENTS_CUT, ISOTOPES_STRIPPED, NEUTRALISED, STEREO_STRIPPED)


LATEST_RULES = 2
"""1: how salts, parents and groups were treated up to molgen 0.1; old runs and the named datasets keep it."""


class Policy(NamedTuple):
    """What may stay; the fields are those of the `data` section, described in config.py."""

    fragments: str
    charges: str
    stereo: str
    isotopes: str
    radicals: str
    atom_maps: str
    wildcards: str
    elements: list[str] | None
    require_carbon: bool
    rules: int


class Standardised(NamedTuple):
    """A molecule that stays, or the reason why it does not."""

    smiles: str
    """Canonical; empty where there is a reason."""
    changes: tuple[str, ...]
    """What was altered, of CHANGES, in this order."""
    reason: str
    """Why the molecule is dropped; else empty."""


def standardise(molecule: Any, policy: Policy) -> Standardised:
    """Applies a policy to a sanitised molecule, which stays as it was.

    Atom maps and wildcards mark a reaction or a pattern, so they are looked for in the whole record; everything else
    in what is left of it once the smaller fragments are cut.
    """
    with quiet():
        try:
            return _standardise(molecule, policy)
        except (ValueError, RuntimeError):  # what MolStandardize makes of it cannot be sanitised
            return Standardised("", (), FAILED)


def _standardise(molecule: Any, policy: Policy) -> Standardised:
    if policy.wildcards == "drop" and any(not atom.GetAtomicNum() for atom in molecule.GetAtoms()):
        return Standardised("", (), WILDCARD)
    if policy.atom_maps == "drop" and any(atom.GetAtomMapNum() for atom in molecule.GetAtoms()):
        return Standardised("", (), ATOM_MAP)
    if policy.rules > 1 and (query := query_of(molecule)):
        return Standardised("", (), QUERY_BOND if query == "bond" else QUERY_ATOM)
    changes = []
    if policy.fragments != "keep" and len(Chem.GetMolFrags(molecule)) > 1:
        if policy.fragments == "drop":
            return Standardised("", (), FRAGMENTS)
        molecule = main_fragment(molecule, policy.rules)
        changes.append(FRAGMENTS_CUT)
    atoms = list(molecule.GetAtoms())
    if policy.elements is not None and any(atom.GetSymbol() not in (*policy.elements, "*") for atom in atoms):
        return Standardised("", (), ELEMENT)
    if policy.require_carbon and not any(atom.GetAtomicNum() == 6 for atom in atoms):
        return Standardised("", (), NO_CARBON)
    if policy.radicals == "drop" and any(atom.GetNumRadicalElectrons() for atom in atoms):
        return Standardised("", (), RADICAL)
    if policy.isotopes != "keep" and any(atom.GetIsotope() for atom in atoms):
        if policy.isotopes == "drop":
            return Standardised("", (), ISOTOPE)
        molecule = Chem.Mol(molecule)
        for atom in molecule.GetAtoms():
            atom.SetIsotope(0)
        # deuterium has become an atom of hydrogen like any other; a centre that only isotopes made chiral is none
        molecule = parse(Chem.MolToSmiles(molecule))
        if molecule is None:
            return Standardised("", (), FAILED)
        changes.append(ISOTOPES_STRIPPED)
    if policy.charges == "neutralise" and any(atom.GetFormalCharge() for atom in molecule.GetAtoms()):
        before = [atom.GetFormalCharge() for atom in molecule.GetAtoms()]
        molecule = uncharged(molecule)
        if before != [atom.GetFormalCharge() for atom in molecule.GetAtoms()]:
            changes.append(NEUTRALISED)
    smiles = str(Chem.MolToSmiles(molecule))
    if policy.stereo == "strip":
        molecule = Chem.Mol(molecule)
        Chem.RemoveStereochemistry(molecule)
        flat = str(Chem.MolToSmiles(molecule))
        if flat != smiles:
            smiles = flat
            changes.append(STEREO_STRIPPED)
    # a change may make atoms alike that were not, which only reading the string anew will tell
    whole = canonical(smiles) if changes else smiles
    return Standardised(whole, tuple(changes), "") if whole else Standardised("", (), FAILED)


def main_fragment(molecule: Any, rules: int = LATEST_RULES) -> Any:
    """The fragment of a molecule that is meant: without counter-ions and solvents the one with most heavy atoms.

    An organic one comes first; where all are counter-ions, the largest of them stays. Under rules 1 it is RDKit's
    LargestFragmentChooser, which counts hydrogens and knows no counter-ions.
    """
    if rules == 1:
        return _largest_fragment_chooser().choose(molecule)
    fragments = list(Chem.GetMolFrags(molecule, asMols=True))
    if len(fragments) == 1:
        return fragments[0]
    drugs = [fragment for fragment in fragments if not is_counterion(fragment)] or fragments

    def size(fragment: Any) -> tuple[bool, int, float, str]:
        organic = any(atom.GetAtomicNum() == 6 for atom in fragment.GetAtoms())
        weight = float(Descriptors.MolWt(fragment))  # type: ignore[attr-defined]
        return organic, fragment.GetNumHeavyAtoms(), weight, str(Chem.MolToSmiles(fragment))

    return max(drugs, key=size)


def parent_of(molecule: Any, rules: int = LATEST_RULES) -> str:
    """Canonical SMILES of the main fragment, uncharged, without stereo and (but under rules 1) without isotopes.

    A molecule of which that cannot be made is its own parent.
    """
    with quiet():
        try:
            return str(Chem.MolToSmiles(_parent(molecule, rules)))
        except (ValueError, RuntimeError):
            return str(Chem.MolToSmiles(molecule))


def tautomer_of(molecule: Any) -> str:
    """RDKit's tautomer hash of the parent (HetAtomTautomerv2): one for tautomers, isomers, salts and isotopologues."""
    with quiet():
        try:
            return str(rdMolHash.MolHash(_parent(molecule, LATEST_RULES), rdMolHash.HashFunction.HetAtomTautomerv2))
        except (ValueError, RuntimeError):
            return str(Chem.MolToSmiles(molecule))


def group_of(smiles: str, rules: int) -> str:
    """What a grouped split keeps together: the tautomer hash of the parent, under rules 1 the parent.

    A string that does not parse is a group of its own.
    """
    molecule = parse(smiles)
    if molecule is None:
        return smiles
    return parent_of(molecule, 1) if rules == 1 else tautomer_of(molecule)


def _parent(molecule: Any, rules: int) -> Any:
    largest = main_fragment(molecule, rules)
    if rules > 1 and any(atom.GetIsotope() for atom in largest.GetAtoms()):
        largest = Chem.Mol(largest)
        for atom in largest.GetAtoms():
            atom.SetIsotope(0)
        largest = Chem.RemoveHs(largest)  # deuterium is an atom of hydrogen now
    neutral = uncharged(largest)
    Chem.RemoveStereochemistry(neutral)
    return neutral


@lru_cache(maxsize=1)
def _largest_fragment_chooser() -> Any:
    return rdMolStandardize.LargestFragmentChooser(preferOrganic=True)
