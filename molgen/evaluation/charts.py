"""Charts and molecules as HTML and SVG for the report: what is drawn with, not what is shown.

Every chart has a title, a description and a table of its values. Every string that comes from data passes `text`.
"""

import math
import re
from html import escape
from typing import Any, NamedTuple

from rdkit import Chem
from rdkit.Chem import rdDepictor, rdFMCS
from rdkit.Chem.Draw import rdMolDraw2D

from molgen.chem.smiles import parse, quiet

_LONGEST = 400
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 440, 230, 34, 434, 24, 206
_MOLECULE_WIDTH, _MOLECULE_HEIGHT = 260, 170
_LARGEST_DRAWN = 150
"""Heavy atoms; what has more is a knot of lines and a large part of the file."""
_LARGEST_ALIGNED = 60
_COLOURS = {
    **{"#0000FF": "N", "#FF0000": "O", "#CCCC00": "S", "#33CCCC": "Hal", "#00CC00": "Hal"},
    **{"#7F4C19": "Br", "#A01EEF": "I", "#FF7F00": "P"},
}
"""RDKit's colour of an element → its class: the page has colours for light and for dark."""


class Line(NamedTuple):
    """A line of a plot, in its label's style."""

    label: str
    style: str
    values: list[float]


class Plot(NamedTuple):
    """A plot, and what tells the same in words."""

    title: str
    x_label: str
    y_label: str
    x: list[float]
    """Edges of bins, one more than there are values, or the places of the values."""
    lines: list[Line]
    y_range: tuple[float, float]
    caption: str

    @property
    def binned(self) -> bool:
        """Whether the values are those of bins."""
        return len(self.x) > len(self.lines[0].values)


def plot(plot: Plot) -> str:
    title = text(plot.title)
    return (
        f'<figure class="plot"><h3>{title} <small>{text(plot.x_label)}</small></h3>{_plot_svg(plot)}<figcaption>'
        f'<span class="readout" aria-hidden="true"></span><span class="said">{text(plot.caption)}</span></figcaption>'
        f'<details><summary>Values<span class="hidden"> of {title}</span></summary>{_values(plot)}</details></figure>'
    )


def _plot_svg(plot: Plot) -> str:
    (x_low, x_high), (y_low, y_high) = (plot.x[0], plot.x[-1]), plot.y_range

    def across(x: float) -> str:
        return f"{_LEFT + (x - x_low) / (x_high - x_low) * (_RIGHT - _LEFT):.1f}"

    def down(y: float) -> str:
        # a value beyond the range stays at its edge
        return f"{_BOTTOM - (min(max(y, y_low), y_high) - y_low) / (y_high - y_low) * (_BOTTOM - _TOP):.1f}"

    def path(line: Line) -> str:
        if not plot.binned:
            return "M" + "L".join(f"{across(x)} {down(y)}" for x, y in zip(plot.x, line.values, strict=True))
        steps = "".join(f"V{down(y)}H{across(x)}" for x, y in zip(plot.x[1:], line.values, strict=True))
        return f"M{across(x_low)} {_BOTTOM}{steps}V{_BOTTOM}"

    x_ticks, y_ticks = _ticks(x_low, x_high, 6, 0 if plot.binned else 1), _ticks(y_low, y_high, 5)
    rules = "".join(f"M{_LEFT} {down(y)}H{_RIGHT}" for y in y_ticks)
    marks = "".join(f"M{across(x)} {_BOTTOM}v4" for x in x_ticks)
    numbers = [f'<text class="y" x="{_LEFT - 6}" y="{down(y)}" dy=".35em">{y:g}</text>' for y in y_ticks]
    numbers += [f'<text class="x" x="{across(x)}" y="{_BOTTOM + 8}" dy=".8em">{x:g}</text>' for x in x_ticks]
    lines = "".join(f'<path class="line {line.style}" d="{path(line)}"/>' for line in plot.lines)
    labels = ", ".join(line.label for line in plot.lines)
    name = f"plot-{anchor(f'{plot.title} {plot.x_label}')}"
    return (
        f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-labelledby="{name}" aria-describedby="{name}-d" '
        f'data-left="{_LEFT}" data-right="{_RIGHT}"{" data-binned" if plot.binned else ""}>'
        f'<title id="{name}">{text(plot.title)}: {text(plot.x_label)}</title><desc id="{name}-d">'
        f"{'Histogram' if plot.binned else 'Curve'} of {text(labels)}. {text(plot.caption)}. Values are below.</desc>"
        f'<path class="rules" d="{rules}"/>{lines}<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}{marks}"/>'
        f'<rect class="cursor" y="{_TOP}" height="{_BOTTOM - _TOP}" width="0"/>{"".join(numbers)}'
        f'<text x="0" dy=".8em">{text(plot.y_label)}</text></svg>'
    )


