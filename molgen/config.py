"""Configuration: default < recipe < `--set` < named option; merged, validated once, saved.

The defaults live here; the files under configs/ hold only what differs. Each field's docstring is its help.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from molgen.errors import MolgenError, did_you_mean
from molgen.runtime.device import Device, Precision
from molgen.runtime.files import content_of

_MOST_BYTES = 2**20  # of a recipe
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Frozen, strict (`true` is no integer) and closed (an unknown key is an error)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


NAMED = {
    "tox21": "8,014 molecules of the US Tox21 programme (DeepChem's table), fetched once",
    "moses": "1,584,663 + 176,074 + 176,225 drug-like molecules of MOSES, fetched once (50 MB)",
    "moses-mini": "20,000 + 1,000 + 1,000 molecules of MOSES, bundled",
    "moleculeace": "35,633 ChEMBL ligands of 30 targets with their affinities (MoleculeACE), fetched once (1 MB)",
    "zinc250k": "249,456 drug-like molecules of ZINC, with stereo and charges, fetched once (3 MB)",
    "peptides": "12,000 peptides of 10 to 300 residues, up to 4,700 tokens, rings and copied motifs, made on the spot",
    "benchmark-targets": "31 reference molecules of PMO, GuacaMol and SAFE, bundled (for data.exclude)",
}
"""The named datasets. They stay as their authors made them: nothing of them is standardised unless asked for."""
_OLD_RULES = ("tox21", "moses", "moses-mini")
MIXED = "+"
"""Joins the names of a mixture's sources to the name of the mixture."""
_AS_PUBLISHED: dict[str, Any] = {
    **dict.fromkeys(("fragments", "charges", "stereo", "isotopes", "radicals", "atom_maps", "wildcards"), "keep"),
    "elements": None,
    "require_carbon": False,
    "min_token_count": 1,
    "stereo_groups": "as_drawn",
}


