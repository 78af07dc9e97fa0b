"""The work of `molgen train`: set-up, training, report and model card."""

import logging
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from molgen._version import __version__
from molgen.config import Config
from molgen.data.batches import TrainingData
from molgen.data.conditions import with_measured_targets
from molgen.errors import MolgenError
from molgen.machine import Runtime, open_runtime
from molgen.model.decoder import Decoder
from molgen.model.likelihood import Likelihood, likelihood
from molgen.prediction.learning import learn
from molgen.prediction.stored import TargetModel
from molgen.runs import Run, at_work
from molgen.runtime.device import hardware
from molgen.runtime.tensorboard import OnRow
from molgen.runtime.versions import versions
from molgen.training.callbacks import standard_callbacks
from molgen.training.conditional import ConditionalObjective
from molgen.training.joint import JointObjective
from molgen.training.model_card import model_card
from molgen.training.resume import TrainerState
from molgen.training.setup import DatasetSource, EncodedSource, open_source, prepare_run
from molgen.training.step import Loss, balanced, nll_loss
from molgen.training.trainer import Trainer

logger = logging.getLogger(__name__)


def train(
    config: Config, out: str | os.PathLike[str], resume: bool = False, force: bool = False, on_row: OnRow | None = None
) -> Run:
    """Trains with `config` into the run directory `out`; with `resume`, continues the run there with its configuration.

    With `config.training.init` it starts from that run's weights; then `config.model` is left out or the same.
    Under torchrun the processes share the molecules of each step. Only the main process reads the data and writes the
    run, but every process reads an encoded file. `on_row` is called after each epoch with the new row of log.csv, in
    the main process only.
    Raises MolgenError for unusable data and for an existing directory (unless `force`), and FloatingPointError for a
    loss that is no longer finite.
    """
    if resume and config.training.init is not None:
        raise MolgenError("--init with --resume: a resumed training goes on from its own state", "leave --init out")
    out = Path(out)
    config = Run(out).config if resume else with_measured_targets(config)
    source = open_source(config, out, resume)
    with (
        open_runtime(config.training.device, start_workers=False) as runtime,
        at_work(out) if runtime.group.is_main else nullcontext(),
    ):
        run, data, fingerprint = prepare_run(source, out, resume, force, runtime)
        objective = training_objective(run, data)
        callbacks, loss = standard_callbacks(runtime.group.is_main, on_row), _loss(run.config, objective)
        state = Trainer(run, data, runtime, fingerprint, callbacks, loss, objective).fit()
        if runtime.group.is_main:
            targets = learn(run, runtime) if run.targets else []
            _write_report(run, data, state, source, runtime, targets)
    return run


def _loss(config: Config, objective: JointObjective | ConditionalObjective | None) -> Loss:
    """What a training minimises."""
    loss = nll_loss if objective is None else objective.loss
    match config.model.feedforward_kind:
        case "dense":
            return loss
        case "switch":
            return balanced(loss, config.training.expert_balance)
        case _:
            assert_never(config.model.feedforward_kind)


def joint_objective(config: Config, data: TrainingData) -> JointObjective | None:
    """What a run with targets minimises; None for a run without."""
    if not data.labels:
        return None
    return JointObjective.of(data.labels["train"], data.labels["validation"], data.corpus, config.prediction)


def training_objective(run: Run, data: TrainingData) -> JointObjective | ConditionalObjective | None:
    """What a run with conditions or with targets minimises; None for a run without."""
    joint = joint_objective(run.config, data)
    if not run.conditions:
        return joint
    return ConditionalObjective(run.condition_table, run.config.training.unconditional, joint)


def _by_source(held_out: Likelihood, data: TrainingData) -> dict[str, dict[str, float | None]]:
    """Of a mixture: the NLL of each source's validation molecules."""
    found, start = {}, 0
    for source, n in data.validation_sources.items():
        nll, start = held_out.nll[start : start + n], start + n
        stderr = float(nll.std(ddof=1) / math.sqrt(n)) if n > 1 else None
        found[source] = {"n": n, "nll": float(nll.mean()), "nll_stderr": stderr}
    return found


def _of_conditions(run: Run, data: TrainingData, best: Decoder, runtime: Runtime) -> dict[str, Any]:
    """Of a run with conditions: what can be asked for, and the NLL of the validation molecules given their values."""
    table, known = run.condition_table, []
    for place, name in enumerate(table.names):
        low, high = table.range(place)
        n = int((~np.isnan(table.train.values[:, place])).sum())
        of_class = bool(table.scales.classes[place])
        known.append({"name": name, "is_class": of_class, "low": low, "high": high, "molecules": n})
    given = ConditionalObjective(table, run.config.training.unconditional).figures(
        best, data.validation, runtime.device
    )
    return {"nll_given": given["val_nll_given"], "known": known}


def _about_target(target: TargetModel) -> dict[str, Any]:
    more = {"has_intervals": not target.lacks_intervals(target.chosen), "doubt": target.doubt(target.chosen)}
    return target.model_dump(exclude={"calibrations"}) | more


def _write_report(
    run: Run,
    data: TrainingData,
    state: TrainerState,
    source: DatasetSource | EncodedSource,
    runtime: Runtime,
    targets: Sequence[TargetModel],
) -> None:
    """Writes the model card and report.json: validation results of the best weights, data, training and versions."""
    summary, encoded_from = source.summary, source.encoded_from
    best = run.model(runtime.device)
    held_out = likelihood(best, data.validation, runtime.device)
    report = {
        "molgen": __version__,
        "source": run.config.data.source,
        **({"encoded_from": encoded_from} if encoded_from else {}),
        **summary.model_dump(exclude_defaults=True),  # no `sources` unless it is a mixture
        "weights": best.num_parameters,
        **({"active_weights": active} if (active := best.num_active_parameters) < best.num_parameters else {}),
        "tokens": len(data.tokenizer),
        "init": {"path": init, "sha256": state.init_sha256} if (init := run.config.training.init) else None,
        "epochs": state.epoch,
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "best_epoch": state.best_epoch,
        "canonical_instead_of_random": state.canonical_instead,
        "validation": {
            "n": len(held_out.nll),
            "unknown_tokens": summary.sizes["validation"] - len(held_out.nll),
            **held_out.figures(),
        },
        **({"prediction": [_about_target(target) for target in targets]} if targets else {}),
        **({"conditions": _of_conditions(run, data, best, runtime)} if run.conditions else {}),
        **({"validation_by_source": _by_source(held_out, data)} if data.validation_sources else {}),
        "hardware": {**hardware(runtime.device), "processes": runtime.group.size},
        "versions": versions(),
    }
    run.write_report(report, model_card(run.path.name, run.config, report))
    error = "" if held_out.stderr is None else f" ± {held_out.stderr:.2f}"  # None if there is only one molecule
    logger.info(
        f"best validation NLL {held_out.mean_nll:.2f}{error} nats per molecule, "
        f"top-1 {held_out.top1:.3f} (epoch {state.best_epoch}, n = {len(held_out.nll)}, {state.seconds:,.0f} s)"
    )
