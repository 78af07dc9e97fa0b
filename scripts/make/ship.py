"""A trained run as it comes with the package: weights in bfloat16, no molecules, nothing to resume from.

In place of the molecules there are 64-bit keys of the parents of those that are not in MOSES as they are written here,
and of MOSES' training molecules that the run was not trained on, so that `--init` can leave out and count what the run
knows.

    python scripts/make/ship.py runs/moses-small shipped/moses-small
    molgen eval shipped/moses-small -n 30000 --metrics moses --train moses --json eval.json
    python scripts/make/ship.py runs/moses-small shipped/moses-small --figures eval.json

What is published are the figures of the second line, of the very file that is shipped; the third puts them on its card.
"""

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from molgen.chem.descriptors import KINDS
from molgen.chem.pool import shared_workers
from molgen.config import to_yaml
from molgen.data.dataset import Molecule, build_dataset
from molgen.data.parents import parent_smiles, save_parents
from molgen.data.sources import read_source, reference_smiles
from molgen.evaluation.text_table import SECTIONS
from molgen.runs import CARD, CONFIG, LOG, MOLECULES, PARENTS, TOKENIZER, WEIGHTS, Run
from molgen.runtime.files import write_atomically
from molgen.training.model_card import model_card

LARGEST = 6 * 10**6
CLAIMED = 1_000
"""Training molecules of a kind below which the card does not claim it."""
STEREO = ("stereocentres", "stereo double bonds")
LARGE = ("macrocycle", "peptide of three", "over 50 heavy atoms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a trained run")
    parser.add_argument("target", type=Path, help="the folder that is shipped")
    parser.add_argument("--figures", type=Path, help="JSON of `molgen eval`, for the model card")
    options = parser.parse_args()
    run, target = Run(options.run), options.target
    if not run.report:
        raise SystemExit(f"{run.path}: its training has not finished")
    model = run.model(torch.device("cpu"))
    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    target.mkdir(parents=True, exist_ok=True)
    config, report = run.config, run.report
    if config.training.init is not None:  # where that run lay on one machine says nothing; its sha256 is in the report
        name = Path(config.training.init).name
        config = config.model_copy(update={"training": config.training.model_copy(update={"init": name})})
        report = report | {"init": report["init"] | {"path": name}}
    write_atomically(target / CONFIG, to_yaml(config).encode())
    for name in (TOKENIZER, LOG):
        shutil.copyfile(run.path / name, target / name)
    write_atomically(target / WEIGHTS, save(weights, {"vocabulary": run.tokenizer.fingerprint}))
    Run(target).write_report(report, model_card(target.name, config, report))
    molecules = training_molecules(run)
    moses = set(reference_smiles("moses", "train")) if "moses" in run.config.data.trained_on else set()
    known = [m.smiles for m in molecules if (m.source or run.config.data.source) != "moses" or m.smiles not in moses]
    save_parents(target / PARENTS, parent_smiles(known, shared_workers()), moses - {m.smiles for m in molecules})
    if run.config.data.sources is not None:
        card = (target / CARD).read_text()
        section = "\n".join(composition([m.smiles for m in molecules], run.config.data.elements or []))
        before, heading, after = card.partition("## Training\n")
        if not heading:
            raise SystemExit(f"{target / CARD}: has no section Training")
        (target / CARD).write_text(f"{before}{section}\n\n{heading}{after}")
    if options.figures:
        card = (target / CARD).read_text()
        figures = "\n".join(["## Figures of this file", "", *rows(json.loads(options.figures.read_text()))])
        (target / CARD).write_text(card.replace("## Use and limits", f"{figures}\n\n## Use and limits"))
    size = sum(path.stat().st_size for path in target.iterdir())
    if size > LARGEST:
        raise SystemExit(f"{target}: {size:,} bytes, more than {LARGEST:,}")
    Run(target).model(torch.device("cpu"))
    print(f"{target}: {sum(p.numel() for p in weights.values()):,} weights in bfloat16, {size:,} bytes in all")


def training_molecules(run: Run) -> list[Molecule]:
    """The training molecules, the run's own or read, cleaned and split again."""
    data = run.config.data
    if (run.path / MOLECULES).exists():
        return [molecule for molecule in run.molecules if molecule.split == "train"]
    pattern = run.tokenizer.splitter.pattern
    dataset = build_dataset(read_source(data), data, run.config.model.context, pattern, shared_workers())
    if dataset.sha256 != run.report["sha256"]:
        raise SystemExit(f"{run.path}: its sources no longer give the molecules that it was trained on")
    return [molecule for molecule in dataset.molecules if molecule.split == "train"]


def composition(smiles: list[str], elements: Sequence[str]) -> list[str]:
    """What the training molecules are made of, as lines of Markdown; what is too rare is not claimed.

    `elements` are those that the recipe allows.
    """
    described = shared_workers().map("describe", smiles, "counting kinds", parts=("kinds",))
    counts = Counter(kind for parts in described if parts for kind in parts.get("kinds", ()))
    chemistry = [kind for kind in (*elements, *KINDS, *STEREO) if kind not in LARGE and kind != "H"]
    chemistry.sort(key=lambda kind: -counts[kind])
    rare = [kind for kind in chemistry if counts[kind] < CLAIMED]
    unseen = [kind for kind in LARGE if counts[kind] < CLAIMED]
    return [
        f"Of {len(smiles):,} training molecules there are with:",
        "",
        "| | molecules |",
        "|---|---|",
        *(f"| {kind} | {counts[kind]:,} |" for kind in (*chemistry, *LARGE)),
        "",
        f"Fewer than {CLAIMED:,} training molecules are not enough to claim anything: {', '.join((*rare, *unseen))}. "
        "Macrocycles, peptides and PROTACs count as unseen.",
    ]


def rows(evaluation: dict[str, Any]) -> list[str]:
    """The figures of an evaluation as a table of Markdown, below what they are of."""
    lines = [
        "The weights are rounded to bfloat16. Of these, by `molgen eval` (" + "; ".join(evaluation["notes"]) + "):",
        "",
    ]
    lines += ["| figure | |", "|---|---|"]
    for title, figures in SECTIONS:
        if title in ("Likelihood", "Samples", "MOSES"):
            for f in figures:
                if evaluation.get(f.key) is not None:
                    error = evaluation.get(f"{f.key}_stderr")
                    value = f"{evaluation[f.key]:{f.style}}" + (f" ± {error:{f.style}}" if error else "")
                    lines.append(f"| {f.title.strip()} | {value} |")
    return lines


if __name__ == "__main__":
    main()
