"""An objective: components of a molecule's score, each with a transform and a weight, and how they are combined.

An objective is a YAML file, checked like a configuration, or a preset such as `pmo/osimertinib_mpo`.
"""

import builtins
import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from molgen.chem.descriptors import PROPERTIES
from molgen.chem.filters import MoleculeFilter, query_of
from molgen.chem.oracles import FORMULA, counts_of
from molgen.chem.smiles import parse
from molgen.config import Section, first_problem, parse_yaml
from molgen.data.download import pmo_models
from molgen.errors import MolgenError, did_you_mean
from molgen.optimize.transforms import Transform
from molgen.runtime.files import content_of

_MOST_BYTES = 2**20
_NUMERICAL = tuple(name for name in PROPERTIES if name not in ("alerts", "inchikey"))
Fingerprint = Literal["ecfp4", "ecfp6", "fcfp4", "atom_pairs", "pharmacophore"]
Learned = Literal["drd2", "gsk3b", "jnk3"]


class Prepare(Section):
    """Forms of a molecule that are scored in its place; its value is that of the form with the best score."""

    ph: Annotated[float, Field(ge=0, le=14)] | None = None
    """Protomers at this pH (dimorphite-dl, the extra `prepare`); null: as it is."""
    stereoisomers: Annotated[int, Field(ge=1, le=1_024)] = 1
    """Up to so many isomers, if centres or double bonds are undefined."""


