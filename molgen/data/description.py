"""The work of `molgen data describe`: what a training would see, as figures and as lines of text."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from molgen.chem import clean
from molgen.chem.pool import Workers
from molgen.config import Config
from molgen.data.dataset import Dataset, account, build_dataset
from molgen.data.prepare import build_tokenizer
from molgen.data.sources import read_source
from molgen.errors import MolgenError
from molgen.tokenizer import TokenPattern, deepchem_pattern

_ENOUGH = 0.999
_LONGEST_LOOKED_AT = 65_536
_DRUGLIKE = 256  # tokens up to which a molecule needs nothing special
_RAREST = 8


class Description(NamedTuple):
    """What a training would see."""

    figures: dict[str, Any]
    """Plain values for JSON: counts, but for quantiles of `tokens`."""
    lines: list[str]


def describe_data(config: Config, workers: Workers) -> Description:
    """A description of the data that a training with this configuration would use.

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
        tokens = _tokens(long, config)
        figures = {"refused": refusal.message, "rows": len(rows), "tokens": tokens}
        return Description(figures, [f"a training would refuse it: {refusal.message}", *_token_lines(tokens, config)])
    smiles = [molecule.smiles for molecule in dataset.molecules]
    tokens = _tokens(_token_counts(dataset, config, pattern, workers), config)
    vocabulary = _vocabulary(dataset, config, pattern)
    dropped = Counter(d.reason for d in dataset.dropped)
    figures = {
        "name": dataset.name,
        "rows": dataset.rows,
        "molecules": len(smiles),
        "splits": dict(dataset.sizes),
        "sources": {name: dict(sizes) for name, sizes in dataset.sizes_by_source.items()},
        "dropped": {reason: n for reason, n in dropped.most_common() if reason not in clean.ALTERED},
        "altered": {reason: n for reason, n in dropped.most_common() if reason in clean.ALTERED},
        "tokens": tokens,
        "vocabulary": vocabulary,
    }
    sizes = ", ".join(f"{name} {size:,}" for name, size in dataset.sizes.items())
    lines = [
        f"{dataset.name}: {dataset.rows:,} rows, {len(smiles):,} molecules: {sizes}",
        *(f"of {source}: {_listed(sizes)}" for source, sizes in dataset.sizes_by_source.items()),
        *account(dataset.dropped),
        *_token_lines(tokens, config),
        *_needs([len(TokenPattern(pattern).split(text) or ()) for text in smiles], config),
        *_vocabulary_lines(vocabulary),
    ]
    descriptions = workers.map(
        "describe",
        smiles,
        "describing",
        parts=("smiles_no_stereo", "radicals_fragments_charge", "elements", "charged_atoms"),
    )
    known = [parts for parts in descriptions if parts is not None and "failure" not in parts]
    if not known:
        return Description(figures, lines)
    elements = Counter(element for parts in known for element in parts["elements"])
    radicals, fragments, charges = np.array([parts["radicals_fragments_charge"] for parts in known]).T
    kinds = {
        "with charged atoms": sum(parts["charged_atoms"] > 0 for parts in known),
        "with a net charge": int((charges != 0).sum()),
        "of several fragments": int((fragments > 1).sum()),
        "radicals": int((radicals > 0).sum()),
        "with stereo": sum("@" in text or "/" in text or "\\" in text for text in smiles),
        "with isotopes": sum(_has_isotope(text, pattern) for text in smiles),
    }
    twins = [count for count in Counter(parts["smiles_no_stereo"] for parts in known).values() if count > 1]
    figures |= {
        "elements": dict(elements.most_common()),
        "kinds": kinds,
        "stereo_twins": {"molecules": sum(twins), "groups": len(twins)},
    }
    shares = {name: _percent(count, known) for name, count in elements.most_common()}
    lines += [
        f"elements: {_listed(shares)}",
        *(f"{name}: {count:,} ({_percent(count, smiles)})" for name, count in kinds.items()),
        f"stereo twins: {sum(twins):,} molecules in {len(twins):,} groups that differ in stereo or isotopes",
    ]
    return Description(figures, lines)


