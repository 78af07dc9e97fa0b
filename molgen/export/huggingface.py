"""The work of `molgen export`: a run as a folder that transformers loads, checked before it is written.

`AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` need no code from the folder. `Run`, and so
`--init` and `MoleculeGenerator.load`, take the folder back: its config.json has the run's configuration and vocabulary
under `molgen`.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save

from molgen._version import __version__
from molgen.config import Config
from molgen.errors import MolgenError
from molgen.export.hub_card import hub_card
from molgen.generation.generator import MoleculeGenerator
from molgen.model.decoder import Decoder
from molgen.model.stock import stock_settings, to_stock
from molgen.runs import CARD, EXPORTED, MOLECULES, PARENTS, REPORT, TOKENIZER, WEIGHTS, Run, find_run
from molgen.runtime.files import content_of, write_atomically
from molgen.tokenizer import BOS, EOS, PAD, SmilesTokenizer

logger = logging.getLogger(__name__)

GENERATION, TOKENIZER_SETTINGS = "generation_config.json", "tokenizer_config.json"
_MOST_COPIED = 2**28  # bytes of a card, a report or keys
_STRINGS, _DRAWN, _ROWS = 1_000, 256, 64  # of the training set or drawn: compared ids; compared logits
_TOLERANCE = 1e-4
_UNKNOWN = "<unk>"
_NO_TOKEN = "[€]"  # splits like an atom, and no vocabulary has it


class Checked(NamedTuple):
    """What was compared before the folder was written."""

    strings: int
    """Strings with the same ids here and in transformers."""
    difference: float
    """The largest difference of a logit."""


def export(run: str | os.PathLike[str] | None, folder: str | os.PathLike[str], force: bool = False) -> Checked:
    """Writes a run (None: the newest) into `folder` for transformers, after a check that both compute the same.

    Weights are float32 in safetensors; nothing in the folder executes. Needs the extra `hf`.
    Raises MolgenError for a model that transformers has no architecture for, for a folder that is not empty (unless
    `force`), and if transformers is not installed; RuntimeError if the check fails.
    """
    opened, target = find_run(None if run is None else os.fspath(run)), Path(folder)
    if target.exists() and not target.is_dir():
        raise MolgenError(f"{target}: is a file", "name a folder")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise MolgenError(f"{target}: exists", "choose another folder, or overwrite its files with --force")
    if target.is_dir() and opened.path.is_dir() and target.samefile(opened.path):
        raise MolgenError(f"{target}: is the run itself", "choose another folder")
    if opened.conditions:
        raise MolgenError(
            f"{opened.path}: takes conditions ({', '.join(opened.conditions)}), as no transformers model does",
            "export a run without conditions",
        )
    if opened.targets:
        raise MolgenError(
            f"{opened.path}: also predicts {', '.join(opened.targets)}, which no architecture of transformers does",
            "export a run without targets",
        )
    settings = stock_settings(opened.config.model, len(opened.tokenizer))
    if find_spec("transformers") is None:
        raise MolgenError("transformers, which checks the export, is not installed", "install molgen's extra `hf`")
    generator = MoleculeGenerator.load(opened.path, "cpu")
    files = _files(opened, generator.model, settings)
    with tempfile.TemporaryDirectory() as trial:
        for name, content in files.items():
            (Path(trial) / name).write_bytes(content)
        checked = check(Path(trial), generator)
    files[CARD] = hub_card(opened, _card(opened), checked.strings, checked.difference).encode()
    target.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(target / name, content)
    return checked


def check(folder: Path, generator: MoleculeGenerator) -> Checked:
    """Loads a folder with transformers and compares ids and logits with ours. Raises RuntimeError if they differ."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as messages

    tokenizer, model = generator.tokenizer, generator.model
    verbosity, shows_bar = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        theirs = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
        their_tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    finally:
        messages.set_verbosity(verbosity)
        if shows_bar:
            messages.enable_progress_bar()
    strings = _strings(generator)
    for smiles in strings:
        here, there = [BOS, *(tokenizer.encode(smiles) or [])], their_tokenizer(smiles)["input_ids"]
        if here != there:
            raise RuntimeError(f"transformers reads {smiles!r} as the ids {there}, molgen as {here}: not exported")
    try:
        their_tokenizer(_NO_TOKEN)
    except Exception:  # whatever the tokenizer raises
        logger.debug("text without tokens raises, as it should")
    else:
        raise RuntimeError("transformers reads text that has no tokens without an error: not exported")
    batch = their_tokenizer(strings[:_ROWS], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**batch).logits
        difference = max(
            float((model(ids[mask.bool()][None])[0] - row[mask.bool()]).abs().max())
            for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], logits, strict=True)
        )
    if not difference <= _TOLERANCE:
        raise RuntimeError(f"logits of transformers differ by {difference:.1e}, more than {_TOLERANCE:g}: not exported")
    return Checked(len(strings), difference)