def _values(plot: Plot) -> str:
    """The numbers of a plot; the script shows the row under the pointer."""
    heads = "".join(f'<th scope="col">{text(line.label)}</th>' for line in plot.lines)
    ends = zip(plot.x, plot.x[1:], strict=False)
    places = [f"{a:.4g} to {b:.4g}" for a, b in ends] if plot.binned else [f"{plot.x_label} {x:g}" for x in plot.x]
    style = "{:.1f} %" if plot.binned else "{:.4g}"
    rows = "".join(
        f'<tr><th scope="row">{place}</th>{"".join(f"<td>{style.format(value)}</td>" for value in values)}</tr>'
        for place, *values in zip(places, *(line.values for line in plot.lines), strict=True)
    )
    table = (
        f"<table><caption>{text(plot.title)}: {text(plot.y_label)}</caption>"
        f'<thead><tr><th scope="col">{text(plot.title if plot.binned else plot.x_label)}</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    return scroll(f"Values of {plot.title}", table)


def _ticks(low: float, high: float, about: int, least: float = 0) -> list[float]:
    """Round numbers between two, `least` or more from each other."""
    raw = max((high - low) / about, least)
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def drawing(molecule: Any | None, smiles: str, shared: frozenset[int] = frozenset()) -> str:
    """An SVG with one path a colour, a tenth of what RDKit writes; the page gives the colours."""
    if molecule is None or molecule.GetNumHeavyAtoms() > _LARGEST_DRAWN:
        return '<p class="undrawn">not drawn</p>'
    paths: dict[str, str] = {}
    for tag in re.findall(r"<path[^>]*>", _rdkit_svg(molecule)):
        atoms = {int(number) for number in re.findall(r"atom-(\d+)", tag)}
        colour, shape = re.search(r"(?:stroke:|fill=')(#\w{6})", tag), re.search(r" d='([^']*)'", tag)
        if not atoms or not colour or not shape:
            continue  # joints of lines: the page draws round ends instead
        flags = {"f": "fill:none" not in tag, "d": "dasharray" in tag, "m": atoms <= shared}
        kind = " ".join([_COLOURS.get(colour[1], "C"), *(flag for flag, is_so in flags.items() if is_so)])
        paths[kind] = paths.get(kind, "") + re.sub(r"\s*([A-Z])\s*", r"\1", re.sub(r"[,\s]+", " ", shape[1]))
    heights = [float(y) for d in paths.values() for y in re.findall(r"[\d.]+ ([\d.]+)", d)] or [0.0]
    top, height = min(heights) - 3, max(heights) - min(heights) + 6
    drawn = "".join(f'<path class="{kind}" d="{d}"/>' for kind, d in paths.items())
    return (
        f'<svg class="mol" role="img" viewBox="0 {top:.0f} {_MOLECULE_WIDTH} {height:.0f}" '
        f'aria-label="Drawing of {text(smiles)}">{drawn}</svg>'
    )


def fragment(smiles: str) -> Any | None:
    """A ring system cut out of its molecule: it need not be a molecule itself."""
    molecule = parse(smiles)
    if molecule is None:
        with quiet():
            molecule = Chem.MolFromSmiles(smiles, sanitize=False)
            if molecule is not None:
                molecule.UpdatePropertyCache(strict=False)
                Chem.FastFindRings(molecule)
    return molecule


def aligned(molecule: Any, model: Any) -> frozenset[int]:
    """Lays a molecule out like another one as far as they agree; gives back the atoms that both share."""
    if max(molecule.GetNumAtoms(), model.GetNumAtoms()) > _LARGEST_ALIGNED:
        return frozenset()
    with quiet():
        common = rdFMCS.FindMCS([molecule, model], timeout=1, ringMatchesRingOnly=True, completeRingsOnly=True)
        if common.numAtoms < 3:
            return frozenset()
        pattern = Chem.MolFromSmarts(common.smartsString)
        rdDepictor.Compute2DCoords(model)
        rdDepictor.GenerateDepictionMatching2DStructure(molecule, model, refPatt=pattern, acceptFailure=True)
        return frozenset(molecule.GetSubstructMatch(pattern))


def _rdkit_svg(molecule: Any) -> str:
    drawer = rdMolDraw2D.MolDraw2DSVG(_MOLECULE_WIDTH, _MOLECULE_HEIGHT)
    options: Any = drawer.drawOptions()
    options.clearBackground, options.fixedBondLength, options.padding = False, 26, 0.04
    options.additionalAtomLabelPadding = 0.06
    with quiet():
        try:
            rdMolDraw2D.PrepareAndDrawMolecule(drawer, molecule)
        except (ValueError, RuntimeError):  # a part of a molecule that has no Kekulé structure
            options.prepareMolsBeforeDrawing = False
            drawer.DrawMolecule(molecule)
    drawer.FinishDrawing()
    return str(drawer.GetDrawingText())


def scroll(label: str, table: str) -> str:
    """A wide table scrolls in a frame of its own, by keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{text(label)}">{table}</div>'


def text(string: str) -> str:
    """A string from data as HTML: escaped, cut when very long, what cannot be seen written out."""
    cut = string if len(string) <= _LONGEST else f"{string[:_LONGEST]}… ({len(string):,} characters)"
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut))


def anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


def percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
