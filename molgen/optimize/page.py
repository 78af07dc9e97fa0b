"""The page of a search: its shortlist with drawings, the Pareto front, the curves. It asks the network for nothing."""

import base64
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from molgen._version import __version__
from molgen.chem.draw import Drawing, align, draw
from molgen.chem.smiles import RDKIT_VERSION, parse
from molgen.evaluation.templates import asset, environment
from molgen.optimize.shortlist import Pick, Shortlist
from molgen.runtime.files import write_atomically

_FRONT_SHOWN = 50
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 424.0, 14.0, 246.0  # the area of the plot in its SVG


class Card(NamedTuple):
    """A pick as the page shows it."""

    pick: Pick
    drawing: Drawing | None
    facts: list[tuple[str, str]]
    """(what, value) pairs under the drawing."""


class Point(NamedTuple):
    """A molecule in the plot of two components."""

    x: float
    y: float
    kind: str
    """front or pick; both: front pick."""
    title: str


class Scatter(NamedTuple):
    """Two components of the front and of the picks against each other, in units of the SVG."""

    x_label: str
    y_label: str
    points: list[Point]


def write_page(
    found: Shortlist, title: str, figures: dict[str, Any], hit: str | None, curves: Path, path: Path
) -> None:
    """Writes the page. `figures` are those of report.json; `curves` is the PNG of the search."""
    picture = base64.b64encode(curves.read_bytes()).decode() if curves.exists() else ""
    model = parse(hit) if hit else None
    page = environment("molgen.optimize", "molgen.evaluation").get_template("shortlist.html.jinja")
    text = page.render(
        title=title,
        figures=figures,
        cards=[_card(pick, model) for pick in found.picks],
        hit=hit,
        hit_drawing=draw(model),
        front=found.front[:_FRONT_SHOWN],
        front_size=len(found.front),
        names=found.names,
        scatter=_scatter(found),
        notes=found.notes,
        considered=found.considered,
        curves=picture,
        now=datetime.now().astimezone(),
        version=__version__,
        rdkit_version=RDKIT_VERSION,
        style=Markup(asset("report.css")),
    )
    write_atomically(path, text.encode("utf-8", "replace"))


def _card(pick: Pick, hit: Any | None) -> Card:
    molecule = parse(pick.record.canonical)
    shared = align(molecule, hit) if hit is not None and molecule is not None else frozenset[int]()
    facts = [(name, f"{value:.3f}") for name, value in pick.scores.items() if value == value]
    facts += [(name, f"{pick.properties[name]:.4g}") for name in ("mw", "logp", "tpsa", "qed", "sa")]
    if pick.undefined_stereo:
        facts.append(("undefined stereo", str(pick.undefined_stereo)))
    if pick.rare_rings:
        facts.append(("rare ring systems", " ".join(pick.rare_rings)))
    if pick.properties["alerts"]:
        facts.append(("alerts", str(pick.properties["alerts"])))
    if pick.catalog:
        facts.append(("in the catalogue", pick.catalog))
    if pick.nearest:
        facts.append((f"nearest known, {pick.nearest_similarity:.2f}", pick.nearest))
    if pick.versus:
        facts.append(("similarity to the hit", f"{pick.versus['similarity']:.2f}"))
        facts += [
            (what, pick.versus[key])
            for what, key in (("R groups", "r_groups"), ("lost", "lost"), ("gained", "gained"))
            if pick.versus[key]
        ]
    return Card(pick, draw(molecule, shared), facts)


def _scatter(found: Shortlist) -> Scatter | None:
    """The two components that differ most along the front; None without a front."""
    if len(found.front) < 2:
        return None
    columns = [[record.scores[i] for record in found.front] for i in range(len(found.names))]
    spread = {i: max(values) - min(values) for i, values in enumerate(columns) if all(v == v for v in values)}
    if len(spread) < 2:
        return None
    x, y = sorted(sorted(spread, key=lambda i: -spread[i])[:2])
    picked = {pick.record.call for pick in found.picks}
    shown = {r.call: (r, "front pick" if r.call in picked else "front") for r in found.front}
    for pick in found.picks:
        shown.setdefault(pick.record.call, (pick.record, "pick"))
    points = [
        Point(
            _LEFT + record.scores[x] * (_RIGHT - _LEFT),
            _BOTTOM - record.scores[y] * (_BOTTOM - _TOP),
            kind,
            f"{record.canonical}: {found.names[x]} {record.scores[x]:.3f}, {found.names[y]} {record.scores[y]:.3f}",
        )
        for record, kind in shown.values()
        if record.scores[x] == record.scores[x] and record.scores[y] == record.scores[y]
    ]
    return Scatter(found.names[x], found.names[y], points)
