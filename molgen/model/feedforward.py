"""The feed-forward part of a block."""

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int, biases: bool) -> None:
        super().__init__()
        self.inputs = nn.Linear(width, hidden, bias=biases)
        self.activation = nn.GELU()
        self.output = nn.Linear(hidden, width, bias=biases)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        return self.output(self.activation(self.inputs(x)))  # type: ignore[no-any-return]
