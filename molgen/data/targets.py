"""What is to be predicted: the columns of a table, or formulas of them, and the checks before a number is believed."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from molgen.chem.conditions import Condition, number
from molgen.chem.descriptors import PROPERTIES
from molgen.config import DataConfig
from molgen.data.columns import listed, plain
from molgen.data.formula import Formula
from molgen.data.rows import Row
from molgen.errors import MolgenError, did_you_mean

_ASSIGNED = re.compile(r"([^=<>!`]{1,60}?)\s*=(?!=)\s*(.+)", re.DOTALL)
_TAKEN = {
    *("smiles", "name", "row", "split", "canonical", "valid", "error", "duplicate_of", "in_training"),
    *("nearest_training", "nn_similarity", "log_likelihood", "note", *PROPERTIES),
}
_RELATION_NAMES = {"relation", "standardrelation", "operator", "standardoperator", "qualifier", "activityrelation"}
_UNIT_NAMES = {"unit", "units", "standardunit", "standardunits", "activityunits", "valueunit", "valueunits"}
_ENDPOINT_NAMES = {
    *("type", "standardtype", "activitytype", "endpoint", "parameter", "resulttype", "measurement", "assaytype"),
    *("target", "targetname", "targetchemblid", "targetid", "targetpreferredname"),
    *("organism", "targetorganism", "species", "cellline"),
}
_EXPONENTS = {"m": 0, "mm": 3, "um": 6, "µm": 6, "μm": 6, "nm": 9, "pm": 12}
_EXPONENTS |= {"mol/l": 0, "mmol/l": 3, "umol/l": 6, "µmol/l": 6, "μmol/l": 6, "nmol/l": 9, "pmol/l": 12}
_EXPONENTS |= {"millimolar": 3, "micromolar": 6, "nanomolar": 9, "picomolar": 12}
_UNIT_IN_NAME = re.compile(
    r"(?:^|[^A-Za-z])((?:[pnuµμm]?mol/[lL])|[pnuµμm]?M|(?i:(?:milli|micro|nano|pico)molar))(?![A-Za-z])"
)
_RAW_NAME = re.compile(r"(?<![A-Za-z])(IC50|EC50|AC50|GI50|CC50|XC50|Ki|Kd|MIC|Potency)", re.IGNORECASE)
_LOGARITHM = re.compile(r"log|^p[A-Z]|[^A-Za-z]p[A-Z]")
_DECADES = 30.0  # a column of concentrations whose largest value is less than this times the smallest is let pass
_MOST_SHOWN = 6


@dataclass(frozen=True)
class Target:
    """A quantity to predict."""

    name: str
    formula: Formula | None
    """None: the column of this name."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is read from."""
        return (self.name,) if self.formula is None else self.formula.columns


def parse_targets(config: DataConfig, columns: Sequence[str]) -> list[Target]:
    """The targets of a configuration. Raises MolgenError for an unknown column, a name that is taken, or one twice."""
    found: list[Target] = []
    for text in config.targets:
        match = _ASSIGNED.fullmatch(text.strip())
        name, formula = target_name(text), Formula(match[2]) if match else None
        target = Target(name, formula)
        for column in target.columns:
            if column not in columns:
                raise MolgenError(
                    f"{config.source}: no column {column!r}, which --target names",
                    f"{did_you_mean(column, columns)} columns: {listed(columns) or 'none'}".lstrip(),
                )
        if name.lower() in _TAKEN:
            raise MolgenError(
                f"--target {text}: {name} is the name of a column that molgen computes",
                f"give it another: --target 'measured_{name} = `{name}`'",
            )
        if any(name == other.name for other in found):
            raise MolgenError(f"--target {text}: {name} is named twice", "give each target a name of its own")
        found.append(target)
    return found


def target_name(text: str) -> str:
    """The name of a target, from a column or from `NAME = formula`."""
    match = _ASSIGNED.fullmatch(text.strip())
    return (match[1] if match else text).strip()


