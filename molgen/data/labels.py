"""Rows of an assay table → one label per molecule and target: relations, replicates, and what could not be read."""

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.conditions import Condition, number
from molgen.config import DataConfig
from molgen.data.compared import Compared, only_decimal
from molgen.data.rows import Row, shown
from molgen.data.splitting import is_held_out
from molgen.data.targets import (
    Target,
    check_pooled,
    check_relations,
    check_scale,
    classes,
    parse_targets,
    relation_column,
)
from molgen.errors import MolgenError

logger = logging.getLogger(__name__)

_RELATION = re.compile(r"\s*(>>|<<|>=|<=|=>|=<|[><≥≤~≈=])?\s*(.*)", re.DOTALL)
_SIDES = {
    **dict.fromkeys((">", ">>", ">=", "=>", "≥"), ">"),
    **dict.fromkeys(("<", "<<", "<=", "=<", "≤"), "<"),
    **dict.fromkeys(("", "=", "~", "≈", "=="), "="),
}
_WITH_UNIT = re.compile(r"[-+]?\d[\d.,]*(?:[eE][-+]?\d+)?\s*[A-Za-zµμ%°][\w/%µμ·^-]*")
_HAS_UNIT = "have a unit beside the number"
_APPROXIMATE = ("~", "≈")
_OPPOSITE = {">": "<", "<": ">", "=": "="}
_WIDE = 1.0  # replicates that spread over more than this, in the target's units, are listed
_MOST_LISTED = 10


class Label(NamedTuple):
    """A molecule's value of one target."""

    value: float
    """NaN: not measured."""
    relation: str = "="
    """`>` or `<`: the true value is above or below; then it is censored."""
    n: int = 1
    """Measurements that it is the median of."""
    spread: float = 0.0
    """The largest minus the smallest of them."""
    sd: float = 0.0
    """Their standard deviation (n − 1)."""

    @property
    def known(self) -> bool:
        """Whether there is a value or a bound."""
        return not math.isnan(self.value)

    @property
    def shown(self) -> str:
        """The value with its relation, for a table; empty if there is none."""
        return f"{'' if self.relation == '=' else self.relation}{self.value:.6g}" if self.known else ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the run's table of labels."""
        if not self.known:
            return "", "", "0", "", ""
        return repr(self.value), self.relation, str(self.n), f"{self.spread:.6g}", f"{self.sd:.6g}"

    @classmethod
    def of_cells(cls, cells: Sequence[str]) -> "Label":
        """From the five cells of a table. Raises ValueError for others."""
        value, relation, n, spread, sd = cells
        if not value:
            return MISSING
        if relation not in _OPPOSITE or not math.isfinite(float(value)):
            raise ValueError("no label")
        return cls(float(value), relation, int(n), float(spread), float(sd))


MISSING = Label(math.nan, n=0)
Labels = Mapping[str, tuple[Label, ...]]
"""SMILES of a molecule → its label of each target."""


def label_columns(targets: Sequence[str]) -> tuple[str, ...]:
    """The columns of a run's table of labels."""
    own = ("", " relation", " measurements", " spread", " sd")
    return ("smiles", *(f"{name}{ending}" for name in targets for ending in own))


class LabelArrays(NamedTuple):
    """Labels of N molecules and T targets."""

    values: npt.NDArray[np.float64]
    """(N, T), NaN where not measured."""
    sides: npt.NDArray[np.int8]
    """(N, T): 1 if the true value is above, −1 if below, 0 if it is the value."""

    @classmethod
    def of(cls, labels: Labels, smiles: Sequence[str], targets: int) -> "LabelArrays":
        """Of some molecules, in their order."""
        rows = [labels.get(one, (MISSING,) * targets) for one in smiles]
        signs = {">": 1, "<": -1, "=": 0}
        return cls(
            np.array([[label.value for label in row] for row in rows], np.float64).reshape(-1, targets),
            np.array([[signs[label.relation] for label in row] for row in rows], np.int8).reshape(-1, targets),
        )

    def rows(self, chosen: npt.NDArray[np.int64]) -> "LabelArrays":
        """Those of some molecules, by index."""
        return LabelArrays(self.values[chosen], self.sides[chosen])

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """(N, T) where there is a value that is not censored."""
        found: npt.NDArray[np.bool_] = ~np.isnan(self.values) & (self.sides == 0)
        return found

    @property
    def scales(self) -> "Scales":
        """Which targets are classes (0 and 1 only), and centre and spread of the measured values of the others."""
        found = []
        for values, measured in zip(self.values.T, self.measured.T, strict=True):
            own = values[measured] if measured.any() else values[~np.isnan(values)]
            if len(own) and np.isin(own, (0, 1)).all():
                found.append((0.0, 1.0, True))
            else:
                found.append(
                    (float(own.mean()) if len(own) else 0.0, float(own.std()) or 1.0 if len(own) else 1.0, False)
                )
        centre, spread, classes = (np.array(column) for column in zip(*found, strict=True))
        return Scales(centre.astype(np.float64), spread.astype(np.float64), classes.astype(bool))


