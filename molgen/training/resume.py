"""What an exact resume rests on: where a training stands, and that what it is made with has not changed."""

import json
import math
import os
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from molgen.checkpoint import saved_fingerprint
from molgen.config import Config, differing, saved, value_of
from molgen.errors import MolgenError
from molgen.runs import CONFIG, MOLECULES, STATE, TOKENIZER, Run

# Settings that only say where something is: what lies there is compared itself.
_PLACES = {"data.source", "training.device", "training.init"}


@dataclass
class TrainerState:
    """Where a training stands between two steps; saved in the state, so that a resumed one goes on exactly."""

    epoch: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] = 0
    step_of_epoch: Annotated[int, Field(ge=0)] = 0
    """Steps of the epoch that is not finished."""
    nll_of_epoch: float = 0.0
    """NLL of its molecules so far, summed."""
    best_nll: float = math.inf
    best_epoch: Annotated[int, Field(ge=0)] = 0
    seconds: float = 0.0
    canonical_instead: int = 0
    """Times that no random SMILES could be used after some redraws, so the canonical one was."""
    init_sha256: str | None = None
    """The weights file that a fine-tuning began with; the run that it belongs to may be gone by the end."""
    halved: bool = False
    """Whether batches go through the network in halves, because a GPU's memory was too small for whole ones."""

    @property
    def position(self) -> dict[str, object]:
        """As a state's header has it, in valid JSON: no NLL is null, where earlier versions wrote Infinity."""
        return vars(self) | {"best_nll": self.best_nll if math.isfinite(self.best_nll) else None}


def resume_fingerprint(run: Run, molecules: str) -> dict[str, str]:
    """What a state belongs to; `molecules` is a hash of them."""
    configuration = json.dumps(run.config.model_dump())  # all ASCII, though a path in it need not be UTF-8
    return {"configuration": configuration, "tokenizer": run.tokenizer.fingerprint, "molecules": molecules}


def check_unchanged(run: Run, now: dict[str, str]) -> None:
    """Raises MolgenError, naming what changed, for a state that was made with something else."""
    if not os.path.lexists(run.path / STATE):
        return
    then = now | saved_fingerprint(run.path / STATE)  # one of an earlier version does not say it
    hint = "restore it, or train into a new directory"
    try:
        before = Config.model_validate(saved(json.loads(then["configuration"])))
    except (ValueError, RecursionError):  # pydantic's error is one of them
        raise MolgenError(f"{run.path / STATE}: its configuration cannot be read", hint) from None
    if key := next((key for key in differing(run.config, before) if key not in _PLACES), None):
        here, there = value_of(run.config, key), value_of(before, key)
        raise MolgenError(f"{run.path / CONFIG}: {key} is {here}, the training began with {there}", hint)
    if then["tokenizer"] != now["tokenizer"]:
        raise MolgenError(f"{run.path / TOKENIZER}: not the vocabulary that the training began with", hint)
    if then["molecules"] != now["molecules"]:
        copied = run.config.data.sha256 is None and (run.path / MOLECULES).exists()
        place = run.path / MOLECULES if copied else run.config.data.source
        raise MolgenError(f"{place}: not the molecules, or not the splits, that the training began with", hint)


def trainer_state(run: Run, position: dict[str, object]) -> TrainerState:
    """Where a state stands. Raises MolgenError for one that stands nowhere."""
    try:
        if position.get("best_nll", 0.0) is None:
            position = position | {"best_nll": math.inf}
        return TypeAdapter(TrainerState).validate_python(position)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MolgenError(
            f"{run.path / STATE}: {where}: {first['msg']}", "the file is damaged; restore it, or train again"
        ) from None
