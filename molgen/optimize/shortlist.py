"""What one takes to a meeting: a few good and diverse molecules, each with what a chemist asks about it."""

import csv
import io
import math
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.descriptors import molblock
from molgen.chem.pool import Workers
from molgen.chem.smiles import parse
from molgen.data.readers import read_rows
from molgen.data.ring_systems import common_ring_systems
from molgen.errors import MolgenError
from molgen.metrics.similarity import neighbours
from molgen.optimize.ledger import Record
from molgen.runtime.files import write_atomically

_CONSIDERED = 2_000  # of the best molecules: a larger number takes minutes, and they score less
_CLOSEST = 0.65  # Tanimoto similarity (ECFP4) of two picks at most
_PROPERTIES = ("mw", "logp", "tpsa", "hbd", "hba", "rotatable", "qed", "sa", "alerts", "inchikey")
_PARTS = ("parent", "tautomer", "undefined_stereo", "ring_systems")


class Known(NamedTuple):
    """Molecules that are known: those of the prior's training set, of a catalogue, or that the objective names."""

    smiles: list[str]
    fingerprints: npt.NDArray[np.uint8]
    """(n, 128)."""


@dataclass(frozen=True)
class Pick:
    """A molecule of the shortlist."""

    rank: int
    record: Record
    scores: dict[str, float]
    """Component → transformed value."""
    properties: dict[str, Any]
    undefined_stereo: int
    """Stereocentres and double bonds without a configuration."""
    rare_rings: list[str]
    """Ring systems that fewer than five of the reference molecules have."""
    nearest: str
    """The most similar known molecule; empty if none is known."""
    nearest_similarity: float
    pareto: bool
    """Whether no other molecule is better by one component and not worse by the others."""
    catalog: str
    """The name of the molecule of the catalogue with the same parent; empty if there is none."""
    versus: dict[str, Any]
    """Compared with the hit, see `molgen.chem.analogs.versus`; empty without one."""


@dataclass(frozen=True)
class Shortlist:
    """The picks, the Pareto front, and what it was chosen from."""

    picks: list[Pick]
    front: list[Record]
    """By total, the best first; empty with a single component."""
    names: list[str]
    """Of the components."""
    considered: int
    """Distinct molecules among which was chosen."""
    notes: list[str]


def shortlist(
    records: Sequence[Record],
    names: Sequence[str],
    k: int,
    workers: Workers,
    known: Known | None = None,
    hit: str | None = None,
    catalog: Mapping[str, str] | None = None,
) -> Shortlist:
    """Up to `k` molecules by score, no two of which are tautomers or stereoisomers, or more similar than 0.65.

    `names` are those of the records' components, `catalog` has names by parent.
    """
    best = sorted((r for r in records if r.total == r.total), key=lambda r: (-r.total, r.call))[:_CONSIDERED]
    described = workers.map("describe", [r.canonical for r in best], "shortlist", parts=_PARTS)
    distinct: dict[str, tuple[Record, dict[str, Any]]] = {}
    for record, parts in zip(best, described, strict=True):
        if parts and "failure" not in parts:
            distinct.setdefault(parts["tautomer"], (record, parts))
    candidates = list(distinct.values())
    tabulated = workers.map(
        "tabulate", [r.canonical for r, _ in candidates], "shortlist", columns=[*_PROPERTIES, "fingerprint"]
    )
    bits = fingerprints_of(tabulated)
    chosen = _diverse(bits, k)
    front = _pareto([record for record, _ in candidates])
    of_front = {record.call for record in front}
    nearest = _nearest(bits[chosen], known)
    compared = workers.map("versus", [[candidates[i][0].canonical, hit] for i in chosen]) if hit else [{}] * len(chosen)
    common = common_ring_systems()
    picks = []
    for rank, (i, (similar, similarity), versus) in enumerate(zip(chosen, nearest, compared, strict=True), 1):
        record, parts = candidates[i]
        picks.append(
            Pick(
                rank,
                record,
                dict(zip(names, record.scores, strict=True)),
                {name: tabulated[i].get(name) for name in _PROPERTIES},
                parts["undefined_stereo"],
                [ring for ring in parts["ring_systems"] if ring not in common],
                similar,
                similarity,
                record.call in of_front,
                (catalog or {}).get(parts["parent"], ""),
                versus or {},
            )
        )
    notes = []
    if len(picks) < k:
        notes.append(
            f"{len(picks)} picks, not {k}: the {len(candidates):,} best molecules have no more that are less similar "
            f"than {_CLOSEST} to each other"
        )
    if known is None:
        notes.append("no nearest known molecule: the prior's molecules are not here; --catalog names others")
    return Shortlist(picks, front, list(names), len(candidates), notes)


def fingerprints_of(rows: Sequence[Mapping[str, Any] | None]) -> npt.NDArray[np.uint8]:
    """(n, 128) packed fingerprints of rows of `tabulate`; zeros for a molecule without one."""
    packed = np.zeros((len(rows), 128), np.uint8)
    for i, row in enumerate(rows):
        if row and row.get("fingerprint"):
            packed[i] = np.frombuffer(b64decode(row["fingerprint"]), np.uint8)
    return packed