def too_long_line(dataset: Dataset, config: Config, pattern: str, workers: Workers) -> str:
    """How long the molecules are that were dropped as too long, and what keeps them; empty if there are none."""
    dropped = [d.smiles for d in dataset.dropped if d.reason == clean.TOO_LONG]
    longest = max(_unlimited(dropped, config, pattern, workers), default=0)
    if longest <= _limit(config):
        return ""
    return f"too long: above {_limit(config)} tokens, up to {longest}; {_settings_for(longest, config)} keeps all"


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


def _tokens(counts: Sequence[int], config: Config) -> dict[str, int]:
    """Quantiles of the tokens per molecule, the context that keeps nearly all, and how many are too long."""
    lengths = np.sort(counts)
    five, half, most, enough = (int(np.quantile(lengths, q, method="inverted_cdf")) for q in (0.05, 0.5, 0.95, _ENOUGH))
    return {
        "quantile_5": five,
        "median": half,
        "quantile_95": most,
        "quantile_99.9": enough,
        "longest": int(lengths[-1]),
        "molecules": len(lengths),
        "too_long": int((lengths > _limit(config)).sum()),
    }


def _token_lines(tokens: Mapping[str, int], config: Config) -> Iterator[str]:
    longest, context = tokens["longest"], config.model.context
    five, half, most = (tokens[name] for name in ("quantile_5", "median", "quantile_95"))
    yield f"tokens per molecule: 5 % {five}, median {half}, 95 % {most}, longest {longest}"
    yield (
        f"context: {tokens['quantile_99.9']} tokens keep {100 * _ENOUGH:.1f} % of the molecules; model.context is "
        f"{context}"
    )
    if over := tokens["too_long"]:
        yield f"too long: {over:,} of {tokens['molecules']:,} molecules; {_settings_for(longest, config)} keeps them"


def _settings_for(longest: int, config: Config) -> str:
    """The settings with which a molecule of so many tokens is kept."""
    settings = [f"--set model.context={longest}"] if longest > config.model.context else []
    if config.data.max_tokens is not None and longest > config.data.max_tokens:
        settings.append(f"--set data.max_tokens={longest}")
    return " ".join(settings)


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


def _vocabulary(dataset: Dataset, config: Config, pattern: str) -> dict[str, Any]:
    """The size of the vocabulary, its rarest tokens, and how many held-out molecules have a token that it lacks."""
    tokenizer = build_tokenizer(config, dataset, pattern)
    split = tokenizer.splitter.split
    counts = Counter(token for smiles in dataset.split("train") for token in set(split(smiles) or ()))
    rarest = sorted(counts.items(), key=lambda item: (item[1], item[0]))[:_RAREST]
    unseen = sum(bool(tokenizer.unknown(m.smiles)) for m in dataset.molecules if m.split != "train")
    return {"tokens": len(tokenizer.tokens), "rarest": dict(rarest), "held_out_with_others": unseen}


def _vocabulary_lines(vocabulary: Mapping[str, Any]) -> Iterator[str]:
    rarest = _listed(vocabulary["rarest"])
    yield f"vocabulary: {vocabulary['tokens']} tokens; in fewest of the training molecules: {rarest}"
    if unseen := vocabulary["held_out_with_others"]:
        yield f"{unseen:,} held-out molecules have a token that training lacks"


def _listed(items: Mapping[str, object]) -> str:
    values = (f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in items.items())
    return ", ".join(values)


def _percent(count: int, whole: Sequence[object]) -> str:
    share = 100 * count / len(whole)
    return f"{share:.1f} %" if share >= 0.1 or not count else "< 0.1 %"


def _has_isotope(smiles: str, pattern: str) -> bool:
    return any(token[0] == "[" and token[1].isdigit() for token in TokenPattern(pattern).split(smiles) or ())
