"""The model card of a run: model, data, training, results, use and limits (Mitchell et al. 2019, FAT*)."""

from collections.abc import Mapping, Sequence
from typing import Any

from molgen.config import NAMED, Config

_SOURCES = {
    "tox21": "Tox21 10K, the US Tox21 programme, as DeepChem publishes it",
    "moses": "MOSES (Polykovskiy et al. 2020), from the ZINC Clean Leads collection",
    "moses-mini": "a sample of MOSES (Polykovskiy et al. 2020), from the ZINC Clean Leads collection",
    "moleculeace": "MoleculeACE (van Tilborg et al. 2022): ligands of 30 targets from ChEMBL (CC BY-SA 3.0)",
    "zinc250k": "ZINC 250k (Gómez-Bombarelli et al. 2018), from ZINC: free to use, not to redistribute",
    "peptides": "random peptides with rings and copied motifs, made by molgen with RDKit: no natural ones",
}
_USE = """\
Meant for drawing molecules that resemble the training set, as ideas for a chemist to filter and judge, and for research
on generative models. It knows its training set and nothing else: no activity, no toxicity, no synthesis. Some samples
are invalid and some are training molecules (`molgen sample --valid --novel` rejects both). A likelihood is that of a
string, not a measure of quality."""
_PREDICTS = """\
Meant for drawing molecules that resemble the training set and for ranking molecules like those of its assay table. A
prediction is not a measurement: it knows the assay of its table and nothing else, its interval holds on average for
molecules like the held-out ones, and not for one series, a new scaffold or another assay. `molgen predict` says which
molecules are too far from the training set. Some samples are invalid and some are training molecules
(`molgen sample --valid --novel` rejects both). A likelihood is that of a string, not a measure of quality."""
_LABELS = """\
So are their measured values (`labels.csv.gz`), and `predictors.safetensors` has their fingerprints. Without the
molecules the run does not predict."""
_ASKED = """\
A value that is asked for is a wish, not a measurement: `molgen sample --condition` writes what came of it beside it.
`conditions.safetensors` has the values of the training molecules, without the molecules."""
_LICENCES = {
    "moleculeace": """\
ChEMBL, and with it MoleculeACE, is under CC BY-SA 3.0: who passes on an adaptation names the source and uses the same
licence. Whether weights adapt the data that they were trained on is not settled. To be on the safe side, treat the
weights and keys of this run as under CC BY-SA 4.0, not under the licence of the code: name ChEMBL (EMBL-EBI) and
MoleculeACE when you pass them on, or a run that was trained from them. Molecules that you draw are yours.""",
}
CONFIDENTIAL = """\
The molecules are copied into this folder (`molecules.csv.gz`, `dropped.csv.gz`). If they are confidential, remove both
files before the run is passed on; samples may still resemble them, or be them."""
"""A paragraph on the copied molecules, which an exported folder does not have."""