def _diverse(bits: npt.NDArray[np.uint8], k: int) -> list[int]:
    """Up to `k` rows, the first ones of those that are not too similar to one before."""
    words, chosen = np.ascontiguousarray(bits).view(np.uint64), list[int]()
    ones = np.bitwise_count(words).sum(1, dtype=np.int64)
    for i in range(len(words)):
        shared = np.bitwise_count(words[chosen] & words[i]).sum(1, dtype=np.int64)
        union = np.maximum(ones[chosen] + ones[i] - shared, 1)
        if not chosen or (shared / union).max() <= _CLOSEST:
            chosen.append(i)
            if len(chosen) == k:
                break
    return chosen


def _pareto(records: Sequence[Record]) -> list[Record]:
    """The records of the last stage that no other dominates by the components' scores; in their order."""
    if not records:
        return []
    stage = max(record.stage for record in records)
    records = [record for record in records if record.stage == stage]
    scores = np.array([record.scores for record in records])
    scores = scores[:, ~np.isnan(scores).all(0)]
    if scores.shape[1] < 2:
        return []
    scores = np.where(np.isnan(scores), -math.inf, scores)
    front = []
    for i, own in enumerate(scores):
        dominated = ((scores >= own).all(1) & (scores > own).any(1)).any()
        if not dominated:
            front.append(records[i])
    return front


def _nearest(bits: npt.NDArray[np.uint8], known: Known | None) -> list[tuple[str, float]]:
    if known is None or not len(bits):
        return [("", math.nan)] * len(bits)
    similarity, index = neighbours(bits, known.fingerprints)
    return [(known.smiles[i], float(s)) for i, s in zip(index.tolist(), similarity.tolist(), strict=True)]


def known_molecules(smiles: Sequence[str], workers: Workers) -> Known | None:
    """Known molecules with their fingerprints; None if there is none."""
    distinct = list(dict.fromkeys(smiles))
    rows = workers.map("tabulate", distinct, "known molecules", columns=["fingerprint"])
    kept = [i for i, row in enumerate(rows) if row and "fingerprint" in row]
    if not kept:
        return None
    return Known([distinct[i] for i in kept], fingerprints_of([rows[i] for i in kept]))


def read_catalog(path: str, workers: Workers) -> tuple[dict[str, str], list[str]]:
    """(parent → name, SMILES) of the molecules of a file, such as a vendor's list.

    Raises MolgenError if none can be read.
    """
    rows = list(read_rows(path))
    described = workers.map("describe", [row.smiles for row in rows], "catalog", parts=("parent",))
    names: dict[str, str] = {}
    smiles = []
    for row, parts in zip(rows, described, strict=True):
        if parts and "failure" not in parts:
            names.setdefault(parts["parent"], row.name or row.smiles)
            smiles.append(row.smiles)
    if not smiles:
        raise MolgenError(f"--catalog {path}: no molecule can be read", "a .smi, .csv or .sdf file")
    return names, smiles


COLUMNS = (
    *("rank", "smiles", "total", "call", "origin", "pareto"),
    *_PROPERTIES,
    *("undefined_stereo", "rare_ring_systems", "nearest_known", "nearest_similarity", "catalog"),
    *("hit_similarity", "hit_shared", "hit_lost", "hit_gained", "hit_r_groups"),
)
"""Of shortlist.csv; the components follow, each raw and as a score."""


def cells(pick: Pick, names: Sequence[str]) -> list[str]:
    """A row of shortlist.csv."""
    record, versus = pick.record, pick.versus
    fixed = [pick.rank, record.canonical, _rounded(record.total), record.call, record.origin, int(pick.pareto)]
    fixed += [_rounded(pick.properties[name]) for name in _PROPERTIES]
    fixed += [pick.undefined_stereo, " ".join(pick.rare_rings), pick.nearest, _rounded(pick.nearest_similarity)]
    fixed += [pick.catalog]
    fixed += [_rounded(versus.get(key, "")) for key in ("similarity", "shared", "lost", "gained", "r_groups")]
    pairs = [_rounded(value) for pair in zip(record.raw, record.scores, strict=True) for value in pair]
    assert len(pairs) == 2 * len(names)
    return [str(cell) for cell in (*fixed, *pairs)]


def _rounded(value: Any) -> Any:
    """A number with four digits; empty for NaN."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return value


def write_table(found: Shortlist, path: Path) -> None:
    """Writes shortlist.csv."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*COLUMNS, *(f"{name}_{kind}" for name in found.names for kind in ("raw", "score"))])
    table.writerows(cells(pick, found.names) for pick in found.picks)
    write_atomically(path, text.getvalue().encode())


def write_sdf(found: Shortlist, path: Path) -> None:
    """Writes shortlist.sdf: 2D coordinates, with the columns of the table as data items."""
    names = [*COLUMNS, *(f"{name}_{kind}" for name in found.names for kind in ("raw", "score"))]
    blocks = []
    for pick in found.picks:
        items = zip(names, cells(pick, found.names), strict=True)
        data = "".join(f">  <{name}>\n{value}\n\n" for name, value in items if value)
        title, _, rest = molblock(parse(pick.record.canonical)).partition("\n")
        blocks.append(f"{title or f'pick {pick.rank}'}\n{rest}{data}$$$$\n")
    write_atomically(path, "".join(blocks).encode())