def _strings(generator: MoleculeGenerator) -> list[str]:
    """Strings to compare: training strings, or where the run has none, strings that it draws."""
    run, tokenizer = generator.run, generator.tokenizer
    strings: list[str | None] = []
    if run is not None and (run.path / MOLECULES).exists():
        strings += run.spread("train", _STRINGS)[:_STRINGS]
    else:
        strings += generator.sample(_DRAWN)["smiles"].tolist()
    known = sorted({one for one in strings if one and tokenizer.encode(one) is not None}, key=len, reverse=True)
    # from long to short, every so many: the rows of one batch differ in length
    step = max(1, len(known) // _ROWS)
    first = known[::step]
    return [*first, *(one for one in known if one not in set(first))] or list(tokenizer.tokens[:1])


def _files(run: Run, model: Decoder, settings: Mapping[str, Any]) -> dict[str, bytes]:
    """Name → content of every file but the card."""
    tokenizer, context = run.tokenizer, run.config.model.context
    ours = {
        "version": __version__,
        "config": _without_paths(run.config),
        "tokenizer": json.loads(tokenizer.to_json()),
    }
    generation = {
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "suppress_tokens": tokenizer.suppressed_ids,
        "max_length": context + 2,  # a molecule of the whole context between <bos> and <eos>
    }
    weights = to_stock({name: p.detach().float() for name, p in model.named_parameters()}, run.config.model)
    files = {
        EXPORTED: _json({**settings, "molgen": ours}),
        GENERATION: _json(generation),
        TOKENIZER: _json(_tokenizer(tokenizer)),
        TOKENIZER_SETTINGS: _json(_tokenizer_settings(context)),
        WEIGHTS: save(weights, {"format": "pt", "vocabulary": tokenizer.fingerprint}),
    }
    for name in (REPORT, PARENTS):
        if os.path.lexists(run.path / name):
            files[name] = content_of(run.path / name, _MOST_COPIED, follow=True)
    return files


def _tokenizer(tokenizer: SmilesTokenizer) -> dict[str, Any]:
    """The content of a `tokenizer.json` of the library `tokenizers`.

    Its unknown token is not in the vocabulary: so an unknown piece raises an error instead of vanishing.
    """
    vocabulary = {token: i for i, token in enumerate((*tokenizer.special, *tokenizer.tokens))}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    start = tokenizer.special[BOS]
    template = [{"SpecialToken": {"id": start, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **flags} for i, token in enumerate(tokenizer.special)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": tokenizer.splitter.pattern},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": [*template, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {start: {"id": start, "ids": [BOS], "tokens": [start]}},
        },
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": _UNKNOWN},
    }


def _tokenizer_settings(context: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context + 1,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }


def _without_paths(config: Config) -> dict[str, Any]:
    """The configuration's values; files of the user by their names alone, because the folder may be published."""
    values = config.model_dump()
    data, training = values["data"], values["training"]
    if data["sources"] is not None:
        data["sources"] = {Path(source).name: share for source, share in data["sources"].items()}
        data["source"] = "+".join(data["sources"])
    else:
        data["source"] = Path(data["source"]).name or data["source"]
    data["exclude"] = [Path(source).name for source in data["exclude"]]
    if training["init"] is not None:
        training["init"] = Path(training["init"]).name
    return values


def _card(run: Run) -> str:
    """The run's own card; empty for a run without one."""
    if not os.path.lexists(run.path / CARD):
        return ""
    return content_of(run.path / CARD, _MOST_COPIED, follow=True).decode("utf-8", "replace")


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()
