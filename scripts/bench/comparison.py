"""The figures of bench.py: rounds to medians, ratios and targets, and the table for people. No measuring here."""

from statistics import median
from typing import Any, NamedTuple

OURS, OURS_FP32 = "molgen", "molgen, fp32"
GPT2_FP32, GPT2_BF16 = "transformers GPT-2, fp32", "transformers GPT-2, bf16"
NAMESAKE = "molgen 0.2.0"
SOURCE, SAME = "source text's way", "its network by molgen"
FLOOR_FP32, FLOOR_BF16 = "arithmetic alone, fp32", "arithmetic alone, bf16"
NO_BF16 = "this machine has no units for bf16"
START, END = "<!-- bench: start -->", "<!-- bench: end -->"

Figures = dict[str, Any]
Rounds = dict[str, dict[str, list[Figures]]]
"""Section → row → its figures, one entry per round; `{"failed": why}` where there are none."""
Medians = dict[str, dict[str, dict[str, float]]]


class Target(NamedTuple):
    """The ratio of a figure in two rows, and what it should be."""

    section: str
    figure: str
    over: str
    under: str
    wanted: float | None = None
    at_most: bool = False

    def met(self, ratio: float) -> bool | None:
        """None where nothing is asked for."""
        if self.wanted is None:
            return None
        return ratio <= self.wanted if self.at_most else ratio >= self.wanted


TARGETS = (
    Target("training", "tokens_per_second", OURS, GPT2_FP32, 3.0),
    Target("training", "tokens_per_second", OURS, GPT2_BF16),
    Target("training", "tokens_per_second", OURS, NAMESAKE, 4.0),
    Target("training", "seconds_per_epoch", SOURCE, OURS, 8.0),
    Target("training", "seconds_per_epoch", SOURCE, OURS_FP32, 4.0),
    Target("training", "seconds_per_epoch", SOURCE, SAME),
    Target("training", "tokens_per_second", FLOOR_BF16, OURS),
    Target("training", "tokens_per_second", FLOOR_FP32, OURS_FP32),
    Target("sampling", "molecules_per_second", OURS, GPT2_FP32, 5.0),
    Target("sampling", "tokens_per_second", OURS, GPT2_FP32),
    Target("sampling", "molecules_per_second", OURS, GPT2_BF16),
    Target("sampling", "molecules_per_second", OURS, NAMESAKE, 50.0),
    Target("sampling", "tokens_per_second", OURS, NAMESAKE),
    Target("sampling", "molecules_per_second", OURS, SOURCE, 100.0),
    Target("sampling", "tokens_per_second", OURS, SOURCE),
    Target("sampling", "molecules_per_second", SAME, SOURCE),
    Target("sampling", "molecules_per_second", FLOOR_FP32, OURS, 2.0, at_most=True),
    Target("sampling", "molecules_per_second", FLOOR_BF16, OURS),
)
WEIGHTS, TOKENS, MEMORY = ("weights", ",.0f"), ("tokens_per_second", ",.0f"), ("peak_mib", ",.0f")
COLUMNS = {
    "training": (WEIGHTS, TOKENS, ("seconds_per_epoch", ",.1f"), MEMORY),
    "sampling": (
        WEIGHTS,
        TOKENS,
        ("tokens_per_molecule", ".1f"),
        ("molecules_per_second", ",.1f"),
        ("batch", ".0f"),
        MEMORY,
    ),
    "start-up": (("wall_seconds", ".2f"), MEMORY),
    "machine": (("fp32", ",.0f"), ("bf16", ",.0f")),
}
HEADINGS = {
    "tokens_per_second": "tokens/s",
    "seconds_per_epoch": "s/epoch",
    "molecules_per_second": "molecules/s",
    "tokens_per_molecule": "tokens/mol",
    "peak_mib": "peak MiB",
    "wall_seconds": "seconds",
    "fp32": "fp32 GFLOP/s",
    "bf16": "bf16 GFLOP/s",
}