class Scales(NamedTuple):
    """How T targets are standardised: of the training molecules."""

    centre: npt.NDArray[np.float64]
    """(T,)"""
    spread: npt.NDArray[np.float64]
    """(T,) above 0."""
    classes: npt.NDArray[np.bool_]
    """(T,) whether a target is a class; then centre and spread are 0 and 1."""


def label_rows(kept: Sequence[tuple[Row, str]], config: DataConfig) -> tuple[list[tuple[Row, str]], list[Row], Labels]:
    """(one row per molecule, the other rows of the same molecules, the labels) of clean rows with their cells.

    A molecule that any of its rows holds out is held out. Logs what was censored, merged, missing or not readable.
    Raises MolgenError for a target that cannot be read as the configuration says.
    """
    rows = [row for row, _ in kept]
    columns = list(dict.fromkeys(name for row in rows for name in row.cells or ()))
    targets = parse_targets(config, columns)
    by_target = [_read(rows, target, config, columns) for target in targets]
    members: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(row.smiles, []).append(i)
    labels, chosen, others = {}, [], []
    for smiles, own in members.items():
        labels[smiles] = tuple(_merged([found[i] for i in own]) for found in by_target)
        first = next((i for i in own if is_held_out(rows[i].split)), own[0]) if any(r.split for r in rows) else own[0]
        chosen.append(kept[first])
        others += [rows[i] for i in own if i != first]
    for i, target in enumerate(targets):
        for line in account({smiles: own[i] for smiles, own in labels.items()}, target.name):
            logger.info(line)
        check_values([own[i] for own in labels.values()], config.source, target.name)
    return chosen, others, labels


def check_values(labels: Sequence[Label], source: str, name: str) -> None:
    """Raises MolgenError for a target that nothing can be learned of: no value, bounds alone, or one value."""
    known = [label for label in labels if label.known]
    if not known:
        raise MolgenError(f"{source}: no molecule has a value of {name}", "is it the right column?")
    if all(label.relation != "=" for label in known):
        raise MolgenError(
            f"{source}: {name} has bounds and no value", "predictions could not be checked: it needs measured values"
        )
    if len(known) > 1 and {(label.relation, label.value) for label in known} == {("=", known[0].value)}:
        raise MolgenError(f"{source}: {name} is {known[0].value:g} in every row", "is it the right column?")


def noise_floor(labels: Sequence[Label]) -> tuple[float | None, int]:
    """(pooled standard deviation of replicates, number of molecules with replicates); None if there are none."""
    repeated = [label for label in labels if label.n > 1 and label.relation == "="]
    freedom = sum(label.n - 1 for label in repeated)
    if not freedom:
        return None, 0
    return math.sqrt(sum((label.n - 1) * label.sd**2 for label in repeated) / freedom), len(repeated)


def account(labels: Mapping[str, Label], name: str) -> list[str]:
    """Lines about one target's labels: how many, censored ones, replicates, those that spread widely."""
    known = {smiles: label for smiles, label in labels.items() if label.known}
    counts = Counter(label.relation for label in known.values())
    values = [label.value for label in known.values() if label.relation == "="]
    missing = len(labels) - len(known)
    parts = [f"{name}: {counts['=']:,} molecules with a value"]
    if values and set(values) <= {0.0, 1.0}:
        parts.append(f"{sum(values):,.0f} of them 1")
    elif values:
        parts.append(f"from {min(values):.4g} to {max(values):.4g}, standard deviation {np.std(values):.2f}")
    if counts[">"] or counts["<"]:
        parts.append(f"{counts['>']:,} above and {counts['<']:,} below a bound (a one-sided loss; not in RMSE)")
    parts += [f"{missing:,} without"] if missing else []
    lines = [", ".join(parts)]
    noise, molecules = noise_floor(list(known.values()))
    if noise is not None:
        lines.append(f"{name}: {molecules:,} molecules have replicates, whose pooled standard deviation is {noise:.2f}")
    wide = sorted((item for item in known.items() if item[1].spread > _WIDE), key=lambda item: -item[1].spread)
    if wide and not set(values) <= {0.0, 1.0}:
        lines.append(f"{name}: replicates of {len(wide):,} molecules spread over more than {_WIDE:g} unit:")
        lines += [f"  {smiles}: {label.n} over {label.spread:.2f}" for smiles, label in wide[:_MOST_LISTED]]
        lines += [f"  and {len(wide) - _MOST_LISTED:,} more (labels.csv.gz)"] if len(wide) > _MOST_LISTED else []
    return lines


