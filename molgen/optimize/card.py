"""The model card of an optimised run."""

from collections.abc import Mapping
from typing import Any

from molgen.optimize.settings import OptimizeConfig

_USE = """\
The weights are those of an agent that has learnt to draw molecules which score well. A score is what its components
compute: it is no activity, no toxicity and no synthesis, and molecules that score very well are often those for which
the scorer is wrong. Look at them before you believe them, and test some that you would not have chosen.

The same search finds poisons if it is asked for them. Whoever names a scorer answers for what it looks for: do not use
this to look for toxic or addictive substances, and do not pass on a run that has (Urbina et al. 2022, Nat. Mach.
Intell. 4:189)."""


def search_card(name: str, config: OptimizeConfig, report: Mapping[str, Any]) -> str:
    """The card as Markdown, from a run's name, its settings and its report.json."""
    found = report["optimize"]
    learner, hardware = config.learner, report["hardware"]
    scorer = f", scored by the {config.scorer.kind} `{config.scorer.text}`" if config.scorer else ""
    shares = ", ".join(f"{origin} {getattr(learner, origin):.0%}" for origin in ("agent", "completion", "genetic"))
    paragraphs = [
        f"# {name}",
        f"An agent of {report['weights']:,} weights that writes SMILES, optimised by molgen {report['molgen']} for "
        f"`{config.name}`{scorer}.",
        "## Search",
        f"- from the weights of `{config.prior}`, sha256 `{config.prior_sha256}`\n"
        f"- {found['calls']:,} molecules scored in {found['rounds']:,} rounds, {found['failed']} of them without a "
        f"score; {found['seconds']:,.0f} s on {hardware['device']} ({hardware['name']}, {hardware['threads']} threads)"
        "\n"
        f"- preset {config.preset}, seed {config.seed}; proposals: {shares}; sigma {learner.sigma:g}, learning rate "
        f"{learner.learning_rate:g}\n"
        + (f"- given {config.condition}\n" if config.condition else "")
        + f"- rejected groups: {', '.join(config.alerts) or 'none'}",
        "## Figures",
        f"Best score {found['best']:.3f}, mean of the best 10 {found['top10']:.3f}, of the best 100 "
        f"{found['top100']:.3f}; AUC top-10 over {config.calls:,} calls {found['auc_top10']:.3f}. Every "
        "scored molecule is in `scored.csv`.",
        "## Use and limits",
        _USE,
        "Versions: " + ", ".join(f"{package} {number}" for package, number in report["versions"].items()) + ".",
    ]
    return "\n\n".join(paragraphs) + "\n"
