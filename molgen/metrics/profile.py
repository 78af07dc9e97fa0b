"""Samples → a table of their valid molecules: everything that the metrics compare, each molecule parsed once."""

from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from molgen.chem.clean import LOST
from molgen.chem.pool import Workers
from molgen.data.download import has_moses, moses_file
from molgen.machine import Runtime
from molgen.metrics import chemnet
from molgen.runtime.cache import Arrays, expect, from_strings, to_strings
from molgen.runtime.stages import stage

# numbers or bytes in a row of each array
_PACKED = {"fingerprint": 128, "fingerprint_4096": 512}
_NUMBERS = {"properties": 4, "guacamol": 9, "radicals_fragments_charge": 3}
_LISTS = ("fragments", "filters", "alerts", "ring_systems", "functional_groups")

# what a column's array looks like: type, and size of a row
_SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    **{name: (np.uint8, (size,)) for name, size in _PACKED.items()},
    **{name: (np.float64, (size,)) for name, size in _NUMBERS.items()},
    "activations": (np.float32, (512,)),
    "scaffold_rings": (np.int64, ()),
}

Column = list[str] | npt.NDArray[Any]


@dataclass
class MoleculeTable:
    """A row a valid molecule, in the order of the samples.

    Columns bear the names of `descriptors.PARTS`: strings as a list (several in one cell are joined by a space),
    packed fingerprints as (n, bytes), numbers as (n, k). Metrics may add columns of their own.
    """

    columns: dict[str, Column]
    rows: npt.NDArray[np.int64]
    """Position of each valid molecule among the samples."""
    n_samples: int
    failures: dict[int, str] = field(default_factory=dict)
    """Why each of the other samples is no molecule."""

    def __len__(self) -> int:
        return len(self.rows)

    def strings(self, name: str) -> list[str]:
        """A column of strings."""
        column = self.columns[name]
        assert isinstance(column, list)
        return column

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """A column of numbers or fingerprints."""
        column = self.columns[name]
        assert isinstance(column, np.ndarray)
        return column

    def counts(self, name: str) -> Counter[str]:
        """How often each string occurs in a column whose cells are lists."""
        return Counter(word for cell in self.strings(name) for word in cell.split())

    def canonical(self) -> list[str | None]:
        """Canonical SMILES of every sample, None for an invalid one."""
        result: list[str | None] = [None] * self.n_samples
        for row, smiles in zip(self.rows.tolist(), self.strings("canonical"), strict=True):
            result[row] = smiles
        return result

    def take(self, rows: npt.NDArray[np.int64]) -> "MoleculeTable":
        """The table of some rows, in this order; a row may be repeated."""
        columns: dict[str, Column] = {
            name: [column[i] for i in rows.tolist()] if isinstance(column, list) else column[rows]
            for name, column in self.columns.items()
        }
        return MoleculeTable(columns, np.arange(len(rows)), len(rows))

    def joined(self, other: "MoleculeTable") -> "MoleculeTable":
        """These samples and then the others; only columns that both have."""
        columns: dict[str, Column] = {}
        for name in self.columns.keys() & other.columns.keys():
            ours, theirs = self.columns[name], other.columns[name]
            if isinstance(ours, list):
                columns[name] = ours + other.strings(name)
            else:
                columns[name] = np.concatenate([ours, np.asarray(theirs)])
        moved = {self.n_samples + row: cause for row, cause in other.failures.items()}
        rows = np.concatenate([self.rows, other.rows + self.n_samples])
        return MoleculeTable(columns, rows, self.n_samples + other.n_samples, self.failures | moved)

    def to_arrays(self) -> Arrays:
        """For the cache."""
        arrays: dict[str, npt.NDArray[Any]] = {
            f"strings.{name}" if isinstance(column, list) else f"numbers.{name}": (
                from_strings(column) if isinstance(column, list) else column
            )
            for name, column in self.columns.items()
        }
        failed = np.array(list(self.failures), np.int64)
        return arrays | {
            "rows": self.rows,
            "n_samples": np.array(self.n_samples),
            "failed": failed,
            "failures": from_strings(self.failures.values()),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "MoleculeTable":
        """What `to_arrays` gave. Raises ValueError or KeyError for anything else."""
        rows, n_samples, failed = arrays["rows"], arrays["n_samples"], arrays["failed"]
        expect(n_samples, np.int64, ())
        expect(rows, np.int64, (None,))
        expect(failed, np.int64, (None,))
        if not np.array_equal(np.sort(np.concatenate([rows, failed])), np.arange(int(n_samples))):
            raise ValueError("samples that are neither molecules nor failures, or both")
        columns: dict[str, Column] = {}
        for key, array in arrays.items():
            kind, _, name = key.partition(".")
            if name:
                columns[name] = to_strings(array) if kind == "strings" else array
                if len(columns[name]) != len(rows):
                    raise ValueError(f"{len(columns[name])} {name} of {len(rows)} molecules")
            if name in _SHAPES:
                expect(array, _SHAPES[name][0], (len(rows), *_SHAPES[name][1]))
        failures = dict(zip(failed.tolist(), to_strings(arrays["failures"]), strict=True))
        return cls(columns, rows, int(n_samples), failures)


def alert_folder() -> str:
    """Where MOSES' alert lists are, or an empty string. Raises MolgenError for lists that are not as published."""
    folders = [moses_file(name).parent for name in ("mcf.csv", "wehi_pains.csv")] if has_moses() else []
    return str(folders[0]) if folders else ""


def available(parts: Iterable[str]) -> list[str]:
    """Parts that can be computed here, each once, `activations` last: `filters` needs MOSES' alert lists."""
    distinct = dict.fromkeys(parts)
    listed = [part for part in distinct if part != "activations" and (part != "filters" or alert_folder())]
    return [*listed, *(["activations"] if "activations" in distinct else [])]


def describe(smiles: Sequence[str], parts: Iterable[str], runtime: Runtime, label: str) -> MoleculeTable:
    """The table of some samples with those parts that can be had here; `activations`, ChemNet's, are one of them."""
    wanted = available(parts)
    with stage("molecules"):
        by_rdkit = [part for part in wanted if part != "activations"]
        table = molecule_table(smiles, by_rdkit, runtime.workers, label, alert_folder())
    if "activations" in wanted:
        with stage("ChemNet"):
            canonical, device = table.strings("canonical"), str(runtime.device)
            table.columns["activations"] = chemnet.activations(canonical, f"ChemNet of {label}", device)
    return table


def molecule_table(
    smiles: Sequence[str], parts: Sequence[str], workers: Workers, label: str = "", alerts: str = ""
) -> MoleculeTable:
    """The parts of `descriptors.PARTS` and, with the folder of MOSES' alert lists, `filters`, from the workers.

    A sample on which RDKit hangs or dies is a failure like another.
    """
    cells: dict[str, list[Any]] = {part: [] for part in parts}
    rows: list[int] = []
    failures: dict[int, str] = {}
    position = 0
    for chunk in workers.stream("describe", smiles, label, parts=list(parts), alert_folder=alerts):
        for answer in chunk:
            if answer is None or "failure" in answer:
                failures[position] = LOST if answer is None else answer["failure"]
            else:
                rows.append(position)
                for part in parts:
                    cells[part].append(_cell(part, answer[part]))
            position += 1
    columns: dict[str, Column] = {}
    for part, values in cells.items():
        if part == "scaffold":
            columns["scaffold"] = [value[0] for value in values]
            columns["scaffold_rings"] = np.array([value[1] for value in values], np.int64)
        elif part in _PACKED:
            columns[part] = np.frombuffer(b"".join(values), np.uint8).reshape(-1, _PACKED[part])
        elif part in _NUMBERS:
            columns[part] = np.array(values, np.float64).reshape(-1, _NUMBERS[part])
        else:
            columns[part] = values
    return MoleculeTable(columns, np.array(rows, np.int64), position, failures)


def _cell(part: str, value: Any) -> Any:
    if part in _PACKED:
        return b64decode(value)
    return " ".join(value) if part in _LISTS else value
