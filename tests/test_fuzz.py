"""Whatever bytes come in: an answer or a MolgenError, nothing else. `MOLGEN_FUZZ=100000` tries as many of each."""

import json
import os
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molgen.checkpoint import load_state, load_weights, save_state, save_weights
from molgen.chem.conditions import Condition
from molgen.chem.pool import Workers
from molgen.config import Config, DataConfig, ModelConfig, TrainingConfig, load_config, parse_yaml, to_yaml, validate
from molgen.data.encoded_file import CorpusFile, corpus_writer
from molgen.data.readers import SUFFIXES, read_rows, read_samples
from molgen.errors import MolgenError
from molgen.model.build import build_model
from molgen.tokenizer import SPECIAL, SmilesTokenizer, TokenPattern
from molgen.training.optim import build_optimizer

TRIES = int(os.environ.get("MOLGEN_FUZZ", "40"))
# the same examples each time, unless many are asked for
fuzz = settings(
    max_examples=TRIES,
    derandomize=TRIES < 1_000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SETTINGS = load_config(None, [*SMALL, "model.width=8", "model.blocks=1", "model.feedforward=8"])
Change = tuple[int, bytes, int]
changes = st.lists(st.tuples(st.integers(0, 2**20), st.binary(max_size=9), st.integers(0, 9)), min_size=1, max_size=4)
smiles_like = st.text(alphabet="CNOcnos()[]=#123%+-@/\\.HlBr", max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def damaged(content: bytes, edits: list[Change]) -> bytes:
    """Some bytes replaced, inserted or cut out, most of them near the start, where headers are."""
    for place, put, cut in edits:
        place %= len(content) if place % 3 == 0 else min(len(content), 400)
        content = content[:place] + put + content[place + cut :]
        if not content:
            break
    return content


def answer_or_refusal(call: Callable[[], object]) -> object:
    try:
        return call()
    except MolgenError as error:
        assert "\n" not in str(error)
        return None


@fuzz
@given(edits=changes)
def test_damaged_weights_load_finite_or_are_refused(edits: list[Change], tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", build_model(SETTINGS.model, 9, 0)
    save_weights(path, model, {"vocabulary": "x"})
    path.write_bytes(damaged(path.read_bytes(), edits))
    loaded = answer_or_refusal(
        lambda: load_weights(path, lambda: build_model(SETTINGS.model, 9, 1), model.num_parameters, {"vocabulary": "x"})
    )
    if isinstance(loaded, torch.nn.Module):
        assert all(p.isfinite().all() for p in loaded.parameters())


@fuzz
@given(edits=changes)
def test_a_damaged_state_loads_finite_or_is_refused(edits: list[Change], tmp_path: Path) -> None:
    path, model = tmp_path / "state.safetensors", build_model(SETTINGS.model, 9, 0)
    optimizer = build_optimizer(model, SETTINGS.training)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_state(path, {"model": model}, optimizer, {"epoch": 1}, {"tokenizer": "x"})
    path.write_bytes(damaged(path.read_bytes(), edits))
    answer_or_refusal(lambda: load_state(path, {"model": model}, optimizer))
    assert all(p.isfinite().all() for p in model.parameters())


@fuzz
@given(edits=changes)
def test_a_damaged_encoded_file_is_sound_or_refused(edits: list[Change], tmp_path: Path) -> None:
    path, tokenizer = tmp_path / "x.molgen", SmilesTokenizer(".", ["C", "N"], randomized=False)
    with corpus_writer(path, tokenizer, DataConfig(source="made")) as writer:
        for split, smiles in (("train", "CCN"), ("train", "N"), ("validation", "NC")):
            writer.add(split, smiles)
    whole = path.read_bytes()
    start = int.from_bytes(whole[:8], "little")
    near_the_end = [(len(whole) - start + place if place % 2 else place, put, cut) for place, put, cut in edits]
    path.write_bytes(damaged(whole, near_the_end))

    def read() -> list[str]:
        file = CorpusFile(path)
        file.check(128)
        return file.strings("train") + file.strings("validation")

    answer_or_refusal(read)


fields = [
    f"{section}.{name}"
    for section, model in (("data", DataConfig), ("model", ModelConfig), ("training", TrainingConfig))
    for name in model.model_fields
]


@fuzz
@given(text=st.text(alphabet=string.printable, max_size=80) | st.text(max_size=40))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    values = answer_or_refusal(lambda: parse_yaml(text, "x"))
    answer_or_refusal(lambda: validate(values, "x"))


@fuzz
@given(values=st.dictionaries(st.sampled_from(fields) | st.text(max_size=8), json_values, max_size=4))
def test_any_settings_are_a_configuration_that_is_saved_and_read_as_itself_or_refused(values: dict) -> None:
    def nested() -> Config:
        sections: dict = {}
        for key, value in values.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
        return validate(sections, "x")

    config = answer_or_refusal(nested)
    if isinstance(config, Config):
        assert validate(parse_yaml(to_yaml(config), "x"), "x") == config


cells = (
    st.text(max_size=12) | smiles_like | st.sampled_from(["smiles", "name", "split", '"', '""', "$$$$", "\x00", ">"])
)
lines = st.lists(st.lists(cells, max_size=4), max_size=8)


@fuzz
@given(
    content=st.binary(max_size=200)
    | st.builds(
        lambda rows, separator, end: end.join(separator.join(row) for row in rows).encode("utf-8", "replace"),
        lines,
        st.sampled_from([",", "\t", " ", ";"]),
        st.sampled_from(["\n", "\r\n", "\r"]),
    ),
    suffix=st.sampled_from([*(s for s in SUFFIXES if s != ".parquet"), ".csv.gz", ".smi.bz2"]),
    zipped=st.booleans(),
)
def test_any_file_is_rows_of_text_or_refused(content: bytes, suffix: str, zipped: bool, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(content)[: len(content) + 20] if zipped else content)
    for row in answer_or_refusal(lambda: list(read_rows(str(path)))) or []:  # type: ignore[attr-defined]
        assert isinstance(row.smiles, str)
    answer_or_refusal(lambda: read_samples(str(path)))


@fuzz
@given(
    text=st.text(max_size=40)
    | st.lists(st.sampled_from(["a", "<", "7", "and", "not", "(", ")", "'x'", "in"])).map(" ".join)
)
def test_any_condition_has_an_answer_or_is_refused(text: str) -> None:
    condition = answer_or_refusal(lambda: Condition(text))
    if isinstance(condition, Condition):
        assert condition.holds({"a": "3"}) in (True, False)


@fuzz
@given(text=smiles_like | st.text(max_size=30))
def test_any_string_is_split_without_loss_or_not_at_all(text: str, pattern: str) -> None:
    tokens = TokenPattern(pattern).split(text)
    if tokens is not None:
        assert "".join(tokens) == text
        assert text.isascii()
        tokenizer = SmilesTokenizer.of_corpus([text], pattern)
        assert tokenizer.decode(np.array([[*(tokenizer.encode(text) or []), 2]])) == [text]


@fuzz
@given(
    changed=st.dictionaries(st.sampled_from(["format", "pattern", "special", "vocabulary", "rdkit"]), json_values)
    | st.fixed_dictionaries({"vocabulary": st.lists(st.text(max_size=4), max_size=4)})
)
def test_any_json_is_a_tokenizer_or_refused(changed: dict) -> None:
    sound = {"pattern": ".", "special": list(SPECIAL), "vocabulary": ["C"], "rdkit": ""}
    try:
        tokenizer = SmilesTokenizer.of_json(json.dumps(sound | changed))
    except ValueError:
        return
    assert SmilesTokenizer.of_json(tokenizer.to_json()).fingerprint == tokenizer.fingerprint


@fuzz
@given(texts=st.lists(smiles_like, min_size=1, max_size=20))
def test_any_strings_leave_rdkits_process_alive(texts: list[str], pool: Workers) -> None:
    processes = [worker._process for worker in pool._all]
    answers = pool.map("canonical", texts)
    assert all(isinstance(answer, str | None) for answer in answers)
    assert [worker._process for worker in pool._all] == processes, texts


@pytest.mark.parametrize("text", ["{}", "[]", "null", "3", '"x"', "[" * 3_000, ""])
def test_json_that_is_no_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        SmilesTokenizer.of_json(text)
