"""A trained run as it comes with the package: weights in bfloat16, no molecules, nothing to resume from.

    python scripts/ship.py runs/moses-small shipped/moses-small
    molgen eval shipped/moses-small -n 30000 --metrics moses --train moses

What is published are the figures of the second line, of the very file that is shipped.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import save

from molgen.checkpoint import write_atomically
from molgen.runs import CARD, CONFIG, LOG, REPORT, TOKENIZER, WEIGHTS, Run

LARGEST = 5 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    run, target = Run(options.run), options.target
    if not run.report:
        raise SystemExit(f"{run.path}: its training has not finished")
    model = run.model(torch.device("cpu"))
    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    target.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, TOKENIZER, LOG, REPORT, CARD):
        shutil.copyfile(run.path / name, target / name)
    write_atomically(target / WEIGHTS, save(weights, {"vocabulary": run.tokenizer.fingerprint}))
    size = sum(path.stat().st_size for path in target.iterdir())
    if size > LARGEST:
        raise SystemExit(f"{target}: {size:,} bytes, more than {LARGEST:,}")
    Run(target).model(torch.device("cpu"))
    print(f"{target}: {sum(p.numel() for p in weights.values()):,} weights in bfloat16, {size:,} bytes in all")


if __name__ == "__main__":
    main()