def relation_column(config: DataConfig, target: Target, columns: Sequence[str]) -> str | None:
    """The column with the relations of a target. Raises MolgenError if the configured one does not exist."""
    if config.relation_column is not None:
        if config.relation_column not in columns:
            raise MolgenError(
                f"{config.source}: no column {config.relation_column!r} of relations", f"columns: {listed(columns)}"
            )
        return config.relation_column
    own = {f"{plain(column)}{word}" for column in target.columns for word in _RELATION_NAMES}
    named = [name for name in columns if plain(name) in own]
    return next(iter(named or [name for name in columns if plain(name) in _RELATION_NAMES]), None)


def check_relations(
    used: Mapping[str, int], relations: str | None, config: DataConfig, target: Target, columns: Sequence[str]
) -> None:
    """Raises MolgenError if it is not clear whether bounds are of a logarithm or of the concentration beside it.

    `used` counts the values by the side of their bound. An IC50 above 10,000 nM is a pIC50 below 5.
    """
    if relations is None or config.relation_column is not None or target.formula is not None:
        return
    raw = next((name for name in columns if name != target.name and _is_raw(name)), None)
    if raw is None or not _LOGARITHM.search(target.name) or not (used.get(">", 0) + used.get("<", 0)):
        return
    column = raw if raw.isidentifier() else f"`{raw}`"
    raise MolgenError(
        f"{config.source}: the column {relations} may be of {raw} or of {target.name}, with opposite bounds",
        f"--target '{target.name} = 9 - log10({column})' if {raw} is in nM; or, if it is of {target.name} itself, "
        f"--set data.relation_column='{relations}'",
    )


def _is_raw(name: str) -> bool:
    """Whether a column looks like a concentration, or like the value that a relation is of."""
    if plain(name) in ("standardvalue", "value", "activityvalue"):
        return True
    return not _LOGARITHM.search(name) and bool(_UNIT_IN_NAME.search(name) or _RAW_NAME.search(name))


def check_pooled(rows: Sequence[Row], config: DataConfig, target: Target) -> str | None:
    """Raises MolgenError if the rows with a value have several units or endpoints; returns the one unit, or None.

    A column that `data.where` compares has been looked at, so it may have several values.
    """
    asked = Condition(config.where).names if config.where else ()
    given = [row.cells for row in rows if row.cells and all(row.cells.get(c, "").strip() for c in target.columns)]
    unit = None
    for column in dict.fromkeys(name for cells in given for name in cells):
        what = "units" if plain(column) in _UNIT_NAMES else "endpoints" if plain(column) in _ENDPOINT_NAMES else ""
        if not what or column in target.columns:
            continue
        counts = Counter(cells.get(column, "").strip() for cells in given)
        if what == "units" and len(counts) == 1:
            unit = next(iter(counts)) or None
        if len(counts) < 2 or column in asked:
            continue
        shown = ", ".join(f"{value or '(empty)'} {n:,}" for value, n in counts.most_common(_MOST_SHOWN))
        most = counts.most_common(1)[0][0]
        name = column if column.isidentifier() else f"`{column}`"
        raise MolgenError(
            f"{config.source}: {target.name} has {len(counts)} {what} in its column {column}: {shown}",
            f"choose: --where '{name} == \"{most}\"'; or keep all: --where '{name} == {name}'",
        )
    return unit


def _exponent(unit: str) -> int | None:
    """Powers of ten of a unit below 1 mol/l; None for what is no concentration."""
    return _EXPONENTS.get(unit.lower()) if unit.endswith(("M", "molar")) or "/" in unit else None


