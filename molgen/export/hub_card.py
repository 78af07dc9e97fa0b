"""The card of an exported folder: how to load it, licences, what was checked, and the run's own card."""

import re

from molgen._version import __version__
from molgen.config import NAMED
from molgen.runs import Run
from molgen.training.model_card import CONFIDENTIAL

_LICENCES = {
    "tox21": "Tox21: published by US agencies, distributed by DeepChem (MIT)",
    "moses": "MOSES: MIT; its molecules are from ZINC, which is free to use",
    "moses-mini": "MOSES: MIT; its molecules are from ZINC, which is free to use",
    "moleculeace": "MoleculeACE: MIT; its molecules are from ChEMBL, CC BY-SA 3.0",
    "peptides": "random peptides that molgen makes: no licence applies",
    "zinc250k": "ZINC: free to use; not to be redistributed in large parts",
}
_FRONT = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- chemistry
- smiles
- molecule-generation
- molgen
---
"""
_USE = """\
## Use

Stock transformers (4.57 and 5.23 were tried) loads this folder; no code comes with it:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
start = tokenizer([""] * 10, return_tensors="pt")
for ids in model.generate(**start):
    print(tokenizer.decode(ids, skip_special_tokens=True))
```

A SMILES with a token that the vocabulary lacks raises an error. `model.generate` draws from the model's own
distribution: temperature 1, no top-k, no top-p. molgen reads the folder as a run: `molgen sample DIR`,
`molgen train DATA --init DIR`, `MoleculeGenerator.load(DIR)`."""


def hub_card(run: Run, own_card: str, strings: int, difference: float) -> str:
    """The card as Markdown, from the run, its own card (or an empty string) and the results of the check."""
    name = run.path.absolute().name
    own = own_card or f"# {name}\n\nA run of molgen that has no card: its training has not finished.\n"
    own = re.sub(r"\A---\n.*?\n---\n", "", own, flags=re.S)  # of a folder that was exported before
    own = own.split("\n## Use\n")[0] if run.is_exported else own
    own = own.replace(
        CONFIDENTIAL, "The molecules are not in this folder; samples may still resemble them, or be them."
    )
    checked = (
        f"Exported by molgen {__version__} and loaded again by transformers: the ids of {strings:,} strings are the "
        f"same, and the logits of molgen and transformers differ by at most {difference:.0e}."
    )
    sections = [own.rstrip(), _USE, f"## Licences\n\n{_licences(run)}", f"## Check\n\n{checked}"]
    return _FRONT + "\n" + "\n\n".join(sections) + "\n"


def _licences(run: Run) -> str:
    data = run.config.data
    lines = [f"- {text}" for name, text in _LICENCES.items() if name in data.trained_on]
    if any(source not in NAMED for source in data.trained_on):
        lines.append("- a file of the author's own: molgen does not know its licence")
    lines.append("- the program that made the model, molgen: MIT")
    lines.append(
        "- the weights: no licence is stated. Whoever publishes this folder chooses one that the data allow, and "
        "writes it as `license` at the top of this file"
    )
    return "\n".join(lines)
