"""The page of `molgen eval --report`: one self-contained HTML file that asks the network for nothing.

What is shown is prepared here, a part of the page after the other. How it is shown is said by the templates
report.html.jinja and report_parts.html.jinja, which escape every string, report.css and report.js.
"""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from molgen._version import __version__
from molgen.chem.clean import LOST
from molgen.chem.descriptors import MOSES_PROPERTIES, properties
from molgen.chem.draw import Drawing, align, draw, fragment
from molgen.chem.smiles import RDKIT_VERSION, canonical, parse, quiet
from molgen.evaluation.charts import Line, Plot, Scatter
from molgen.evaluation.evaluate import Evaluation, histogram
from molgen.evaluation.predictions import lines
from molgen.evaluation.templates import asset, environment
from molgen.evaluation.text_table import ROWS, Column, cell, columns, sections
from molgen.metrics.chem import SHOWN, largest_differences
from molgen.metrics.metric import MetricValues, Row
from molgen.metrics.moses import FEWEST_FOR_FCD, PUBLISHED
from molgen.runs import LOG
from molgen.runtime.files import write_atomically

T = TypeVar("T")
Arrays = Mapping[str, npt.NDArray[Any]]
Styles = Mapping[str, str]
"""The CSS class of a line by its label."""

# The headline shows the first five of these that an evaluation has, each with a short explanation.
_HEADLINES = {
    "nll": "nats per molecule, held-out",
    "validity": "of all samples",
    "uniqueness": "distinct, of the valid",
    "novelty": "not in training, of the distinct",
    "FCD/Test": "distance to the test set",
    "top1": "tokens, held-out",
    "chem/nearest": "Tanimoto similarity, mean",
    "guacamol/FCD_score": "1 is best",
}
_COMPARED_WITH = {
    "floor": "As many random training molecules as there are valid samples: a perfect generator's figures at this n.",
    "copy": "The training set drawn from with replacement: a generator that only repeats what it saw.",
    "add-carbon": "Training molecules with one carbon put in somewhere: valid, unique and new, with nothing learned. "
    "An honest generator must beat this and copy.",
    "held-out": "As many real molecules that were not trained on.",
    "published": "Other models on 30,000 samples, from the MOSES paper.",
}
_AXES = {
    "logP": "octanol to water, Crippen",
    "SA": "synthetic accessibility, 1 easy to 10 hard",
    "QED": "drug-likeness, 0 to 1",
    "weight": "molecular weight, g/mol",
}
_CAUSES = {
    "empty": "no string: ended at once, or unfinished at the length limit",
    "syntax": "brackets, ring labels or symbols that make no SMILES",
    "kekulisation": "an aromatic ring in which no double bonds can be placed",
    "valence": "an atom with more bonds than it can have",
    "not ASCII": "characters that occur in no SMILES",
    LOST: "nothing came back",
}
_EXAMPLES, _RINGS, _DIFFERENCES, _MOST_CARDS = 8, 10, 10, 480


class Subject(NamedTuple):
    """An evaluation as the page tells it from the others."""

    evaluation: Evaluation
    letter: str
    """A, B, C…; empty for a single evaluation."""
    style: str
    """The CSS class of its colour and its line."""

    @property
    def title(self) -> str:
        """The last part of its path."""
        name = self.evaluation.name
        return "standard input" if name == "-" else Path(name).name or name

    def label(self, what: str) -> str:
        """`what` of this evaluation."""
        return f"{self.letter} {what}".strip()


class Part(NamedTuple):
    """A section of the page: the macro of report_parts.html.jinja that draws its content."""

    title: str
    macro: str
    content: Any


