"""Drawings of molecules: a grid in a file, the SVG that RDKit writes, and a short form of it for a page of many."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rdkit import Chem, Geometry
from rdkit.Chem import rdDepictor, rdFMCS

from molgen.chem.fragments import keep_of
from molgen.chem.kept import find
from molgen.chem.smiles import parse, quiet
from molgen.errors import MolgenError
from molgen.runtime.files import write_atomically

_FORMATS = (".png", ".svg")
_WIDTH, _HEIGHT = 260, 170
_LARGEST_DRAWN = 150
"""Heavy atoms. A larger molecule is a knot of lines, and a large part of the file."""
_LARGEST_ALIGNED = 60
_COLOURS = {
    **{"#0000FF": "N", "#FF0000": "O", "#CCCC00": "S", "#33CCCC": "Hal", "#00CC00": "Hal"},
    **{"#7F4C19": "Br", "#A01EEF": "I", "#FF7F00": "P"},
}
"""RDKit's colour of an element → the element, or `Hal` for F and Cl; every other colour is that of carbon."""


class Drawing(NamedTuple):
    """The lines of a drawing in pixels, 260 wide: a tenth of what RDKit writes. The page gives the colours."""

    top: float
    width: float
    height: float
    paths: dict[str, str]
    """SVG path data by its classes: an element, `f` (filled), `d` (dashed), `m` (shared with another molecule)."""


def require_drawing(file: Path | None = None) -> None:
    """Raises MolgenError if molecules cannot be drawn on this machine, or not into this file."""
    if file is not None and file.suffix not in _FORMATS:
        raise MolgenError(f"{file}: cannot draw into this format", f"use {' or '.join(_FORMATS)}")
    _rdkit_draw()


@cache
def _rdkit_draw() -> Any:
    """RDKit's module for drawing, imported when it is needed: it wants libraries that a minimal Linux lacks."""
    try:
        from rdkit.Chem import Draw
    except ImportError as error:
        hint = "install it; on Debian or Ubuntu: apt-get install libxrender1 libxext6 libexpat1"
        raise MolgenError(f"RDKit cannot draw here, a library of the system is missing: {error}", hint) from error
    return Draw


def draw_grid(smiles: Sequence[str], path: Path, columns: int = 6, keep: str = "") -> int:
    """Draws the valid molecules among `smiles` into a .png or .svg file; returns how many.

    With `keep`, a text of `fragments.numbered`, what is kept is highlighted and lies alike in all of them.

    Raises RuntimeError when no molecule is valid.
    """
    molecules = [m for m in map(parse, smiles) if m is not None]
    if not molecules:
        raise RuntimeError(f"{path}: no valid molecule to draw; sample more, or train longer")
    shared = _laid_out(molecules, keep) if keep else [[] for _ in molecules]
    svg = path.suffix == ".svg"
    options: Any = _rdkit_draw().rdMolDraw2D.MolDrawOptions()
    options.padding = 0.08
    options.drawMolsSameScale = False  # one long chain would make all the others tiny
    with quiet():
        picture: Any = _rdkit_draw().MolsToGridImage(
            molecules,
            molsPerRow=min(columns, len(molecules)),
            highlightAtomLists=shared,
            highlightBondLists=[_bonds_of(*pair) for pair in zip(molecules, shared, strict=True)],
            subImgSize=(260, 200),
            useSVG=svg,
            drawOptions=options,
            returnPNG=not svg,
        )
    content = picture if isinstance(picture, str | bytes) else picture.data
    write_atomically(path, content.encode() if isinstance(content, str) else content)
    return len(molecules)


def _laid_out(molecules: Sequence[Any], keep: str) -> list[list[int]]:
    """The kept atoms of each molecule, which get the coordinates that they have in the first one."""
    found = [_kept(molecule, keep) for molecule in molecules]
    model: dict[int, Any] = {}
    for molecule, places in zip(molecules, found, strict=True):
        with quiet():
            first = keep_of(keep).fragments[0].atoms  # two fragments do not lie alike
            fixed = {place: model[i] for i, place in places.items() if i in model and i in first}
            coordinates: Any = rdDepictor
            coordinates.Compute2DCoords(molecule, coordMap=fixed) if fixed else coordinates.Compute2DCoords(molecule)
        if not model and places:
            conformer = molecule.GetConformer()
            model = {i: Geometry.Point2D(*list(conformer.GetAtomPosition(at))[:2]) for i, at in places.items()}
    return [sorted(places.values()) for places in found]


def _kept(molecule: Any, keep: str) -> dict[int, int]:
    """Number of a kept atom → its atom; empty for a molecule without what is kept."""
    asked = keep_of(keep)
    found = find(molecule, asked)
    if found is None:
        return {}
    return {i: found.places[i] for fragment in asked.fragments for i in fragment.atoms}


