"""Another run as the start of a training: its network, its vocabulary with what is new, its weights."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from molgen.config import Config, validate
from molgen.errors import MolgenError
from molgen.model.build import build_model
from molgen.model.decoder import Decoder
from molgen.runs import Run, find_run
from molgen.tokenizer import SmilesTokenizer

# The parameters with one row a token; a tied head has none of its own.
_ROWS = {"embedding.weight", "head.weight", "head.bias"}
_MOST_NAMED = 5


def taken_over(config: Config, out: Path) -> tuple[Run, Config]:
    """The run that `training.init` names, and the configuration with its path and its model section.

    Raises MolgenError for a run without weights, for one that `out` would overwrite, and for a model setting that
    differs from the run's.
    """
    origin = find_run(config.training.init)
    if out.exists() and origin.path.samefile(out):
        raise MolgenError(f"{out}: is the run to start from", "choose another --out")
    for key in sorted(config.model.model_fields_set):
        here, there = getattr(config.model, key), getattr(origin.config.model, key)
        if here != there:
            raise MolgenError(
                f"model.{key}: {here} in the configuration, {there} in {origin.path}", "leave model.* out with --init"
            )
    origin.model(torch.device("cpu"))  # damaged weights are refused before anything is written
    values = config.model_dump()
    values["model"] = origin.config.model.model_dump()
    values["training"]["init"] = str(origin.path)
    return origin, validate(values, str(origin.path))


def initial_model(config: Config, tokenizer: SmilesTokenizer, origin: Run) -> Decoder:
    """The decoder before its first step: another run's weights, and fresh rows for the tokens that it lacks."""
    model = build_model(config.model, len(tokenizer), config.training.seed)
    ids = {token: i for i, token in enumerate((*tokenizer.special, *tokenizer.tokens))}
    rows = torch.tensor([ids[token] for token in (*origin.tokenizer.special, *origin.tokenizer.tokens)])
    weights = dict(origin.model(torch.device("cpu")).named_parameters())
    for name, parameter in model.named_parameters():
        copy_rows(weights[name].data, parameter.data, rows if name in _ROWS else torch.arange(len(parameter)))
    return model


def copy_rows(source: Tensor, target: Tensor, rows: Tensor) -> None:
    """Row i of `source` becomes row `rows[i]` of `target`. Raises ValueError where their shapes do not fit."""
    if source.shape != (len(rows), *target.shape[1:]):
        raise ValueError(f"{len(rows)} rows of {tuple(target.shape)} cannot be {tuple(source.shape)}")
    target[rows] = source


def describe(origin: Run, tokenizer: SmilesTokenizer, training: Sequence[str]) -> str:
    """One line: how many of the run's tokens the training molecules use, which ones are new and how frequent."""
    known, counts, with_new = set(origin.tokenizer.tokens), Counter[str](), 0
    for smiles in training:
        tokens = set(tokenizer.splitter.split(smiles) or [])
        counts.update(tokens)
        with_new += not tokens <= known
    new = sorted(counts.keys() - known, key=lambda token: (-counts[token], token))
    named = ", ".join(new[:_MOST_NAMED]) + (", …" if len(new) > _MOST_NAMED else "")
    line = f"from {origin.path}: {len(counts.keys() & known)} of its {len(known)} tokens are used, "
    if new:
        line += f"{len(new)} new token{'s' if len(new) > 1 else ''} ({named}), in {with_new:,} of {len(training):,} "
        line += f"training molecules ({with_new / len(training):.1%})"
    else:
        line += "none is new"
    if others := len(tokenizer.tokens) - len(known) - len(new):
        line += f"; {others} more for random forms or other splits"
    return line
