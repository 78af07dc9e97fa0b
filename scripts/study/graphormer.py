"""A small Graphormer (Ying et al. 2021, NeurIPS: "Do Transformers Really Perform Bad for Graph Representation?").

A transformer over the atoms of a molecule, which sees the graph through three encodings: the degree of each atom is
added to its features (centrality); each pair has a bias by the length of its shortest path (spatial encoding) and one
by the bonds along it (edge encoding). A virtual node, bonded to every atom by a distance of its own, is read out.
Normalisation comes before each part.

Deviations: undirected graphs, so one degree in place of two; a shortest path counts up to five bonds, as in the
authors' code; where there are several, the first by atom number is taken; no pre-training.

Shapes: B molecules, N atoms and the virtual node, D width, H heads, L bonds of a path.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rdkit import Chem
from rdkit.Chem import rdCIPLabeler
from torch import Tensor, nn
from torch.nn.functional import mse_loss, scaled_dot_product_attention

_ELEMENTS = (6, 7, 8, 9, 15, 16, 17, 35, 53)
_SIZES = (len(_ELEMENTS) + 1, 5, 5, 2, 2, 4, 5)  # of each feature: element, charge, hydrogens, aromatic, ring, …
_MOST_BONDS = 7  # of an atom
_FARTHEST, _APART, _TO_VIRTUAL = 20, 21, 22  # lengths of paths; no path; to the virtual node
_PATH = 5
_BOND_TYPES = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)
_BOND_KINDS = 1 + (len(_BOND_TYPES) + 1) * 2 * 2 * 3  # 0: no bond
_HYBRIDS = (Chem.HybridizationType.SP, Chem.HybridizationType.SP2, Chem.HybridizationType.SP3)
# CIP labels, which are, unlike RDKit's tags, the same whatever the order of the atoms
_CHIRAL, _DOUBLE = ("R", "S", "r", "s"), ("", "E", "Z")
_WIDTH, _HEADS, _BLOCKS, _DROPOUT = 80, 8, 6, 0.1
_EPOCHS, _BATCH, _RATE, _WARM_UP, _DECAY = 80, 32, 7e-4, 0.1, 0.01


class Graph(NamedTuple):
    """A molecule of N atoms."""

    atoms: npt.NDArray[np.int64]  # (N, features)
    degrees: npt.NDArray[np.int64]  # (N,)
    lengths: npt.NDArray[np.int64]  # (N, N) of the shortest paths
    bonds: npt.NDArray[np.int64]  # (N, N, L) kinds of the bonds along them


class Graphs(NamedTuple):
    """A batch, padded; place 0 is the virtual node."""

    atoms: Tensor  # (B, N, features)
    degrees: Tensor  # (B, N)
    lengths: Tensor  # (B, N, N)
    bonds: Tensor  # (B, N, N, L)
    real: Tensor  # (B, N) bool


def graph_of(smiles: str) -> Graph:
    """The graph of a molecule. Raises ValueError for a string that is none."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(f"{smiles}: no molecule")
    rdCIPLabeler.AssignCIPLabels(molecule)
    atoms = np.array([_features(atom) for atom in molecule.GetAtoms()])
    degrees = np.array([min(atom.GetDegree(), _MOST_BONDS) for atom in molecule.GetAtoms()])
    n = len(atoms)
    lengths, bonds = np.full((n, n), _APART), np.zeros((n, n, _PATH), np.int64)
    for start in range(n):
        lengths[start, start] = 0
        waiting = deque([start])
        while waiting:
            one = waiting.popleft()
            for bond in sorted(molecule.GetAtomWithIdx(one).GetBonds(), key=lambda bond: bond.GetOtherAtomIdx(one)):
                other, length = bond.GetOtherAtomIdx(one), lengths[start, one]
                if lengths[start, other] == _APART and other != start:
                    lengths[start, other] = length + 1
                    bonds[start, other] = bonds[start, one]
                    if length < _PATH:
                        bonds[start, other, length] = _kind(bond)
                    waiting.append(other)
    lengths = np.where((lengths > _FARTHEST) & (lengths != _APART), _FARTHEST, lengths)
    return Graph(atoms, degrees, lengths, bonds)


def _features(atom: Any) -> list[int]:
    """The number of each feature's value; all features share one table, one after the other."""
    number = atom.GetAtomicNum()
    values = (
        _ELEMENTS.index(number) if number in _ELEMENTS else len(_ELEMENTS),
        min(max(atom.GetFormalCharge(), -2), 2) + 2,
        min(atom.GetTotalNumHs(), 4),
        int(atom.GetIsAromatic()),
        int(atom.IsInRing()),
        _HYBRIDS.index(atom.GetHybridization()) if atom.GetHybridization() in _HYBRIDS else len(_HYBRIDS),
        _CHIRAL.index(atom.GetProp("_CIPCode")) if atom.HasProp("_CIPCode") else len(_CHIRAL),
    )
    return [value + sum(_SIZES[:i]) for i, value in enumerate(values)]


def _kind(bond: Any) -> int:
    kind = bond.GetBondType()
    order = _BOND_TYPES.index(kind) if kind in _BOND_TYPES else len(_BOND_TYPES)
    stereo = _DOUBLE.index(bond.GetProp("_CIPCode") if bond.HasProp("_CIPCode") else "")
    return 1 + ((order * 2 + int(bond.GetIsConjugated())) * 2 + int(bond.IsInRing())) * 3 + stereo


