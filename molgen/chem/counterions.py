"""Counter-ions and solvents: fragments of a record that are not the drug.

The list has the salts and solvents that ChEMBL's pipeline strips (Bento et al. 2020, J. Cheminform. 12:51;
chembl_structure_pipeline 1.2.4, MIT licence) in canonical form, and other usual solvents, amino acids, sugars and
quaternary ammonium ions. The package itself is not used, because it compiles its 172 patterns again for each molecule
and keeps several fragments.
"""

from functools import lru_cache
from typing import Any

from rdkit import Chem
from rdkit.Chem.MolStandardize import rdMolStandardize

_LIST = """
CN CCN COP(=O)(O)OC CCOP(=O)(O)OCC N#CNC#N CCCCCCCCOS(=O)(=O)O F[Sb-](F)(F)(F)(F)F
O=S(=O)(NS(=O)(=O)C(F)(F)F)C(F)(F)F c1ccc([B-](c2ccccc2)(c2ccccc2)c2ccccc2)cc1
CI CO OO CCO CNC CC#N N#CS NCCN NCCO O=CO O=PO CCCCO CCNCC CCOCC COCCO ClCCl CC(C)O CCCC=O CCCCCC CN(C)C ClCCCl
OB(O)O C1CCOC1 CC(=O)O CC(C)=O CC(C)CO CC(O)CO CS(C)=O O=C(O)O O=S(O)O OCCNCCO C1CCCCC1 C1CNCCN1
C1COCCO1 CCC(=O)O CCC(C)=O CN(C)C=O CN(C)CCO NCC(=O)O O=C(O)CO O=P(=O)O OCC(O)CO c1ccccc1 c1ccncc1 CC(C)(C)N
CCCC(=O)O CCN(CC)CC CCOC(=O)O CCOC(C)=O Cc1ccccc1 ClC(Cl)Cl CC(C)(N)CO CCCCC(=O)O CCN(CC)CCO CN1CCCC1=O
COC(C)(C)C O=P(O)(O)F O=P(O)(O)O OCCN1CCCC1 c1c[nH]cn1 CC(=O)N(C)C CC(C)C(=O)O CC(C)NC(C)C CC(N)C(=O)O
CC(O)C(=O)O CC(O)CN(C)C CCCC(=O)OCC CCCCCC(=O)O CS(=O)(=O)O NS(=O)(=O)O O=S(=O)(O)F O=S(=O)(O)O OCCN1CCOCC1
CCCCCCC(=O)O CCS(=O)(=O)O CN(C)CC(=O)O COS(=O)(=O)O C[N+](C)(C)C C[Si](C)(C)O F[B-](F)(F)F NC(CO)(CO)CO
O=C(O)C(=O)O OCCN(CCO)CCO CC(=O)OCC(C)C CC=C(C)C(=O)O CCCCCCCC(=O)O CCOS(=O)(=O)O CN(C)CCC(=O)O CNC(CO)(CO)CO
NCCS(=O)(=O)O O=C(O)C(Cl)Cl O=C(O)CC(=O)O O=C(O)c1ccco1 O=S(=O)(O)CCO O=[N+]([O-])O CC(=O)NCC(=O)O
CC(C)(C)C(=O)O CSCCC(N)C(C)=O C[N+](C)(C)CCO NCCCC(N)C(=O)O O=C(O)C(F)(F)F O=C(O)CCC(=O)O O=C(O)c1ccccc1
O=C(O)c1cccnc1 CC(C)(C)CC(=O)O CCC(CC)C(=O)OCO CCCCCCCCCC(=O)O CCN(C(C)C)C(C)C NCCCCC(N)C(=O)O O=C(O)C=CC(=O)O
O=C(O)CCC1CCCC1 O=C(O)CCCC(=O)O O=C(O)CNCC(=O)O O=C(O)Cc1ccccc1 O=C(O)c1ccccc1O CC(O)CS(=O)(=O)O
CCCCCCCCCCC(=O)O CC[N+](CC)(CC)CC O=C(O)CCCCC(=O)O O=C(O)CCc1ccccc1 C=CCCCCCCCCC(=O)O CC(=O)OS(=O)(=O)O
CCCCCCCCCCCC(=O)O NC(CC(=O)O)C(=O)O O=C(O)C=Cc1ccccc1 O=C(O)CC(O)C(=O)O O=C1CCC(C(=O)O)N1 O=P(O)(O)OCC(O)CO
F[P-](F)(F)(F)(F)F NC(CCC(=O)O)C(=O)O O=C(O)C(O)c1ccccc1 O=C(O)CCCCCCC(=O)O O=C(O)c1cc(O)ccc1O
O=C(O)c1ccc(O)cc1O O=S(=O)(O)C(F)(F)F O=S(=O)(O)C1CCCCC1 O=S(=O)(O)c1ccccc1 C1CCC(NC2CCCCC2)CC1
CC1CCC(C(C)C)C(O)C1 CCCCCCCCCCCCCC(=O)O O=C(O)CCC(=O)C(=O)O O=S(=O)(O)NC1CCCCC1 Oc1cc(Cl)c(Cl)cc1Cl
CCCCC1CCC(C(=O)O)CC1 N=C(N)NCCCC(N)C(=O)O Nc1ccc(P(=O)(O)O)cc1 O=C(O)C(O)C(O)C(=O)O O=C(O)CCCCCCCCC(=O)O
O=C(O)c1ccccc1C(=O)O OCC(O)C(O)C(O)C(O)CO OCC1OC(O)C(O)C(O)C1O CCCCCCCCCCCCCCCC(=O)O CNCC(O)C(O)C(O)C(O)CO
C[N+](C)(C)CC(=O)[O-] Cc1ccc(S(=O)(=O)O)cc1 NC(Cc1c[nH]cn1)C(=O)O O=C(CO)C(O)C(O)C(O)CO O=C(O)CNC(=O)c1ccccc1
O=C(O)c1cc2ccccc2cc1O O=C(O)c1ccc2ccccc2c1O O=C(O)c1ccc(C(=O)O)cc1 O=C1OC(C(O)CO)C(O)=C1O O=S(=O)(O)CCS(=O)(=O)O
O=S(=O)(O)c1ccc(Cl)cc1 c1ccc(CCNCc2ccccc2)cc1 CC(=O)Nc1ccc(C(=O)O)cc1 CCCCCCCCCCCCCCCCCC(=O)O
CCCCCCCCCCCCOS(=O)(=O)O O=C1NS(=O)(=O)c2ccccc21 O=S(=O)(O)CCCS(=O)(=O)O [O-][Cl+3]([O-])([O-])O
CC12C=CC(C(=O)O)(CC1)CC2 CCCCCCCCC=CCCCCCCCC(=O)O CCCCCCCCCCCCCCOP(=O)(O)O CCCC[N+](CCCC)(CCCC)CCCC
O=C(O)C(O)C(O)C(O)C(O)CO O=C(O)C1OC(O)C(O)C(O)C1O O=S(=O)(O)c1ccc2ccccc2c1 O=S(=O)(O)c1cccc2ccccc12
c1ccc(CNCCNCc2ccccc2)cc1 CCCCCCCCC=CCC=CCCCCC(=O)O O=CC(O)C(O)C(O)C(O)C(=O)O O=C(O)CC(O)(CC(=O)O)C(=O)O
O=C(O)c1cccc(S(=O)(=O)O)c1 Cc1cc(C)c(S(=O)(=O)O)c(C)c1 O=C(O)c1cccc(S(=O)(=O)O)c1O CC1(C(=O)O)CCC(C(=O)O)C1(C)C
O=C(O)C(O)C(O)C(O)C(O)C(=O)O O=C(O)C(O)C(O)C(O)C(O)C(O)CO O=C(O)c1cc(=O)[nH]c(=O)[nH]1
O=C(O)c1ccccc1C(=O)c1ccc(O)cc1 COC(=O)CC(O)(CCCC(C)(C)O)C(=O)O CC1(C)C2CCC1(CS(=O)(=O)O)C(=O)C2
O=C(O)C(c1ccccc1)(c1ccccc1)c1ccccc1 O=C(O)CN(CCN(CC(=O)O)CC(=O)O)CC(=O)O O=S(=O)(O)c1cccc2c(S(=O)(=O)O)cccc12
O=C(O)C(O)C(O)C(OC1OC(CO)C(O)C(O)C1O)C(O)CO O=C(O)c1cc2ccccc2c(Cc2c(O)c(C(=O)O)cc3ccccc23)c1O
O=[N+]([O-])c1cc([N+](=O)[O-])c(O)c([N+](=O)[O-])c1
"""


