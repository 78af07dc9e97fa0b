"""The options --keep, --close, --replace and --of, which several commands share, as one text of fragments."""

import logging
from typing import Annotated

import typer

from molgen.errors import MolgenError

logger = logging.getLogger(__name__)

KeepOption = Annotated[
    str | None,
    typer.Option(
        "--keep",
        metavar="SMILES",
        help="Molecules that contain this fragment, grown at its points [*:1] [*:2]; two points with the same number "
        "are joined by a linker (in RDKit's molzip: by a bond). Without points: grown at any hydrogen.",
    ),
]
CloseOption = Annotated[
    bool, typer.Option("--close", help="Of --keep: join its two points by a chain, which closes a ring.")
]
ReplaceOption = Annotated[
    str | None,
    typer.Option("--replace", metavar="SMILES", help="What else could stand in place of this part --of a molecule."),
]
OfOption = Annotated[
    str | None, typer.Option("--of", metavar="SMILES", help="The molecule of --replace; its rest stays.")
]


def kept_text(keep: str | None, close: bool = False, replace: str | None = None, of: str | None = None) -> str:
    """What is to be kept, as `molgen.chem.fragments.numbered` writes it; empty without these options.

    Logs which part of a molecule stays. Raises MolgenError for options that do not go together, and for no fragment.
    """
    if (replace is None) != (of is None):
        raise MolgenError("--replace and --of: one without the other", "a part, and the molecule that it is a part of")
    if replace is not None and (keep is not None or close):
        raise MolgenError("--replace with --keep or --close", "name the part that goes, or the part that stays")
    if keep is None and close:
        raise MolgenError("--close: of what?", "name the fragment with --keep")
    if keep is None and replace is None:
        return ""
    from molgen.chem.fragments import keep_of, numbered
    from molgen.chem.replace import rest_of

    if replace is not None and of is not None:
        text, places = rest_of(replace, of)
        more = f"; the part stands in {places} places, the first is replaced" if places > 1 else ""
        logger.info(f"kept: {text}{more}")
    else:
        text = numbered(keep or "", close)
    return keep_of(text).text
