"""The contestants of bench.py. Each call does some jobs of one of them, in a process of its own.

    python scripts/bench/peers.py JOBS OUT    # a list of jobs as JSON, and where the list of figures is written

A job has a `task` (prepare, train, sample; matrix, facts) and a contestant, `who`:

ours          this package (ours.py): its own loop and its own decoding, on the run's network or on the source text's
transformers  Hugging Face's GPT-2 of the run's size: padded random batches; `generate` with its cache
source        the source text's network and way: batches padded to 100 tokens; the whole prefix again at each step
namesake      molgen 0.2.0 of the package registry in an environment of its own: its own loop and its own sampler

In that environment `import molgen` means another package: only the functions of other contestants import ours.py.
"""

import importlib
import itertools
import json
import platform
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from timing import (
    BOS,
    EOS,
    PAD,
    Figures,
    Job,
    Window,
    autocast,
    brief_training,
    drawn,
    product_rate,
    random_batches,
    tokens_by,
    trained,
    weights_of,
)

SOURCE_BATCH = 64  # molecules in a training step of the source text


# --- Hugging Face transformers


def prepare_transformers(job: Job) -> Figures:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = job.sizes
    config = GPT2Config(
        vocab_size=sizes["vocabulary"],
        n_positions=sizes["context"] + 1,
        n_embd=sizes["width"],
        n_layer=sizes["blocks"],
        n_head=sizes["heads"],
        n_inner=sizes["feedforward"],
        resid_pdrop=0.0,  # as ours: dropout would only slow it down
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    torch.manual_seed(job.seed)
    model: Any = GPT2LMHeadModel(config)
    brief_training(job, model, lambda ids: model(ids).logits, job.rows)
    model.save_pretrained(job.path("transformers"))
    return {"weights": weights_of(model)}


def transformers_model(job: Job) -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(job.path("transformers")).to(job.device)


def train_transformers(job: Job) -> Figures:
    """The step that its own Trainer takes: padded batch, mask, loss inside, clipping, fused AdamW."""
    model = transformers_model(job).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    window = Window(random_batches(job, job.sizes["batch_size"]), job)
    for batch in window:
        ids = batch.to(job.device)
        real = ids != PAD
        with autocast(job.device, job.precision == "bf16"):
            loss = model(input_ids=ids, attention_mask=real.long(), labels=ids.masked_fill(~real, -100)).loss
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return trained(job, model, window.tokens, window.seconds, window.steps)


def sample_transformers(job: Job) -> Figures:
    from ours import tokenizer

    ours, model = tokenizer(job), transformers_model(job).eval()
    if job.precision == "bf16":
        model = model.to(torch.bfloat16)
    longest = model.config.n_positions
    torch.manual_seed(job.seed)

    def draw(rows: int) -> list[str | None]:
        prompt = torch.full((rows, 1), BOS, device=job.device)
        ids = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=longest,
            pad_token_id=PAD,
            eos_token_id=EOS,
        )
        return ours.decode(ids[:, 1:].cpu().numpy())

    return drawn(job, model, draw, tokens_by(ours), longest)


# --- the source text's network and way


def prepare_source(job: Job) -> Figures:
    from safetensors.torch import save_file

    from ours import source_model

    model = source_model(job)
    brief_training(job, model, model, job.rows)
    save_file(model.state_dict(), job.path("source.safetensors"))
    return {"weights": weights_of(model)}


