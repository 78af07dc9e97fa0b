"""The work of `molgen data clean`, `encode` and `describe`: prepares data exactly as a training would."""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from molgen.chem import clean
from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.config import Config
from molgen.data.columns import unique
from molgen.data.dataset import Dataset, Dropped, account, build_dataset, clean_rows, columns_of
from molgen.data.encoded_file import SUFFIX, corpus_writer
from molgen.data.rows import Row
from molgen.data.sources import read_source
from molgen.data.splitting import SPLITS
from molgen.errors import MolgenError
from molgen.runtime.files import write_atomically, write_table
from molgen.tokenizer import SmilesTokenizer, TokenPattern, deepchem_pattern

_FORMATS = (".smi", ".smi.gz", ".csv", ".csv.gz")
_ENOUGH = 0.999
_LONGEST_LOOKED_AT = 65_536
_DRUGLIKE = 256  # tokens up to which a molecule needs nothing special


def build_tokenizer(
    config: Config, dataset: Dataset, pattern: str, known: SmilesTokenizer | None = None
) -> SmilesTokenizer:
    """A tokenizer with the vocabulary of the training split or of all molecules, with ring labels for random SMILES.

    If there is a `known` tokenizer, its vocabulary comes first, unchanged, and new tokens follow.
    """
    corpus = [m.smiles for m in dataset.molecules if m.split == "train" or config.data.vocabulary == "all"]
    tokenizer = SmilesTokenizer.of_corpus(corpus, pattern, config.training.randomizes, RDKIT_VERSION)
    return known.extended(tokenizer) if known else tokenizer


def dropped_beside(output: Path) -> Path:
    """The path of the list of dropped and changed rows. Raises MolgenError for an output of an unknown format."""
    suffix = next((s for s in reversed(_FORMATS) if output.name.lower().endswith(s)), None)
    if suffix is None:
        raise MolgenError(f"{output}: unknown kind of file", f"use {', '.join(_FORMATS)}")
    return output.with_name(f"{output.name[: -len(suffix)]}.dropped.csv.gz")


def write_clean(config: Config, output: Path, workers: Workers) -> list[str]:
    """Standardises and cleans without a training; returns messages with sizes and counts by reason.

    A .smi line is the SMILES and the name; a .csv file has smiles, name, row of the source, split if the source has
    one, and the source's other columns. No molecule is dropped for a rare token, because that depends on the training.
    """
    listing = dropped_beside(output)
    tabular = ".csv" in output.suffixes
    rows = read_source(config.data, cells=tabular)
    # groups of related molecules are only for a grouped split, so they are not computed
    settings = config.data.model_copy(update={"split": "random", "min_token_count": 1})
    kept, dropped = clean_rows(rows, settings, config.model.context, deepchem_pattern(), workers)
    text = io.StringIO(newline="")
    if tabular:
        csv.writer(text, lineterminator="\n").writerows(_table([row for row, _ in kept]))
    else:
        text.writelines(f"{row.smiles} {' '.join(row.name.split())}".rstrip() + "\n" for row, _ in kept)
    content = text.getvalue().encode()
    write_atomically(output, gzip.compress(content, mtime=0) if output.suffix == ".gz" else content)
    columns = columns_of(Dropped, config.data)
    write_table(listing, columns, (row[: len(columns)] for row in dropped))
    return [f"{len(rows):,} rows, {len(kept):,} molecules into {output}", *account(dropped), f"listed in {listing}"]


def _table(rows: Sequence[Row]) -> Iterator[list[object]]:
    """The heading and the lines of a table of clean molecules; columns of the source are renamed if necessary."""
    ours = ["smiles", "name", "row", *(["split"] if any(row.split for row in rows) else [])]
    others = dict.fromkeys(chain.from_iterable(row.cells or {} for row in rows))
    repeated = {name for name in others if _repeats(name, ours, rows)}
    others = dict.fromkeys(name for name in others if name not in repeated)
    yield [*ours, *unique(others, ours)]
    for row in rows:
        cells = row.cells or {}
        own = [row.smiles, row.name, row.number, row.split][: len(ours)]
        yield [*own, *(cells.get(name, "") for name in others)]


def _repeats(name: str, ours: Sequence[str], rows: Sequence[Row]) -> bool:
    """Whether a column of the source has the same name and content as one of ours."""
    if name.lower() == "name":
        return all((row.cells or {}).get(name, "") == row.name for row in rows)
    return name.lower() == "split" and "split" in ours