def model_card(name: str, config: Config, report: Mapping[str, Any]) -> str:
    """The card as Markdown, from a run's name, its configuration and its report.json."""
    paragraphs = [
        f"# {name}",
        f"A language model of molecules: a decoder-only transformer of {_weights(report)} that writes "
        f"SMILES, trained by molgen {report['molgen']}.",
        "## Data",
        _data(config, report),
        "## Training",
        _training(config, report),
        "## Figures",
        _figures(report),
        *(["## Predictions", _predictions(report["prediction"], config)] if report.get("prediction") else []),
        *(["## Conditions", _conditions(report["conditions"])] if report.get("conditions") else []),
        "## Use and limits",
        _PREDICTS if report.get("prediction") else _USE,
        *_licences(config, report),
        *([CONFIDENTIAL] if _copied(config, report) else []),
        *([_ASKED] if report.get("conditions") else []),
        *([_LABELS] if _copied(config, report) and report.get("prediction") else []),
        "Versions: " + ", ".join(f"{package} {number}" for package, number in report["versions"].items()) + ".",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _weights(report: Mapping[str, Any]) -> str:
    active = f" ({report['active_weights']:,} of them per token)" if "active_weights" in report else ""
    return f"{report['weights']:,} weights{active}"


def _licences(config: Config, report: Mapping[str, Any]) -> list[str]:
    """What the licences of its sources mean for the weights."""
    sources = config.data.sources or [_origin(config, report)]
    found = [_LICENCES[source] for source in sources if source in _LICENCES]
    return ["## Licence of the data", *found] if found else []


def _origin(config: Config, report: Mapping[str, Any]) -> str:
    """The source of the molecules; for an encoded file, the source that was encoded."""
    return str(report.get("encoded_from") or config.data.source)


def _copied(config: Config, report: Mapping[str, Any]) -> bool:
    """Whether the molecules are somebody's own, and so copied into the run."""
    return not config.data.named if config.data.sources else _origin(config, report) not in NAMED


def _data(config: Config, report: Mapping[str, Any]) -> str:
    data, training, origin = config.data, config.training, _origin(config, report)
    encoded = f", encoded in {data.source}" if origin != data.source else ""
    sizes = ", ".join(f"{split} {size:,}" for split, size in report["sizes"].items())
    mixture = [f"- {share:.0%} of an epoch: {_SOURCES.get(s, s)}" for s, share in (data.sources or {}).items()]
    lines = [
        *mixture,
        *([f"- without the molecules of: {', '.join(data.exclude)}"] if data.exclude else []),
        f"- {_SOURCES.get(origin, origin)}{encoded}: {report['rows']:,} rows",
        f"- molecules: {sizes}; {data.split} split, seed {data.split_seed}",
        f"- dropped: {_counts(report['dropped'])}",
        f"- altered: {_counts(report['altered'])}",
        f"- {data.form} SMILES of {report['tokens']} tokens, at most {config.model.context} per molecule",
        f"- sha256 of molecules and split: `{report['sha256']}`",
    ]
    if training.randomized or training.randomized_end:
        shares = f"{training.randomized:.0%} of the molecules at the start, {training.randomized_end:.0%} at the end"
        lines.insert(-1, f"- training molecules as random SMILES, fresh in each epoch: {shares}")
    return "\n".join(lines)


def _training(config: Config, report: Mapping[str, Any]) -> str:
    model, training, hardware = config.model, config.training, report["hardware"]
    average = f"; a moving average over the steps, decay {training.ema:g}" if training.ema else ""
    experts = f"{model.experts} experts of " if model.feedforward_kind == "switch" else ""
    attention = f", {model.attention} attention" if model.attention != "full" else ""
    lines = [
        f"- {model.blocks} blocks of width {model.width}, {model.heads} heads of {model.head_width}, feed-forward "
        f"{experts}{model.feedforward}, {model.positions} positions{attention}",
        f"- {training.optimizer}, learning rate {training.learning_rate:g}, seed {training.seed}",
        f"- {report['epochs']} epoch{'s' if report['epochs'] > 1 else ''}, {report['steps']:,} steps, "
        f"{report['seconds']:,.0f} s on {hardware['device']} ({hardware['name']}, {hardware['threads']} threads)",
        f"- the weights are those of epoch {report['best_epoch']}, which had the lowest validation NLL{average}",
    ]
    if report["init"]:
        lines.insert(0, f"- from the weights of `{report['init']['path']}`, sha256 `{report['init']['sha256']}`")
    return "\n".join(lines)


def _figures(report: Mapping[str, Any]) -> str:
    figures = report["validation"]
    stderr = figures["nll_stderr"]  # None if there is only one molecule
    nll = f"{figures['nll']:.2f}" + (f" ± {stderr:.2f}" if stderr is not None else "")
    return (
        f"Of {figures['n']:,} validation molecules, on which the epoch was chosen: NLL {nll} nats per molecule, "
        f"perplexity {figures['perplexity']:.3f} per token, top-1 "
        f"{figures['top1']:.3f}; {figures['unknown_tokens']} more have tokens that training lacks. The training has "
        "not read the test split: `molgen eval` does, and draws 10,000 samples for validity, uniqueness and novelty."
    )


def _predictions(targets: Sequence[Mapping[str, Any]], config: Config) -> str:
    lines = []
    for target in targets:
        measure = "cross-entropy" if target["is_class"] else "RMSE"
        errors = ", ".join(f"{kind} {value:.3f}" for kind, value in target["errors"].items())
        lines.append(
            f"- `{target['name']}`, a {'class' if target['is_class'] else 'value'}: {target['measured']:,} molecules "
            f"measured, {target['censored']:,} with a bound; {measure} on {target['validation']:,} validation "
            f"molecules: {errors}; taken: {target['chosen']}"
        )
        if doubt := target.get("doubt"):
            lines.append(f"  - {doubt}")
        if target["noise"] is not None:
            lines.append(f"  - replicates: pooled standard deviation {target['noise']:.3f}, the noise floor")
        if target["too_far"] is not None:
            lines.append(f"  - below a similarity of {target['too_far']:g} to training: no better than the mean")
    without = [f"`{target['name']}`" for target in targets if not target.get("has_intervals", True)]
    share = f"{config.prediction.coverage:.0%}"
    share += f" (none of {', '.join(without)}: too few held-out molecules)" if without else ""
    return "\n".join([*lines, f"- intervals: conformal, {share}; `baseline` predicts the training molecules' mean"])


def _conditions(conditions: Mapping[str, Any]) -> str:
    lines = []
    for one in conditions["known"]:
        values = "a class, 0 or 1" if one["is_class"] else f"{one['low']:.4g} to {one['high']:.4g} in training"
        lines.append(f"- `{one['name']}`: {values}, known of {one['molecules']:,} training molecules")
    lines.append(f"- NLL of the validation molecules given all their known values: {conditions['nll_given']:.2f}")
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "nothing"