def _read(rows: Sequence[Row], target: Target, config: DataConfig, columns: Sequence[str]) -> list[Label]:
    """The label of each row; MISSING where there is none."""
    unit = check_pooled(rows, config, target)
    cells = [row.cells or {} for row in rows]
    if target.formula is None:
        texts = Counter(text for row in cells if (text := row.get(target.name, "").strip()))
        if (named := classes(texts, target, config.source)) is not None:
            if any(number(text) is None for text in named):
                read_as = (", ".join(text for text in named if named[text] == value) for value in (1, 0))
                logger.info(f"{config.source}: {target.name}: {next(read_as)} counts as 1, {next(read_as)} as 0")
            found = (named.get(row.get(target.name, "").strip()) for row in cells)
            return [MISSING if value is None else Label(float(value)) for value in found]
    relations = relation_column(config, target, columns)
    comma = any(only_decimal(cell.strip()) for row in cells for cell in row.values() if "," in cell)
    reader = {c: Compared(Condition(f"`{c}` > 0"), config.source, comma_is_decimal=comma) for c in target.columns}
    problems: dict[str, list[str]] = {}
    labels = []
    for row, own in zip(rows, cells, strict=True):
        label, problem = _row_label(own, f"line {row.number}", target, relations, reader)
        labels.append(label)
        if problem:
            problems.setdefault(problem[0], []).append(f"{problem[1]} (line {row.number})")
    for one in reader.values():
        for line in one.lines(("groups", "comma")):
            logger.info(line)
    about = [
        row.number
        for row, own, label in zip(rows, cells, labels, strict=True)
        if label.known and any(_relation(own, column, relations)[0] in _APPROXIMATE for column in target.columns)
    ]
    if about:
        where = f"{len(about):,} (the first: line {about[0]})"
        logger.info(f"{config.source}: {target.name}: cells with ~ or ≈, read as the value itself: {where}")
    lost = 0
    for what, examples in problems.items():
        lost += len(examples)
        shown_as = f"cells that {what}: {len(examples):,}, such as {examples[0]}"
        logger.info(f"{config.source}: {target.name}: {shown_as}: they count as no value")
    values = [label.value for label in labels if label.known]
    if lost > len(values):
        what, examples = next(iter(problems.items()))
        raise MolgenError(
            f"{config.source}: {target.name}: {lost:,} of {lost + len(values):,} cells cannot be used, they {what}, "
            f"such as {examples[0]}",
            "write all values in one unit, and the unit into the heading, as in IC50_nM"
            if what == _HAS_UNIT
            else "a target is a column of numbers, or of two classes, or a formula of such columns",
        )
    sides = Counter(label.relation for label in labels if label.known)
    check_relations(sides, relations, config, target, columns)
    if hint := check_scale(values, config, target, unit):
        logger.info(hint)
    return labels


def _row_label(
    cells: Mapping[str, str],
    place: str,
    target: Target,
    relations: str | None,
    reader: Mapping[str, Compared],
) -> tuple[Label, tuple[str, str] | None]:
    """(the label, the kind of problem and the cell if there is one)."""
    values: dict[str, float] = {}
    sides: dict[str, str] = {}
    for column in target.columns:
        text = cells.get(column, "").strip()
        reader[column].look(place, cells.values())
        if not text:
            return MISSING, None
        relation, rest = _relation(cells, column, relations)
        if relation not in _SIDES:
            return MISSING, ("have a relation that is not known", shown(relation))
        found = number(reader[column].read(column, rest, place))
        if found is None or not math.isfinite(found):
            return MISSING, (_HAS_UNIT if _WITH_UNIT.fullmatch(rest) else "are no numbers", shown(text))
        values[column], sides[column] = found, _SIDES[relation]
    if target.formula is None:
        return Label(values[target.name], sides[target.name]), None
    value = target.formula(values)
    if value is None:
        return MISSING, ("give the formula no value", ", ".join(f"{c} = {v:g}" for c, v in values.items()))
    bounds = set()
    for column, side in sides.items():
        if side != "=" and (direction := target.formula.direction(column, values)):
            bounds.add(side if direction > 0 else _OPPOSITE[side])
    if len(bounds) > 1:
        return MISSING, ("are bounded on both sides", str(values))
    return Label(value, next(iter(bounds), "=")), None


def _relation(cells: Mapping[str, str], column: str, relations: str | None) -> tuple[str, str]:
    """(the relation as it is written, the rest of the cell); the cell's own counts before that of the other column."""
    match = _RELATION.fullmatch(cells.get(column, "").strip())
    assert match is not None
    outside = cells.get(relations, "").strip().strip("'\"") if relations else ""
    return match[1] or outside, match[2]


def _merged(labels: Sequence[Label]) -> Label:
    """The median of a molecule's measurements; without any, the tightest of its bounds."""
    exact = [label.value for label in labels if label.known and label.relation == "="]
    if exact:
        middle = median(exact)
        if set(exact) == {0.0, 1.0} and middle == 0.5:
            return MISSING  # as many say one class as the other
        middle = round(middle) if set(exact) <= {0.0, 1.0} else middle
        sd = float(np.std(exact, ddof=1)) if len(exact) > 1 else 0.0
        return Label(float(middle), "=", len(exact), max(exact) - min(exact), sd)
    bounds = [label for label in labels if label.known]
    sides = {label.relation for label in bounds}
    if len(sides) != 1:
        return MISSING
    values = [label.value for label in bounds]
    side = sides.pop()
    return Label(max(values) if side == ">" else min(values), side, len(values))
