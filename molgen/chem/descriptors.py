"""Descriptors of one molecule for metrics and tables, from a single parse. Runs in the worker processes.

The input is a string and the output JSON values: `describe` computes the parts that metrics need, `tabulate` the
columns of a table. A fingerprint is packed bits in base64.
"""

import importlib.util
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rdkit import Chem, DataStructs, RDConfig
from rdkit.Chem import QED, Descriptors, Fragments, rdDepictor, rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold

from molgen.chem.alerts import alerts, moses_filters
from molgen.chem.fragments import keep_of
from molgen.chem.kept import described
from molgen.chem.smiles import failure, parse, quiet
from molgen.chem.standardize import parent_of, tautomer_of

_chem: Any = Chem  # RDKit's modules have no type hints, or too narrow ones
_murcko: Any = MurckoScaffold
_qed: Any = QED
_descriptors: Any = Descriptors

VERSION = "2"
"""Increase it when a part or a cached table changes its meaning, so that cached results are computed again."""
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
MOSES_PROPERTIES = ("logP", "SA", "QED", "weight")
"""The names of `properties`, as MOSES has them."""


def describe(smiles: str, parts: Sequence[str], alert_folder: str = "") -> dict[str, Any]:
    """The named parts of a valid molecule, or {"failure": cause} of an invalid one.

    The parts are those of `PARTS`, and `filters`, which needs the folder with mcf.csv and wehi_pains.csv of MOSES. The
    causes are those of `failure`.
    """
    molecule = parse(smiles)
    if molecule is None:
        return {"failure": failure(smiles)}
    with quiet():
        return {
            part: moses_filters(molecule, alert_folder) if part == "filters" else PARTS[part](molecule)
            for part in parts
        }


def smiles_no_stereo(molecule: Any) -> str:
    """Canonical SMILES without stereo."""
    return str(Chem.MolToSmiles(molecule, isomericSmiles=False))


def fingerprint(molecule: Any) -> str:
    """Morgan fingerprint of radius 2 with 1,024 bits, as in MOSES."""
    return _packed(morgan(1024).GetFingerprint(molecule))


def fingerprint_4096(molecule: Any) -> str:
    """ECFP4 with 4,096 bits, as in GuacaMol."""
    return _packed(morgan(4096).GetFingerprint(molecule))


def fragments(molecule: Any) -> list[str]:
    """BRICS fragments (Degen et al. 2008) as MOSES counts them: SMILES with dummy atoms."""
    return str(Chem.MolToSmiles(Chem.FragmentOnBRICSBonds(molecule))).split(".")


def scaffold(molecule: Any) -> list[Any]:
    """[SMILES, number of rings] of RDKit's Bemis–Murcko scaffold; ["", 0] for an acyclic molecule."""
    try:
        core = _murcko.GetScaffoldForMol(molecule)
    except (ValueError, RuntimeError):
        return ["", 0]
    return [str(Chem.MolToSmiles(core)), core.GetRingInfo().NumRings()]


def flat_scaffold(molecule: Any) -> str:
    """SMILES of the Bemis–Murcko scaffold without stereo; "" for an acyclic molecule."""
    smiles, _ = scaffold(molecule)
    if not smiles:
        return ""
    core = parse(str(smiles))
    return str(smiles) if core is None else str(Chem.MolToSmiles(core, isomericSmiles=False))


def ecfp4_counts(molecule: Any) -> str:
    """ECFP4 (Morgan, radius 2) folded to 2,048 counts of at most 255, one byte each, in base64."""
    counts = morgan(2048).GetCountFingerprintAsNumPy(molecule)
    return b64encode(counts.clip(max=255).astype("uint8").tobytes()).decode("ascii")


def properties(molecule: Any) -> list[float]:
    """Crippen logP, synthetic accessibility (Ertl and Schuffenhauer 2009), QED, molecular weight in g/mol."""
    return [
        float(_descriptors.MolLogP(molecule)),
        float(sa_scorer().calculateScore(molecule)),
        qed(molecule),
        float(_descriptors.MolWt(molecule)),
    ]


def qed(molecule: Any) -> float:
    """Quantitative estimate of drug-likeness (Bickerton et al. 2012, Nat. Chem. 4:90), the same as RDKit's QED.qed.

    This is faster, because RDKit's function works on a copy and loses what the molecule has already computed.
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
    """The GUACAMOL_DESCRIPTORS of GuacaMol's KL score, in this order; 0 in place of infinity or NaN."""
    values = [float(getattr(_descriptors, name)(molecule)) for name in GUACAMOL_DESCRIPTORS]
    return [value if abs(value) < float("inf") else 0.0 for value in values]


