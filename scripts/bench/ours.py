"""molgen as the benchmark runs it: the only file here that calls what is no public part of molgen.

Not imported in the namesake's environment, where `import molgen` means another package.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from molgen import MoleculeGenerator, SmilesTokenizer, build_model, load_config
from molgen.config import TrainingConfig
from molgen.data.batches import Corpus
from molgen.generation.decode import SamplingParams
from molgen.model.decoder import Decoder
from molgen.runs import Run
from molgen.runtime.device import uses_bf16
from molgen.runtime.distributed import SINGLE_PROCESS
from molgen.training.optim import build_optimizer
from molgen.training.resume import TrainerState
from molgen.training.trainer import train_epoch
from timing import WARMUP, Figures, Job, drawn, synchronized, tokens_by, trained


class Loop:
    """The loop of `molgen train` by itself: nothing is validated, logged or saved."""

    def __init__(self, model: Decoder, config: TrainingConfig, device: torch.device) -> None:
        self.model, self.config, self.device = model, config, device
        self.optimizer = build_optimizer(model, config)
        self.state = TrainerState()

    def epoch(self, corpus: Corpus, after_step: Callable[[Tensor], None] = lambda _: None) -> None:
        """One pass over a corpus; `after_step` is called after each step."""
        train_epoch(
            self.model, self.optimizer, corpus, self.config, self.state, self.device, SINGLE_PROCESS, after_step
        )
        self.state.epoch += 1


def prepare(job: Job) -> Figures:
    """Writes what the peers need of our run: its training molecules, encoded and as text, and its sizes."""
    run = Run(Path(job.run))
    smiles = run.split("train")
    chosen = np.sort(np.random.default_rng(0).permutation(len(smiles))[: job.molecules])
    kept = [smiles[i] for i in chosen]
    corpus = Corpus.of([run.tokenizer.encode(s) or [] for s in kept], len(run.tokenizer))
    np.savez(job.path("corpus.npz"), ids=corpus.ids, offsets=corpus.offsets)
    job.path("training.smi").write_text("\n".join(kept) + "\n")
    sizes = run.config.model.model_dump(include={"width", "blocks", "heads", "feedforward", "context"})
    sizes |= {"vocabulary": len(run.tokenizer), "batch_size": run.config.training.batch_size}
    sizes |= {"epochs": run.report["epochs"], "positions": int(corpus.positions.sum())}
    job.path("sizes.json").write_text(json.dumps(sizes))
    return {
        "source": run.config.data.source,
        "molecules": len(corpus),
        "training_split": len(smiles),
        "tokens_per_molecule": float(corpus.positions.mean()),
        "longest": int(corpus.positions.max()),
        "sha256": run.report["sha256"],
        "sizes": sizes,
    }


def train(job: Job) -> Figures:
    """Epochs of every third molecule by the loop of `molgen train`, with AdamW as the peers."""
    run = Run(Path(job.run))
    config = load_config("tomczak") if job.network == "source" else run.config
    changes = {"precision": job.precision, "batching": "buckets", "seed": job.seed}
    changes |= {} if job.network == "source" else {"optimizer": "adamw"}
    training, device = config.training.model_copy(update=changes), torch.device(job.device)
    rows = job.rows[::3]
    kind: type[np.uint8 | np.uint16] = np.uint8 if len(run.tokenizer) <= 2**8 else np.uint16
    corpus = Corpus(np.concatenate(rows, dtype=kind, casting="unsafe"), np.cumsum([0, *map(len, rows)]))
    model = build_model(config.model, len(run.tokenizer)).to(device)
    loop = Loop(model, training, device)
    loop.epoch(Corpus(corpus.ids, corpus.offsets[: WARMUP * training.batch_size + 1]))  # to warm up
    loop.state = TrainerState()
    tokens, seconds = 0, 0.0
    while seconds < job.seconds:
        start = synchronized(job.device)
        loop.epoch(corpus)
        seconds += synchronized(job.device) - start
        tokens += int(corpus.positions.sum())
    return trained(job, model, tokens, seconds, loop.state.step)


def sample(job: Job) -> Figures:
    """Strings by the functions that `molgen sample` calls: of the raw draw, or of all it does with RDKit too.

    Two batches of each size at a time, as any larger sample has them.
    """
    generator = MoleculeGenerator.load(job.run, "cuda" if job.device == "cuda" else "cpu")
    if job.network == "source":
        generator.model = source_model(job)
    numbers, seeds = itertools.count(), itertools.count(job.seed)

    def raw(rows: int) -> list[str | None]:
        batches = list(zip(itertools.islice(numbers, 2), (rows, rows), strict=True))
        return [text for texts in generator.strings(batches, SamplingParams(), seed=job.seed) for text in texts]

    def canonical(rows: int) -> list[str | None]:
        return list(generator.sample(2 * rows, seed=next(seeds), batch_size=rows).smiles)

    draw = canonical if job.canonical else raw
    return drawn(job, generator.model, draw, tokens_by(generator.tokenizer), generator.model.context + 1)


def source_model(job: Job) -> Decoder:
    """The network of the `tomczak` recipe; with the weights of its brief training once there are some."""
    model = build_model(load_config("tomczak").model, job.sizes["vocabulary"])
    if job.path("source.safetensors").exists():
        model.load_state_dict(load_file(job.path("source.safetensors")))
    return model.to(job.device).eval()


def tokenizer(job: Job) -> SmilesTokenizer:
    """That of our run."""
    return SmilesTokenizer.load(Path(job.run) / "tokenizer.json")


def has_bf16(device: str) -> bool:
    """Whether a device has units for bf16."""
    return uses_bf16("auto", torch.device(device))
