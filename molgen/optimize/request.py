"""What the options of an optimisation ask for: the scorer that they name, the objective, its range, the alerts."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from molgen.chem.reactive import REACTIVE
from molgen.chem.smiles import canonical
from molgen.errors import MolgenError
from molgen.optimize.components import Objective, load_objective, presets
from molgen.optimize.external import (
    CallableScorer,
    CommandScorer,
    Scorer,
    is_callable_name,
    named_callable,
)
from molgen.optimize.options import Named, OptimizeOptions


def scorer_of(options: OptimizeOptions) -> Scorer | None:
    """The user's scorer that the options name. Raises MolgenError if they name two, or one that is not there."""
    named = [given for given in (options.scorer, _callable_of(options.objective)) if given is not None]
    if len(named) + (options.command is not None) > 1:
        raise MolgenError("two scorers are named", "name one of --command, --scorer and FILE.py:FUNCTION")
    if options.command is not None:
        return CommandScorer(options.command, options.timeout)
    if not named:
        return None
    given = named[0]
    return named_callable(given) if isinstance(given, str) else CallableScorer(given, _name_of(given))


def _callable_of(given: Named | None) -> str | Callable[[list[str]], Sequence[float]] | None:
    """What is itself a scorer, and no objective: a function, or the name of one."""
    if isinstance(given, str):
        return given if given not in presets() and is_callable_name(given) else None
    return given if callable(given) else None


def _name_of(function: Callable[[list[str]], Sequence[float]]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def objective_of(options: OptimizeOptions, scorer: Scorer | None, raw: bool = False) -> Objective:
    """What is asked for: the named objective, or the user's scorer alone; with the range and the filters of options.

    `raw` as of `load_objective`.
    """
    given = options.objective
    if isinstance(given, Objective):
        values = given.model_dump(exclude_defaults=True)
    elif _callable_of(given) is not None or (given is None and scorer is not None):
        values = {"components": [{"scorer": True, "name": "score"}]}
    elif given is None:
        raise MolgenError("no objective", f"--objective FILE.yaml, or a preset: {', '.join(presets()[:4])}, …")
    else:
        values = load_objective(given, raw).model_dump(exclude_defaults=True)  # type: ignore[arg-type]
    stages = values.get("stages") or [values]
    components = [component for stage in stages for component in stage["components"] if component.get("scorer")]
    if scorer is not None and not components:
        raise MolgenError(
            "the objective has no component `scorer: true`, but a scorer is named",
            "add `- scorer: true` to its components, or leave the scorer out",
        )
    if (transform := _range(options)) is not None:
        if not components:
            raise MolgenError("--minimise, --maximise: the objective has no `scorer: true`", "leave it out")
        for component in components:
            component["transform"] = transform
    for component in components if options.blind_to_stereo else ():
        component["blind_to_stereo"] = True
    if options.where:
        values["where"] = f"({values['where']}) and ({options.where})" if values.get("where") else options.where
    for key, patterns in (("smarts", options.smarts), ("not_smarts", options.not_smarts)):
        if patterns:
            values[key] = [*values.get(key, []), *patterns]
    return load_objective(values, raw)


def check_shortlist(options: OptimizeOptions) -> None:
    """Raises MolgenError for a hit that is none, or a catalogue that is not there: at the end it would be too late."""
    if options.hit is not None and canonical(options.hit) is None:
        raise MolgenError(f"--hit {options.hit}: RDKit does not parse it", "a SMILES")
    if options.catalog is not None and not Path(options.catalog).is_file():
        raise MolgenError(f"--catalog {options.catalog}: no such file", "a .smi, .csv or .sdf file")


def _range(options: OptimizeOptions) -> dict[str, list[float]] | None:
    """The transform that --minimise or --maximise means. Raises MolgenError for a range that is none."""
    if options.minimise is not None and options.maximise is not None:
        raise MolgenError("--minimise and --maximise: one of them", "a scorer has one direction")
    for option, text, kind in (("minimise", options.minimise, "falling"), ("maximise", options.maximise, "rising")):
        if text is None:
            continue
        low, dots, high = text.partition("..")
        try:
            ends = [float(low), float(high)]
        except ValueError:
            ends = []
        if not dots or not ends or not all(map(math.isfinite, ends)) or ends[0] == ends[1]:
            raise MolgenError(f"--{option} {text}: no range", "two numbers, such as -12..-6")
        return {kind: sorted(ends)}
    return None


def alerts_of(options: OptimizeOptions) -> list[str]:
    """The reactive groups to reject. Raises MolgenError for a name that is none."""
    for name in options.allow_alerts:
        if name not in REACTIVE:
            raise MolgenError(f"--allow-alert {name}: no such group", f"groups: {', '.join(REACTIVE)}")
    wanted = options.preset == "people" if options.alerts is None else options.alerts
    return [name for name in REACTIVE if name not in options.allow_alerts] if wanted else []