def batched(graphs: Sequence[Graph]) -> Graphs:
    """Graphs of several sizes as one batch, with the virtual node before the atoms."""
    b, n = len(graphs), 1 + max(len(graph.degrees) for graph in graphs)
    atoms = torch.zeros(b, n, len(_SIZES), dtype=torch.long)
    degrees = torch.zeros(b, n, dtype=torch.long)
    lengths = torch.full((b, n, n), _TO_VIRTUAL)
    bonds = torch.zeros(b, n, n, _PATH, dtype=torch.long)
    real = torch.zeros(b, n, dtype=torch.bool)
    for i, graph in enumerate(graphs):
        own = slice(1, 1 + len(graph.degrees))
        atoms[i, own], degrees[i, own] = torch.from_numpy(graph.atoms), torch.from_numpy(graph.degrees)
        lengths[i, own, own], bonds[i, own, own] = torch.from_numpy(graph.lengths), torch.from_numpy(graph.bonds)
        real[i, : own.stop] = True
    return Graphs(atoms, degrees, lengths, bonds, real)


class Graphormer(nn.Module):
    """Graphs to one number each."""

    def __init__(self, width: int = _WIDTH, heads: int = _HEADS, blocks: int = _BLOCKS, dropout: float = _DROPOUT):
        super().__init__()
        self.atoms = nn.Embedding(sum(_SIZES), width)
        self.degrees = nn.Embedding(_MOST_BONDS + 1, width)
        self.virtual = nn.Parameter(torch.randn(width) * 0.02)
        self.by_length = nn.Embedding(_TO_VIRTUAL + 1, heads)
        self.by_bond = nn.Embedding(_BOND_KINDS, heads, padding_idx=0)
        self.by_place = nn.Parameter(torch.randn(_PATH, heads, heads) * 0.1)  # of a bond in its path
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(blocks))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, 1)
        for table in (self.atoms, self.degrees, self.by_length, self.by_bond):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)

    def forward(self, graphs: Graphs) -> Tensor:
        """-> (B,)"""
        x = self.atoms(graphs.atoms).sum(dim=2) + self.degrees(graphs.degrees)  # (B, N, D)
        x = self.dropout(torch.cat((self.virtual.expand(len(x), 1, -1), x[:, 1:]), dim=1))
        bias = self._bias(graphs)
        for block in self.blocks:
            x = block(x, bias)
        return self.output(self.norm(x[:, 0])).squeeze(1)  # type: ignore[no-any-return]

    def _bias(self, graphs: Graphs) -> Tensor:
        """What is added to the scores, (B, H, N, N): spatial and edge encoding; minus infinity for padding."""
        bonds = torch.einsum(
            "bijlh,lhk->bijk", self.by_bond(graphs.bonds) * (graphs.bonds > 0)[..., None], self.by_place
        )
        bonds = bonds / (graphs.bonds > 0).sum(dim=3, keepdim=True).clamp(min=1)
        bias = (self.by_length(graphs.lengths) + bonds).permute(0, 3, 1, 2).contiguous()
        return bias.masked_fill(~graphs.real[:, None, None], -torch.inf)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Self-attention with a bias, and two linear layers; each after a normalisation, with a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.inputs, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feedforward = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.inputs(self.norms[0](x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=self.rate if self.training else 0.0)
        x = x + self.dropout(self.joined(y.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feedforward(self.norms[1](x)))  # type: ignore[no-any-return]


def fitted(
    smiles: Sequence[str],
    values: npt.NDArray[np.float64],
    validation: npt.NDArray[np.bool_],
    seed: int,
    epochs: int = _EPOCHS,
) -> Callable[[Sequence[str]], npt.NDArray[np.float64]]:
    """A Graphormer that learned N values; the epoch with the lowest error on the validation molecules (N,) is kept."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    graphs = [graph_of(one) for one in smiles]
    training, held_out = np.flatnonzero(~validation), np.flatnonzero(validation)
    centre, spread = float(values[training].mean()), float(values[training].std()) or 1.0
    scaled = torch.tensor((values - centre) / spread, dtype=torch.float32)
    model = Graphormer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    steps = epochs * -(-len(training) // _BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    lowest, best = np.inf, copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        model.train()
        for rows in _batches([graphs[i] for i in training], random):
            own = training[rows]
            loss = mse_loss(model(batched([graphs[i] for i in own])), scaled[own])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        error = float(np.mean((_said(model, [graphs[i] for i in held_out]) - scaled[held_out].numpy()) ** 2))
        if error < lowest:
            lowest, best = error, copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return lambda queries: centre + spread * _said(model, [graph_of(one) for one in queries])


def _rate(done: float) -> float:
    """The share of the highest learning rate: up, then down to 0, both linearly."""
    return min(done / _WARM_UP, (1 - done) / (1 - _WARM_UP))


def _batches(graphs: Sequence[Graph], random: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each batch, of similar size and in a random order."""
    sizes = np.array([len(graph.degrees) for graph in graphs]) + random.normal(scale=3, size=len(graphs))
    parts = np.array_split(np.argsort(sizes), -(-len(graphs) // _BATCH))
    for place in random.permutation(len(parts)):
        yield parts[place]


@torch.no_grad()
def _said(model: Graphormer, graphs: Sequence[Graph]) -> npt.NDArray[np.float64]:
    model.eval()
    parts = [model(batched(graphs[i : i + _BATCH])) for i in range(0, len(graphs), _BATCH)]
    return torch.cat(parts).double().numpy()
