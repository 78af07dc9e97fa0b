"""Standardisation of a parsed molecule by a policy: fragments, charges, stereo, isotopes, radicals, elements.

The chemistry is RDKit's MolStandardize; this module defines the steps and their order.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from rdkit import Chem
from rdkit.Chem import Descriptors, rdMolHash
from rdkit.Chem.MolStandardize import rdMolStandardize

from molgen.chem.counterions import is_counterion, uncharged
from molgen.chem.smiles import canonical, parse, query_of, quiet

# Reasons why a policy drops a molecule, and the changes it makes to others.
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
"""1 is the treatment of salts, parents and groups up to molgen 0.1; old runs and the named datasets keep it."""


class Policy(NamedTuple):
    """The standardisation settings; the fields are those of the `data` section, described in config.py."""

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
    """A standardised molecule, or the reason why it is dropped."""

    smiles: str
    """Canonical; empty if the molecule is dropped."""
    changes: tuple[str, ...]
    """The changes that were made: members of CHANGES, in this order."""
    reason: str
    """Why the molecule is dropped; else empty."""


def standardise(molecule: Any, policy: Policy) -> Standardised:
    """Applies a policy to a sanitised molecule, which is not modified.

    Atom maps and wildcards mark a reaction or a pattern, so all fragments are checked for them. All other checks come
    after the smaller fragments have been cut.
    """
    with quiet():
        try:
            return _standardise(molecule, policy)
        except (ValueError, RuntimeError):  # the result of MolStandardize cannot be sanitised
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
        # parse again: deuterium has become ordinary hydrogen, and centres that only isotopes made chiral no longer are
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
        smiles_no_stereo = str(Chem.MolToSmiles(molecule))
        if smiles_no_stereo != smiles:
            smiles = smiles_no_stereo
            changes.append(STEREO_STRIPPED)
    # parse again: a change may make atoms equivalent that were not
    final = canonical(smiles) if changes else smiles
    return Standardised(final, tuple(changes), "") if final else Standardised("", (), FAILED)


def main_fragment(molecule: Any, rules: int = LATEST_RULES) -> Any:
    """The main fragment of a molecule: the one with most heavy atoms that is no counter-ion or solvent.

    Fragments with carbon are preferred. If all fragments are counter-ions or solvents, it is the largest of them. Rules
    1 use RDKit's LargestFragmentChooser, which counts hydrogens and has no list of counter-ions.
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
    """Canonical SMILES of the main fragment, uncharged, without stereo and (except under rules 1) without isotopes.

    If standardisation fails, it is the canonical SMILES of the whole molecule.
    """
    with quiet():
        try:
            return str(Chem.MolToSmiles(_parent(molecule, rules)))
        except (ValueError, RuntimeError):
            return str(Chem.MolToSmiles(molecule))


def tautomer_of(molecule: Any) -> str:
    """RDKit's tautomer hash (HetAtomTautomerv2) of the parent; one for tautomers, isomers, salts, isotopologues."""
    with quiet():
        try:
            return str(rdMolHash.MolHash(_parent(molecule, LATEST_RULES), rdMolHash.HashFunction.HetAtomTautomerv2))
        except (ValueError, RuntimeError):
            return str(Chem.MolToSmiles(molecule))


def group_of(smiles: str, rules: int) -> str:
    """The group key of a grouped split: the tautomer hash of the parent; under rules 1 the parent.

    A string that does not parse is its own group.
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
        largest = Chem.RemoveHs(largest)  # deuterium is ordinary hydrogen now
    neutral = uncharged(largest)
    Chem.RemoveStereochemistry(neutral)
    return neutral


@lru_cache(maxsize=1)
def _largest_fragment_chooser() -> Any:
    return rdMolStandardize.LargestFragmentChooser(preferOrganic=True)