def radicals_fragments_charge(molecule: Any) -> list[int]:
    """[radical electrons, fragments, net charge]."""
    radicals = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    return [radicals, len(Chem.GetMolFrags(molecule)), Chem.GetFormalCharge(molecule)]


def elements(molecule: Any) -> list[str]:
    """Symbols of the elements, without implicit hydrogen."""
    return sorted({str(atom.GetSymbol()) for atom in molecule.GetAtoms()})


def charged_atoms(molecule: Any) -> int:
    """Number of atoms with a formal charge."""
    return sum(atom.GetFormalCharge() != 0 for atom in molecule.GetAtoms())


KINDS = {
    "nitro": "[$([NX3+](=O)[O-]),$([NX3](=O)=O)]",
    "N-oxide": "[#7+;!$([N+](=O)[O-])]-[O-]",
    "quaternary N": "[#7+;H0;!$(*~[-])]",
    "protonated N": "[#7+;!H0]",
    "carboxylate": "C(=O)[O-]",
    "other anion": "[-;!$([O-][#7+]);!$([O-]C=O);!$([*-]~[*+])]",
    "peptide of three": "[NX3,NX4+][CX4][CX3](=O)[NX3][CX4][CX3](=O)[NX3][CX4][CX3]=O",
}
"""Kinds of charged and large molecules, by SMARTS. Ylides, azides and diazo groups are in none of them."""
_COUNTED = (6, 7, 8, 9, 15, 16, 17, 35)  # elements that `surrogate` counts
_MACROCYCLE, _LARGE = 12, 50  # atoms of a ring, heavy atoms


def kinds(molecule: Any) -> list[str]:
    """Its elements, KINDS, and of these: stereocentres, stereo double bonds, macrocycle, over 50 heavy atoms."""
    found = [name for name, pattern in _kind_patterns() if molecule.HasSubstructMatch(pattern)]
    if any(atom.GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED for atom in molecule.GetAtoms()):
        found.append("stereocentres")
    if any(bond.GetStereo() > Chem.BondStereo.STEREOANY for bond in molecule.GetBonds()):
        found.append("stereo double bonds")
    if any(len(ring) >= _MACROCYCLE for ring in molecule.GetRingInfo().AtomRings()):
        found.append("macrocycle")
    if molecule.GetNumHeavyAtoms() > _LARGE:
        found.append("over 50 heavy atoms")
    return [*elements(molecule), *found]


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


def undefined_stereo(molecule: Any) -> int:
    """Number of stereocentres and double bonds whose configuration is not given."""
    with quiet():
        found = _chem.FindPotentialStereo(Chem.Mol(molecule))
    return sum(one.specified == Chem.StereoSpecified.Unspecified for one in found)


def surrogate(molecule: Any) -> list[Any]:
    """[ECFP6 of 4,096 bits with counts simulated, a few descriptors]: what a model of a score is fitted to."""
    bits = _packed(_morgan_counts().GetFingerprint(molecule))
    counts = [0] * len(_COUNTED)
    for atom in molecule.GetAtoms():
        if atom.GetAtomicNum() in _COUNTED:
            counts[_COUNTED.index(atom.GetAtomicNum())] += 1
    names = ("mw", "logp", "tpsa", "hbd", "hba", "rotatable", "rings", "aromatic_rings")
    return [bits, [*counts, *(float(PROPERTIES[name].compute(molecule)) for name in names)]]


PARTS: dict[str, Callable[[Any], Any]] = {
    "canonical": lambda molecule: str(Chem.MolToSmiles(molecule)),
    "smiles_no_stereo": smiles_no_stereo,
    "fingerprint": fingerprint,
    "fingerprint_4096": fingerprint_4096,
    "fragments": fragments,
    "scaffold": scaffold,
    "flat_scaffold": flat_scaffold,
    "ecfp4_counts": ecfp4_counts,
    "properties": properties,
    "guacamol": guacamol_descriptors,
    "parent": parent_of,
    "tautomer": tautomer_of,
    "radicals_fragments_charge": radicals_fragments_charge,
    "elements": elements,
    "charged_atoms": charged_atoms,
    "kinds": kinds,
    "alerts": alerts,
    "ring_systems": ring_systems,
    "functional_groups": functional_groups,
    "undefined_stereo": undefined_stereo,
    "surrogate": surrogate,
}
"""Name of a part → its function. The part `filters` is not here, because it needs MOSES' alert lists."""


