"""The head of a joint model: the residual stream of a molecule to numbers about it.

Shapes: B molecules, T positions, D width.
"""

import torch
from torch import Tensor, nn

from molgen.model.dropout import Dropout


class PredictionHead(nn.Module):
    """The mean over the positions and the last position, then one hidden layer.

    The last position is the only one that has seen the whole molecule through a causal mask.
    """

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.inputs = nn.Linear(2 * width, width)
        self.activation = nn.GELU()
        self.dropout = Dropout(dropout)
        self.outputs = nn.Linear(width, outputs)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(B, T, D) and (B, T), true where there is a token -> (B, outputs)."""
        lengths = seen.sum(dim=1)  # (B,)
        mean = (x * seen[:, :, None]).sum(dim=1) / lengths[:, None]
        last = x[torch.arange(len(x), device=x.device), lengths - 1]
        pooled = torch.cat((mean, last), dim=1)  # (B, 2D)
        return self.outputs(self.dropout(self.activation(self.inputs(pooled))))  # type: ignore[no-any-return]
