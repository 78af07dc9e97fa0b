"""A molecule beside a hit: what they share, what was lost and gained, R groups on the hit's scaffold."""

import re
from collections import Counter
from importlib import import_module
from typing import Any

from rdkit import Chem
from rdkit.Chem import rdFMCS
from rdkit.Chem.Scaffolds import MurckoScaffold

from molgen.chem.oracles import FINGERPRINTS, tanimoto
from molgen.chem.smiles import parse, quiet

_murcko: Any = MurckoScaffold
_groups: Any = import_module("rdkit.Chem.rdRGroupDecomposition")  # its stubs are no valid Python
_chem: Any = Chem
_SECONDS = 2
_ATTACHED = re.compile(r"\[\d+\*\]|\[\*:\d+\]|\*")


def versus(smiles: str, hit: str) -> dict[str, Any] | None:
    """A molecule compared with a hit; None if one of them is invalid.

    similarity: Tanimoto, ECFP4 counts. shared: share of the hit's heavy atoms in the largest common substructure. lost,
    gained: what the hit and the molecule have beside it, as SMILES with `*` where it is attached. r_groups: "R1=C R2=F"
    if the molecule has the hit's Bemis–Murcko scaffold, else "".
    """
    molecule, other = parse(smiles), parse(hit)
    if molecule is None or other is None:
        return None
    with quiet():
        common = rdFMCS.FindMCS(
            [molecule, other], timeout=_SECONDS, ringMatchesRingOnly=True, completeRingsOnly=True, matchValences=False
        )
        core = Chem.MolFromSmarts(common.smartsString) if common.numAtoms else None
        lost, gained = (_beside(one, core) for one in (other, molecule))
        return {
            "similarity": float(tanimoto(*(FINGERPRINTS["ecfp4"](one) for one in (molecule, other)))),
            "shared": common.numAtoms / other.GetNumHeavyAtoms(),
            "lost": _listed(lost - gained),
            "gained": _listed(gained - lost),
            "r_groups": _r_groups(molecule, other),
        }


def _beside(molecule: Any, core: Any | None) -> Counter[str]:
    """The parts of a molecule outside a core."""
    if core is None:
        return Counter([str(Chem.MolToSmiles(molecule))])
    rest = _chem.ReplaceCore(molecule, core, labelByIndex=False)
    if rest is None or not rest.GetNumAtoms():
        return Counter()
    return Counter(_ATTACHED.sub("*", part) for part in str(Chem.MolToSmiles(rest)).split("."))


def _listed(parts: Counter[str]) -> str:
    return " ".join(sorted(parts.elements()))


def _r_groups(molecule: Any, hit: Any) -> str:
    scaffold = _murcko.GetScaffoldForMol(hit)
    if not scaffold.GetNumAtoms() or not molecule.HasSubstructMatch(scaffold):
        return ""
    found, failed = _groups.RGroupDecompose([scaffold], [molecule], asSmiles=True)
    if failed or not found:
        return ""
    groups = {name: _canonical(_ATTACHED.sub("*", text)) for name, text in found[0].items() if name != "Core"}
    return " ".join(f"{name}={text}" for name, text in sorted(groups.items()) if text not in ("*[H]", "[H]*"))


def _canonical(group: str) -> str:
    """The canonical SMILES of an R group, which need not be a molecule: a part of an aromatic ring is none."""
    molecule = Chem.MolFromSmiles(group, sanitize=False)
    return group if molecule is None else str(Chem.MolToSmiles(molecule))