def _bonds_of(molecule: Any, atoms: Sequence[int]) -> list[int]:
    inside = set(atoms)
    return [b.GetIdx() for b in molecule.GetBonds() if {b.GetBeginAtomIdx(), b.GetEndAtomIdx()} <= inside]


def draw_contributions(
    smiles: Sequence[str],
    contributions: Sequence[Sequence[float]],
    legends: Sequence[str],
    path: Path,
    columns: int = 4,
) -> None:
    """Draws molecules into a .png or .svg file; atoms with a positive contribution are green, with a negative one pink.

    The colours of all molecules have one scale. An empty list of contributions leaves a molecule without colours.
    """
    largest = max((abs(value) for own in contributions for value in own), default=0.0) or 1.0
    molecules, atoms, colours, texts = [], [], [], []
    for text, own, legend in zip(smiles, contributions, legends, strict=True):
        molecule = parse(text)
        if molecule is None:
            continue
        molecules.append(molecule)
        atoms.append(list(range(len(own))))
        colours.append({i: _shade(value / largest) for i, value in enumerate(own)})
        texts.append(legend)
    columns = min(columns, len(molecules))
    width, height = 300, 240
    size = (columns * width, -(-len(molecules) // columns) * height, width, height)
    drawing = _rdkit_draw().rdMolDraw2D
    drawer = (drawing.MolDraw2DSVG if path.suffix == ".svg" else drawing.MolDraw2DCairo)(*size)
    options = drawer.drawOptions()
    options.padding, options.drawMolsSameScale = 0.08, False
    with quiet():
        drawer.DrawMolecules(molecules, highlightAtoms=atoms, highlightAtomColors=colours, legends=texts)
    drawer.FinishDrawing()
    content = drawer.GetDrawingText()
    write_atomically(path, content.encode() if isinstance(content, str) else content)


def _shade(share: float) -> tuple[float, float, float]:
    """From pink (−1) over white to green (1)."""
    strength = min(abs(share), 1.0)
    full = (0.45, 0.80, 0.45) if share > 0 else (0.95, 0.50, 0.70)
    red, green, blue = (1 - strength * (1 - part) for part in full)
    return red, green, blue


def rdkit_svg(molecule: Any, width: int, height: int, **options: float | bool) -> str:
    """An SVG document of RDKit's, in pixels. `options` are attributes of its `MolDrawOptions`."""
    drawing = _rdkit_draw().rdMolDraw2D
    drawer = drawing.MolDraw2DSVG(width, height)
    settings = drawer.drawOptions()
    for name, value in options.items():
        setattr(settings, name, value)
    with quiet():
        try:
            drawing.PrepareAndDrawMolecule(drawer, molecule)
        except (ValueError, RuntimeError):  # a part of a molecule that has no Kekulé structure
            settings.prepareMolsBeforeDrawing = False
            drawer.DrawMolecule(molecule)
    drawer.FinishDrawing()
    return str(drawer.GetDrawingText())


def draw(molecule: Any | None, shared: frozenset[int] = frozenset()) -> Drawing | None:
    """The drawing of a molecule; None without a molecule or above 150 heavy atoms.

    `shared` are the indices of atoms that another molecule has too.
    """
    if molecule is None or molecule.GetNumHeavyAtoms() > _LARGEST_DRAWN:
        return None
    svg = rdkit_svg(
        molecule,
        _WIDTH,
        _HEIGHT,
        clearBackground=False,
        fixedBondLength=26,
        padding=0.04,
        additionalAtomLabelPadding=0.06,
    )
    paths: dict[str, str] = {}
    for tag in re.findall(r"<path[^>]*>", svg):
        atoms = {int(number) for number in re.findall(r"atom-(\d+)", tag)}
        colour, shape = re.search(r"(?:stroke:|fill=')(#\w{6})", tag), re.search(r" d='([^']*)'", tag)
        if not atoms or not colour or not shape:
            continue  # joints of lines: the page draws round ends instead
        flags = {"f": "fill:none" not in tag, "d": "dasharray" in tag, "m": atoms <= shared}
        kind = " ".join([_COLOURS.get(colour[1], "C"), *(flag for flag, is_so in flags.items() if is_so)])
        paths[kind] = paths.get(kind, "") + re.sub(r"\s*([A-Z])\s*", r"\1", re.sub(r"[,\s]+", " ", shape[1]))
    heights = [float(y) for d in paths.values() for y in re.findall(r"[\d.]+ ([\d.]+)", d)] or [0.0]
    return Drawing(min(heights) - 3, _WIDTH, max(heights) - min(heights) + 6, paths)


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


def align(molecule: Any, model: Any) -> frozenset[int]:
    """Lays a molecule out like another one as far as they agree; returns the atoms that both share."""
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
