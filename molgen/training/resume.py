"""Exact resuming: the state of a training, and the check that its configuration and data have not changed."""

import json
import math
import os
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from molgen.checkpoint import saved_fingerprint
from molgen.config import Config, differing, first_problem, saved, value_of
from molgen.errors import MolgenError
from molgen.runs import CONFIG, MOLECULES, STATE, TOKENIZER, Run

# Settings that may change because they are only locations; the content is compared separately.
_LOCATIONS = {"data.source", "training.device", "training.init"}


@dataclass
class TrainerState:
    """The counters of a training between two steps; saved in the state, so that resuming is exact."""

    epoch: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] = 0
    step_of_epoch: Annotated[int, Field(ge=0)] = 0
    """Steps of the unfinished epoch."""
    nll_of_epoch: float = 0.0
    """Sum of the NLL of the unfinished epoch's molecules, in nats."""
    best_nll: float = math.inf
    best_epoch: Annotated[int, Field(ge=0)] = 0
    seconds: float = 0.0
    canonical_instead: int = 0
    """How often the canonical SMILES was used because no random SMILES was usable."""
    init_sha256: str | None = None
    """SHA-256 of the weights file that a fine-tuning began with; stored, because that run may be deleted later."""
    halved: bool = False
    """Whether batches are split into halves, after CUDA out-of-memory."""

    @property
    def position(self) -> dict[str, object]:
        """The values for a state's header, valid as JSON: no best NLL is null (Infinity in earlier versions)."""
        return vars(self) | {"best_nll": self.best_nll if math.isfinite(self.best_nll) else None}


def resume_fingerprint(run: Run, molecules: str) -> dict[str, str]:
    """The configuration and the hashes of vocabulary and molecules that a state belongs to."""
    configuration = json.dumps(run.config.model_dump())  # ASCII, because a path in it may not be valid UTF-8
    return {"configuration": configuration, "tokenizer": run.tokenizer.fingerprint, "molecules": molecules}


def check_unchanged(run: Run, now: dict[str, str]) -> None:
    """Raises MolgenError, with the name of the change, if the run's state has another fingerprint."""
    if not os.path.lexists(run.path / STATE):
        return
    then = now | saved_fingerprint(run.path / STATE)  # states of earlier versions do not have all keys
    hint = "restore it, or train into a new directory"
    try:
        before = Config.model_validate(saved(json.loads(then["configuration"])))
    except (ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
        raise MolgenError(f"{run.path / STATE}: its configuration cannot be read", hint) from None
    if key := next((key for key in differing(run.config, before) if key not in _LOCATIONS), None):
        here, there = value_of(run.config, key), value_of(before, key)
        raise MolgenError(f"{run.path / CONFIG}: {key} is {here}, the training began with {there}", hint)
    if then["tokenizer"] != now["tokenizer"]:
        raise MolgenError(f"{run.path / TOKENIZER}: not the vocabulary that the training began with", hint)
    if then["molecules"] != now["molecules"]:
        copied = run.config.data.sha256 is None and (run.path / MOLECULES).exists()
        source = run.path / MOLECULES if copied else run.config.data.source
        raise MolgenError(f"{source}: not the molecules, or not the splits, that the training began with", hint)


def trainer_state(run: Run, position: dict[str, object]) -> TrainerState:
    """The TrainerState of a saved position. Raises MolgenError if it is not valid."""
    try:
        if position.get("best_nll", 0.0) is None:
            position = position | {"best_nll": math.inf}
        return TypeAdapter(TrainerState).validate_python(position)
    except ValidationError as error:
        problem = f"{run.path / STATE}: {first_problem(error)}"
        raise MolgenError(problem, "the file is damaged; restore it, or train again") from None
