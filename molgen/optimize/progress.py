"""What is kept and shown of a search as it runs: rounds.csv, curves.png, the progress bar, warnings."""

import csv
import io
import math
import time
from base64 import b64decode
from collections import deque
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

import numpy as np
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from molgen.chem.pool import Workers
from molgen.errors import MolgenError
from molgen.metrics.similarity import within
from molgen.optimize.ledger import Record
from molgen.optimize.memory import top
from molgen.optimize.search import RoundReport, Search
from molgen.runtime.bars import Bar
from molgen.runtime.files import content_of, replacing, write_atomically
from molgen.runtime.log import duration
from molgen.runtime.tensorboard import OnRow

logger = getLogger(__name__)

COLUMNS = (
    "round",
    "calls",
    "seconds",
    "best",
    "top10",
    "top100",
    "validity",
    "uniqueness",
    "diversity",
    "distance",
    "agent",
    "completion",
    "genetic",
    "rejected",
    "failed",
)
"""Of rounds.csv. Uniqueness: share of the valid strings that were new. Diversity: 1 − mean pairwise Tanimoto similarity
(ECFP4) of the best 100. Distance: KL divergence of the agent from the prior, in nats. From agent on: counts."""
_MOST_BYTES = 2**28
_SECONDS_BETWEEN_MESSAGES = 60.0
_FORECAST_AFTER = 2  # rounds; the first is slower than the others
_COLLAPSED, _WINDOW = 0.1, 20  # share of new molecules among the agent's strings, over so many rounds
_INK, _MUTED, _BLUE, _GREEN = "#3a3a44", "#9aa5b8", "#2a6fbb", "#3f8f5f"


