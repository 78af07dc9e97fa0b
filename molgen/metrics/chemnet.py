"""ChemNet activations and the Fréchet ChemNet Distance (Preuer et al. 2018, J. Chem. Inf. Model. 58:1736).

The weights are those that fcd_torch ships, the network that MOSES used; its arithmetic is done here: molecules of
similar length go through together, and what all molecules share is computed once. ChemNet reads 350 positions, of
which a molecule fills some 40 and the rest is zero. Its first LSTM runs backwards, so over that rest its states are
the same for every molecule, and the second LSTM's input there is one vector for all of them.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from molgen.runtime.bars import Bar

SIZE = 512
_TOKENS = (
    *("C", "N", "O", "H", "F", "Cl", "P", "B", "Br", "S", "I", "Si", "#", "(", ")", "+", "-"),
    *("1", "2", "3", "4", "5", "6", "7", "8", "=", "[", "]", "@", "c", "n", "o", "s", "X", "."),
)
_ID = {token: i for i, token in enumerate(_TOKENS)}
_POSITIONS = 350
_BATCH = 1024
_VERSION = "1"  # goes up with a change of what is computed here: activations are cached


class Gaussian(NamedTuple):
    """Mean (512,) and covariance (512, 512) of a set's activations, and how many molecules they are of."""

    mean: npt.NDArray[np.floating[Any]]
    covariance: npt.NDArray[np.float64]
    n: int


def versions() -> str:
    """What the activations depend on."""
    return f"{_VERSION} fcd_torch {version('fcd_torch')}"


def truncated(smiles: str) -> bool:
    """Whether ChemNet reads only a part of a molecule: it stops at the first `.` and after 349 tokens."""
    return "." in smiles or len(smiles) >= _POSITIONS


def truncation_note(canonical: Sequence[str]) -> list[str]:
    """A note on the molecules that ChemNet reads only in part, if there are any."""
    cut = sum(map(truncated, canonical))
    return [f"ChemNet stops at the first '.' and after 349 tokens: it saw a part of {cut:,} molecules"] if cut else []


def activations(smiles: Sequence[str], description: str = "", device: str = "cpu") -> npt.NDArray[np.float32]:
    """ChemNet's last hidden state for each canonical SMILES, (n, 512)."""
    network = _network(device)
    encoded = [_encode(s) for s in smiles]
    order = sorted(range(len(smiles)), key=lambda i: len(encoded[i]))
    result = np.zeros((len(smiles), SIZE), np.float32)
    with (
        torch.inference_mode(),
        Bar(total=len(smiles), desc=description, unit="mol", delay=1) as bar,
    ):
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            result[rows] = network.forward([encoded[i] for i in rows]).cpu().numpy()
            bar.update(len(rows))
    return result