def write_report(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Writes the page of one evaluation, or of several side by side."""
    write_atomically(path, page(evaluations).encode("utf-8", "replace"))


def page(evaluations: Sequence[Evaluation]) -> str:
    """The HTML of the page, without its empty parts."""
    several = len(evaluations) > 1
    subjects = [Subject(e, _letter(i) if several else "", f"s{i % 6}") for i, e in enumerate(evaluations)]
    parts = [
        Part("Figures in context", "figures", _figures(subjects)),
        Part("Predictions", "predictions", _each(subjects, _predictions)),
        Part("Properties", "properties", _properties(subjects)),
        Part("Likelihood", "likelihoods", _likelihoods(subjects)),
        Part("Nearest training neighbours", "nearest", _nearest(subjects)),
        Part("Learning curves", "learning", _learning(subjects)),
        Part("Failures", "failures", _each(subjects, _failures)),
        Part("New ring systems", "rings", _each(subjects, _rings)),
        Part("Alerts and functional groups", "groups", _each(subjects, _groups)),
        Part("Molecules", "molecules", _molecules(subjects)),
    ]
    script = asset("report.js")
    return (
        environment("molgen.evaluation")
        .get_template("report.html.jinja")
        .render(
            subjects=subjects,
            headlines=_headlines(subjects),
            notes=_notes(subjects),
            parts=[part for part in parts if part.content],
            now=datetime.now().astimezone(),
            version=__version__,
            rdkit_version=RDKIT_VERSION,
            style=Markup(asset("report.css")),
            script=Markup(script),
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


# ---- head


class Headline(NamedTuple):
    """A figure of each evaluation, large."""

    title: str
    meaning: str
    better: int
    """As in `Row`."""
    values: list["HeadlineValue"]


class HeadlineValue(NamedTuple):
    """A figure with its standard error, and its floor or the reason why it is missing."""

    subject: Subject
    value: str
    error: str
    note: str


def _headlines(subjects: Sequence[Subject]) -> list[Headline]:
    rows = {row.key: row for row in ROWS}
    known = [key for key in _HEADLINES if any(key in s.evaluation.figures.values for s in subjects)]
    return [
        Headline(
            rows[key].title.split(",")[0],
            _HEADLINES[key],
            rows[key].better,
            [_headline_value(subject, rows[key]) for subject in subjects],
        )
        for key in known[:5]
    ]


def _headline_value(subject: Subject, row: Row) -> HeadlineValue:
    figures, floor = subject.evaluation.figures, subject.evaluation.baselines.get("floor", MetricValues())
    value, _, error = cell(Column("", figures, None), row).partition(" ± ")
    note = ""
    if value == "–":
        note = figures.reasons.get(row.key, "not computed")
    elif floor.values.get(row.key) is not None:
        note = f"floor {cell(Column('', floor, None), row)}"
    return HeadlineValue(subject, value, error, note)


def _notes(subjects: Sequence[Subject]) -> list[tuple[Subject, str]]:
    """Notes, and the reasons for missing figures, one line per reason."""
    titles = {row.key: row.title.strip() for row in ROWS}
    result = []
    for subject in subjects:
        missing: dict[str, list[str]] = {}
        for key, reason in subject.evaluation.figures.reasons.items():
            missing.setdefault(reason, []).append(titles.get(key, key))
        notes = [*subject.evaluation.notes, *(f"no {', '.join(names)}: {why}" for why, names in missing.items())]
        result += [(subject, note) for note in notes]
    return result


# ---- figures


class FigureColumn(NamedTuple):
    """A column, its kind (own, base or published) and the evaluations that it belongs to."""

    column: Column
    kind: str
    subjects: tuple[Subject, ...]

    @property
    def title(self) -> str:
        """The whole title."""
        return self.column.title

    @property
    def short(self) -> str:
        """The title as far as it tells this column from the others."""
        title = self.column.title
        return Path(title).name or title if self.kind == "own" else title.removesuffix(" (published)")

    @property
    def n(self) -> int | None:
        """How many molecules the figures are of, where that is known."""
        return self.column.n


class FigureRow(NamedTuple):
    """A figure in all columns."""

    title: str
    indented: bool
    better: int
    """As in `Row`."""
    cells: list[tuple[str, str, bool]]
    """(kind of the column, figure, whether it has a star)"""


class Figures(NamedTuple):
    """The table of figures, and what its columns and its star mean."""

    columns: list[FigureColumn]
    sections: list[tuple[str, list[FigureRow]]]
    meanings: dict[str, str]


def _figures(subjects: Sequence[Subject]) -> Figures:
    shown = _ordered_columns(subjects)
    table = [(title, [_figure_row(row, shown) for row in rows]) for title, rows in sections([s.column for s in shown])]
    compared = {"published" if s.kind == "published" else s.title for s in shown}
    meanings = {name: meaning for name, meaning in _COMPARED_WITH.items() if name in compared}
    if any(starred for _, rows in table for row in rows for _, _, starred in row.cells):
        meanings["*"] = (
            f"FCD of fewer than {FEWEST_FOR_FCD:,} molecules is biased upwards: compare it only with FCD of as many "
            "molecules."
        )
    return Figures(shown, table, meanings)


def _ordered_columns(subjects: Sequence[Subject]) -> list[FigureColumn]:
    """Evaluations, then their baselines, then published rows; a shared baseline is shown once."""
    own: list[FigureColumn] = []
    compared: list[FigureColumn] = []
    for subject in subjects:
        first, *others = columns([subject.evaluation])
        own.append(FigureColumn(first, "own", (subject,)))
        for column in others:
            kind, owner = ("published", ()) if column.title in PUBLISHED else ("base", (subject,))
            same = next((i for i, c in enumerate(compared) if c.column == column), None)
            if same is None:
                compared.append(FigureColumn(column, kind, owner))
            else:
                compared[same] = compared[same]._replace(subjects=compared[same].subjects + owner)
    order = {name: i for i, name in enumerate(_COMPARED_WITH)}
    return own + sorted(compared, key=lambda c: order.get(c.title, len(order)))


def _figure_row(row: Row, shown: Sequence[FigureColumn]) -> FigureRow:
    figures = [(c.kind, cell(c.column, row)) for c in shown]
    cells = [(kind, figure.removesuffix("*"), figure.endswith("*")) for kind, figure in figures]
    return FigureRow(row.title.strip(), row.title.startswith(" "), row.better, cells)


# ---- distributions and curves


_REFERENCES = {"training": "fill", "test": "held", "validation": "held", "held-out": "held"}


class Plots(NamedTuple):
    """Plots with one legend."""

    legend: Styles
    plots: list[Plot]


def _plots(legend: Styles, plots: Sequence[Plot | None]) -> Plots | None:
    known = [plot for plot in plots if plot is not None]
    return Plots(legend, known) if known else None


def _properties(subjects: Sequence[Subject]) -> Plots | None:
    styles, arrays = _with_references(subjects, lambda e: e.findings.properties)
    plots = [
        _histogram(name, _AXES[name], {label: array[:, i] for label, array in arrays.items()}, styles)
        for i, name in enumerate(MOSES_PROPERTIES)
    ]
    return _plots(styles, plots)


def _likelihoods(subjects: Sequence[Subject]) -> Plots | None:
    """A histogram for each evaluation, as its likelihoods are its own model's; all have the same bins."""
    every = [array for s in subjects for array in s.evaluation.nll.values() if len(array)]
    if not every:
        return None
    low, high = np.quantile(np.concatenate(every), [0.001, 0.999]).tolist()
    plots = []
    legend: dict[str, str] = {}
    for subject in subjects:
        nll = subject.evaluation.nll
        styles = {name: style for name, style in _REFERENCES.items() if name in nll} | {"samples": subject.style}
        arrays = {name: nll[name] for name in styles if name in nll}
        plots.append(_histogram(subject.label("NLL"), "−ln p of a molecule, nats", arrays, styles, (low, high)))
        legend |= {subject.label(name) if name == "samples" else name: styles[name] for name in arrays}
    return _plots(legend, plots)


def _nearest(subjects: Sequence[Subject]) -> Plots | None:
    styles, arrays = _with_references(subjects, lambda e: e.findings.nearest)
    return _plots(styles, [_histogram("Similarity", "Tanimoto, Morgan radius 2", arrays, styles, (0.0, 1.0))])


def _with_references(
    subjects: Sequence[Subject], found: Callable[[Evaluation], Arrays]
) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    """(styles, arrays) by label: what the samples are compared with, once, then the samples of each evaluation.

    The references of two evaluations are parts of the same random order, so the longer one serves both; where they
    are of different sets, the first evaluation's are shown and bear its letter.
    """
    references: dict[str, npt.NDArray[Any]] = {}
    samples: dict[str, npt.NDArray[Any]] = {}
    styles: dict[str, str] = {}
    differ: set[str] = set()
    for subject in subjects:
        for name, array in found(subject.evaluation).items():
            if name == "samples":
                samples[subject.label(name)] = array
                styles[subject.label(name)] = subject.style
                continue
            shorter, longer = sorted([references.get(name, array), array], key=len)
            if np.array_equal(longer[: len(shorter)], shorter):
                references[name] = longer
            else:
                differ.add(name)
    labels = {n: f"{n} of {subjects[0].letter}" if n in differ else n for n in _REFERENCES if n in references}
    arrays = {label: references[name] for name, label in labels.items()} | samples
    styles |= {label: _REFERENCES[name] for name, label in labels.items()}
    return {label: styles[label] for label in arrays}, arrays


def _histogram(
    title: str, axis: str, arrays: Arrays, styles: Styles, span: tuple[float, float] | None = None
) -> Plot | None:
    binned = histogram(dict(arrays), span)
    if not binned:
        return None
    edges = binned.pop("edges")
    lines = [Line(label, styles[label], [100 * share for share in shares]) for label, shares in binned.items()]
    medians = ", ".join(f"{label} {np.median(arrays[label]):.3g}" for label in binned)
    top = max(value for line in lines for value in line.values)
    return Plot(title, axis, "share of molecules, %", edges, lines, (0.0, 1.05 * top), f"Medians: {medians}")


def _learning(subjects: Sequence[Subject]) -> Plots | None:
    logs = []
    for subject in subjects:
        run = subject.evaluation.run
        rows = run.log() if run is not None and (run.path / LOG).exists() else []
        rows = [row for row in rows if math.isfinite(row["train_nll"]) and math.isfinite(row["val_nll"])]
        logs += [(subject, rows)] if len(rows) > 1 else []
    if not logs:
        return None
    # the first epochs would flatten all the others
    late = [row[key] for _, rows in logs for row in rows[len(rows) // 10 :] for key in ("train_nll", "val_nll")]
    tops = [row["val_top1"] for _, rows in logs for row in rows]
    plots = []
    for subject, rows in logs:
        epochs = [row["epoch"] for row in rows]
        training = Line("training", "train", [row["train_nll"] for row in rows])
        validation = Line("validation", subject.style, [row["val_nll"] for row in rows])
        best = min(rows, key=lambda row: row["val_nll"])
        caption = f"Best validation NLL {best['val_nll']:.2f}, epoch {best['epoch']:g}"
        span = (0.98 * min(late), 1.02 * max(late))
        lines = [training, validation]
        plots.append(Plot(subject.label("NLL"), "epoch", "nats per molecule", epochs, lines, span, caption))
        right = Line("validation", subject.style, [row["val_top1"] for row in rows])
        caption = f"At the best epoch {best['val_top1']:.3f}"
        span = (min(tops) - 0.01, max(tops) + 0.01)
        plots.append(Plot(subject.label("top-1"), "epoch", "share of tokens", epochs, [right], span, caption))
    legend = {"training, as shown to the model": "train"} | {s.label("validation"): s.style for s, _ in logs}
    return _plots(legend, plots)


# ---- failures, rings, groups


def _each(subjects: Sequence[Subject], prepare: Callable[[Subject], T | None]) -> list[tuple[Subject, T]]:
    """A part that is repeated for each evaluation that has content for it."""
    return [(subject, content) for subject in subjects if (content := prepare(subject)) is not None]


class PredictionPart(NamedTuple):
    """The predictions of one target."""

    lines: list[str]
    """The figures, as `molgen eval` prints them."""
    plots: list[Scatter]


def _predictions(subject: Subject) -> list[PredictionPart] | None:
    evaluation = subject.evaluation
    found = []
    for one in evaluation.predictions:
        plots = []
        known = ~np.isnan(one.predicted)
        if known.any() and not one.is_class:
            pairs = list(zip(one.predicted[known].tolist(), one.truth[known].tolist(), strict=True))
            low, high = (float(f(np.array(pairs))) for f in (np.min, np.max))
            margin = 0.03 * (high - low) or 1.0
            span = (low - margin, high + margin)
            caption = f"{len(pairs):,} held-out molecules; on the line: exact"
            plots.append(Scatter(subject.label(one.name), "predicted", "measured", pairs, span, caption))
        if len(one.calibration) > 1:
            what = "probability" if one.is_class else "coverage"
            title = subject.label(f"{one.name}: calibration")
            caption = f"Found {what} against what was said; on the line: honest"
            points = one.calibration
            plots.append(Scatter(title, f"{what} said", "found", points, (0.0, 1.0), caption, joined=True))
        found.append(PredictionPart(lines(one, evaluation.split), plots))
    return found or None


class Cause(NamedTuple):
    """Why samples are no molecules."""

    name: str
    meaning: str
    samples: int
    examples: list[str]


class Failures(NamedTuple):
    """What is wrong with the samples that are no molecule, most frequent first."""

    samples: int
    """All of them, valid and not."""
    failed: int
    causes: list[Cause]


def _failures(subject: Subject) -> Failures | None:
    table = subject.evaluation.profile
    if table is None:
        return None
    causes = []
    for name, n in Counter(table.failures.values()).most_common():
        strings = (subject.evaluation.samples[i] for i, other in table.failures.items() if other == name)
        examples = list(dict.fromkeys(s for s in strings if s))[:_EXAMPLES]
        causes.append(Cause(name, _CAUSES.get(name, ""), n, examples))
    return Failures(table.n_samples, len(table.failures), causes)


class Ring(NamedTuple):
    """A ring system and how many molecules have it."""

    smiles: str
    molecules: int
    drawing: Drawing | None


class Rings(NamedTuple):
    """Ring systems that no training molecule has."""

    total: int
    most_frequent: list[Ring]


def _rings(subject: Subject) -> Rings | None:
    chemistry = subject.evaluation.findings.chemistry.get("samples")
    if chemistry is None or not chemistry.new_rings:
        return None
    frequent = chemistry.new_rings.most_common(_RINGS)
    return Rings(len(chemistry.new_rings), [Ring(smiles, n, draw(fragment(smiles))) for smiles, n in frequent])


class GroupRow(NamedTuple):
    """An alert or a functional group: its shares of samples and of training molecules."""

    catalogue: str
    """Whose alert it is; may be empty."""
    name: str
    ours: float
    theirs: float

    @property
    def points(self) -> str:
        """The difference in percentage points."""
        return f"{100 * (self.ours - self.theirs):+.1f}".replace("-", "−")


class GroupTable(NamedTuple):
    """The alerts or the groups that differ most."""

    kind: str
    rows: list[GroupRow]

    @property
    def top(self) -> float:
        """The largest share: its bar is the longest."""
        return max(max(row.ours, row.theirs) for row in self.rows)


def _groups(subject: Subject) -> list[GroupTable] | None:
    chemistry = subject.evaluation.findings.chemistry
    if not {"samples", "training"} <= chemistry.keys():
        return None
    ours, theirs = chemistry["samples"].shares, chemistry["training"].shares
    tables = []
    for kind in ours:
        differences = largest_differences(ours[kind], theirs.get(kind, {}), _DIFFERENCES)
        rows = [_group_row(name, a, b) for name, a, b in differences if a != b]
        tables += [GroupTable(kind.capitalize(), rows)] if rows else []
    return tables or None


def _group_row(name: str, ours: float, theirs: float) -> GroupRow:
    catalogue, _, own = name.rpartition(":")
    return GroupRow(catalogue, own.replace("_", " "), ours, theirs)


# ---- molecules


class Card(NamedTuple):
    """A sampled molecule, with its nearest training molecule if that is known."""

    subject: Subject
    order: int
    position: int
    """Among the samples, from 1."""
    smiles: str
    properties: dict[str, float]
    drawing: Drawing | None
    neighbour: str = ""
    similarity: float = -1.0
    novel: bool = False
    """The nearest training molecule is known, and is another one."""
    neighbour_drawing: Drawing | None = None


class Molecules(NamedTuple):
    """The grid of molecules, and what it can be sorted by and filtered with."""

    cards: list[Card]
    keys: list[str]
    compared: bool
    """Whether nearest training molecules are known."""
    letters: list[str]
    """Letters of the evaluations, if there are several."""


def _molecules(subjects: Sequence[Subject]) -> Molecules | None:
    most = min(SHOWN, max(24, _MOST_CARDS // len(subjects)))
    cards = [card for subject in subjects for card in _cards(subject, most)]
    if not cards:
        return None
    compared = any(subject.evaluation.neighbours for subject in subjects)
    keys = ["order", *MOSES_PROPERTIES, *(["similarity"] if compared else [])]
    return Molecules(cards, keys, compared, [s.letter for s in subjects if s.letter])


def _cards(subject: Subject, most: int) -> list[Card]:
    table = subject.evaluation.profile
    if table is None:
        return []
    first: dict[str, int] = {}
    for row, smiles in enumerate(table.strings("canonical")):
        if len(first) < most:
            first.setdefault(smiles, row)
    cards = []
    for order, (smiles, row) in enumerate(first.items()):
        if "properties" in table.columns:
            values = table.numbers("properties")[row].tolist()
        else:
            with quiet():
                values = properties(parse(smiles))
        named = dict(zip(MOSES_PROPERTIES, values, strict=True))
        cards.append(_card(subject, order, int(table.rows[row]) + 1, smiles, named))
    return cards


def _card(subject: Subject, order: int, position: int, smiles: str, values: dict[str, float]) -> Card:
    molecule = parse(smiles)
    neighbour, similarity = subject.evaluation.neighbours.get(smiles, ("", -1.0))
    if not neighbour or canonical(neighbour) == smiles:
        return Card(subject, order, position, smiles, values, draw(molecule), neighbour, similarity)
    other = parse(neighbour)
    shared = align(other, molecule)  # before either is drawn: it lays both out
    pictures = draw(molecule), draw(other, shared)
    return Card(subject, order, position, smiles, values, pictures[0], neighbour, similarity, True, pictures[1])


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)
