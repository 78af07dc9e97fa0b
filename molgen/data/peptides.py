"""The dataset `peptides`: long molecules with known structure far apart, made on the spot.

A sequence is drawn at random, so most of it cannot be predicted better than its composition. Three things can be, by a
model that looks back far enough: where a disulfide closes, where a head-to-tail ring closes, and a motif that occurs a
second time, 200 to 800 tokens behind the first.
"""

import csv
import gzip
import io
import json
import math
from typing import NamedTuple

import numpy as np

from molgen.chem.smiles import parse

VERSION = 1
"""Increase it when the molecules change."""
FILE = f"peptides-{VERSION}.csv.gz"
SIZES = {"train": 10_000, "validation": 1_000, "test": 1_000}
"""Molecules per split."""
_SEED = 0
_SHORTEST, _LONGEST = 10, 300  # residues; equally many molecules per factor of length
_RESIDUES = "ADEFGHIKLMNPQRSTVWY"  # cysteine comes with the disulfides only
# Side chains of the L-amino acids, from their first atom on; {} is a ring number. Proline's ring includes the nitrogen.
_SIDE_CHAINS = {
    **{"A": "C", "C": "CS", "D": "CC(=O)O", "E": "CCC(=O)O", "F": "Cc{}ccccc{}", "G": "", "H": "Cc{}c[nH]cn{}"},
    **{"I": "[C@@H](C)CC", "K": "CCCCN", "L": "CC(C)C", "M": "CCSC", "N": "CC(N)=O", "P": "{}CCC[C@H]{}"},
    **{"Q": "CCC(N)=O", "R": "CCCNC(=N)N", "S": "CO", "T": "[C@H](O)C", "V": "C(C)C"},
    **{"W": "Cc{}c[nH]c{}ccccc{}{}", "Y": "Cc{}ccc(O)cc{}"},
}
_TOKENS_PER_RESIDUE = 14
_FARTHEST, _NEAREST = 800, 200  # tokens from a motif to its copy
_MOTIF = (6, 15)  # residues, without the upper end
_LONGEST_RING = 60  # residues of a head-to-tail ring
_NEAREST_CYSTEINES = 4  # residues from one to the other


class Plan(NamedTuple):
    """A peptide before it is a molecule."""

    sequence: str
    disulfides: tuple[tuple[int, int], ...]
    """Pairs of residues, counted from 0."""
    copies: tuple[tuple[int, int, int], ...]
    """(first residue of a motif, first residue of its copy, residues)."""
    ring: bool
    """Head to tail: the last residue's carbonyl is bonded to the first residue's nitrogen."""


def drawn(rng: np.random.Generator) -> Plan:
    """A random peptide."""
    n = round(math.exp(rng.uniform(math.log(_SHORTEST), math.log(_LONGEST))))
    letters = rng.choice(list(_RESIDUES), n)
    copies = []
    first = 0
    while first < n:  # one motif after the other, each with its copy
        length, distance = int(rng.integers(*_MOTIF)), int(rng.integers(_NEAREST, _FARTHEST) // _TOKENS_PER_RESIDUE)
        second = first + max(distance, length)
        if second + length > n:
            break
        letters[second : second + length] = letters[first : first + length]
        copies.append((first, second, length))
        first = second + length
    disulfides = []
    for _ in range(int(rng.integers(0, 2 + n // 40))):
        a, b = sorted(rng.choice(n, 2, replace=False).tolist())
        if b - a >= _NEAREST_CYSTEINES and "C" not in (letters[a], letters[b]):
            letters[[a, b]] = "C"
            disulfides.append((a, b))
    ring = n <= _LONGEST_RING and rng.random() < 0.25
    return Plan("".join(letters), tuple(disulfides), tuple(copies), bool(ring))


def written(plan: Plan) -> str:
    """The SMILES of a plan, residue by residue from the first nitrogen to the last carbonyl.

    So a motif and its copy have the same tokens, but for numbers of rings. RDKit's own order would begin in the middle
    and write half of the residues backwards.
    """
    ends = {residue: number for number, pair in enumerate(plan.disulfides) for residue in pair}
    labels: dict[int, str] = {}  # of open disulfides
    free = [str(i) if i < 10 else f"%{i}" for i in range(99, 0, -1)]  # the smallest last
    whole = free.pop() if plan.ring else ""
    text = []
    for place, letter in enumerate(plan.sequence):
        head, side = "N" + (whole if place == 0 else ""), _SIDE_CHAINS[letter]
        own = [free.pop() for _ in range(side.count("{}") // 2)]
        body = side.format(*_twice(own))
        if place in ends:  # a disulfide opens, or closes
            number = ends[place]
            if number in labels:
                body += labels[number]
                free = sorted([*free, labels.pop(number)], key=_ring_number, reverse=True)
            else:
                labels[number] = free.pop()
                body += labels[number]
        free = sorted([*free, *own], key=_ring_number, reverse=True)
        alpha = {"G": "C", "P": body}.get(letter, f"[C@@H]({body})")
        text.append(f"{head}{alpha}C(=O)")
    last = text.pop().removesuffix("C(=O)")
    return "".join(text) + last + (f"C{whole}=O" if whole else "C(=O)O")


def _twice(labels: list[str]) -> list[str]:
    """The labels of rings in the order of opening and closing, of side chains with one ring or two."""
    return [labels[0], labels[1], labels[0], labels[1]] if len(labels) == 2 else labels * 2


def _ring_number(label: str) -> int:
    return int(label.lstrip("%"))


def table(sizes: dict[str, int] = SIZES) -> bytes:
    """The dataset as a gzipped table; the same lines each time. RDKit has parsed every molecule."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["smiles", "name", "split", "sequence", "disulfides", "copies", "ring"])
    number = 0
    for split, size in sizes.items():
        for _ in range(size):
            plan = drawn(np.random.default_rng([_SEED, number]))
            parts = (json.dumps(part) for part in (plan.disulfides, plan.copies))
            smiles = written(plan)
            assert parse(smiles) is not None, smiles
            writer.writerow([smiles, f"peptide-{number}", split, plan.sequence, *parts, int(plan.ring)])
            number += 1
    return gzip.compress(text.getvalue().encode(), mtime=0)
