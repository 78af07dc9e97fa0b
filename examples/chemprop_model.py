"""Predictions of a chemprop model: SMILES on stdin, one per line; a number on stdout, one per line.

The number is the prediction for the first target.

Run it by the Python of an environment of its own, for chemprop wants other versions than molgen:

    python -m venv envs/chemprop && envs/chemprop/bin/pip install chemprop
    molgen optimize druglike --maximise 5..9 -n 5000 \
        --command "envs/chemprop/bin/python examples/chemprop_model.py model.pt"

A model file of chemprop is a pickle: use your own.
"""

import sys

from chemprop import data, featurizers
from chemprop.models import load_model
from lightning import pytorch as pl


def main() -> None:
    """Predicts for each molecule of stdin."""
    smiles = [line.strip() for line in sys.stdin]
    dataset = data.MoleculeDataset(
        [data.MoleculeDatapoint.from_smi(one) for one in smiles], featurizers.SimpleMoleculeMolGraphFeaturizer()
    )
    loader = data.build_dataloader(dataset, shuffle=False)
    trainer = pl.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", enable_model_summary=False)
    for batch in trainer.predict(load_model(sys.argv[1]), loader):
        for prediction in batch.reshape(len(batch), -1)[:, 0].tolist():
            print(prediction)


if __name__ == "__main__":
    main()