def train_source(job: Job) -> Figures:
    """Random batches padded to the full length, fp32, Adamax; attention in plain products, as in the text."""
    from ours import source_model

    model = source_model(job).train()
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-3)
    window = Window(random_batches(job, SOURCE_BATCH, model.context + 2), job)
    for batch in window:
        ids = batch.to(job.device)
        logits = model(ids[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD, reduction="sum")
        optimizer.zero_grad()
        (loss / len(ids)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return trained(job, model, window.tokens, window.seconds, window.steps)


def sample_source(job: Job) -> Figures:
    """No memory of what was computed: the whole prefix again for each of 100 positions, ended or not."""
    from ours import source_model, tokenizer

    ours, model = tokenizer(job), source_model(job)
    torch.manual_seed(job.seed)

    @torch.inference_mode()
    def draw(rows: int) -> list[str | None]:
        ids = torch.full((rows, 1), BOS, device=job.device)
        for _ in range(model.context):
            following = model(ids)[:, -1].softmax(dim=-1)
            ids = torch.cat((ids, following.multinomial(1)), dim=1)
        return ours.decode(ids[:, 1:].cpu().numpy())

    return drawn(job, model, draw, tokens_by(ours), model.context)


# --- molgen 0.2.0, in its own environment


def their(module: str) -> Any:
    """A module of the namesake."""
    package = importlib.import_module("molgen")
    if package.__version__ != "0.2.0":
        raise SystemExit(f"expected molgen 0.2.0, found {package.__version__} at {package.__file__}")
    return importlib.import_module(f"molgen.{module}")


def namesake_smiles(job: Job) -> list[str]:
    return job.path("training.smi").read_text().split()


def namesake_settings(sizes: Mapping[str, int], tokenizer: Any) -> dict[str, int]:
    """The arguments of its network: our sizes, its vocabulary."""
    return {
        "vocab_size": tokenizer.vocab_size,
        "embedding_dim": sizes["width"],
        "nhead": sizes["heads"],
        "hidden_dim": sizes["feedforward"],
        "num_layers": sizes["blocks"],
        "pad_idx": tokenizer.pad_id,
    }


def prepare_namesake(job: Job) -> Figures:
    smiles = namesake_smiles(job)
    tokenizer = their("tokenizers").SmilesTokenizer.from_smiles(smiles)
    settings = namesake_settings(job.sizes, tokenizer)
    torch.manual_seed(job.seed)
    model = their("molgpt").MolGPT(**settings)
    brief_training(job, model, model, [np.array(tokenizer.encode(s)) for s in smiles])
    their("checkpoint").save_checkpoint(job.path("namesake.pt"), model, "molgpt", settings, tokenizer)
    return {"weights": weights_of(model)}


def train_namesake(job: Job) -> Figures:
    """Its own loop over its own loader, cut off by the clock."""
    model, tokenizer = their("checkpoint").load_checkpoint(job.path("namesake.pt"))
    size = job.sizes["batch_size"]
    loader, _ = their("data").build_dataloaders(namesake_smiles(job), tokenizer, batch_size=size, seed=job.seed)
    window = Window(itertools.chain.from_iterable(itertools.repeat(loader)), job)
    their("trainer").train_language_model(
        model, window, None, their("trainer").TrainConfig(epochs=1), torch.device(job.device), tokenizer.pad_id
    )
    return trained(job, model, window.tokens, window.seconds, window.steps)


def sample_namesake(job: Job) -> Figures:
    model, tokenizer = their("checkpoint").load_checkpoint(job.path("namesake.pt"))
    longest, sample = job.sizes["context"] + 1, their("sampling").sample
    torch.manual_seed(job.seed)

    def draw(rows: int) -> list[str | None]:
        return list(sample(model, tokenizer, rows, longest, device=torch.device(job.device), batch_size=rows))

    return drawn(job, model, draw, lambda text: len(tokenizer.tokenize(text)), longest)


# --- the machine


def matrix(job: Job) -> Figures:
    """GFLOP per second of large square products; in fp32 alone where the job asks for it."""
    size, rates = (2048, {}) if job.device == "cpu" else (8192, {})
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if job.precision == "fp32" and name != "fp32":
            continue
        rates[name] = product_rate(size, job.device, dtype) / 1e9
    return rates


def facts(job: Job) -> Figures:
    """Versions, the accelerator's name, and whether there are units for bf16."""
    from ours import has_bf16

    def found(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages = ("molgen-lm", "molgen", "torch", "transformers", "rdkit", "numpy")
    return {
        "versions": {"python": platform.python_version()} | {name: found(name) for name in packages},
        "threads": torch.get_num_threads(),
        "bf16": has_bf16(job.device),
        "accelerator": torch.cuda.get_device_name() if job.device == "cuda" else None,
    }


TASKS: dict[str, Callable[[Job], Figures]] = {
    "prepare transformers": prepare_transformers,
    "prepare source": prepare_source,
    "prepare namesake": prepare_namesake,
    "train transformers": train_transformers,
    "train source": train_source,
    "train namesake": train_namesake,
    "sample transformers": sample_transformers,
    "sample source": sample_source,
    "sample namesake": sample_namesake,
    "matrix ours": matrix,
    "facts ours": facts,
}


def figures_of(job: Job) -> Figures:
    """Does a job."""
    if task := TASKS.get(f"{job.task} {job.who}"):
        return task(job)
    import ours

    return {"prepare": ours.prepare, "train": ours.train, "sample": ours.sample}[job.task](job)


def main() -> None:
    jobs = [Job(**job) for job in json.loads(sys.argv[1])]
    Path(sys.argv[2]).write_text(json.dumps([figures_of(job) for job in jobs]))


if __name__ == "__main__":
    main()
