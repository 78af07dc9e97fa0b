"""The rows of a named dataset, of a file, or of a mixture of them, not cleaned."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from molgen.chem import clean
from molgen.config import NAMED, DataConfig
from molgen.data.download import fetch
from molgen.data.readers import read_rows
from molgen.data.rows import Row
from molgen.errors import MolgenError


def read_source(config: DataConfig, cells: bool = False) -> list[Row]:
    """The rows of the source of `config`, not cleaned; with `cells`, or for targets, each row has its other columns.

    Raises MolgenError for a source that cannot be read, is empty, or has no row that satisfies `data.where`.
    """
    rows = list(rows_of(config, cells or bool(config.targets) or config.split == "time"))
    if not rows:
        raise MolgenError(
            f"{config.source}: no molecules in it", "give a file with one molecule per line below its header"
        )
    if not any(row.chosen for row in rows):
        raise MolgenError(
            f"{config.source}: the condition {config.where} chose none of {len(rows)} rows",
            "a comparison with a missing value, or of text with a number, is never true; see --where",
        )
    return rows


def reference_smiles(source: str, split: str) -> list[str]:
    """The SMILES to compare with, not cleaned: one split of MOSES or moses-mini, or a whole file."""
    if source in ("moses", "moses-mini"):
        return [row.smiles for row in rows_of(DataConfig(source=source)) if row.split == split]
    return [clean.undefined(row.smiles)[0] for row in read_rows(source)]


def rows_of(config: DataConfig, cells: bool = False) -> Iterator[Row]:
    """The rows one by one, as `read_source`, which also refuses a source without any."""
    source = config.source
    if config.sources is not None:
        for part in config.sources:
            empty = True
            for row in rows_of(config.of_source(part), cells):
                empty = False
                yield row._replace(source=part)
            if empty:
                raise MolgenError(f"{part}: no molecules in it", "leave it out of data.sources")
        return
    if source not in NAMED and "." not in source and source != "-" and not Path(source).exists():
        raise MolgenError(
            f"no dataset or file called {source!r}", f"named datasets: {', '.join(NAMED)}; or give a file"
        )
    if source not in NAMED:
        yield from read_rows(source, config.smiles_column, config.where, cells)
    elif source == "moses":
        for path in fetch(source):
            split = path.name.removesuffix(".csv.gz")
            yield from (row._replace(split=split) for row in read_rows(str(path), where=config.where, cells=cells))
    elif source == "moleculeace":  # a molecule in the test split of one target may be a training molecule of another
        rows = [row for path in fetch(source) for row in read_rows(str(path), where=config.where, cells=cells)]
        test = {row.smiles for row in rows if row.split == "test" and row.chosen}
        yield from (row._replace(split="test") if row.smiles in test else row for row in rows)
    else:
        yield from chain.from_iterable(read_rows(str(path), where=config.where, cells=cells) for path in fetch(source))
