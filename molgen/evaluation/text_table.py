"""How figures are named, ordered and written for people: the table of `molgen eval`, and the report's."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from molgen.evaluation.evaluate import Evaluation
from molgen.metrics.basic import MetricValues
from molgen.metrics.moses import FEWEST_FOR_FCD, PUBLISHED, PUBLISHED_N


class Row(NamedTuple):
    """A figure: its name in JSON, its title, its format, and whether more (+1) or less (-1) is better, or neither."""

    key: str
    title: str
    style: str
    better: int = 0


def _for_each(keys: Sequence[str], style: str, better: int = 0) -> tuple[Row, ...]:
    return tuple(Row(key, key, style, better) for key in keys)


SECTIONS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    (
        "Likelihood",
        (
            Row("nll", "NLL, nats a molecule", ".2f", -1),
            Row("nll_train", "  of training molecules", ".2f"),
            Row("nll_gap", "  gap to training", ".2f"),
            Row("nll_per_token", "NLL, nats a token", ".3f", -1),
            Row("perplexity", "perplexity", ".3f", -1),
            Row("top1", "top-1 reconstruction", ".3f", 1),
            Row("top1_padded", "  with padding to 100", ".3f"),
        ),
    ),
    (
        "Samples",
        (
            Row("n_samples", "samples", ","),
            Row("n_valid", "valid samples", ","),
            Row("validity", "validity", ".3f", 1),
            Row("uniqueness", "uniqueness", ".3f", 1),
            Row("uniqueness_parent", "  of parents", ".3f"),
            Row("uniqueness_tautomer", "  of tautomers", ".3f"),
            Row("novelty", "novelty", ".3f"),
            Row("novelty_parent", "  of parents", ".3f"),
            Row("novelty_tautomer", "  of tautomers", ".3f"),
        ),
    ),
    (
        "MOSES",
        (
            *_for_each(("valid", "unique@1000", "unique@10000"), ".4f", 1),
            *_for_each(("FCD/Test", "FCD/TestSF"), ".3f", -1),
            *_for_each(
                [f"{figure}/{name}" for figure in ("SNN", "Frag", "Scaf") for name in ("Test", "TestSF")], ".4f", 1
            ),
            *_for_each(("IntDiv", "IntDiv2", "Filters"), ".4f", 1),
            *_for_each(("logP", "SA", "QED"), ".4f", -1),
            *_for_each(("weight",), ".2f", -1),
            Row("Novelty", "Novelty", ".4f"),
            Row("Novelty/shipped", "  strings as shipped", ".4f"),
        ),
    ),
    (
        "GuacaMol",
        (
            Row("guacamol/n_valid", "n of uniqueness and FCD", ","),
            Row("guacamol/n_unique", "n of novelty and KL", ","),
            Row("guacamol/validity", "validity", ".4f", 1),
            Row("guacamol/uniqueness", "uniqueness", ".4f", 1),
            Row("guacamol/novelty", "novelty", ".4f", 1),
            Row("guacamol/KL_score", "KL score", ".4f", 1),
            Row("guacamol/FCD", "FCD", ".3f", -1),
            Row("guacamol/FCD_score", "FCD score", ".4f", 1),
        ),
    ),
    (
        "Chemistry",
        (
            Row("chem/radicals", "with radicals", ".4f", -1),
            Row("chem/multi_fragment", "several fragments", ".4f"),
            Row("chem/net_charge", "net charge", ".4f"),
            Row("chem/PAINS", "PAINS alerts", ".4f"),
            Row("chem/BRENK", "BRENK alerts", ".4f"),
            Row("chem/NIH", "NIH alerts", ".4f"),
            Row("chem/filters", "pass MOSES' filters", ".4f"),
            *(
                Row(f"chem/filters_{cause}", f"  rejected: {cause}", ".4f")
                for cause in ("charge", "element", "ring", "MCF", "PAINS")
            ),
            *(
                Row(f"chem/{name}_q{quantile}", f"{name} {quantile} % quantile", ".3f")
                for name in ("QED", "SA")
                for quantile in ("05", "25", "50", "75", "95")
            ),
            Row("chem/new_ring_systems", "new ring systems", ".4f"),
            Row("chem/scaffold_novelty", "scaffold novelty", ".4f"),
            Row("chem/scaffolds_per_1000", "scaffolds per 1,000", ".0f"),
            Row("chem/parent_novelty", "novelty of parents", ".4f"),
            Row("chem/nearest", "nearest in training", ".3f"),
            Row("chem/nearest_0.8", "  at least 0.8", ".4f"),
            Row("chem/nearest_1", "  equal to 1", ".4f"),
            Row("chem/rediscovered", "held-out rediscovered", ".4f", 1),
            Row("chem/circles", "#Circles (0.75)", ","),
        ),
    ),
)
ROWS = tuple(row for _, rows in SECTIONS for row in rows)


class Column(NamedTuple):
    """A column of the table: samples, or what they are compared with."""

    title: str
    figures: MetricValues
    n: int | None


def columns(evaluations: Sequence[Evaluation]) -> list[Column]:
    """Each evaluation and its baselines; published rows only beside figures of as many samples."""
    result: list[Column] = []
    for evaluation in evaluations:
        n = evaluation.figures.values.get("n_samples")
        result.append(Column(evaluation.name, evaluation.figures, None if n is None else int(n)))
        for name, figures in evaluation.baselines.items():
            size = (
                figures.values.get("n_valid") or figures.values.get("chem/n") or figures.values.get("guacamol/n_valid")
            )
            result.append(Column(name, figures, None if size is None else int(size)))
    if any(
        "FCD/Test" in e.figures.values and (e.figures.values.get("n_samples") or 0) >= PUBLISHED_N for e in evaluations
    ):
        result += [Column(name, MetricValues(dict(values)), PUBLISHED_N) for name, values in PUBLISHED.items()]
    return result


def sections(shown: Sequence[Column]) -> Iterator[tuple[str, list[Row]]]:
    """The sections and rows of which a column has a figure."""
    for title, rows in SECTIONS:
        present = [row for row in rows if any(row.key in column.figures.values for column in shown)]
        if present:
            yield title, present


def cell(column: Column, row: Row) -> str:
    """A figure with its standard error, a dash where there is none, a star where FCD is biased."""
    value = column.figures.values.get(row.key)
    if value is None:
        return "–"
    stderr = column.figures.values.get(f"{row.key}_stderr")
    text = f"{value:{row.style}}" + (f" ± {stderr:{row.style}}" if stderr is not None else "")
    valid = column.figures.values.get("n_valid")
    biased = "FCD" in row.key and valid is not None and valid < FEWEST_FOR_FCD
    return f"{text}*" if biased else text


def table(evaluations: Sequence[Evaluation]) -> str:
    """The figures for people: a line a figure, a column an evaluation or a baseline, then notes and reasons."""
    shown = columns(evaluations)
    widths = [
        max(14 if i == 0 else 11, 2 + max(map(len, (column.title, *(cell(column, row) for row in ROWS)))))
        for i, column in enumerate(shown)
    ]
    lines = [" " * 26 + "".join(f"{c.title:>{w}}" for c, w in zip(shown, widths, strict=True))]
    if any(column.title == "floor" for column in shown):
        sizes = ("" if c.n is None else f"n = {c.n:,}" for c in shown)
        lines.append(" " * 26 + "".join(f"{size:>{w}}" for size, w in zip(sizes, widths, strict=True)))
    several = len(list(sections(shown))) > 2
    for title, rows in sections(shown):
        if several:
            lines.append(title)
        for row in rows:
            cells = (f"{cell(c, row):>{w}}" for c, w in zip(shown, widths, strict=True))
            lines.append(f"{row.title:<26}" + "".join(cells))
    if any("*" in cell(column, row) for column in shown for row in ROWS):
        lines.append(f"* FCD of fewer than {FEWEST_FOR_FCD:,} molecules is biased upwards")
    for evaluation in evaluations:
        lines += [f"{evaluation.name}: {note}" for note in evaluation.notes]
        why: dict[str, list[str]] = {}
        for name, reason in evaluation.figures.reasons.items():
            why.setdefault(reason, []).append(name)
        lines += [f"{evaluation.name}: no {', '.join(names)}: {reason}" for reason, names in why.items()]
    return "\n".join(lines)
