"""The forms of a molecule that a scorer is to see: protomers at a pH, and isomers of undefined centres."""

from typing import Any

from rdkit.Chem import EnumerateStereoisomers

from molgen.chem.smiles import canonical, parse, quiet

_isomers: Any = EnumerateStereoisomers
_MOST_PROTOMERS = 8


def forms(smiles: str, ph: float | None, stereoisomers: int) -> list[str] | None:
    """Canonical SMILES of the forms of a molecule, at least one; None if it is invalid.

    With a pH: the protomers that dimorphite-dl finds likely (Ropp et al. 2019, J. Cheminform. 11:14). Up to
    `stereoisomers` isomers of each, if centres or double bonds are undefined; 1 leaves them as they are.
    Raises ImportError if a pH is given and dimorphite-dl is not installed.
    """
    molecule = parse(smiles)
    if molecule is None:
        return None
    states = [smiles]
    if ph is not None:
        from dimorphite_dl import protonate_smiles  # an extra

        states = protonate_smiles([smiles], ph_min=ph, ph_max=ph, max_variants=_MOST_PROTOMERS) or [smiles]
    found: dict[str, None] = {}
    for state in states:
        protomer = parse(state)
        if protomer is None:
            continue
        if stereoisomers == 1:
            found[str(canonical(state))] = None
            continue
        with quiet():
            options = _isomers.StereoEnumerationOptions(maxIsomers=stereoisomers, onlyUnassigned=True, unique=True)
            for isomer in _isomers.EnumerateStereoisomers(protomer, options=options):
                found[str(_isomers.Chem.MolToSmiles(isomer))] = None
    return list(found) or [smiles]