class Component(Section):
    """One part of the score: one kind (from `property` to `likelihood`), its transform, its weight."""

    name: Annotated[str, Field(pattern=r"^[\w .:+-]{1,60}$")] | None = None
    """The name of its columns; null: made from its kind."""
    property: str | None = None
    """A numerical column of sample tables, such as logp or tpsa."""
    similarity: str | None = None
    """A SMILES: Tanimoto similarity to it, by `fingerprint`."""
    fingerprint: Fingerprint = "ecfp4"
    """Of `similarity`: counts of circular environments, of features (FCFP), atom pairs, Gobbi pharmacophores."""
    smarts: str | None = None
    """A pattern: 1 if it matches, else 0."""
    element: str | None = None
    """The symbol of an element: how many atoms."""
    isomer: str | None = None
    """A molecular formula: how close the molecule's is, from 0 to 1."""
    learned: Learned | None = None
    """A classifier of PMO: the probability of activity."""
    likelihood: str | None = None
    """A run: ln p of the canonical SMILES under it, in nats."""
    model: str | None = None
    """A run that predicts (`molgen train --target`): what it says about `target`."""
    target: str | None = None
    """Of `model`: which of its targets; null: the only one."""
    predicted: Literal["value", "low", "high", "width"] = "value"
    """Of `model`: the prediction, an end of its interval (`low`: the cautious one if high is good), or its width."""
    scorer: bool = False
    """The value of the scorer that the command line names (`--command`, or a Python callable)."""
    blind_to_stereo: bool = False
    """Of `scorer`: whether it gives stereoisomers the same value; then one of them is scored."""
    prepare: Prepare | None = None
    """Of `scorer`: protomers and isomers that it gets; null: the molecule alone."""
    transform: Transform | None = None
    """From the raw value to [0, 1]; null: the value is in [0, 1] already."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Of this component in the mean."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Component":
        given = [kind for kind in KINDS if getattr(self, kind) not in (None, False)]
        if len(given) != 1:
            raise ValueError(f"a component is one of {', '.join(KINDS)}; this one is {', '.join(given) or 'none'}")
        self._check(given[0])
        return self

    def _check(self, kind: str) -> None:
        value = getattr(self, kind)
        if kind == "property" and value not in _NUMERICAL:
            raise ValueError(f"property: no numerical column {value!r}, there are {', '.join(_NUMERICAL)}")
        if kind == "similarity" and parse(value) is None:
            raise ValueError(f"similarity: RDKit does not parse {value!r}")
        if kind == "smarts" and query_of(value) is None:
            raise ValueError(f"smarts: {value!r} is no SMARTS pattern")
        if kind == "isomer" and (not value or FORMULA.sub("", value)):
            raise ValueError(f"isomer: {value!r} is no formula such as C9H10N2O2")
        if self.prepare is not None and kind != "scorer":
            raise ValueError("prepare: belongs to `scorer`")
        if kind != "model" and (self.target is not None or self.predicted != "value"):
            raise ValueError("target, predicted: belong to `model`")
        if self.blind_to_stereo and kind != "scorer":
            raise ValueError(f"blind_to_stereo: belongs to `scorer`; {kind} is known to be so or not")

    @builtins.property  # a field has the name of the decorator
    def kind(self) -> str:
        """The kind that is given."""
        return next(kind for kind in KINDS if getattr(self, kind) not in (None, False))

    @builtins.property
    def label(self) -> str:
        """The name of its columns."""
        if self.name is not None:
            return self.name
        match self.kind:
            case "property":
                return str(self.property)
            case "similarity":
                return f"similarity_{self.fingerprint}"
            case "model":
                name = re.sub(r"[^\w .:+-]", "_", self.target or "model")[:50]
                return name if self.predicted == "value" else f"{name}_{self.predicted}"
            case kind:
                return kind

    @builtins.property
    def is_raw(self) -> bool:
        """Whether it is a number of any size, for which no transform says what is good.

        A `model` is not: only its run knows whether it predicts a value or a probability.
        """
        return self.kind in UNBOUNDED and self.property != "qed" and self.transform is None

    @builtins.property
    def sees_stereo(self) -> bool:
        """Whether stereoisomers may have different values."""
        return self.kind in ("likelihood", "model") or (self.kind == "scorer" and not self.blind_to_stereo)

    @builtins.property
    def evaluated_by(self) -> str | None:
        """The key of the run that computes it, for a likelihood or a model; None for other kinds."""
        if self.kind == "model":
            return f"{self.model}\n{self.target or ''}\n{self.predicted}"
        return self.likelihood

    @builtins.property
    def measured(self) -> list[Any] | None:
        """Its (kind, arguments…) for `molgen.chem.oracles.measure`; None if it is computed elsewhere.

        The classifiers of PMO are fetched once. Raises MolgenError if they cannot be.
        """
        match self.kind:
            case "similarity":
                return ["similarity", self.similarity, self.fingerprint]
            case "learned":
                return ["learned", self.learned, str(pmo_models())]
            case "likelihood" | "model" | "scorer":
                return None
            case kind:
                return [kind, getattr(self, kind)]

    def score(self, raw: float) -> float:
        """The transformed value, in [0, 1], or NaN."""
        return raw if self.transform is None else self.transform(raw)


KINDS = ("property", "similarity", "smarts", "element", "isomer", "learned", "likelihood", "model", "scorer")
UNBOUNDED = ("property", "element", "likelihood")


class Stage(Section):
    """Components from a number of calls on."""

    calls: Annotated[int, Field(ge=0)] = 0
    """The number of calls after which this stage begins."""
    mean: Literal["geometric", "arithmetic", "product"] = "geometric"
    """How the components' scores are combined; weights are exponents in a geometric mean and a product."""
    components: Annotated[list[Component], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _one_scorer(self) -> "Stage":
        if sum(component.scorer for component in self.components) > 1:
            raise ValueError("scorer: once in a stage, for the command line names one")
        return self


class Objective(Section):
    """What is asked for: stages of components, and filters that a molecule must pass."""

    mean: Literal["geometric", "arithmetic", "product"] = "geometric"
    """How the components' scores are combined."""
    components: Annotated[list[Component], Field(min_length=1, max_length=100)] | None = None
    """The components, if there is one stage."""
    stages: Annotated[list[Stage], Field(min_length=1, max_length=20)] | None = None
    """Several stages, in place of `components`; the first begins at 0 calls."""
    where: str = ""
    """A condition on properties; a molecule that fails it has score 0 and reaches no dear scorer."""
    smarts: list[str] = Field(default=[])
    """Patterns that must match."""
    not_smarts: list[str] = Field(default=[])
    """Patterns that must not match."""

    @model_validator(mode="after")
    def _consistent(self) -> "Objective":
        if (self.components is None) == (self.stages is None):
            raise ValueError("give either components or stages")
        starts = [stage.calls for stage in self.all_stages]
        if starts[0] != 0 or sorted(set(starts)) != starts:
            raise ValueError(f"stages: they begin at {starts} calls; the first begins at 0, each later than the last")
        return self

    @cached_property
    def all_stages(self) -> list[Stage]:
        """The stages in their order; without `stages` there is one."""
        if self.stages is not None:
            return self.stages
        return [Stage(mean=self.mean, components=self.components or [])]

    @cached_property
    def columns(self) -> dict[str, Component]:
        """The distinct components of all stages, by a name that is unique."""
        named: dict[str, Component] = {}
        for component in (component for stage in self.all_stages for component in stage.components):
            if component in named.values():
                continue
            label = component.label
            names = (f"{label}_{i}" if i > 1 else label for i in count(1))
            named[next(name for name in names if name not in named)] = component
        return named

    @property
    def needs_scorer(self) -> bool:
        """Whether the command line must name a scorer."""
        return any(component.scorer for component in self.columns.values())

    @property
    def sees_stereo(self) -> bool:
        """Whether stereoisomers may have different scores."""
        return any(component.sees_stereo for component in self.columns.values())

    @property
    def targets(self) -> list[str]:
        """SMILES that it names."""
        return [component.similarity for component in self.columns.values() if component.similarity is not None]

    @property
    def elements(self) -> list[str]:
        """Elements that it names, or that a molecule which it names has; without hydrogen."""
        formulas = [counts_of(component.isomer) for component in self.columns.values() if component.isomer]
        atoms = [atom.GetSymbol() for smiles in self.targets for atom in parse(smiles).GetAtoms()]  # type: ignore[union-attr]
        named = [component.element for component in self.columns.values() if component.element]
        return sorted({*atoms, *named, *(symbol for formula in formulas for symbol in formula)} - {"H"})

    @property
    def filter(self) -> MoleculeFilter:
        """The hard filters. Raises MolgenError for a condition or pattern that is not valid."""
        return MoleculeFilter(self.where, tuple(self.smarts), tuple(self.not_smarts)).checked()


def combined(scores: npt.NDArray[np.float64], weights: Sequence[float], mean: str) -> npt.NDArray[np.float64]:
    """(N,) totals of scores (N, C) in [0, 1] by their weights (C,); NaN where a score is NaN."""
    shares = np.asarray(weights) / sum(weights)
    match mean:
        case "arithmetic":
            return scores @ shares
        case "geometric" | "product":
            exponents = shares if mean == "geometric" else np.asarray(weights)
            with np.errstate(divide="ignore"):
                return np.exp(np.log(scores) @ exponents)
        case _:
            raise ValueError(mean)


def presets() -> list[str]:
    """Names of the bundled objectives, such as `pmo/qed`."""
    folder = resources.files("molgen") / "assets" / "objectives"
    return sorted(
        f"{suite.name}/{file.name.removesuffix('.yaml')}"
        for suite in folder.iterdir()
        if suite.is_dir() and not suite.name.startswith("_")
        for file in suite.iterdir()
        if file.name.endswith(".yaml")
    )


def load_objective(name: str | os.PathLike[str] | Mapping[str, Any], raw: bool = False) -> Objective:
    """A preset, a YAML file, or the values of one → Objective. Raises MolgenError with the first error.

    With `raw` a number without a transform is none: who loads it shows what values it has.
    """
    if isinstance(name, Mapping):
        return _validated(name, "the objective", raw)
    text_name = os.fspath(name)
    if text_name in presets():
        folder = resources.files("molgen") / "assets" / "objectives"
        return _validated(parse_yaml((folder / f"{text_name}.yaml").read_text("utf-8"), text_name), text_name, raw)
    try:
        text = content_of(Path(text_name), _MOST_BYTES, follow=True).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        known = presets()
        hint = did_you_mean(text_name, known) or f"presets: {', '.join(known[:4])}, … (docs/optimize.md)"
        raise MolgenError(f"{text_name}: no preset, and cannot be read as a file: {reason}", hint) from None
    return _validated(parse_yaml(text, text_name), text_name, raw)


def _nearest(error: ValidationError) -> str:
    """A hint that names the known key most like an unknown one, or an empty string."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return ""
    sections: tuple[type[Section], ...] = (Objective, Stage, Component, Transform, Prepare)
    return did_you_mean(str(first["loc"][-1]), sorted({key for section in sections for key in section.model_fields}))


def _validated(values: Any, name: str, raw: bool) -> Objective:
    try:
        objective = Objective.model_validate(values)
    except ValidationError as error:
        raise MolgenError(f"{name}: {first_problem(error)}", _nearest(error) or "see docs/optimize.md") from None
    for label, component in objective.columns.items():
        if component.is_raw and not raw:
            raise MolgenError(f"{name}: {label}: a raw number needs a transform", "such as transform: {rising: [0, 1]}")
    return objective
