"""Gradient checkpointing: a block's inner results are not kept but computed again in the backward pass."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from molgen.model.dropout import dropout_from, dropout_state


def recomputed(block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`block(x)`, of which only `x` is kept for the gradient (Chen et al. 2016).

    The second pass has the dropout of the first, also in another thread, so the gradient is the same.
    """
    state = dropout_state()

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), dropout_from(state)

    # a thread without dropout of its own uses PyTorch's generator, which `checkpoint` can take care of
    return checkpoint(  # type: ignore[no-any-return]
        block, x, use_reentrant=False, preserve_rng_state=state is None, context_fn=contexts
    )
