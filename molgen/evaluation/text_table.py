"""How figures are named, ordered and written for people: the table of `molgen eval`, and the report's."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from molgen.evaluation import likelihoods
from molgen.evaluation.evaluate import Evaluation
from molgen.evaluation.predictions import lines as prediction_lines
from molgen.metrics import all_metrics
from molgen.metrics.metric import MetricValues, Row
from molgen.metrics.moses import FEWEST_FOR_FCD

_METRICS = tuple(all_metrics().values())
SECTIONS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    (likelihoods.TITLE, likelihoods.ROWS),
    *((metric.title, metric.rows) for metric in _METRICS),
)
ROWS = tuple(row for _, rows in SECTIONS for row in rows)


class Column(NamedTuple):
    """A column of the table: samples, or what they are compared with."""

    title: str
    figures: MetricValues
    n: int | None


def columns(evaluations: Sequence[Evaluation]) -> list[Column]:
    """Each evaluation and its baselines; published rows only with figures of as many samples or more."""
    result: list[Column] = []
    for evaluation in evaluations:
        n = evaluation.figures.values.get("n_samples")
        result.append(Column(evaluation.name, evaluation.figures, None if n is None else int(n)))
        result += [Column(name, figures, _size(figures)) for name, figures in evaluation.baselines.items()]
    for metric in _METRICS:
        if (published := metric.published) and any(_has_as_many(e, metric.rows, published.n) for e in evaluations):
            result += [
                Column(name, MetricValues(dict(values)), published.n) for name, values in published.figures.items()
            ]
    return result


def _size(figures: MetricValues) -> int | None:
    """Molecules of a baseline. Metrics that may take further samples are asked last: theirs may be more."""
    names = [metric.size for metric in sorted(_METRICS, key=lambda metric: metric.most_distinct) if metric.size]
    return next((int(size) for name in names if (size := figures.values.get(name))), None)


def _has_as_many(evaluation: Evaluation, rows: Sequence[Row], n: int) -> bool:
    """Whether there are figures of these rows, of at least `n` samples."""
    values = evaluation.figures.values
    return (values.get("n_samples") or 0) >= n and any(row.key in values for row in rows)


def sections(shown: Sequence[Column]) -> Iterator[tuple[str, list[Row]]]:
    """The sections and rows for which some column has a figure."""
    for title, rows in SECTIONS:
        present = [row for row in rows if any(row.key in column.figures.values for column in shown)]
        if present:
            yield title, present


def cell(column: Column, row: Row) -> str:
    """A figure with its standard error; a dash for a missing figure, a star for a biased FCD."""
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
        for one in evaluation.predictions:
            lines += ["", *prediction_lines(one, evaluation.split)]
        lines += [""] if evaluation.predictions else []
        lines += [f"{evaluation.name}: {note}" for note in evaluation.notes]
        why: dict[str, list[str]] = {}
        for name, reason in evaluation.figures.reasons.items():
            why.setdefault(reason, []).append(name)
        lines += [f"{evaluation.name}: no {', '.join(names)}: {reason}" for reason, names in why.items()]
    return "\n".join(lines)