def medians(rounds: Rounds) -> Medians:
    """Of every numeric figure, over the rounds that have it."""
    result: Medians = {}
    for section, rows in rounds.items():
        for row, entries in rows.items():
            names = {name for entry in entries for name, value in entry.items() if isinstance(value, int | float)}
            figures = {name: median(entry[name] for entry in entries if name in entry) for name in sorted(names)}
            result.setdefault(section, {})[row] = figures
    return result


def ratio(of: Medians, target: Target) -> float | None:
    """The ratio of the two rows' medians; None where either is missing."""
    rows = of.get(target.section, {})
    over, under = (rows.get(name, {}).get(target.figure) for name in (target.over, target.under))
    return None if over is None or not under else over / under


def spread(rounds: Rounds, target: Target) -> tuple[float, float] | None:
    """The lowest and the highest ratio within one round."""
    sides = [rounds.get(target.section, {}).get(name, []) for name in (target.over, target.under)]
    pairs = [(a.get(target.figure), b.get(target.figure)) for a, b in zip(*sides, strict=False)]
    ratios = [a / b for a, b in pairs if a is not None and b]
    return (min(ratios), max(ratios)) if ratios else None


def add_floors(rounds: Rounds) -> None:
    """Adds, round by round, what a machine does that spends its time on products alone, at that round's matrix rate.

    A token costs 6 operations per weight in training (2 forwards, 4 backwards) and 2 in sampling.
    """
    rates = rounds["machine"]["large products"]
    for section, operations in (("training", 6), ("sampling", 2)):
        ours = rounds[section][OURS]
        for row, precision in ((FLOOR_FP32, "fp32"), (FLOOR_BF16, "bf16")):
            floors = rounds[section][row] = []
            for rate, own in zip(rates, ours, strict=True):
                if precision not in rate:
                    floors.append({"failed": NO_BF16})
                    continue
                tokens = rate[precision] * 1e9 / (operations * own["weights"])
                faster = tokens / own["tokens_per_second"]
                floor = {"weights": own["weights"], "tokens_per_second": tokens}
                if section == "training":
                    floor["seconds_per_epoch"] = own["seconds_per_epoch"] / faster
                else:
                    floor |= {"molecules_per_second": own["molecules_per_second"] * faster}
                floors.append(floor)


def table(rounds: Rounds) -> str:
    """Every section's medians, then the ratios of medians beside their targets."""
    summary, lines = medians(rounds), []
    for section, columns in COLUMNS.items():
        lines.append(f"{section:<32}" + "".join(f"{HEADINGS.get(name, name):>13}" for name, _ in columns))
        for row, entries in rounds.get(section, {}).items():
            figures = summary[section][row]
            cells = (format(figures[name], style) if name in figures else "" for name, style in columns)
            shown = "".join(f"{cell:>13}" for cell in cells)
            lines.append(f"  {row:<30}{shown if figures else '  not measured: ' + entries[0]['failed']}".rstrip())
        lines.append("")
    lines.append(f"{'ratio of medians':<78}{'ratio':>8}  {'in the rounds':<17}{'target':<14}met")
    for target in TARGETS:
        value, between = ratio(summary, target), spread(rounds, target)
        if value is None or between is None:
            continue
        name = f"{target.section}, {HEADINGS[target.figure]}: {target.over} / {target.under}"
        wanted = "" if target.wanted is None else f"{'at most' if target.at_most else 'at least'} {target.wanted:g}"
        met = {True: "yes", False: "no", None: ""}[target.met(value)]
        low_high = f"{between[0]:.1f} to {between[1]:.1f}"
        lines.append(f"  {name:<76}{value:>8.1f}  {low_high:<17}{wanted:<14}{met}".rstrip())
    return "\n".join(lines)


def replaced(text: str, block: str) -> str:
    """A document with what stands between its two marks exchanged. Raises ValueError for one without the marks."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"no {START} ... {END} to write between")
    return f"{before}{START}\n\n{block}\n\n{END}{after}"
