"""How well a run writes stereo and charges: validity by kind, centres assigned, marks that mean nothing, embedding.

    python scripts/study/stereo.py runs/druglike -n 10000 --json runs/stereo.json

Raw samples at temperature 1 stand beside as many held-out molecules of the run and, where it is a mixture, of each of
its sources. A stereocentre is assigned if it has a configuration; RDKit's FindPotentialStereo finds those that could. A
mark is lost if canonicalising removes it, because it stood on an atom or bond that is not stereogenic. Embedding is by
ETKDGv3 with one fixed seed, of the first 1,000 valid molecules.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rdkit import Chem
from rdkit.Chem import rdDistGeom
from rdkit.rdBase import BlockLogs

from molgen import MoleculeGenerator
from molgen.chem.pool import shared_workers
from molgen.data.dataset import build_dataset
from molgen.data.sources import read_source

_chem: Any = Chem
EMBEDDED = 1_000
ATTEMPTS = 20  # of the coordinates' random start
KINDS = ("all", "@", "/ or \\", "charge")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run of molgen")
    parser.add_argument("-n", type=int, default=10_000, help="samples, and held-out molecules of each source (10,000)")
    parser.add_argument("--split", default="test", help="of the held-out molecules (test)")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    options = parser.parse_args()
    generator = MoleculeGenerator.load(options.run)
    assert generator.run is not None
    sets = {"samples": list(generator.sample(options.n, seed=0).smiles)}
    data = generator.run.config.data
    pattern = generator.run.tokenizer.splitter.pattern
    dataset = build_dataset(read_source(data), data, generator.run.config.model.context, pattern, shared_workers())
    for source in data.sources or [""]:
        held_out = [m.smiles for m in dataset.molecules if m.split == options.split and m.source == source]
        sets[source or "held-out"] = held_out[:: max(1, len(held_out) // options.n)][: options.n]
    found = {name: figures(smiles) for name, smiles in sets.items()}
    for row in next(iter(found.values())):
        print(f"{row:<34}" + "".join(f"{one[row]:>22}" for one in found.values()))
    print(f"{'':<34}" + "".join(f"{name:>22}" for name in found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def figures(smiles: Sequence[str]) -> dict[str, str]:
    """Rows of the table, for SMILES as they were drawn."""
    drawn, valid = Counter[str](), Counter[str]()
    counts = Counter[str]()
    molecules = []
    block = BlockLogs()
    for text in smiles:
        molecule = Chem.MolFromSmiles(text) if text else None
        for kind in kinds(text):
            drawn[kind] += 1
            valid[kind] += molecule is not None
        if molecule is None:
            continue
        canonical = Chem.MolToSmiles(molecule)
        centres, remaining = (t.replace("@@", "@").count("@") for t in (text, canonical))
        counts["marks"] += centres
        counts["marks lost"] += centres - remaining
        if "/" in text or "\\" in text:
            counts["with bonds"] += 1
            counts["bonds lost"] += "/" not in canonical and "\\" not in canonical
        for info in _chem.FindPotentialStereo(molecule):
            if info.type == _chem.StereoType.Atom_Tetrahedral:
                counts["centres"] += 1
                counts["assigned"] += info.specified == _chem.StereoSpecified.Specified
        molecules.append(text)
    del block
    rows = {f"valid, {kind}": rate(valid[kind], drawn[kind]) for kind in KINDS}
    rows["stereocentres assigned"] = rate(counts["assigned"], counts["centres"])
    rows["@ marks lost"] = rate(counts["marks lost"], counts["marks"])
    rows["molecules that lose / and \\"] = rate(counts["bonds lost"], counts["with bonds"])
    with ProcessPoolExecutor() as pool:
        embedded = list(pool.map(embeds, molecules[:EMBEDDED], chunksize=20))
    rows["embed"] = rate(sum(embedded), len(embedded))
    return rows


def kinds(text: str) -> list[str]:
    """The KINDS that a string is of, valid or not."""
    charged = any("+" in part or "-" in part for part in text.replace("[", "]").split("]")[1::2])
    flags = {"@": "@" in text, "/ or \\": "/" in text or "\\" in text, "charge": charged}
    return ["all", *(kind for kind, flag in flags.items() if flag)]


def rate(part: int, whole: int) -> str:
    """A share with its standard error and the number that it is of."""
    if not whole:
        return "–"
    p = part / whole
    return f"{p:.4f} ± {math.sqrt(p * (1 - p) / whole):.4f} ({whole:,})"


def embeds(smiles: str) -> bool:
    """Whether ETKDGv3 finds coordinates with all stereo as written."""
    block = BlockLogs()
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed, parameters.maxIterations = 7, ATTEMPTS
    found = bool(rdDistGeom.EmbedMolecule(molecule, parameters) == 0)
    del block
    return found


if __name__ == "__main__":
    main()
