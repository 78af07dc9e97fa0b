"""Fine-tuning: starts a training from another run's model configuration, vocabulary and weights."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from molgen.chem.clean import KNOWN_TO_INIT
from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.chem.smiles import VERSION as MOLECULES_VERSION
from molgen.config import Config, recipes, validate
from molgen.data.dataset import Dataset, Dropped
from molgen.data.download import data_directory, is_here
from molgen.data.parents import KnownParents, parent_smiles
from molgen.data.sources import reference_smiles
from molgen.errors import MolgenError
from molgen.model.build import build_model
from molgen.model.decoder import Decoder
from molgen.runs import Run, find_run, run_directory
from molgen.runtime.cache import LARGE, Arrays, cached, from_strings, to_strings
from molgen.tokenizer import SmilesTokenizer

logger = logging.getLogger(__name__)

# The parameters with one row per token; a tied head shares the embedding.
_ROWS = {"embedding.weight", "head.weight", "head.bias"}
_MOST_NAMED = 5
# Kinds of attention that have the same weights (Performer's random features, which are drawn, apart): a run of one can
# go on as another. Reformer shares queries and keys, Linformer learns its summaries.
_SAME_WEIGHTS = {"full", "window", "linear", "performer"}


def with_found_init(config: Config) -> Config:
    """The configuration with the path of the run that it starts from in place of the name.

    It is looked for before the new run's folder exists: that one may have the same name, as in `--init moses-small
    --out runs/moses-small`. Raises MolgenError for a recipe without a run.
    """
    if config.training.init is None:
        return config
    path = str(_named_run(Path(config.training.init)).path)
    return config.model_copy(update={"training": config.training.model_copy(update={"init": path})})


def inherit_model_config(config: Config, out: Path) -> tuple[Run, Config]:
    """(the run of `training.init`, the configuration with this run's path and model section).

    Dropout is that of the new training. The context may differ unless positions are learned; by default it is at least
    `data.max_tokens`. The attention may change between kinds of the same weights, such as from full to window.
    Raises MolgenError for a run without weights, for one that `out` would overwrite, and for a model setting that
    differs from the run's.
    """
    pretrained = _named_run(Path(config.training.init or ""))
    if out.exists() and pretrained.path.samefile(out):
        raise MolgenError(f"{out}: is the run to start from", "choose another --out")
    dropout = {"dropout", "embedding_dropout"}
    free = dropout | _attention_settings(config, pretrained.config)  # settings that no weight depends on
    if pretrained.config.model.positions != "learned":
        free = free | {"context"}
    for key in sorted(config.model.model_fields_set - free):
        here, there = getattr(config.model, key), getattr(pretrained.config.model, key)
        if here != there:
            raise MolgenError(
                f"model.{key}: {here} in the configuration, {there} in {pretrained.path}",
                "leave model.* out with --init",
            )
    pretrained.model(torch.device("cpu"))  # raises an error for damaged weights before anything is written
    values = config.model_dump()
    values["model"] = pretrained.config.model.model_dump() | config.model.model_dump(
        include=dropout | (free & config.model.model_fields_set)
    )
    if "context" in free - config.model.model_fields_set:
        values["model"]["context"] = max(pretrained.config.model.context, config.data.max_tokens or 0)
    values["training"]["init"] = str(pretrained.path)
    return pretrained, validate(values, str(pretrained.path))


def _attention_settings(config: Config, pretrained: Config) -> set[str]:
    """The settings of the attention that may differ from the run's."""
    kinds = {config.model.attention, pretrained.model.attention}
    if "attention" not in config.model.model_fields_set or len(kinds) == 1:
        return {"window"} if pretrained.model.attention in ("window", "reformer") else set()
    return {"attention", "window", "features"} if kinds <= _SAME_WEIGHTS else set()


def _named_run(path: Path) -> Run:
    if run_directory(str(path)) is None and path.name in recipes():  # a recipe for a run that does not exist yet
        raise MolgenError(f"{path}: no such run yet", f"make it: molgen train --config {path.name} --out {path}")
    return find_run(str(path))


def without_known(dataset: Dataset, pretrained: Run, workers: Workers) -> Dataset:
    """Removes held-out molecules that the other run trained on, because they would bias the evaluation; lists them.

    A shipped run has keys of its molecules' parents: they are compared by parent, and the training molecules that it
    knows are counted. Others are compared by molecule. The training set of a run that the other run started from is not
    checked. If the other run has neither molecules nor keys, nothing is removed. Raises MolgenError if no validation
    molecule is left.
    """
    known = _known_to(dataset, pretrained, workers)
    if known is None:
        return dataset
    removed = [m for m in dataset.molecules if m.split != "train" and m.smiles in known]
    remaining = [m for m in dataset.molecules if m.split == "train" or m.smiles not in known]
    if not any(m.split == "validation" for m in remaining):
        raise MolgenError(
            f"{dataset.name}: {pretrained.path} trained on every validation molecule",
            "hold out others, or leave --init out",
        )
    dropped = [Dropped(m.row, m.name, m.smiles, KNOWN_TO_INIT) for m in removed]
    return replace(dataset, molecules=tuple(remaining), dropped=(*dataset.dropped, *dropped))


def count_known(dataset: Dataset, pretrained: Run, workers: Workers) -> None:
    """Logs how many held-out molecules the other run trained on. For a run with targets they stay held out.

    The other run has seen their structure and not their values, so the error of a prediction is not biased by it; their
    NLL is too low.
    """
    if pretrained.parents is None and pretrained.names_its_source:  # reading it again only to count takes minutes
        logger.info(f"{pretrained.path} may know held-out molecules, without their values: their NLL may be too good")
        return
    known = _known_to(dataset, pretrained, workers) or set()
    held_out = [m for m in dataset.molecules if m.split != "train"]
    if seen := sum(m.smiles in known for m in held_out):
        logger.info(
            f"{pretrained.path} was trained on the structures of {seen:,} of the {len(held_out):,} held-out molecules, "
            "without their values: they stay, but their NLL is too good"
        )


def _known_to(dataset: Dataset, pretrained: Run, workers: Workers) -> set[str] | None:
    """The SMILES, among them all held-out ones, that the other run trained on; None if that is not known."""
    if pretrained.parents is not None:
        return _known_by_parent(dataset, pretrained, pretrained.parents, workers)
    if pretrained.has_molecules:
        held_out = [molecule.smiles for molecule in dataset.molecules if molecule.split != "train"]
        trained_on = set(_canonical(pretrained.split("train"), workers))
        return {
            smiles
            for smiles, canonical in zip(held_out, _canonical(held_out, workers), strict=True)
            if canonical and canonical in trained_on
        }
    logger.info(f"{pretrained.path} carries no molecules: held-out molecules that it trained on cannot be known")
    return None


def _known_by_parent(dataset: Dataset, pretrained: Run, trained_on: KnownParents, workers: Workers) -> set[str]:
    """The SMILES whose parent the other run trained on.

    The keys do not contain MOSES, which is large. If the run was trained on it and it has been fetched, the parents are
    compared with its strings, whose molecules have no charges and no stereo.
    """
    smiles = [molecule.smiles for molecule in dataset.molecules]
    parents = parent_smiles(smiles, workers)
    moses: set[str] = set()
    lacks_moses = "moses" in pretrained.config.data.trained_on and not is_here("moses")
    if lacks_moses:
        logger.info(f"MOSES is not here, so its molecules, which {pretrained.path} knows too, cannot be removed")
    elif "moses" in pretrained.config.data.trained_on:
        moses = set(reference_smiles("moses", "train"))
    found = trained_on.known(parents, moses)
    training = sum(known and m.split == "train" for known, m in zip(found.tolist(), dataset.molecules, strict=True))
    at_least = "at least " if lacks_moses else ""
    logger.info(f"{pretrained.path} knows {at_least}{training:,} of the {dataset.sizes['train']:,} training molecules")
    return {one for one, is_known in zip(smiles, found, strict=True) if is_known}


def _canonical(smiles: Sequence[str], workers: Workers) -> list[str]:
    """Canonical SMILES, empty for invalid strings; cached if there are many molecules."""

    def build() -> Arrays:
        forms = workers.map("canonical", smiles, "comparing with the other run")
        return {"canonical": from_strings(form or "" for form in forms)}

    def read(arrays: Arrays) -> list[str]:
        forms = to_strings(arrays["canonical"])
        if len(forms) != len(smiles):
            raise ValueError("of other molecules")
        return forms

    if len(smiles) < LARGE:
        return read(build())
    lost = len(workers.lost)
    key = [MOLECULES_VERSION, RDKIT_VERSION, *smiles]
    return cached(data_directory() / "cache", "canonical", key, build, read, lambda: len(workers.lost) == lost)


def initial_model(config: Config, tokenizer: SmilesTokenizer, pretrained: Run) -> Decoder:
    """The decoder before its first step: the other run's weights, with newly initialised rows for new tokens.

    The prediction head is new too, unless both runs have the same targets, and so is what reads conditions.
    """
    outputs, conditions = len(config.data.targets), len(config.data.conditions)
    model = build_model(config.model, len(tokenizer), config.training.seed, outputs, conditions)
    ids = {token: i for i, token in enumerate((*tokenizer.special, *tokenizer.tokens))}
    rows = torch.tensor([ids[token] for token in (*pretrained.tokenizer.special, *pretrained.tokenizer.tokens)])
    weights = dict(pretrained.model(torch.device("cpu")).named_parameters())
    same_targets = config.data.targets == pretrained.config.data.targets
    for name, parameter in model.named_parameters():
        if name.startswith("prediction.") and not same_targets:
            continue
        if name.startswith("conditions.") and not has_same_conditions(config, pretrained):
            continue
        if name not in weights and not parameter.requires_grad:  # Performer's random features, from another kind
            continue
        copy_rows(weights[name].data, parameter.data, rows if name in _ROWS else torch.arange(len(parameter)))
    return model


def has_same_conditions(config: Config, pretrained: Run) -> bool:
    """Whether both know the same conditions: then the new run has the other one's scales, and goes on from it."""
    return bool(config.data.conditions) and config.data.conditions == pretrained.config.data.conditions


def copy_rows(source: Tensor, target: Tensor, rows: Tensor) -> None:
    """Copies row i of `source` to row `rows[i]` of `target`. Raises ValueError if the shapes do not match."""
    if source.shape != (len(rows), *target.shape[1:]):
        raise ValueError(f"{len(rows)} rows of {tuple(target.shape)} cannot be {tuple(source.shape)}")
    target[rows] = source


def describe(pretrained: Run, tokenizer: SmilesTokenizer, training: Sequence[str]) -> str:
    """One line of text: how many of the run's tokens the training molecules use, and which new tokens they have."""
    known, counts, with_new = set(pretrained.tokenizer.tokens), Counter[str](), 0
    for smiles in training:
        tokens = set(tokenizer.splitter.split(smiles) or [])
        counts.update(tokens)
        with_new += not tokens <= known
    new = sorted(counts.keys() - known, key=lambda token: (-counts[token], token))
    named = ", ".join(new[:_MOST_NAMED]) + (", …" if len(new) > _MOST_NAMED else "")
    line = f"from {pretrained.path}: {len(counts.keys() & known)} of its {len(known)} tokens are used, "
    if new:
        line += f"{len(new)} new token{'s' if len(new) > 1 else ''} ({named}), in {with_new:,} of {len(training):,} "
        line += f"training molecules ({with_new / len(training):.1%})"
    else:
        line += "none is new"
    if others := len(tokenizer.tokens) - len(known) - len(new):
        line += f"; {others} more for random forms or other splits"
    return line
