"""A short list of groups that react with water, air or themselves: no chemist would put them on a list of compounds.

PAINS, Brenk and NIH alerts are another matter: 16 of 28 well-known drugs have one. None of these drugs has one of these
groups.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

_descriptors: Any = rdMolDescriptors

REACTIVE: dict[str, str] = {
    "acyl halide": "[CX3](=[O,S,N])[F,Cl,Br,I]",
    "sulfonyl or phosphoryl halide": "[#16X4,#16X3,#15](=O)[F,Cl,Br,I]",
    "anhydride": "[CX3](=O)[OX2][CX3]=O",
    "acyl cyanide": "[CX3](=O)C#N",
    "peroxide": "[OX2,OX1-][OX2,OX1-]",
    "N-N-N chain": "[#7;!a]~[#7;!a;!$([N+](=O)[O-])]~[#7;!a]",
    "halogen on N, O or S": "[#7,#8,#16X2][F,Cl,Br,I]",
    "cumulene": "*=[#6X2]=*",
    "diazo": "[#6]=[N+]=[N-]",
    "diazonium": "[#6][N+]#N",
    "three-membered ring of two heteroatoms": "[#7,#8,#16]1[#7,#8,#16]*1",
    "small ring with a triple bond": "[*;r3,r4,r5,r6,r7]#[*;r3,r4,r5,r6,r7]",
    "chain of four heteroatoms": "[#7,#8;!a]-[#7,#8,#16X2;!a]-[#7,#8,#16X2;!a]-[#7,#8;!a]",
    "anti-Bredt alkene": "",
}
"""Name → SMARTS; an anti-Bredt alkene (a double bond at a bridgehead of small rings) is none, so it is computed."""
_SMALL = 8  # atoms of a ring; Bredt's rule holds below


def reactive_group(molecule: Any, names: Sequence[str], warheads: Sequence[str] = ()) -> str:
    """The first of the named groups that the molecule has, outside the matches of `warheads`; "" if none."""
    spared = {i for pattern in warheads for match in molecule.GetSubstructMatches(_compiled(pattern)) for i in match}
    for name in names:
        matches = molecule.GetSubstructMatches(_compiled(REACTIVE[name])) if REACTIVE[name] else _anti_bredt(molecule)
        if any(not spared.issuperset(match) for match in matches):
            return name
    return ""


def _anti_bredt(molecule: Any) -> list[tuple[int, int]]:
    bridgeheads: Any = []
    if not _descriptors.CalcNumBridgeheadAtoms(molecule, bridgeheads):
        return []
    rings, found = molecule.GetRingInfo(), []
    for bond in molecule.GetBonds():
        if bond.GetBondType() != Chem.BondType.DOUBLE:
            continue
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        for head in set(bridgeheads).intersection(ends):
            if rings.NumBondRings(bond.GetIdx()) and all(size < _SMALL for size in rings.AtomRingSizes(head)):
                found.append(ends)
    return found


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    return Chem.MolFromSmarts(pattern)
