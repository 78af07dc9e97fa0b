"""The page of `molgen eval --report`: one self-contained HTML file that asks the network for nothing.

From the top to the bottom: the page, its parts in their order, then what they are drawn with. Every string that comes
from data passes `text`. The page's style and script are report.css and report.js.
"""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molgen._version import __version__
from molgen.chem.descriptors import MOSES_PROPERTIES, properties
from molgen.chem.smiles import RDKIT_VERSION, canonical, parse, quiet
from molgen.evaluation.charts import Line, Plot, aligned, anchor, drawing, fragment, percent, plot, scroll, text
from molgen.evaluation.evaluate import Evaluation, histogram
from molgen.evaluation.text_table import ROWS, Column, cell, columns, sections
from molgen.metrics.chem import SHOWN, largest_differences
from molgen.metrics.metric import MetricValues, Row
from molgen.metrics.moses import FEWEST_FOR_FCD, PUBLISHED
from molgen.metrics.profile import LOST
from molgen.runs import LOG
from molgen.runtime.files import write_atomically

Arrays = Mapping[str, npt.NDArray[Any]]
Styles = Mapping[str, str]
"""The CSS class of a line by its label."""

# The first five of these that an evaluation has are its headline, each with a word on what it is.
_HEADLINES = {
    "nll": "nats a molecule, held-out",
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
_GROUPS_LEAD = (
    "Where the samples differ most from training, in shares of molecules. Alerts are those of RDKit's filter "
    "catalogue, functional groups its counts <code>fr_…</code>."
)
_EXAMPLES, _RINGS, _DIFFERENCES, _MOST_CARDS = 8, 10, 10, 480


class Subject(NamedTuple):
    """An evaluation as the page tells it from the others."""

    evaluation: Evaluation
    letter: str
    """A, B, C…; empty where there is only one."""
    style: str
    """The CSS class of its colour and its line."""

    @property
    def title(self) -> str:
        """The last part of its path."""
        name = self.evaluation.name
        return "standard input" if name == "-" else Path(name).name or name

    @property
    def chip(self) -> str:
        """Its letter on its colour."""
        return f'<b class="chip {self.style}">{self.letter}</b> ' if self.letter else ""

    def label(self, what: str) -> str:
        """`what` of this evaluation."""
        return f"{self.letter} {what}".strip()


def write_report(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Writes the page of one evaluation, or of several side by side."""
    write_atomically(path, page(evaluations).encode("utf-8", "replace"))


def page(evaluations: Sequence[Evaluation]) -> str:
    """The HTML of the page. Parts of which nothing is known are left out."""
    several = len(evaluations) > 1
    subjects = [Subject(e, _letter(i) if several else "", f"s{i % 6}") for i, e in enumerate(evaluations)]
    parts = {
        "Figures in context": _figures(subjects),
        "Properties": _properties(subjects),
        "Likelihood": _likelihoods(subjects),
        "Nearest training neighbours": _nearest(subjects),
        "Learning curves": _learning(subjects),
        "Failures": _each(subjects, _failures),
        "New ring systems": _each(subjects, _rings),
        "Alerts and functional groups": _each(subjects, _groups, _GROUPS_LEAD),
        "Molecules": _molecules(subjects),
    }
    shown = [(anchor(title), title, content) for title, content in parts.items() if content]
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title, _ in shown)
    main = "".join(
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{title}</h2>{content}</section>\n'
        for anchor, title, content in shown
    )
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(", ".join(subject.title for subject in subjects))} – molgen evaluation</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body class="{"several" if several else "single"}">
<a class="skip" href="#main">Skip to the figures</a>
<header>{_head(subjects)}</header>
<div class="frame">
<nav aria-label="Contents"><ol>{links}</ol></nav>
<main id="main" tabindex="-1">{main}</main>
</div>
<footer><p>Written by molgen {__version__} with RDKit {text(RDKIT_VERSION)}. This page loads nothing.</p></footer>
<script>{script}</script>
</body>
</html>
"""


# ---- head


def _head(subjects: Sequence[Subject]) -> str:
    now = datetime.now().astimezone()
    title = text(subjects[0].title) if len(subjects) == 1 else f"{len(subjects)} evaluations side by side"
    facts = "".join(f"<li>{_facts(subject)}</li>" for subject in subjects)
    return (
        f'<p class="eyebrow">molgen evaluation</p><h1>{title}</h1>'
        f'<p class="made"><time datetime="{now.isoformat(timespec="minutes")}">{now:%Y-%m-%d %H:%M}</time>'
        f" · molgen {__version__} · RDKit {text(RDKIT_VERSION)}</p>"
        f'<ul class="subjects">{facts}</ul>{_headlines(subjects)}{_notes(subjects)}'
    )


def _facts(subject: Subject) -> str:
    evaluation = subject.evaluation
    facts = [f"{subject.chip}<strong>{text(subject.title)}</strong>"] if subject.letter else []
    facts += [f"<code>{text(evaluation.name)}</code>"] if evaluation.name != subject.title else []
    facts.append(f"{len(evaluation.samples):,} samples")
    facts += [] if evaluation.training is None else [f"training set: {text(evaluation.training.name)}"]
    return " · ".join(facts)


def _headlines(subjects: Sequence[Subject]) -> str:
    rows = {row.key: row for row in ROWS}
    known = [key for key in _HEADLINES if any(key in s.evaluation.figures.values for s in subjects)]
    tiles = "".join(
        f'<li><p class="what">{text(rows[key].title.split(",")[0])}{_better(rows[key])}</p>'
        f'<p class="means">{_HEADLINES[key]}</p>{"".join(_headline(subject, rows[key]) for subject in subjects)}</li>'
        for key in known[:5]
    )
    return f'<h2 class="hidden">Headline figures</h2><ul class="headlines">{tiles}</ul>'


def _headline(subject: Subject, row: Row) -> str:
    """A figure with its standard error, its floor or the reason why it is missing."""
    figures, floor = subject.evaluation.figures, subject.evaluation.baselines.get("floor", MetricValues())
    value, _, error = cell(Column("", figures, None), row).partition(" ± ")
    beside = f'<span class="error"> ± {error}</span>' if error else ""
    note = ""
    if value == "–":
        note = text(figures.reasons.get(row.key, "not computed"))
    elif floor.values.get(row.key) is not None:
        note = f"floor {cell(Column('', floor, None), row)}"
    return (
        f'<p class="value">{subject.chip}<span class="big">{value}</span>{beside} <span class="floor">{note}</span></p>'
    )


def _notes(subjects: Sequence[Subject]) -> str:
    """Notes and the reasons of what is missing, one line a reason."""
    titles = {row.key: row.title.strip() for row in ROWS}
    items = []
    for subject in subjects:
        missing: dict[str, list[str]] = {}
        for key, reason in subject.evaluation.figures.reasons.items():
            missing.setdefault(reason, []).append(titles.get(key, key))
        notes = [*subject.evaluation.notes, *(f"no {', '.join(names)}: {why}" for why, names in missing.items())]
        items += [f"<li>{subject.chip}{text(note)}</li>" for note in notes]
    return f'<div class="notes"><h2>Notes</h2><ul>{"".join(items)}</ul></div>' if items else ""


# ---- figures


class _Shown(NamedTuple):
    """A column with its kind (own, base or published) and the evaluations that it belongs to."""

    column: Column
    kind: str
    chips: str


def _figures(subjects: Sequence[Subject]) -> str:
    shown = _ordered_columns(subjects)
    plain = [s.column for s in shown]
    head = "".join(_column_head(s) for s in shown)
    body = "".join(
        f'<tbody><tr class="group"><th scope="rowgroup" colspan="{len(shown) + 1}"><span>{title}</span></th></tr>'
        f"{''.join(_figure_row(row, shown) for row in rows)}</tbody>"
        for title, rows in sections(plain)
    )
    table = (
        '<table class="figures"><caption class="hidden">Figures of the samples and of what they are compared with'
        f'</caption><thead><tr><th scope="col">figure</th>{head}</tr></thead>{body}</table>'
    )
    compared = {"published" if s.kind == "published" else s.column.title for s in shown}
    meanings = [
        f"<div><dt>{name}</dt><dd>{meaning}</dd></div>" for name, meaning in _COMPARED_WITH.items() if name in compared
    ]
    if any("*" in cell(column, row) for column in plain for row in ROWS):
        meanings.append(
            f"<div><dt>*</dt><dd>FCD of fewer than {FEWEST_FOR_FCD:,} molecules is biased upwards: compare it only "
            "with FCD of as many molecules.</dd></div>"
        )
    explained = f"<dl>{''.join(meanings)}</dl>" if meanings else ""
    return (
        '<p class="lead">↑ more is better, ↓ less is better; shaded: what a figure must be compared with.</p>'
        f'<div class="context">{scroll("Figures", table)}{explained}</div>'
    )


def _ordered_columns(subjects: Sequence[Subject]) -> list[_Shown]:
    """Evaluations, then their baselines, then published rows; a baseline that several share stands once."""
    own: list[_Shown] = []
    compared: list[_Shown] = []
    for subject in subjects:
        first, *others = columns([subject.evaluation])
        own.append(_Shown(first, "own", subject.chip))
        for column in others:
            kind, chip = ("published", "") if column.title in PUBLISHED else ("base", subject.chip)
            same = next((i for i, s in enumerate(compared) if s.column == column), None)
            if same is None:
                compared.append(_Shown(column, kind, chip))
            else:
                compared[same] = compared[same]._replace(chips=compared[same].chips + chip)
    order = {name: i for i, name in enumerate(_COMPARED_WITH)}
    return own + sorted(compared, key=lambda s: order.get(s.column.title, len(order)))


def _column_head(shown: _Shown) -> str:
    title, n = shown.column.title, shown.column.n
    short = Path(title).name or title if shown.kind == "own" else title.removesuffix(" (published)")
    size = "" if n is None else f'<span class="n">n = {n:,}</span>'
    return f'<th scope="col" class="{shown.kind}" title="{text(title)}">{shown.chips}{text(short)}{size}</th>'


def _figure_row(row: Row, shown: Sequence[_Shown]) -> str:
    indented = ' class="sub"' if row.title.startswith(" ") else ""
    # the star hangs, so that digits stay in line
    cells = "".join(f'<td class="{s.kind}">{cell(s.column, row).replace("*", "<sup>*</sup>")}</td>' for s in shown)
    return f'<tr{indented}><th scope="row">{text(row.title.strip())}{_better(row)}</th>{cells}</tr>'


def _better(row: Row) -> str:
    if not row.better:
        return ""
    arrow, words = ("↑", "more is better") if row.better > 0 else ("↓", "less is better")
    return f'&nbsp;<span class="better" aria-hidden="true">{arrow}</span><span class="hidden"> ({words})</span>'


# ---- distributions and curves


_REFERENCES = {"training": "fill", "test": "held", "validation": "held", "held-out": "held"}


def _properties(subjects: Sequence[Subject]) -> str:
    styles, arrays = _with_references(subjects, lambda e: e.findings.properties)
    plots = [
        _histogram(name, _AXES[name], {label: array[:, i] for label, array in arrays.items()}, styles)
        for i, name in enumerate(MOSES_PROPERTIES)
    ]
    lead = "Shares of each set's molecules. What lies beyond an axis counts in its last bin."
    return _plots(lead, styles, plots)


def _likelihoods(subjects: Sequence[Subject]) -> str:
    """A histogram for each evaluation, as its likelihoods are its own model's; all have the same bins."""
    every = [array for s in subjects for array in s.evaluation.nll.values() if len(array)]
    if not every:
        return ""
    low, high = np.quantile(np.concatenate(every), [0.001, 0.999]).tolist()
    plots = []
    shown: dict[str, str] = {}
    for subject in subjects:
        nll = subject.evaluation.nll
        styles = {name: style for name, style in _REFERENCES.items() if name in nll} | {"samples": subject.style}
        arrays = {name: nll[name] for name in styles if name in nll}
        plots.append(_histogram(subject.label("NLL"), "−ln p of a molecule, nats", arrays, styles, (low, high)))
        shown |= {subject.label(name) if name == "samples" else name: styles[name] for name in arrays}
    lead = "How probable the model finds molecules. Held-out ones far to the right of training ones mean memorising."
    return _plots(lead, shown, plots)


def _nearest(subjects: Sequence[Subject]) -> str:
    styles, arrays = _with_references(subjects, lambda e: e.findings.nearest)
    axis = "Tanimoto, Morgan radius 2"
    lead = "Each molecule's similarity to its nearest training molecule; 1 is a copy or as good as one."
    return _plots(lead, styles, [_histogram("Similarity", axis, arrays, styles, (0.0, 1.0))])


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


def _learning(subjects: Sequence[Subject]) -> str:
    logs = []
    for subject in subjects:
        run = subject.evaluation.run
        rows = run.log() if run is not None and (run.path / LOG).exists() else []
        rows = [row for row in rows if math.isfinite(row["train_nll"]) and math.isfinite(row["val_nll"])]
        logs += [(subject, rows)] if len(rows) > 1 else []
    if not logs:
        return ""
    # the first epochs would flatten all the others
    late = [row[key] for _, rows in logs for row in rows[len(rows) // 10 :] for key in ("train_nll", "val_nll")]
    tops = [row["val_top1"] for _, rows in logs for row in rows]
    plots = []
    for subject, rows in logs:
        epochs = [row["epoch"] for row in rows]
        training = Line("training", "train", [row["train_nll"] for row in rows])
        validation = Line("validation", subject.style, [row["val_nll"] for row in rows])
        best = min(rows, key=lambda row: row["val_nll"])
        said = f"Best validation NLL {best['val_nll']:.2f}, epoch {best['epoch']:g}"
        span = (0.98 * min(late), 1.02 * max(late))
        plots.append(Plot(subject.label("NLL"), "epoch", "nats a molecule", epochs, [training, validation], span, said))
        right = Line("validation", subject.style, [row["val_top1"] for row in rows])
        said = f"At the best epoch {best['val_top1']:.3f}"
        span = (min(tops) - 0.01, max(tops) + 0.01)
        plots.append(Plot(subject.label("top-1"), "epoch", "share of tokens", epochs, [right], span, said))
    styles = {"training, as shown to the model": "train"}
    return _plots("As logged after each epoch.", styles | {s.label("validation"): s.style for s, _ in logs}, plots)


def _plots(lead: str, styles: Styles, plots: Iterable[Plot | None]) -> str:
    drawn = "".join(plot(one) for one in plots if one is not None)
    keys = "".join(
        f'<li><svg class="key" viewBox="0 0 30 14" aria-hidden="true"><path class="line {style}" '
        f'd="{"M0 13V4H30V13Z" if style == "fill" else "M0 7H30"}"/></svg>{text(label)}</li>'
        for label, style in styles.items()
    )
    return f'<p class="lead">{lead}</p><ul class="legend">{keys}</ul><div class="plots">{drawn}</div>' if drawn else ""


# ---- failures, rings, groups


def _each(subjects: Sequence[Subject], draw: Callable[[Subject], str], lead: str = "") -> str:
    """A part that is drawn for each evaluation, under its name where there are several."""
    drawn = "".join(
        (f"<h3>{subject.chip}{text(subject.title)}</h3>" if subject.letter else "") + content
        for subject in subjects
        if (content := draw(subject))
    )
    return f'<p class="lead">{lead}</p>{drawn}' if lead and drawn else drawn


def _failures(subject: Subject) -> str:
    profile = subject.evaluation.profile
    if profile is None:
        return ""
    n, failed = profile.n_samples, len(profile.failures)
    if not failed:
        return '<p class="lead">Every sample is a molecule.</p>'
    items = []
    for cause, count in Counter(profile.failures.values()).most_common():
        strings = (subject.evaluation.samples[i] for i, other in profile.failures.items() if other == cause)
        examples = list(dict.fromkeys(s for s in strings if s))[:_EXAMPLES]
        codes = "".join(f"<li><code>{text(s)}</code></li>" for s in examples)
        items.append(
            f'<li><p class="cause"><strong>{text(cause)}</strong> <span>{_CAUSES.get(cause, "")}</span></p>'
            f'<p class="count"><strong>{count:,}</strong> {percent(count / n)}</p>'
            f"{_bar(count / failed, subject.style)}{f'<ul>{codes}</ul>' if codes else ''}</li>"
        )
    lead = f"{failed:,} of {n:,} samples ({percent(failed / n)}) are no molecule. Shares are of all samples."
    return f'<p class="lead">{lead}</p><ol class="failures">{"".join(items)}</ol>'


def _rings(subject: Subject) -> str:
    chemistry = subject.evaluation.findings.chemistry.get("samples")
    if chemistry is None or not chemistry.new_rings:
        return ""
    items = "".join(
        f"<li>{drawing(fragment(smiles), smiles)}<p><strong>{count:,}</strong> molecule{'s' * (count > 1)}</p>"
        f"<code>{text(smiles)}</code></li>"
        for smiles, count in chemistry.new_rings.most_common(_RINGS)
    )
    lead = f"Ring systems that no training molecule has: {len(chemistry.new_rings):,}. The most frequent:"
    return f'<p class="lead">{lead}</p><ol class="rings">{items}</ol>'


def _groups(subject: Subject) -> str:
    chemistry = subject.evaluation.findings.chemistry
    if not {"samples", "training"} <= chemistry.keys():
        return ""
    ours, theirs = chemistry["samples"].shares, chemistry["training"].shares
    tables = "".join(
        _group_table(subject, kind, largest_differences(ours[kind], theirs.get(kind, {}), _DIFFERENCES))
        for kind in ours
    )
    return f'<div class="pair">{tables}</div>' if tables else ""


def _group_table(subject: Subject, kind: str, differences: Sequence[tuple[str, float, float]]) -> str:
    differences = [row for row in differences if row[1] != row[2]]
    top = max((max(ours, theirs) for _, ours, theirs in differences), default=1.0)
    rows = "".join(
        f'<tr><th scope="row">{_group_name(name)}</th>'
        f'<td class="bars">{_bar(ours / top, subject.style)}{_bar(theirs / top, "reference")}</td>'
        f"<td>{percent(ours)}</td><td>{percent(theirs)}</td>"
        f"<td>{f'{100 * (ours - theirs):+.1f}'.replace('-', '−')}</td></tr>"
        for name, ours, theirs in differences
    )
    head = (
        '<th scope="col">name</th><td></td>'
        f'<th scope="col">samples{_bar(1, subject.style)}</th><th scope="col">training{_bar(1, "reference")}</th>'
        '<th scope="col">points</th>'
    )
    table = (
        f'<table class="groups"><caption>{kind.capitalize()}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    return scroll(f"{kind.capitalize()} of {subject.title}", table) if differences else ""


def _group_name(name: str) -> str:
    catalogue, _, own = name.rpartition(":")
    return (f"<small>{text(catalogue)}</small> " if catalogue else "") + text(own.replace("_", " "))


def _bar(share: float, style: str) -> str:
    return f'<span class="bar {style}" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i></span>'


# ---- molecules


class _Card(NamedTuple):
    subject: Subject
    order: int
    position: int
    """Among the samples, from 1."""
    smiles: str
    values: Sequence[float]


def _molecules(subjects: Sequence[Subject]) -> str:
    """The grid: a table whose rows are laid out as cards, so that its heads can say how it is sorted."""
    most = min(SHOWN, max(24, _MOST_CARDS // len(subjects)))
    cards = [card for subject in subjects for card in _cards(subject, most)]
    if not cards:
        return ""
    compared = any(subject.evaluation.neighbours for subject in subjects)
    keys = ["order", *MOSES_PROPERTIES, *(["similarity"] if compared else [])]
    heads = "".join(
        f'<th role="columnheader" scope="col" data-key="{key.lower()}" '
        f'aria-sort="{"ascending" if key == "order" else "none"}"><button type="button">{key}</button></th>'
        for key in keys
    )
    novel = '<label><input type="checkbox" id="only-novel"> Novel only</label>' if compared else ""
    letters = "".join(f"<option>{s.letter}</option>" for s in subjects)
    sets = f'<label>Set <select id="of-set"><option value="">all</option>{letters}</select></label>'
    lead = "The first distinct valid samples, in the order in which they were drawn; weight in g/mol."
    if compared:
        lead += " Each with its nearest training molecule, whose smaller drawing has in grey what both share."
    return (
        f'<p class="lead">{lead}</p><div class="tools" hidden>'
        '<label class="wide">SMILES contains <input type="text" id="contains" spellcheck="false" autocomplete="off" '
        'autocapitalize="off"></label><label>QED at least <input type="range" id="least-qed" min="0" max="1" '
        f'step="0.05" value="0"><output for="least-qed">0.00</output></label>{novel}{sets if len(subjects) > 1 else ""}'
        f'</div><p class="status" role="status" aria-live="polite">{len(cards):,} molecules</p>'
        '<table role="table" class="cards"><caption class="hidden">Molecules</caption><thead role="rowgroup" hidden>'
        '<tr role="row"><th role="columnheader" scope="col"><span class="hidden">molecule</span></th>'
        f"{heads}</tr></thead>"
        f'<tbody role="rowgroup">{"".join(map(_card, cards))}</tbody></table>'
    )


def _cards(subject: Subject, most: int) -> Iterator[_Card]:
    profile = subject.evaluation.profile
    if profile is None:
        return
    first: dict[str, int] = {}
    for row, smiles in enumerate(profile.strings("canonical")):
        if len(first) < most:
            first.setdefault(smiles, row)
    for order, (smiles, row) in enumerate(first.items()):
        if "properties" in profile.columns:
            values = profile.numbers("properties")[row].tolist()
        else:
            with quiet():
                values = properties(parse(smiles))
        yield _Card(subject, order, int(profile.rows[row]) + 1, smiles, values)


def _card(card: _Card) -> str:
    molecule = parse(card.smiles)
    near, novel, similarity = "", False, -1.0
    if card.smiles in card.subject.evaluation.neighbours:
        other, similarity = card.subject.evaluation.neighbours[card.smiles]
        novel = canonical(other) != card.smiles
        near = _neighbour(molecule, other, similarity) if novel else '<p class="known">In the training set.</p>'
        near = f'<td role="cell" class="near">{near}</td>'
    data = "".join(
        f' data-{name.lower()}="{value:.4f}"' for name, value in zip(MOSES_PROPERTIES, card.values, strict=True)
    )
    numbers = "".join(
        f'<td role="cell"><span class="key">{name}</span> {value:{".0f" if name == "weight" else ".2f"}}</td>'
        for name, value in zip(MOSES_PROPERTIES, card.values, strict=True)
    )
    return (
        f'<tr role="row" data-smiles="{escape(card.smiles)}" data-set="{card.subject.letter}" '
        f'data-order="{card.order}" data-similarity="{similarity:.4f}"{" data-novel" if novel else ""}{data}>'
        f'<td role="cell" class="molecule">{drawing(molecule, card.smiles)}<p><code>{text(card.smiles)}</code>'
        f'<button type="button" class="copy" hidden aria-label="Copy SMILES of sample {card.position}">Copy</button>'
        "</p></td>"
        f'<td role="cell" class="position">{card.subject.chip}sample {card.position:,}</td>{numbers}{near}</tr>\n'
    )


def _neighbour(molecule: Any, smiles: str, similarity: float) -> str:
    other = parse(smiles)
    return (
        f"<p><strong>{similarity:.2f}</strong> similarity to the nearest in training</p>"
        f"{drawing(other, smiles, aligned(other, molecule))}<code>{text(smiles)}</code>"
    )


# ---- strings


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _asset(name: str) -> str:
    return resources.files("molgen.evaluation").joinpath(name).read_text(encoding="utf-8")