class Journal:
    """The rows of rounds.csv, and what is shown of them."""

    def __init__(
        self, search: Search, workers: Workers, path: Path, curves: Path, title: str, on_row: OnRow | None = None
    ) -> None:
        self._search, self._workers, self._path, self._curves, self._title = search, workers, path, curves, title
        self._on_row = on_row
        self._best: list[tuple[float, int, str]] = []  # (-total, call, canonical SMILES) of the best 100
        self._fingerprints: dict[str, bytes] = {}
        self._recent: deque[tuple[int, int]] = deque(maxlen=_WINDOW)  # (the agent's strings, new ones)
        self._warned = False
        self.rows: list[dict[str, float]] = []
        self._bar: Bar | None = None

    def restore(self) -> None:
        """Reads the rows up to the state's round. Raises MolgenError if they are not there."""
        state = self._search.state
        if state.round:
            self.rows = read_rounds(self._path)[: state.round]
        if len(self.rows) != state.round:
            raise MolgenError(
                f"{self._path}: has {len(self.rows)} of the {state.round} rounds that are done",
                "restore the file, or optimise again",
            )
        self._keep_best(self._search.ledger.records[: state.calls])

    def open_bar(self) -> None:
        """Shows the bar."""
        config, state = self._search.config, self._search.state
        self._bar = Bar(total=config.calls, initial=state.calls, unit="call", smoothing=0.05)
        self._last_message = time.monotonic()

    def close_bar(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()

    def add(self, report: RoundReport) -> None:
        """Adds a round and shows it."""
        search = self._search
        self._keep_best(report.records)
        proposed, valid = report.proposed.total(), report.valid.total()
        totals = [-entry[0] for entry in self._best]
        self.rows.append(
            {
                "round": search.state.round,
                "calls": search.state.calls,
                "seconds": search.state.seconds,
                "best": top(totals, 1),
                "top10": top(totals, 10),
                "top100": top(totals, 100),
                "validity": valid / proposed if proposed else math.nan,
                "uniqueness": 1 - report.repeated / valid if valid else math.nan,
                "diversity": self._diversity(),
                "distance": report.distance,
                **{origin: report.proposed[origin] for origin in ("agent", "completion", "genetic")},
                "rejected": report.rejected.total(),
                "failed": sum(record.total != record.total for record in report.records),
            }
        )
        if len(self.rows) == _FORECAST_AFTER:
            self._forecast(report)
        self._show(self.rows[-1])
        if self._on_row is not None:
            self._on_row(self.rows[-1])
        self._warn_of_collapse(report)

    def save(self) -> None:
        """Writes rounds.csv."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in self.rows)
        write_atomically(self._path, text.getvalue().encode())

    def draw(self) -> None:
        """Draws curves.png."""
        if self.rows:
            draw_search(self.rows, self._curves, self._title)

    def _keep_best(self, records: Sequence[Record]) -> None:
        found = [(-record.total, record.call, record.canonical) for record in records if record.total == record.total]
        self._best = sorted(self._best + found)[:100]

    def _diversity(self) -> float:
        best = [smiles for _, _, smiles in self._best]
        new = [smiles for smiles in best if smiles not in self._fingerprints]
        for smiles, found in zip(new, self._workers.map("tabulate", new, columns=["fingerprint"]), strict=True):
            if found and "fingerprint" in found:
                self._fingerprints[smiles] = b64decode(found["fingerprint"])
        self._fingerprints = {smiles: self._fingerprints[smiles] for smiles in best if smiles in self._fingerprints}
        n = len(self._fingerprints)
        if n < 2:
            return math.nan
        packed = np.array([np.frombuffer(bits, np.uint8) for bits in self._fingerprints.values()])
        return float(1 - (within(packed).mean.mean() * n - 1) / (n - 1))

    def _forecast(self, report: RoundReport) -> None:
        """Says how long the search will take, by its last round."""
        calls, done, n = self._search.config.calls, self._search.state.calls, len(report.records)
        if not n or done >= calls:
            return
        seconds = self.rows[-1]["seconds"] - self.rows[-2]["seconds"]
        logger.info(
            f"about {duration(seconds / n * (calls - done))} for the other {calls - done:,} calls: "
            f"{report.scoring / n:.3g} s per molecule for scores, {(seconds - report.scoring) / n:.3g} s for the search"
        )

    def _show(self, row: dict[str, float]) -> None:
        if self._bar is None:
            return
        self._bar.update(int(row["calls"]) - self._bar.n)
        text = f"best {row['best']:.3f}, top 10 {row['top10']:.3f}, valid {row['validity']:.0%}"
        self._bar.set_postfix_str(text, refresh=False)
        now = time.monotonic()
        if self._bar.disable and now - self._last_message > _SECONDS_BETWEEN_MESSAGES:
            self._last_message = now
            calls = self._search.config.calls
            left = duration(row["seconds"] / max(1, row["calls"]) * (calls - row["calls"]))
            logger.info(f"{row['calls']:,.0f} of {calls:,} calls, {text}; about {left} left")

    def _warn_of_collapse(self, report: RoundReport) -> None:
        """Warns once if the agent draws almost only what was scored before."""
        self._recent.append((report.proposed["agent"], report.new["agent"]))
        drawn, fresh = (sum(column) for column in zip(*self._recent, strict=True))
        if not self._warned and len(self._recent) == _WINDOW and fresh < _COLLAPSED * drawn:
            self._warned = True
            logger.warning(
                f"the agent has collapsed: {fresh} of its last {drawn:,} strings were new molecules. What is found so "
                "far is kept. To go on elsewhere, start again with another --seed, --preset people, or fewer calls"
            )


def read_rounds(path: Path) -> list[dict[str, float]]:
    """The rows of a rounds.csv. Raises MolgenError for a damaged file."""
    try:
        table = csv.DictReader(io.StringIO(content_of(path, _MOST_BYTES).decode(), newline=""))
        return [{key: float(row[key]) for key in COLUMNS} for row in table]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise MolgenError(f"{path}: cannot be read: {error}", "restore the file, or optimise again") from None


def draw_search(rows: Sequence[dict[str, float]], path: Path, title: str) -> None:
    """Draws scores, validity and diversity, and the distance to the prior, against calls, into a PNG file."""
    calls = [row["calls"] for row in rows]
    with rc_context():
        rcdefaults()  # ignores a matplotlibrc in the current folder
        rcParams.update({"font.size": 10, "axes.edgecolor": _INK, "axes.spines.top": False, "axes.spines.right": False})
        figure = Figure(figsize=(13, 3.8), layout="constrained")
        FigureCanvasAgg(figure)  # needs no display
        left, middle, right = figure.subplots(1, 3)
        for key, label, color in (
            ("best", "best", _INK),
            ("top10", "mean of the best 10", _BLUE),
            ("top100", "mean of the best 100", _MUTED),
        ):
            left.plot(calls, [row[key] for row in rows], color=color, label=f"{label}: {rows[-1][key]:.3f}")
        left.set(xlabel="molecules scored", ylabel="score", ylim=(0, 1.02))
        # the name of a folder is arbitrary text: it is not a formula, and may not be valid UTF-8
        left.set_title(title.encode("utf-8", "replace").decode(), parse_math=False)
        left.legend(frameon=False, loc="lower right")
        for key, label, color in (
            ("validity", "valid, of the strings of a round", _BLUE),
            ("uniqueness", "new, of the valid ones", _GREEN),
            ("diversity", "diversity of the best 100", _MUTED),
        ):
            middle.plot(calls, [row[key] for row in rows], color=color, label=label)
        middle.set(xlabel="molecules scored", ylabel="share", ylim=(0, 1.02), title="strings")
        middle.legend(frameon=False, loc="lower left")
        right.plot(calls, [row["distance"] for row in rows], color=_BLUE)
        right.set(xlabel="molecules scored", ylabel="KL divergence from the prior, nats", title="agent")
        with replacing(path) as file:
            figure.savefig(file, dpi=130, format="png")