def is_counterion(fragment: Any) -> bool:
    """Whether a fragment is on the list (without charge, stereo and isotopes) or a single atom other than carbon."""
    heavy = [atom for atom in fragment.GetAtoms() if atom.GetAtomicNum() > 1]
    if len(heavy) <= 1:
        return not heavy or heavy[0].GetAtomicNum() != 6
    return len(heavy) <= _largest() and plain_form(fragment) in _listed()


def plain_form(molecule: Any) -> str:
    """Canonical SMILES without stereo and isotopes, and without charges that protons can remove."""
    bare = Chem.Mol(molecule)
    for atom in bare.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
    bare = uncharged(Chem.RemoveHs(bare))
    Chem.RemoveStereochemistry(bare)
    return str(Chem.MolToSmiles(bare))


@lru_cache(maxsize=1)
def _listed() -> frozenset[str]:
    return frozenset(plain_form(Chem.MolFromSmiles(smiles)) for smiles in _LIST.split())


@lru_cache(maxsize=1)
def _largest() -> int:
    return max(int(Chem.MolFromSmiles(smiles).GetNumHeavyAtoms()) for smiles in _LIST.split())


def uncharged(molecule: Any) -> Any:
    """A copy with charges neutralised by adding or removing protons, where possible."""
    return _uncharger().uncharge(molecule)


@lru_cache(maxsize=1)
def _uncharger() -> Any:
    return rdMolStandardize.Uncharger()
