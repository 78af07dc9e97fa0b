"""A table as ChEMBL exports it: real Tox21 molecules and hard cases, each labelled by hand with what must happen.

Semicolons, quotes, a byte order mark and Windows line ends; salts, charges, isotopes, enhanced stereo, metals.
"""

import csv
import io
import re
from typing import NamedTuple

from rdkit import Chem, rdBase

LINES = 2_000
# What the plain molecules are made of: no charge, no isotope, one fragment, no rare token.
PLAIN = re.compile(r"(?=.*[Cc](?!l))(?:Cl|Br|\[nH\]|\[C@H\]|\[C@@H\]|[CNOSFcnos()=1-4])+")


class Case(NamedTuple):
    """A row: the SMILES cell, its name, and what must happen."""

    given: str
    name: str
    stays: str = ""
    """The molecule that stays, in any form; empty: it is dropped."""
    reasons: tuple[str, ...] = ()
    """Why it is dropped, or what is altered."""


CUT, NEUTRALISED, STRIPPED = "smaller fragments cut", "neutralised", "isotopes stripped"
ENHANCED, EXTENSION = "racemic or relative stereo made undefined", "CXSMILES extension cut"
ELEMENT = "element not in data.elements"

HARD = [
    # names that break a reader which splits at semicolons, quotes or line ends
    Case("CC(=O)Oc1ccccc1C(=O)O", 'ACETYLSALICYLIC ACID; "ASPIRIN"', "CC(=O)Oc1ccccc1C(=O)O"),
    Case("CC(=O)Nc1ccc(O)cc1", "PARACETAMOL;4'-HYDROXY", "CC(=O)Nc1ccc(O)cc1"),
    Case("CC(C)Cc1ccc(cc1)C(C)C(=O)O", "IBUPROFEN, RACEMIC", "CC(C)Cc1ccc(cc1)C(C)C(=O)O"),
    Case("CN1C=NC2=C1C(=O)N(C)C(=O)N2C", "CAFFEINE – Koffein", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"),
    Case(" CCOC(=O)c1ccc(N)cc1 ", "BENZOCAINE", "CCOC(=O)c1ccc(N)cc1"),
    # salts
    Case("CN(C)CCOC(c1ccccc1)c1ccccc1.Cl", "DIPHENHYDRAMINE HCl", "CN(C)CCOC(c1ccccc1)c1ccccc1", (CUT,)),
    Case("CC(=O)CC(c1ccccc1)C1=C([O-])c2ccccc2OC1=O.[Na+]", "WARFARIN SODIUM",
         "CC(=O)CC(c1ccccc1)C1=C(O)c2ccccc2OC1=O", (CUT, NEUTRALISED)),
    Case("[K+].CC1(C)SC2C(NC(=O)Cc3ccccc3)C(=O)N2C1C(=O)[O-]", "BENZYLPENICILLIN POTASSIUM",
         "CC1(C)SC2C(NC(=O)Cc3ccccc3)C(=O)N2C1C(=O)O", (CUT, NEUTRALISED)),
    Case("CNCCC(Oc1ccc(cc1)C(F)(F)F)c1ccccc1.OC(=O)C=CC(=O)O", "FLUOXETINE MALEATE",
         "CNCCC(Oc1ccc(cc1)C(F)(F)F)c1ccccc1", (CUT,)),
    Case("CCCCN.OS(=O)(=O)O.CCCCN", "BUTYLAMINE SULPHATE", "CCCCN", (CUT,)),
    Case("[Zn+2].CCCCCCCCC=CC(=O)[O-].CCCCCCCCC=CC(=O)[O-]", "ZINC UNDECENOATE", "CCCCCCCCC=CC(=O)O",
         (CUT, NEUTRALISED)),
    Case("CN1CCCC1c1cccnc1.O.O", "NICOTINE DIHYDRATE", "CN1CCCC1c1cccnc1", (CUT,)),
    # charges
    Case("C[NH+](C)CCc1c[nH]c2ccccc12", "DMT CATION", "CN(C)CCc1c[nH]c2ccccc12", (NEUTRALISED,)),
    Case("[NH3+]C(Cc1ccccc1)C(=O)[O-]", "PHENYLALANINE ZWITTERION", "NC(Cc1ccccc1)C(=O)O", (NEUTRALISED,)),
    Case("CCCCCCCCCCS(=O)(=O)[O-]", "DECANESULPHONATE", "CCCCCCCCCCS(=O)(=O)O", (NEUTRALISED,)),
    Case("NC(=[NH2+])c1ccc(Cl)cc1", "CHLOROBENZAMIDINIUM", "NC(=N)c1ccc(Cl)cc1", (NEUTRALISED,)),
    # charges that belong to the molecule; five of each token, so that none is rare
    *(Case(f"{'C' * n}c1ccc(cc1)[N+](=O)[O-]", f"NITRO {n}", f"{'C' * n}c1ccc(cc1)[N+](=O)[O-]") for n in range(5, 10)),
    Case("CCCCC[N+](C)(C)CCO", "QUATERNARY", "CCCCC[N+](C)(C)CCO"),
    Case("C[N+](C)(C)CC(=O)[O-]", "BETAINE", "C[N+](C)(C)CC(=O)[O-]"),
    Case("CCCCCC[N+](C)(C)CCO.[Br-]", "QUATERNARY BROMIDE", "CCCCCC[N+](C)(C)CCO", (CUT,)),
    # isotopes
    Case("[2H]C([2H])([2H])Oc1ccc(CC(C)=O)cc1", "D3-METHOXY", "COc1ccc(CC(C)=O)cc1", (STRIPPED,)),
    Case("[13CH3]Oc1ccc(CCC(C)=O)cc1", "13C", "COc1ccc(CCC(C)=O)cc1", (STRIPPED,)),
    Case("CC(=O)Nc1ccc([18F])cc1CC", "18F TRACER", "CC(=O)Nc1ccc(F)cc1CC", (STRIPPED,)),
    Case("CCCCC[C@H]([2H])OC(C)=O", "CHIRAL BY DEUTERIUM", "CCCCCCOC(C)=O", (STRIPPED,)),
    # enhanced stereo, and other extensions
    Case("CCCC[C@H](O)CCN |o1:4|", "OR1", "CCCCC(O)CCN", (ENHANCED,)),
    Case("CCCC[C@@H](O)CCCN |&1:4|", "AND1", "CCCCC(O)CCCN", (ENHANCED,)),
    Case("CCCC[C@H](O)[C@@H](N)CCC |a:4,o1:6|", "ABS OR1", "CCCC[C@H](O)C(N)CCC", (ENHANCED,)),
    Case("CCCC[C@H](O)CCNC.Cl |o1:4|", "OR1 HCl", "CCCCC(O)CCNC", (ENHANCED, CUT)),
    Case("CCCCOCCN(C)CCC |$;;;;ether$|", "LABELLED", "CCCCOCCN(C)CCC", (EXTENSION,)),
    # double bonds: five of each direction
    *(Case(f"{'C' * n}/C=C/{'C' * n}O", f"TRANS {n}", f"{'C' * n}/C=C/{'C' * n}O") for n in range(3, 8)),
    *(Case(f"{'C' * n}/C=C\\{'C' * n}O", f"CIS {n}", f"{'C' * n}/C=C\\{'C' * n}O") for n in range(3, 8)),
    # rare elements that may stay, five times
    *(Case(f"{'C' * n}P(C)C", f"PHOSPHINE {n}", f"{'C' * n}P(C)C") for n in range(3, 8)),
    # dropped: what no molecule is
    Case("", "WITHOUT A STRUCTURE", "", ("empty",)),
    Case("n/a", "NOT AVAILABLE", "", ("not losslessly tokenisable",)),
    Case("CC–N", "EN DASH", "", ("not losslessly tokenisable",)),
    Case("СCO", "CYRILLIC C", "", ("not losslessly tokenisable",)),
    Case("CC\u200bO", "ZERO WIDTH", "", ("not losslessly tokenisable",)),
    Case("C%(100)CCCC%(100)", "LONG RING LABEL", "C1CCCC1", ()),
    Case("C1CC", "OPEN RING", "", ("not parsed by RDKit: syntax",)),
    Case("CC(C)(C)(C)C", "FIVE BONDS", "", ("not parsed by RDKit: valence",)),
    Case("c1cccc1", "NOT AROMATIC", "", ("not parsed by RDKit: kekulisation",)),
    Case("CCO)", "PARENTHESIS", "", ("not parsed by RDKit: syntax",)),
    # dropped: what a user's own settings may keep
    Case("*c1ccc(CC)cc1", "ATTACHMENT POINT", "", ("wildcard atom",)),
    Case("[*:1]c1ccc(CC)cc1", "R GROUP", "", ("wildcard atom",)),
    Case("[CH3:1][OH:2]", "MAPPED", "", ("atom map",)),
    Case("CC1(C)CCCC(C)(C)N1[O]", "TEMPO", "", ("radical",)),
    Case("C[CH]C", "ISOPROPYL RADICAL", "", ("radical",)),
    Case("[Fe+2].c1cc[cH-]c1.c1cc[cH-]c1", "FERROCENE", "", ("not standardised by RDKit",)),
    Case("Cl[Pt](Cl)([NH3])[NH3]", "CISPLATIN", "", (ELEMENT,)),
    Case("CC[Hg]Sc1ccccc1C(=O)O", "THIOMERSAL ACID", "", (ELEMENT,)),
    Case("CC(=O)O[Na]", "COVALENT SODIUM", "", (ELEMENT,)),
    Case("C[As](C)(=O)O", "CACODYLIC ACID", "", (ELEMENT,)),
    Case("CCCC[Sn](CCCC)(CCCC)CCCC", "TETRABUTYLTIN", "", (ELEMENT,)),
    Case("O", "WATER", "", ("no carbon",)),
    Case("[Na+].[Cl-]", "SALT", "", ("no carbon",)),
    Case("N", "AMMONIA", "", ("no carbon",)),
    Case("C" * 129, "LONGER THAN THE CONTEXT", "", ("too long",)),
    # dropped: tokens that fewer than five molecules have
    Case("C[Se]CCC(N)C(=O)O", "SELENOMETHIONINE", "", ("rare token",)),
    Case("CCCC[Si](C)(C)C", "SILANE", "", ("rare token",)),
    Case("CCCCB(O)O", "BORONIC ACID", "", ("rare token",)),
    Case("C[S+](C)CCC(N)C(=O)O", "SULPHONIUM", "", ("rare token",)),
    # dropped: the same molecule again, in another form, as a salt, labelled, mapped out by an extension
    Case("OC(=O)c1ccccc1OC(C)=O", "ASPIRIN AGAIN", "", ("duplicate",)),
    Case("CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", "ASPIRIN SODIUM", "", ("duplicate",)),
    Case("[2H]c1ccccc1OC(C)=O.CC(=O)Oc1ccccc1C(=O)O", "ASPIRIN MIXTURE", "", ("duplicate",)),
    Case("CC(=O)Nc1ccc([18OH])cc1", "PARACETAMOL LABELLED", "", ("duplicate",)),
    Case("CCCC[C@H](O)CCN |&1:4|", "AND1 OF OR1", "", ("duplicate",)),
    Case("C[NH2+]CCC(Oc1ccc(cc1)C(F)(F)F)c1ccccc1.[Cl-]", "FLUOXETINE HCl", "", ("duplicate",)),
]  # fmt: skip


def cases(tox21: list[str]) -> list[Case]:
    """Plain molecules of Tox21, which stay as they are, with the hard cases spread among them: a row each."""
    taken = {_canonical(case.stays) for case in HARD if case.stays}
    plain: list[Case] = []
    for number, smiles in enumerate(tox21):
        canonical = _canonical(smiles) if PLAIN.fullmatch(smiles) and 3 < len(smiles) < 90 else None
        if canonical and canonical not in taken:
            taken.add(canonical)
            plain.append(Case(smiles, f"TOX {number}", smiles))
    every = len(plain[: LINES - 1 - len(HARD)]) // len(HARD)
    mixed: list[Case] = []
    for i, case in enumerate(plain[: LINES - 1 - len(HARD)]):
        mixed.append(case)
        if i % every == 0 and i // every < len(HARD):
            mixed.append(HARD[i // every])
    return mixed


def table(rows: list[Case]) -> bytes:
    """The file: a line a case below the header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";", quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(["ChEMBL ID", "Name", "Max Phase", "Molecular Weight", "Smiles", "Standard Type", "Standard Value"])
    for number, case in enumerate(rows):
        weight = f"{100 + number / 10:.2f}"
        cells = [f"CHEMBL{number}", case.name, number % 5 or "", weight, case.given, "IC50", 10 * (number % 900)]
        writer.writerow(cells)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def _canonical(smiles: str) -> str | None:
    block = rdBase.BlockLogs()
    molecule = Chem.MolFromSmiles(smiles)
    del block
    return Chem.MolToSmiles(molecule) if molecule else None