def check_encoded_name(output: Path) -> None:
    """Raises MolgenError if the suffix is not that of an encoded file."""
    if output.suffix != SUFFIX:
        raise MolgenError(f"{output}: not the name of an encoded file", f"let it end in {SUFFIX}")


def write_encoded(config: Config, output: Path, workers: Workers) -> list[str]:
    """Cleans, splits and encodes as a training would, into one file; returns messages with sizes and counts.

    The vocabulary is that of a training: with `<random>` and ring labels if the training would use random SMILES.
    """
    check_encoded_name(output)
    if config.data.conditions:
        raise MolgenError("data.conditions: an encoded file holds no values", "train on the molecules themselves")
    if config.data.targets:
        raise MolgenError(
            "data.targets: an encoded file holds no measured values", "train on the table itself, or leave targets out"
        )
    if config.data.sources is not None:
        raise MolgenError(
            "data.sources: an encoded file holds each molecule once, so it cannot hold a mixture in shares",
            "train on the mixture itself, or encode one source",
        )
    pattern = deepchem_pattern()
    dataset = build_dataset(read_source(config.data), config.data, config.model.context, pattern, workers)
    summary, tokenizer = dataset.summary, build_tokenizer(config, dataset, pattern)
    with corpus_writer(output, tokenizer, config.data) as writer:
        writer.rows = summary.rows
        writer.dropped.update(summary.dropped)
        writer.altered.update(summary.altered)
        for split in SPLITS:
            for smiles in dataset.split(split):
                writer.add(split, smiles)
    left_out = writer.dropped[clean.UNKNOWN_TOKEN]
    lines = [f"{summary.rows:,} rows into {output}: " + ", ".join(f"{s} {n:,}" for s, n in writer.sizes.items())]
    lines += account(dataset.dropped)
    lines += [f"held-out molecules with a {clean.UNKNOWN_TOKEN}: {left_out:,} left out"] if left_out else []
    return [*lines, f"{len(tokenizer)} tokens"]


def describe_data(config: Config, workers: Workers) -> list[str]:
    """A description of the data that a training with this configuration would use, as lines of text.

    If the training would refuse the data because of long molecules, the reason and the lengths.
    """
    pattern = deepchem_pattern()
    rows = read_source(config.data)
    try:
        dataset = build_dataset(rows, config.data, config.model.context, pattern, workers)
    except MolgenError as refusal:
        long = _too_long([row.smiles for row in rows if row.chosen], config, pattern, workers)
        if not long:
            raise
        return [f"a training would refuse it: {refusal.message}", *_lengths(long, config)]
    smiles = [molecule.smiles for molecule in dataset.molecules]
    sizes = ", ".join(f"{name} {size:,}" for name, size in dataset.sizes.items())
    descriptions = workers.map(
        "describe",
        smiles,
        "describing",
        parts=("smiles_no_stereo", "radicals_fragments_charge", "elements", "charged_atoms"),
    )
    known = [parts for parts in descriptions if parts is not None and "failure" not in parts]
    lines = [
        f"{dataset.name}: {dataset.rows:,} rows, {len(smiles):,} molecules: {sizes}",
        *(f"of {source}: {_listed(sizes)}" for source, sizes in dataset.sizes_by_source.items()),
        *account(dataset.dropped),
        *_lengths(_token_counts(dataset, config, pattern, workers), config),
        *_needs([len(TokenPattern(pattern).split(text) or ()) for text in smiles], config),
        *_vocabulary(dataset, config, pattern),
    ]
    if not known:
        return lines
    elements = Counter(element for parts in known for element in parts["elements"])
    lines.append("elements: " + _listed({name: _percent(count, known) for name, count in elements.most_common()}))
    radicals, fragments, charges = np.array([parts["radicals_fragments_charge"] for parts in known]).T
    shares = {
        "with charged atoms": sum(parts["charged_atoms"] > 0 for parts in known),
        "with a net charge": int((charges != 0).sum()),
        "of several fragments": int((fragments > 1).sum()),
        "radicals": int((radicals > 0).sum()),
        "with stereo": sum("@" in text or "/" in text or "\\" in text for text in smiles),
        "with isotopes": sum(_has_isotope(text, pattern) for text in smiles),
    }
    lines += [f"{name}: {count:,} ({_percent(count, smiles)})" for name, count in shares.items()]
    twins = [count for count in Counter(parts["smiles_no_stereo"] for parts in known).values() if count > 1]
    lines.append(f"stereo twins: {sum(twins):,} molecules in {len(twins):,} groups that differ in stereo or isotopes")
    return lines


