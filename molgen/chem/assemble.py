"""Molecules put together from fragments and given groups and linkers, without a model: a baseline."""

import re
from collections.abc import Sequence

import numpy as np

from molgen.chem.fragments import TO_FIND, beginning, keep_of, prompts, tails

_ATOM = re.compile(r"\[[^\]]*\]|Br|Cl|[BCNOPSFIbcnops]")


def assembled(text: str, seed: int, groups: Sequence[str], linkers: Sequence[str]) -> str | None:
    """A SMILES with a random group at each point, and a random linker between two points of two fragments.

    `text` is of `fragments.numbered`; without points a group is at a random hydrogen. Groups and linkers are SMILES
    whose first atom is attached, and to whose last atom a linker's other fragment is. None if the pieces do not fit,
    and for a ring to be closed.
    """
    keep, rng = keep_of(text), np.random.default_rng(seed)
    smiles, places = beginning(keep, 0)
    for step in keep.steps(0):
        if step.kind == "ring":
            return None
        points = [point.dummy for point in step.points[:1]]
        sites = prompts(smiles, places, text, points, seed, 1)
        if not sites:
            return None
        prompt, places, _ = sites[int(rng.integers(len(sites)))][0]
        smiles = prompt + str(rng.choice(linkers if step.kind == "link" else groups))
        for point in step.points:
            places[point.dummy] = TO_FIND
        if step.kind == "link":
            atoms = len(_ATOM.findall(smiles))
            ends = tails(text, step.points[1].dummy, seed, 1)
            if not ends:
                return None
            tail, others = ends[0]
            smiles += tail
            places = [atoms + new if new >= 0 else old for old, new in zip(places, others, strict=True)]
    return str(smiles)