def check_scale(values: Sequence[float], config: DataConfig, target: Target, unit: str | None) -> str:
    """Raises MolgenError for a raw concentration, with the formula that converts it; returns a hint, or ""."""
    if target.formula is not None:
        _check_unit(config, target, target.formula, unit)
        return ""
    if not values or _LOGARITHM.search(target.name):
        return ""
    low, high = min(values), max(values)
    in_name = _UNIT_IN_NAME.search(target.name)
    written = in_name[1] if in_name else unit or ""
    exponent = _exponent(written)
    endpoint = _RAW_NAME.search(target.name)
    if low > 0 and high >= _DECADES * low and (exponent is not None or endpoint):
        column = target.name if target.name.isidentifier() else f"`{target.name}`"
        name = f"p{endpoint[1]}" if endpoint else "p_" + (re.sub(r"\W+", "_", target.name).strip("_") or "value")
        guess = "" if exponent is not None else "if it is in nM: "
        raise MolgenError(
            f"{config.source}: {target.name} is a concentration, from {low:g} to {high:g}: errors would be those of "
            "its largest values",
            f"{guess}--target '{name} = {9 if exponent is None else exponent} - log10({column})'",
        )
    if low > 0 and high >= 1_000 * low:
        return f"{target.name} goes from {low:g} to {high:g}: consider --target 'NAME = log10(`{target.name}`)'"
    return ""


_LIKE_A_NUMBER = re.compile(r"[<>=~≥≤≈+\-\s]*[\d.,]|[<>=~≥≤≈]")


def _check_unit(config: DataConfig, target: Target, formula: Formula, unit: str | None) -> None:
    """Raises MolgenError if a formula takes a concentration for one in another unit than the table says."""
    if len(formula.columns) != 1:
        return
    (column,) = formula.columns
    in_name = _UNIT_IN_NAME.search(column)
    written = in_name[1] if in_name else unit or ""
    exponent = _exponent(written)
    one, ten = formula({column: 1.0}), formula({column: 10.0})
    if exponent is None or one is None or ten is None or abs(ten - one + 1) > 1e-9 or abs(one - exponent) < 0.01:
        return
    shown = column if column.isidentifier() else f"`{column}`"
    raise MolgenError(
        f"{config.source}: {target.name} = {formula.text} takes {column} for another unit than {written}",
        f"--target '{target.name} = {exponent} - log10({shown})'; if it is right, rename the column",
    )


CLASSES = (
    *(("inactive", "active"), ("no", "yes"), ("false", "true"), ("negative", "positive"), ("neg", "pos")),
    *(("n", "y"), ("-", "+"), ("nontoxic", "toxic"), ("non-toxic", "toxic"), ("f", "t"), ("fail", "pass")),
)
"""Words for the classes 0 and 1."""


def classes(texts: Mapping[str, int], target: Target, source: str) -> dict[str, int] | None:
    """Text → 0 or 1 if a column holds two classes; None if it holds numbers. `texts` counts its distinct cells.

    Raises MolgenError for two or more texts that are no numbers and whose meaning is not known.
    """
    folded = Counter[str]()
    for text, count in texts.items():
        folded[text.casefold()] += count
    if folded and all(number(text) in (0.0, 1.0) for text in folded):
        if len({number(text) for text in folded}) < 2:
            raise MolgenError(
                f"{source}: {target.name} is {next(iter(folded))} in every row", "a class needs the other one too"
            )
        return {text: int(number(text.casefold()) or 0) for text in texts}
    words = {text for text in folded if not _LIKE_A_NUMBER.match(text)}
    if sum(folded[word] for word in words) * 2 <= folded.total():
        return None
    pair = next((pair for pair in CLASSES if set(folded) == set(pair)), None)
    if pair is None:
        shown = ", ".join(f"{text} {n:,}" for text, n in folded.most_common(_MOST_SHOWN))
        raise MolgenError(
            f"{source}: {target.name} is neither a number nor one of two known classes: {shown}",
            "write 1 and 0 for two classes; for more, a column of 1 and 0 for each",
        )
    return {text: pair.index(text.casefold()) for text in texts}
