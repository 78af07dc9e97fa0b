"""Reads parquet files; pyarrow is imported only for such a file."""

import bz2
import gzip
from collections.abc import Iterator
from typing import BinaryIO

from molgen.chem.conditions import Condition, Value
from molgen.data.columns import Rivals, compared_columns, no_smiles_column, smiles_index, title_and_split
from molgen.data.compared import Compared
from molgen.data.rows import Notes, Row
from molgen.errors import MolgenError


def parquet_rows(
    stream: BinaryIO, source: str, smiles_column: str | None, condition: Condition | None, notes: Notes, cells: bool
) -> Iterator[Row]:
    """The rows in order, with one batch in memory at a time; only the necessary columns are read."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MolgenError(
            f"{source}: a parquet file needs pyarrow", "install molgen's extra `parquet`, or save it as .csv"
        ) from None
    if isinstance(stream, gzip.GzipFile | bz2.BZ2File):
        raise MolgenError(f"{source}: compressed parquet, which is compressed inside", "gunzip or bunzip2 it first")
    damaged = (pyarrow.ArrowException, OSError, ValueError)
    try:
        # parquet's index is at the end of the file, and a pipe cannot seek
        file = parquet.ParquetFile(pyarrow.BufferReader(stream.read()) if source == "-" else source)
        names = [str(name) for name in file.schema_arrow.names]
    except damaged as error:
        raise MolgenError(f"{source}: not readable as parquet: {error}", "fetch or write the file again") from None
    column = smiles_index(names, source, smiles_column)
    if column is None:
        raise no_smiles_column(names, source)
    title, split = title_and_split(names)
    places = {} if condition is None else compared_columns(names, condition, source)
    compared = None if condition is None else Compared(condition, source)
    rivals = Rivals([] if smiles_column else names, column, source)
    needed = range(len(names)) if cells else (column, title, split, *places.values(), *rivals.indices)
    wanted = {names[i] for i in needed if i is not None}
    twice = next((name for name in wanted if names.count(name) > 1), None)
    if twice is not None:
        raise MolgenError(f"{source}: two columns called {twice!r}", "rename one of them")
    number = 0
    batches = file.iter_batches(batch_size=8_192, columns=sorted(wanted), use_threads=False)
    while True:
        try:
            batch = next(batches, None)
            values = {} if batch is None else {name: batch.column(name).to_pylist() for name in wanted}
        except damaged as error:
            raise MolgenError(f"{source}, after row {number}: {error}", "fetch or write the file again") from None
        if batch is None:
            break
        for i in range(batch.num_rows):
            number += 1
            place = f"row {number}"
            smiles, name, own = ("" if k is None else _text(values[names[k]][i]) for k in (column, title, split))
            smiles = smiles.strip()
            rivals.check(smiles, {k: _text(values[names[k]][i]) for k in rivals.indices}, place)
            cells_compared = {key: _value(values[names[k]][i]) for key, k in places.items()}
            chosen = compared is None or compared.holds(cells_compared, place)
            kept = {key: _text(values[key][i]) for k, key in enumerate(names) if k != column} if cells else None
            yield Row(number, smiles, name, own.strip().lower(), chosen, kept)
    if compared is not None:
        notes.tell(compared.lines())


def _value(cell: object) -> Value:
    """A cell of a parquet file as a value for a condition."""
    return cell if cell is None or isinstance(cell, bool | int | float) else _text(cell).strip()


def _text(cell: object) -> str:
    if isinstance(cell, bytes):  # some writers do not mark strings as text
        return cell.decode("utf-8", "replace")
    return "" if cell is None else str(cell)
