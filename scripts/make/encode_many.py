"""Many molecules as one encoded file, whatever their number: random SMILES of a dataset's, drawn with replacement.

    python scripts/make/encode_many.py -n 100000000 --random 0.01 -o many.molgen
    molgen train many.molgen --config moses --out runs/many

A share of the training molecules (--random) stands as a random SMILES, which starts with `<random>`, the others and the
held-out molecules as the canonical one. Memory holds the dataset and one portion. The seed decides every string.
"""

import argparse
import time
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from molgen.chem.pool import workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.config import load_config
from molgen.data.dataset import build_dataset
from molgen.data.encoded_file import corpus_writer
from molgen.data.sources import read_source
from molgen.data.splitting import SPLITS
from molgen.tokenizer import SmilesTokenizer, deepchem_pattern

PORTION = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100_000, help="training molecules (100,000)")
    parser.add_argument("-o", type=Path, required=True, help="the encoded file")
    parser.add_argument("--source", default="moses", help="dataset that they are drawn from (moses)")
    parser.add_argument("--random", type=float, default=0.9, help="share of random SMILES (0.9)")
    parser.add_argument("--context", type=int, default=64, help="the longest in tokens (64)")
    parser.add_argument("--seed", type=int, default=0, help="decides every string (0)")
    options = parser.parse_args()
    config, pattern = load_config(None, [], {"data.source": options.source}), deepchem_pattern()
    rng = np.random.default_rng(options.seed)
    start = time.monotonic()
    with workers() as pool:
        dataset = build_dataset(read_source(config.data), config.data, options.context, pattern, pool)
        canonical = dataset.split("train")
        tokenizer = SmilesTokenizer.of_corpus(canonical, pattern, randomized=True, rdkit_version=RDKIT_VERSION)
        # the strings are what they are: whoever needs canonical ones has to make them
        settings = config.data.model_copy(update={"form": "as-written", "duplicates": "keep"})
        with (
            corpus_writer(options.o, tokenizer, settings) as writer,
            tqdm(total=options.n, unit="mol", disable=None) as bar,
        ):
            encoded = cache(lambda smiles: writer.array(tokenizer.encode(smiles) or []))
            for first in range(0, options.n, PORTION):
                size = min(PORTION, options.n - first)
                drawn = [canonical[i] for i in rng.integers(len(canonical), size=size).tolist()]
                seeds = rng.integers(1, 2**31, size=size).tolist()
                chosen = np.flatnonzero(rng.random(size) < options.random).tolist()
                forms = dict(zip(chosen, pool.map("random_form", [[drawn[i], seeds[i]] for i in chosen]), strict=True))
                for i, smiles in enumerate(drawn):
                    form = forms.get(i)
                    ids = tokenizer.encode(form) if form else None
                    fits = ids is not None and len(ids) <= options.context
                    if form and fits:
                        writer.add("train", form, random=True, ids=ids)
                    else:  # each is drawn many times
                        writer.add("train", smiles, ids=encoded(smiles))
                bar.update(size)
            for split in SPLITS[1:]:
                for smiles in dataset.split(split):
                    writer.add(split, smiles)
    seconds = time.monotonic() - start
    print(
        f"{options.o}: {sum(writer.sizes.values()):,} molecules, {options.o.stat().st_size:,} bytes, {seconds:,.0f} s"
    )


if __name__ == "__main__":
    main()
