"""molgen as the benchmark runs it: the only file here that calls what is no public part of molgen.

Not imported in the namesake's environment, where `import molgen` means another package.
"""

import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from molgen import MoleculeGenerator, SmilesTokenizer, build_model, load_config
from molgen.config import Config
from molgen.data.batches import Corpus, TrainingData
from molgen.generation.decode import SamplingParams
from molgen.machine import Runtime
from molgen.model.decoder import Decoder
from molgen.runs import Run, create_run
from molgen.runtime.device import Device, uses_bf16
from molgen.training.trainer import Callback, Trainer
from timing import WARMUP, Figures, Job, drawn, synchronized, tokens_by, trained


class Loop:
    """The loop of `molgen train` by itself: no average of the weights; nothing is validated, logged or saved."""

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        tokenizer: SmilesTokenizer,
        device: Device,
        after_step: Callback | None = None,
    ) -> None:
        config = config.model_copy(update={"training": config.training.model_copy(update={"ema": 0.0})})
        with tempfile.TemporaryDirectory() as folder:
            run = create_run(Path(folder), config, tokenizer, None, None)
            _ = run.config  # it is read before the folder goes
            data = TrainingData(corpus, corpus, [], tokenizer)
            self.trainer = Trainer(run, data, Runtime(device), {}, [after_step] if after_step else [])

    def epoch(self, corpus: Corpus) -> None:
        """One pass over a corpus."""
        self.trainer.train_epoch(corpus)
        self.trainer.state.epoch += 1
        self.trainer.state.step_of_epoch = 0


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
    config = config.model_copy(update={"training": config.training.model_copy(update=changes)})
    rows = job.rows[::3]
    kind: type[np.uint8 | np.uint16] = np.uint8 if len(run.tokenizer) <= 2**8 else np.uint16
    corpus = Corpus(np.concatenate(rows, dtype=kind, casting="unsafe"), np.cumsum([0, *map(len, rows)]))
    loop = Loop(config, corpus, run.tokenizer, "cuda" if job.device == "cuda" else "cpu")
    loop.epoch(Corpus(corpus.ids, corpus.offsets[: WARMUP * config.training.batch_size + 1]))  # to warm up
    warm_up = loop.trainer.state.step
    tokens, seconds = 0, 0.0
    while seconds < job.seconds:
        start = synchronized(job.device)
        loop.epoch(corpus)
        seconds += synchronized(job.device) - start
        tokens += int(corpus.positions.sum())
    return trained(job, loop.trainer.model, tokens, seconds, loop.trainer.state.step - warm_up)


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