class DataConfig(Section):
    """Which molecules, how they are standardised and cleaned, and how they are split."""

    source: str = "tox21"
    """A named dataset (such as tox21, moses; from `fragments` to `min_token_count` it keeps all) or a file."""
    sources: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = None
    """A mixture in place of `source`: named datasets or files, each with its share of an epoch's molecules."""
    exclude: list[str] = []
    """Named datasets or files: rows with the neutral, stereo-free parent of one of their molecules are dropped. A
    column `ecfp4` in them is a Tanimoto similarity (ECFP4) from which on similar rows are dropped too."""
    sha256: str | None = None
    """SHA-256 of the molecules that an encoded file (`molgen data encode`) must hold; the training fills it in."""
    smiles_column: str | None = None
    """The column that holds the SMILES; null finds it by name."""
    where: str | None = None
    """Only rows for which this condition on the file's columns is true, such as `pIC50 > 7`; null: all rows."""
    targets: list[str] = []
    """What is to be predicted: columns, or formulas such as `pIC50 = 9 - log10(IC50_nM)`. None: nothing is."""
    conditions: list[str] = []
    """What can be asked for when sampling: properties that RDKit computes (such as logp), columns, or formulas. A
    column is also a target."""
    given: str = ""
    """The values that a run of `molgen optimize` began with, such as `logp = 2.5`; its model is given them."""
    relation_column: str | None = None
    """The column that says whether a target is `=`, `>` or `<` its number; null finds it by name."""
    time_column: str | None = None
    """The column with the date or time of a measurement, for a split by time; null: none."""
    form: Literal["canonical", "as-written"] = "canonical"
    """The string that represents a molecule: RDKit's canonical SMILES, or the string in the file."""
    unparsable: Literal["drop", "keep"] = "drop"
    """What happens to strings that RDKit does not parse; `keep` needs the as-written form."""
    duplicates: Literal["drop", "keep"] = "drop"
    """What happens to the second and later copies of a string."""
    fragments: Literal["keep", "drop", "largest"] = "largest"
    """Salts and mixtures: keep them, drop them, or cut them to the largest fragment that is not a counter-ion."""
    charges: Literal["keep", "neutralise"] = "neutralise"
    """Neutralise: protons are added or removed where that removes a charge."""
    stereo: Literal["keep", "strip"] = "keep"
    """Stereochemistry: the configuration of stereocentres and double bonds."""
    stereo_groups: Literal["undefined", "as_drawn"] = "undefined"
    """Stereocentres of a racemate (`&1`) or known only relative to each other (`o1`): made undefined, or as drawn."""
    isotopes: Literal["keep", "strip", "drop"] = "strip"
    """Isotope labels: keep them, remove them, or drop the molecules that have them."""
    radicals: Literal["keep", "drop"] = "drop"
    """Molecules with unpaired electrons."""
    atom_maps: Literal["keep", "drop"] = "drop"
    """Molecules with atom map numbers, as reactions have."""
    wildcards: Literal["keep", "drop"] = "drop"
    """Molecules with a wildcard atom, `*`."""
    elements: list[Annotated[str, Field(pattern="^[A-Z][a-z]?$")]] | None = [
        *("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I")
    ]
    """Molecules with other elements are dropped; null: any element."""
    require_carbon: bool = True
    """Whether molecules without carbon are dropped."""
    min_token_count: int = Field(5, ge=1)
    """Molecules with a token that occurs in fewer molecules than this are dropped: too few to learn it from."""
    min_tokens: int = Field(1, ge=1)
    """Shorter molecules are dropped and counted."""
    max_tokens: int | None = Field(None, ge=1)
    """Longer molecules are dropped and counted; null: the limit is the model's context."""
    split: Literal["grouped", "random", "scaffold", "time"] = "grouped"
    """Grouped: molecules whose neutral, stereo-free parents are tautomers get one split. Random: each by itself.
    Scaffold: molecules of one Murcko scaffold get one split. Time: the latest by `time_column` are the test split."""
    split_seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the split, which does not depend on the training seed."""
    train_size: int | None = Field(None, ge=1)
    """Training molecules; null: 80 % of fewer than 5,000, else 90 %, or all of a file's own split."""
    validation_size: int | None = Field(None, ge=1)
    """Validation molecules; null: half of what training leaves, or a file's own. The rest is the test split."""
    rules: Literal[1, 2] = 2
    """Version of the rules for salts, groups and the order of tests. 1: up to molgen 0.1 (see docs/definitions.md)."""
    vocabulary: Literal["train", "all"] = "train"
    """The molecules whose tokens form the vocabulary: the training split, or all molecules."""

    @model_validator(mode="before")
    @classmethod
    def _named_stay_as_published(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if isinstance(sources := values.get("sources"), dict):
            return {"source": MIXED.join(map(str, sources))} | values
        source = values.get("source", "tox21")
        if isinstance(source, str) and source in NAMED:
            return _AS_PUBLISHED | ({"rules": 1} if source in _OLD_RULES else {}) | values
        return values

    @property
    def named(self) -> bool:
        """Whether its molecules come from named datasets only."""
        return all(source in NAMED for source in self.inputs)

    @property
    def inputs(self) -> list[str]:
        """The datasets and files that it reads, those of `exclude` too."""
        return [*self.trained_on, *self.exclude]

    @property
    def trained_on(self) -> list[str]:
        """The datasets and files that its molecules come from: one, or those of a mixture."""
        return list(self.sources or [self.source])

    def of_source(self, source: str) -> "DataConfig":
        """The settings for one source of a mixture."""
        return self.model_copy(update={"source": source, "sources": None})

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if self.sources is not None:
            self._check_mixture(self.sources)
        if self.form == "canonical" and self.unparsable == "keep":
            raise ValueError("unparsable: keep needs form: as-written (no canonical form without parsing)")
        return self

    def _check_mixture(self, sources: Mapping[str, float]) -> None:
        if abs(sum(sources.values()) - 1) > 1e-6:
            raise ValueError(f"sources: the shares sum to {sum(sources.values()):g}, not to 1")
        if self.source != MIXED.join(sources):
            raise ValueError(f"source: {self.source}, but data.sources names a mixture; leave one of them out")
        if self.split in ("scaffold", "time"):
            raise ValueError(f"split: {self.split} is not for a mixture (data.sources), whose sources share groups")
        for name in ("smiles_column", "where", "targets", "conditions", "train_size", "validation_size", "sha256"):
            if getattr(self, name):
                raise ValueError(
                    f"{name}: not for a mixture (data.sources): its sources have their own columns and splits"
                )


class ModelConfig(Section):
    """The decoder-only transformer."""

    context: int = Field(128, ge=2, le=65_536)
    """Maximum length of a molecule in tokens (max_length), `<bos>` and `<eos>` not counted."""
    width: int = Field(128, ge=1, le=16_384)
    """d_model: the size of a token's vector between the blocks."""
    blocks: int = Field(5, ge=1, le=256)
    """n_layers: the number of transformer blocks."""
    heads: int = Field(2, ge=1, le=256)
    """n_heads: the number of attention heads (of queries) in each block."""
    kv_heads: int | None = Field(None, ge=1, le=256)
    """Key and value heads (grouped-query attention), a divisor of heads; fewer: a smaller cache. null: as heads."""
    head_width: int = Field(64, ge=1, le=1_024)
    """head_dim: the size of one head; heads x head_width need not equal the width."""
    attention: Literal["full", "window", "performer", "linear", "linformer", "reformer"] = "full"
    """How positions see those before them: all of them (full), the last `window` of them (window), all by sums of
    kernel features (performer, linear), by summaries of blocks (linformer), or by hashing (reformer); docs/long.md."""
    window: int = Field(128, ge=1, le=65_536)
    """Window: the last positions that are seen. Linformer: a block. Reformer: the last positions of a bucket."""
    features: int | None = Field(None, ge=1, le=65_536)
    """Performer: random features per head; null: head_width x ln(head_width)."""
    summaries: int = Field(16, ge=1, le=65_536)
    """Linformer: vectors that stand for a block of `window` positions."""
    buckets: int = Field(16, ge=2, le=65_536)
    """Reformer: hash buckets, an even number."""
    hash_rounds: int = Field(2, ge=1, le=64)
    """Reformer: rounds of hashing."""
    feedforward: int = Field(512, ge=1, le=65_536)
    """ffn_dim (d_ff): the hidden size of the feed-forward layer; of each expert, if there are several."""
    feedforward_kind: Literal["dense", "switch"] = "dense"
    """Dense: one feed-forward part per block. Switch: several experts, each token uses one (Switch Transformers)."""
    experts: int = Field(4, ge=2, le=256)
    """Switch: experts per block."""
    positions: Literal["learned", "sinusoidal", "rotary"] = "rotary"
    """Position encoding: learned or sinusoidal embeddings, or rotary (RoPE)."""
    norm: Literal["before", "after"] = "before"
    """Before: pre-norm, a layer norm before each part (GPT-2). After: post-norm, after each sum (Vaswani 2017)."""
    final_norm: bool = True
    """A last layer norm before the output head."""
    biases: bool = False
    """Biases in the linear layers of the blocks and in an untied head."""
    tied_head: bool = True
    """Weight tying: the output head uses the token embedding as its weights."""
    dropout: Share = 0.1
    """Dropout on the output of each part, before it is added to the residual stream."""
    embedding_dropout: Share = 0.0
    """Dropout on the sum of token and position embedding."""
    initialization: Literal["scaled", "pytorch"] = "scaled"
    """Scaled: GPT-2's normal draws, residual projections / sqrt(2 x blocks). PyTorch: the default of each layer."""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError("rotary positions need an even head_width")
        if self.positions == "sinusoidal" and self.width % 2:
            raise ValueError("sinusoidal positions need an even width")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        if self.attention == "reformer" and self.kv_heads not in (None, self.heads):
            raise ValueError("kv_heads: reformer's queries are its keys, so it has as many of both")
        if self.attention == "reformer" and self.buckets % 2:
            raise ValueError("buckets must be even: half of them are the opposite directions of the others")
        if self.attention == "linformer" and self.summaries > self.window:
            raise ValueError(f"summaries {self.summaries}: more than the {self.window} positions that they stand for")
        return self


class TrainingConfig(Section):
    """How the model is trained."""

    epochs: int = Field(60, ge=1, le=1_000_000)
    """Passes over the training split."""
    batch_size: int = Field(64, ge=1, le=1_000_000)
    """Molecules in a batch; with buckets, on average."""
    batch_tokens: int | None = Field(None, ge=1)
    """Predicted tokens in a batch, in place of `batch_size`: for long molecules; needs buckets. null: by batch_size."""
    batching: Literal["buckets", "random"] = "buckets"
    """Buckets: batches of similar length and equal token count. Random: a shuffled list cut into equal numbers."""
    loss: Literal["token", "molecule"] = "token"
    """What the batch loss is a mean over: predicted tokens, or molecules (each with the sum over its tokens)."""
    optimizer: Literal["adamw", "muon", "adamax"] = "muon"
    """AdamW (fused); Muon for the matrices of the blocks and AdamW for the rest; or Adamax."""
    learning_rate: float = Field(4e-3, gt=0, le=10)
    """The highest learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up: cosine decay to 1 % of the highest rate, or constant."""
    warmup: Share = 0.02
    """Share of the training in which the learning rate rises from zero."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.98
    """Decay of the second moment (Adam) or of the infinity norm (Adamax)."""
    weight_decay: float = Field(0.1, ge=0, le=10)
    """Decoupled weight decay of the matrices; vectors (biases, norms) have none."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """Exponential moving average of the weights: its decay per step. The average is validated and kept; 0: none."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Gradient clipping: the largest norm of the gradient; null: no clipping."""
    expert_balance: float = Field(0.01, ge=0, le=10)
    """Switch: weight of the loss that keeps the experts equally used."""
    unconditional: Share = 0.2
    """With conditions: share of the molecules that are shown without any, as the unconditional model sees them."""
    gradient_checkpointing: bool = False
    """Compute the blocks again in the backward pass: less memory for long molecules, about a third more time."""
    precision: Precision = "auto"
    """bf16 autocast: where it is faster on the device (auto), never (fp32), or always (bf16)."""
    randomized: Share = 0.8
    """SMILES augmentation: share of molecules shown as a new random SMILES, in the first epoch; 0 if as-written."""
    randomized_end: Share = 0.3
    """The same share in the last epoch; it changes linearly from one to the other."""
    patience: int | None = Field(None, ge=0)
    """Early stopping: after more than this many epochs in a row without a better validation NLL; null: never."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the initial weights, the order of the molecules, dropout and random SMILES."""
    device: Device = "auto"
    """Where to train; auto: cuda if there is one, else mps, else cpu."""
    init: str | None = None
    """Fine-tuning: the run that gives the first weights, the vocabulary and the model section; null: random weights."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if self.batch_tokens is not None and self.batching == "random":
            raise ValueError("batch_tokens needs batching: buckets (random batches have equal numbers of molecules)")
        return self

    @property
    def randomizes(self) -> bool:
        """Whether any epoch shows random SMILES."""
        return max(self.randomized, self.randomized_end) > 0


Predictor = Literal["auto", "joint", "forest", "boosting", "svm", "mean"]


class PredictionConfig(Section):
    """How `data.targets` are learned and predicted; without targets it has no meaning."""

    weight: float = Field(0.2, gt=0, le=100)
    """Of the squared error (of standardised values) beside the NLL per token; classes: of the cross-entropy."""
    mask: Literal["causal", "bidirectional"] = "causal"
    """Bidirectional: a second pass per step, in which each token sees the whole molecule, gives the prediction."""
    forms: int = Field(1, ge=1, le=100)
    """The joint model's prediction is a mean over so many SMILES of a molecule, the canonical one among them."""
    predictor: Predictor = "auto"
    """Which one `molgen predict` takes; auto: the one with the lowest error on validation."""
    coverage: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    """Share of the true values that the intervals are to contain."""


class Config(Section):
    """All of a run's settings, as saved in its config.yaml."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    prediction: PredictionConfig = PredictionConfig()

    @model_validator(mode="before")
    @classmethod
    def _as_written_stays_as_written(cls, values: Any) -> Any:
        if (
            isinstance(values, dict)
            and isinstance(data := values.get("data"), dict)
            and data.get("form") == "as-written"
        ):
            training = values.get("training")
            given = training if isinstance(training, dict) else {}
            return values | {"training": {"randomized": 0.0, "randomized_end": 0.0} | given}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        longest = self.data.max_tokens
        # with `init` a context that is left out is that run's, and checked once it is taken over
        context_known = self.training.init is None or "context" in self.model.model_fields_set
        if longest is not None and longest > self.model.context and context_known:
            raise ValueError(f"data.max_tokens {longest} is above model.context {self.model.context}")
        if self.data.form == "as-written" and self.training.randomizes:
            raise ValueError("training.randomized needs data.form: canonical")
        return self


class _Loader(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's traps: `1e-3` is a float, `NO` is a string, aliases are refused."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


def _resolver(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


_resolver("bool", "true|false", "tf")
_resolver("int", "[-+]?(?:0|[1-9][0-9]*)", "-+0123456789")
_resolver(
    "float",
    r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
    "-+.0123456789",
)
_resolver("null", "null|~|", "n~\0")


class _Dumper(yaml.SafeDumper):
    """Quotes a text that either reading of YAML would take for something else, such as a column called `1e5`."""


_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, ()), *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ())]
    for first in _Loader.yaml_implicit_resolvers.keys() | yaml.SafeDumper.yaml_implicit_resolvers.keys()
}


def parse_yaml(text: str, name: str) -> Any:
    """YAML text → plain values. Raises MolgenError; executes nothing, expands no alias."""
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML lets what a tag such as `!!bool` cannot be made of end in any of these
        raise MolgenError(f"{name}: not readable as YAML: {error}", "plain `section:` and `key: value` lines") from None


def recipes() -> dict[str, str]:
    """Shipped recipes: name → YAML text."""
    folder = resources.files("molgen") / "assets" / "configs"
    found = {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


def load_config(
    recipe: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    base: Config | None = None,
) -> Config:
    """A recipe's name or a YAML file, then `section.key=value` strings, then `{"section.key": value}` options.

    All of it on top of the defaults, or of another configuration.

    Raises MolgenError for an unknown recipe, an unreadable file, an unknown key or a value out of range.
    """
    merged: dict[str, Any] = base.model_dump() if base else {}
    recipe = None if recipe is None else os.fspath(recipe)
    if recipe is not None:
        name, text = _recipe_text(recipe)
        _merge(merged, parse_yaml(text, name) or {}, name)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise MolgenError(f"--set {override}: no value", "write --set section.key=value")
        _set(merged, key.strip(), parse_yaml(value, f"--set {key}"))
    for key, value in (options or {}).items():
        if value is not None:
            _set(merged, key, os.fspath(value) if isinstance(value, os.PathLike) else value)
    return validate(merged, recipe or "the configuration")


def validate(values: Any, name: str) -> Config:
    """Plain values → Config. Raises MolgenError with the first error and, for an unknown key, the nearest one."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        hint = ""
        message = first_problem(error)
        if first["type"] == "extra_forbidden":
            hint = _nearest(path) or f"sections: {', '.join(Config.model_fields)}"
        else:
            message += "" if isinstance(first["input"], dict | BaseModel) else f", got {first['input']!r}"
        raise MolgenError(f"{name}: {message}", hint) from None


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong and where, in one line."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}"
    problem = first["msg"].removeprefix("Value error, ")  # pydantic's words before those of our own checks
    return f"{where}: {problem}" if where else problem


def saved(values: Any) -> Any:
    """Plain values of a configuration, or of its `data` section, that an earlier version may have saved.

    What it does not say is what that version did, not the default of today.
    """
    if not isinstance(values, dict):
        return values
    if isinstance(values.get("data"), dict):
        return values | {"data": saved(values["data"])}
    return {"rules": 1, "stereo_groups": "as_drawn"} | values if "source" in values else values


def differing(one: Config, other: Config) -> list[str]:
    """The `section.key` of each setting in which two configurations differ."""
    keys = (f"{section}.{key}" for section, fields in one.model_dump().items() for key in fields)
    return [key for key in keys if value_of(one, key) != value_of(other, key)]


def value_of(config: Config, key: str) -> Any:
    """The setting that `section.key` names."""
    section, _, field = key.partition(".")
    return getattr(getattr(config, section), field)


def to_yaml(config: Section) -> str:
    """The values of a section or a whole configuration, every field written out."""
    return str(yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _nearest(key: str) -> str:
    """A hint that names the known key most like this one, or an empty string."""
    sections: dict[str, type[BaseModel]] = {
        **{"data": DataConfig, "model": ModelConfig, "training": TrainingConfig},
        "prediction": PredictionConfig,
    }
    known = {key: f"{name}.{key}" for name, section in sections.items() for key in section.model_fields}
    near = difflib.get_close_matches(key.split(".")[-1], known, 1)
    return f"did you mean {known[near[0]]}?" if near else ""


def _recipe_text(recipe: str) -> tuple[str, str]:
    if recipe.endswith((".yaml", ".yml")):
        try:
            return recipe, content_of(Path(recipe), _MOST_BYTES, follow=True).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise MolgenError(f"{recipe}: cannot be read: {error}", "give a recipe's name or a YAML file") from None
    known = recipes()
    if recipe not in known:
        raise MolgenError(
            f"no recipe called {recipe!r}",
            did_you_mean(recipe, known) or f"recipes: {', '.join(known)}; or a file ending in .yaml",
        )
    return f"recipe {recipe}", known[recipe]


def _merge(into: dict[str, Any], values: Any, name: str) -> None:
    if not isinstance(values, dict):
        raise MolgenError(f"{name}: not a mapping of sections", "start with `model:` or `training:`")
    for section, fields in values.items():
        if not isinstance(fields, dict):
            raise MolgenError(f"{name}: {section} is not a section", f"sections: {', '.join(Config.model_fields)}")
        into.setdefault(section, {}).update(fields)


def _set(into: dict[str, Any], key: str, value: Any) -> None:
    section, dot, field = key.partition(".")
    if not dot:
        raise MolgenError(f"--set {key}: no section", _nearest(key) or "write --set section.key=value")
    into.setdefault(section, {})[field] = value