def _token_counts(dataset: Dataset, config: Config, pattern: str, workers: Workers) -> list[int]:
    """Number of tokens of each molecule, including those that are too long."""
    split = TokenPattern(pattern).split
    dropped = [d.smiles for d in dataset.dropped if d.reason == clean.TOO_LONG]
    return [len(split(m.smiles) or ()) for m in dataset.molecules] + _unlimited(dropped, config, pattern, workers)


def _too_long(smiles: Sequence[str], config: Config, pattern: str, workers: Workers) -> list[int]:
    """Number of tokens of each molecule, if some are longer than a training would accept; else an empty list."""
    counts = _unlimited(smiles, config, pattern, workers)
    return counts if counts and max(counts) > _limit(config) else []


def _unlimited(smiles: Sequence[str], config: Config, pattern: str, workers: Workers) -> list[int]:
    """Number of tokens of each molecule that passes cleaning without a limit of length."""
    split = TokenPattern(pattern).split
    unlimited = config.data.model_copy(update={"max_tokens": None, "split": "random"})
    settings = clean.settings(unlimited, _LONGEST_LOOKED_AT, pattern)
    results = workers.map("clean", smiles, **settings)
    return [len(split(result[0]) or ()) for result in results if result and result[0]]


def _limit(config: Config) -> int:
    return min(config.model.context, config.data.max_tokens or config.model.context)


def _lengths(counts: Sequence[int], config: Config) -> Iterator[str]:
    lengths = np.sort(counts)
    five, half, most = (int(np.quantile(lengths, q, method="inverted_cdf")) for q in (0.05, 0.5, 0.95))
    enough, longest = int(np.quantile(lengths, _ENOUGH, method="inverted_cdf")), int(lengths[-1])
    yield f"tokens per molecule: 5 % {five}, median {half}, 95 % {most}, longest {longest}"
    context = config.model.context
    yield f"context: {enough} tokens keep {100 * _ENOUGH:.1f} % of the molecules; model.context is {context}"
    if over := int((lengths > _limit(config)).sum()):
        settings = [f"--set model.context={longest}"] if longest > context else []
        if config.data.max_tokens is not None and longest > config.data.max_tokens:
            settings.append(f"--set data.max_tokens={longest}")
        yield f"too long: {over:,} of {len(lengths):,} molecules; {' '.join(settings)} keeps them"


def _needs(counts: Sequence[int], config: Config) -> Iterator[str]:
    """What molecules longer than drug-like ones need: work of the attention, memory to sample, the size of a batch."""
    longest, model = max(counts), config.model
    if longest <= _DRUGLIKE:
        return
    heads, of_keys = model.heads * model.head_width, (model.kv_heads or model.heads) * model.head_width
    linear = model.width * (2 * heads + 2 * of_keys + 2 * model.feedforward)  # multiplications per token
    seen = {"full attention": longest, f"a window of {model.window}": min(longest, model.window)}
    needs = (
        f"{name} {2 * n * heads / linear:.1f} times the work of the linear layers, "
        f"{2 * 4 * n * of_keys * model.blocks / 1e6:,.1f} MB per sampled molecule"
        for name, n in seen.items()
    )
    yield f"needs at {longest:,} tokens: {'; '.join(needs)} (model.attention, docs/long.md)"
    if config.training.batch_tokens is None:
        rows = config.training.batch_size
        yield f"a batch of {rows} molecules has {rows * np.mean(counts):,.0f} tokens; training.batch_tokens sets them"


def _vocabulary(dataset: Dataset, config: Config, pattern: str) -> Iterator[str]:
    tokenizer = build_tokenizer(config, dataset, pattern)
    split = tokenizer.splitter.split
    counts = Counter(token for smiles in dataset.split("train") for token in set(split(smiles) or ()))
    rarest = {token: f"{count:,}" for token, count in sorted(counts.items(), key=lambda item: (item[1], item[0]))[:8]}
    yield f"vocabulary: {len(tokenizer.tokens)} tokens; in fewest of the training molecules: {_listed(rarest)}"
    unseen = sum(bool(tokenizer.unknown(m.smiles)) for m in dataset.molecules if m.split != "train")
    if unseen:
        yield f"{unseen:,} held-out molecules have a token that training lacks"


def _listed(items: Mapping[str, object]) -> str:
    values = (f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in items.items())
    return ", ".join(values)


def _percent(count: int, whole: Sequence[object]) -> str:
    share = 100 * count / len(whole)
    return f"{share:.1f} %" if share >= 0.1 or not count else "< 0.1 %"


def _has_isotope(smiles: str, pattern: str) -> bool:
    return any(token[0] == "[" and token[1].isdigit() for token in TokenPattern(pattern).split(smiles) or ())
