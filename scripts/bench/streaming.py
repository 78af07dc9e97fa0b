"""Training from a large encoded file beside a small one: what the data alone takes, and tokens per second in turns.

    python scripts/make/encode_many.py -n 400000 --random 0.01 -o small.molgen
    python scripts/make/encode_many.py -n 100000000 --random 0.01 -o large.molgen
    python scripts/bench/streaming.py small.molgen large.molgen

First the batches of each file without a network, after the system has let go of the file: reading, shuffling, cutting,
padding. Then two processes train, a file each, and hand the machine to each other every few steps, so that what slows
it down slows both. A turn's steps are timed within an epoch, and compared with those of the turn after it.
"""

import argparse
import multiprocessing
import os
import resource
import time
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from statistics import median

import numpy as np
import torch

from molgen.config import Config, load_config
from molgen.data.batches import bucketed_batches, epoch_steps, random_batches
from molgen.data.encoded_file import CorpusFile
from molgen.runtime.device import choose_device, hardware
from molgen.training.trainer import Callback, EpochProgress, Trainer
from ours import Loop

WITHOUT_NETWORK = 2_000_000  # molecules whose batches alone are timed: a whole window of a large file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs=2, type=Path, help="two encoded files, the small one first")
    parser.add_argument("--config", default="moses-small", help="recipe (moses-small)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for `molgen train`")
    parser.add_argument("--turns", type=int, default=40, help="turns of each process (40)")
    parser.add_argument("--steps", type=int, default=20, help="of a turn")
    options = parser.parse_args()
    config = load_config(options.config, options.set, {"data.source": str(options.files[0])})
    print(hardware(choose_device(config.training.device)))
    for _ in range(3):
        for file in options.files:
            molecules, seconds = data_alone(file, config)
            print(f"{file}: batches of {molecules:,} molecules alone: {1e6 * seconds / molecules:.2f} s a million")

    spawn = multiprocessing.get_context("spawn")
    turns, results = [spawn.Semaphore(0), spawn.Semaphore(0)], [spawn.SimpleQueue(), spawn.SimpleQueue()]
    processes = [
        spawn.Process(
            target=train_in_turns,
            args=(file, config, options.turns, options.steps, turns[i], turns[1 - i], results[i]),
            daemon=True,
        )
        for i, file in enumerate(options.files)
    ]
    for process in processes:
        process.start()
    turns[0].release()
    rates = []
    for file, result in zip(options.files, results, strict=True):
        seen, memory = result.get()
        rates.append(np.array(seen))
        print(f"{file}: median {median(seen):,.0f} tokens/s, peak memory {memory:,.0f} MiB")
    for process in processes:
        process.join()
    ratios = rates[1] / rates[0]
    error = ratios.std(ddof=1) / len(ratios) ** 0.5
    print(
        f"{len(ratios)} turns of {options.steps} steps each; the second file's speed to the first's, turn by turn:",
        end=" ",
    )
    print(f"median {np.median(ratios):.3f}, mean {ratios.mean():.3f} ± {error:.3f}")


def data_alone(file: Path, config: Config) -> tuple[int, float]:
    """Molecules and seconds of the first batches of an epoch, read from the disk."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    corpus, size = CorpusFile(file).split("train"), config.training.batch_size
    cut = bucketed_batches if config.training.batching == "buckets" else random_batches
    molecules, cpu, began = 0, torch.device("cpu"), time.monotonic()
    for _, window, parts in epoch_steps(corpus, cut, size, np.random.default_rng(0)):
        for rows in parts:
            window.batch(rows, cpu)
            molecules += len(rows)
        if molecules >= WITHOUT_NETWORK:
            break
    return molecules, time.monotonic() - began


def train_in_turns(
    file: Path,
    config: Config,
    turns: int,
    steps: int,
    mine: Semaphore,
    others: Semaphore,
    result: "SimpleQueue[tuple[list[float], float]]",
) -> None:
    """Puts the tokens per second of each turn, and the peak memory in MiB, into `result`."""
    opened = CorpusFile(file)
    corpus = opened.split("train")
    tokens = steps * config.training.batch_size * corpus.all_positions / len(corpus)

    class Turns(Callback):
        """Hands the machine to the other process after so many steps."""

        def __init__(self) -> None:
            self.rates: list[float] = []
            self.taken, self.began = 0, 0.0

        def after_step(self, _: Trainer, __: EpochProgress) -> None:
            self.taken += 1
            if self.taken % steps:
                return
            self.rates.append(tokens / (time.monotonic() - self.began))
            others.release()
            if len(self.rates) > turns:  # the first warmed up
                result.put((self.rates[1:], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
                raise SystemExit
            mine.acquire()
            self.began = time.monotonic()

    mine.acquire()
    Loop(config, corpus, opened.tokenizer, config.training.device, Turns()).epoch(corpus)


if __name__ == "__main__":
    main()
