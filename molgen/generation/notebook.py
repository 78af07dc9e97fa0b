"""A pandas DataFrame that a notebook shows with its molecules drawn."""

from html import escape
from typing import Any

import pandas as pd

from molgen.chem.draw import rdkit_svg, require_drawing
from molgen.chem.smiles import parse
from molgen.errors import MolgenError

_MOST_ROWS = 20
_WIDTH, _HEIGHT = 210, 140


class MoleculeFrame(pd.DataFrame):  # type: ignore[misc]  # pandas comes without type hints
    """A DataFrame with a `smiles` column; its HTML form has a picture beside each valid one."""

    @property
    def _constructor(self) -> type["MoleculeFrame"]:
        return MoleculeFrame  # so that a selection of rows draws its molecules too

    def _undrawn(self) -> str | None:
        plain: str | None = super()._repr_html_()
        return plain

    def _repr_html_(self) -> str | None:
        if "smiles" not in self.columns:
            return self._undrawn()
        try:
            require_drawing()
        except MolgenError as missing:
            return f"<p>{escape(str(missing))}</p>{self._undrawn() or ''}"
        head = "".join(f"<th>{escape(str(name))}</th>" for name in ("", "molecule", *self.columns))
        rows = "".join(
            f"<tr><th>{escape(str(index))}</th><td>{picture(row['smiles'])}</td>"
            + "".join(f"<td>{_cell(row[name])}</td>" for name in self.columns)
            + "</tr>"
            for index, row in self.head(_MOST_ROWS).iterrows()
        )
        rest = len(self) - _MOST_ROWS
        more = f"<p>… {rest:,} more rows</p>" if rest > 0 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"


def picture(smiles: Any) -> str:
    """A valid molecule as inline SVG; an empty string for anything else."""
    molecule = parse(smiles) if isinstance(smiles, str) else None
    if molecule is None:
        return ""
    svg = rdkit_svg(molecule, _WIDTH, _HEIGHT, padding=0.08)
    return svg[svg.index("<svg") :]  # inside a page there is no XML declaration


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    return escape(f"{value:.3g}" if isinstance(value, float) else str(value))