def synthetic_accessibility(molecule: Any) -> float:
    """Ertl and Schuffenhauer 2009 (J. Cheminform. 1:8): 1 easy to 10 hard."""
    return float(sa_scorer().calculateScore(molecule))


def molblock(molecule: Any) -> str:
    """A connection table (V2000 if possible, else V3000) with 2D coordinates."""
    drawn = Chem.Mol(molecule)
    rdDepictor.Compute2DCoords(drawn)
    try:
        return str(Chem.MolToMolBlock(drawn))
    except RuntimeError:  # RDKit cannot write some molecules, such as `[*H]`, whose valence is unknown
        return str(Chem.MolToMolBlock(Chem.Mol()))


class Property(NamedTuple):
    """A column of sample tables that depends only on the molecule; conditions and filters can use it too."""

    compute: Callable[[Any], Any]
    style: str = ""
    """The format of its cells."""
    cheap: bool = True
    """Whether a table has this column by default."""


PROPERTIES: dict[str, Property] = {
    "mw": Property(lambda molecule: float(_descriptors.MolWt(molecule)), ".2f"),
    "logp": Property(lambda molecule: float(_descriptors.MolLogP(molecule)), ".3f"),
    "tpsa": Property(lambda molecule: float(rdMolDescriptors.CalcTPSA(molecule)), ".2f"),
    "hbd": Property(lambda molecule: int(rdMolDescriptors.CalcNumHBD(molecule))),
    "hba": Property(lambda molecule: int(rdMolDescriptors.CalcNumHBA(molecule))),
    "rotatable": Property(lambda molecule: int(rdMolDescriptors.CalcNumRotatableBonds(molecule))),
    "rings": Property(lambda molecule: int(rdMolDescriptors.CalcNumRings(molecule))),
    "aromatic_rings": Property(lambda molecule: int(rdMolDescriptors.CalcNumAromaticRings(molecule)), cheap=False),
    "bertz": Property(lambda molecule: float(_descriptors.BertzCT(molecule)), ".1f", cheap=False),
    "qed": Property(qed, ".3f", cheap=False),
    "sa": Property(synthetic_accessibility, ".2f", cheap=False),
    "alerts": Property(lambda molecule: " ".join(alerts(molecule)), cheap=False),
    "inchikey": Property(lambda molecule: str(_chem.MolToInchiKey(molecule)), cheap=False),
}
"""Average weight (g/mol), Crippen logP, TPSA (Å²), Lipinski donors and acceptors, rotatable bonds (strict), rings, QED,
synthetic accessibility, structural alerts of RDKit's catalogue (PAINS, Brenk, NIH), InChIKey: all computed by RDKit.
"""
_CELLS: dict[str, Callable[[Any], Any]] = {
    "molblock": molblock,
    "fingerprint": fingerprint,
    **{name: column.compute for name, column in PROPERTIES.items()},
}


def tabulate(smiles: str, columns: Sequence[str], keep: str = "") -> dict[str, Any]:
    """The named properties of a valid molecule (`molblock` and `fingerprint` too), or {"error": cause}.

    With `keep`, a text of `fragments.numbered`, also all columns of what is kept, empty for a molecule without it.
    """
    molecule = parse(smiles)
    if molecule is None:
        return {"error": failure(smiles)}
    with quiet():
        held = described(molecule, keep_of(keep)) if keep else None
        return {name: _CELLS[name](molecule) for name in columns} | (held or {})


def _packed(bits: Any) -> str:
    return b64encode(DataStructs.BitVectToBinaryText(bits)).decode("ascii")


@lru_cache
def morgan(bits: int) -> Any:
    """RDKit's generator of Morgan fingerprints of radius 2 (ECFP4) of so many bits."""
    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=bits)


@lru_cache(maxsize=1)
def _morgan_counts() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=4096, countSimulation=True)


@lru_cache(maxsize=1)
def sa_scorer() -> Any:
    """RDKit's module of the synthetic accessibility score, which is a script outside of the rdkit package."""
    path = Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    specification = importlib.util.spec_from_file_location("sascorer", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@lru_cache(maxsize=1)
def _kind_patterns() -> list[tuple[str, Any]]:
    return [(name, Chem.MolFromSmarts(pattern)) for name, pattern in KINDS.items()]


@lru_cache(maxsize=1)
def _group_counters() -> list[tuple[str, Any]]:
    return [(name[3:], getattr(Fragments, name)) for name in sorted(dir(Fragments)) if name.startswith("fr_")]