def gaussian(values: npt.NDArray[np.float32]) -> Gaussian:
    """Moments of activations (n, 512); the covariance divides by n - 1."""
    covariance = torch.from_numpy(values).double().T.cov().numpy()
    return Gaussian(values.mean(0, dtype=np.float64), covariance, len(values))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mean difference|² + tr(A) + tr(B) - 2 tr((AB)^½), the squared Fréchet distance that is called FCD.

    The trace of the root is the sum of the roots of the eigenvalues of A^½ B A^½, which is symmetric: no complex part
    to be cut off, and singular covariances (fewer than 513 molecules) need no special case.
    """
    # PyTorch's linear algebra, because NumPy's brings threads of its own, which get into the way of PyTorch's
    ours, theirs = (torch.from_numpy(np.asarray(g.covariance, np.float64)) for g in (a, b))
    values, vectors = torch.linalg.eigh(ours)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    eigenvalues = torch.linalg.eigvalsh(root @ theirs @ root)
    difference = a.mean.astype(np.float64) - b.mean
    traces = float(ours.trace() + theirs.trace() - 2 * eigenvalues.clamp_min(0).sqrt().sum())
    return float(difference @ difference) + traces


def _encode(smiles: str) -> list[int]:
    """Token ids up to the first `.`, which is also the end mark. A letter before r, i or l is taken with it."""
    tokens = re.findall(r".[ril]|.", smiles.partition(".")[0])[: _POSITIONS - 1]
    return [_ID.get(token, _ID["X"]) for token in tokens] + [_ID["."]]


class _Lstm(NamedTuple):
    """An LSTM on columns: states are (hidden, molecules), so that each gate is one contiguous block."""

    input_weight: Tensor
    hidden_weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: Any) -> "_Lstm":
        """Gates in the order input, forget, output, cell: the three sigmoids become one call."""
        i, f, g, o = torch.arange(layer.weight_hh_l0.shape[0], device=layer.weight_hh_l0.device).chunk(4)
        order = torch.cat([i, f, o, g])
        bias = layer.bias_ih_l0 + layer.bias_hh_l0
        return cls(layer.weight_ih_l0[order], layer.weight_hh_l0[order], bias[order][:, None])

    def step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """x (input, molecules or 1), hidden and cell (hidden, molecules) → the next two."""
        gates = torch.addmm(self.bias, self.input_weight, x)  # (4 * hidden, molecules or 1)
        gates = torch.addmm(gates, self.hidden_weight, hidden)  # (4 * hidden, molecules)
        n = hidden.shape[0]
        gates[: 3 * n].sigmoid_()
        gates[3 * n :].tanh_()
        cell = (cell * gates[n : 2 * n]).addcmul_(gates[:n], gates[3 * n :])
        return cell.tanh().mul_(gates[2 * n : 3 * n]), cell


class _Network:
    """ChemNet without its padding: two convolutions of stride 2, an LSTM backwards, an LSTM forwards."""

    def __init__(self, layers: Sequence[Any], device: str) -> None:
        self.device = device
        self.kernels = [layer.to(device).weight for layer in layers if isinstance(layer, torch.nn.Conv1d)]
        backward, forward = (layer.to(device) for layer in layers if isinstance(layer, torch.nn.LSTM))
        self.backward, self.forward_lstm = _Lstm.of(backward), _Lstm.of(forward)
        self.steps = ((_POSITIONS // 2) + 1) // 2
        # The backward LSTM over zeros, from the far end: rest[k] is its state after k steps.
        zero = torch.zeros(self.backward.input_weight.shape[1], 1, device=device)
        state = torch.zeros(self.backward.hidden_weight.shape[1], 1, device=device)
        self.rest = [(state, state)]
        for _ in range(self.steps):
            self.rest.append(self.backward.step(zero, *self.rest[-1]))

    def forward(self, encoded: Sequence[Sequence[int]]) -> Tensor:
        """(molecules, 512) of lists of ids."""
        longest = max(map(len, encoded))
        one_hot = torch.zeros(len(encoded), len(_TOKENS), _POSITIONS, device=self.device)
        for row, ids in enumerate(encoded):
            one_hot[row, ids, range(len(ids))] = 1 / len(_TOKENS)
        # The outputs of both convolutions that see anything but zeros; neither has a bias, so the others are zero.
        filled = min(((longest // 2 + 1) + 1) // 2 + 1, self.steps)
        width = min(4 * filled + 4, _POSITIONS)
        x = functional.selu(functional.conv1d(functional.pad(one_hot[:, :, :width], (1, 1)), self.kernels[0], stride=2))
        x = functional.selu(functional.conv1d(functional.pad(x, (1, 2)), self.kernels[1], stride=2))
        steps = x.permute(2, 1, 0).contiguous()  # (steps, 32, molecules)
        n = len(encoded)
        state, cell = (s.expand(-1, n).contiguous() for s in self.rest[self.steps - filled])
        seen = [state] * filled
        for t in reversed(range(filled)):
            state, cell = self.backward.step(steps[t], state, cell)
            seen[t] = state
        state = cell = torch.zeros(SIZE, n, device=self.device)
        for t in range(self.steps):
            x = seen[t] if t < filled else self.rest[self.steps - t][0]
            state, cell = self.forward_lstm.step(x, state, cell)
        return state.t()


@lru_cache(maxsize=1)
def _network(device: str) -> _Network:
    from fcd_torch import FCD  # loads its own weights

    with torch.inference_mode():
        return _Network(list(FCD(device="cpu").model), device)
