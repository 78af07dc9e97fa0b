import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molgen.errors import MolgenError
from molgen.tokenizer import EOS, PAD, PATTERN, RING_LABELS, SmilesTokenizer, TokenPattern, deepchem_pattern

SYMBOLS = [
    "C",
    "c",
    "Cl",
    "Br",
    "B",
    "N",
    "[nH]",
    "[C@@H]",
    "[Na+]",
    "[13C]",
    "(",
    ")",
    "1",
    "%12",
    "%",
    "=",
    "#",
    "-",
    "/",
    "\\",
]
SYMBOLS += [
    ".",
    "+",
    ":",
    "~",
    "@",
    "?",
    ">",
    ">>",
    "*",
    "$",
    "[",
    "]",
    "[[",
    "l",
    "r",
    "a",
    "H",
    " ",
    "\n",
    "é",
    "€",
    "0",
    "٣",
    "[€]",
    "%1",
]


def basic_smiles_tokenizer() -> Any:
    """DeepChem's class; the test is skipped where it cannot be installed, above Python 3.11."""
    module = pytest.importorskip("deepchem.feat.smiles_tokenizer")
    return module.BasicSmilesTokenizer()


def test_the_copy_of_the_pattern_is_that_of_deepchems_class() -> None:
    assert basic_smiles_tokenizer().regex_pattern == PATTERN
    assert deepchem_pattern() == PATTERN


@given(st.lists(st.sampled_from(SYMBOLS), max_size=30).map("".join) | st.text(max_size=20))
def test_the_copy_splits_arbitrary_text_like_the_class(text: str) -> None:
    reference, tokens = basic_smiles_tokenizer().tokenize(text), TokenPattern(PATTERN).split(text)
    lossless = text.isascii() and text.isprintable() and bool(text) and "".join(reference) == text
    assert tokens == (reference if lossless else None)


def test_tokens_are_those_of_deepchems_basic_smiles_tokenizer(pattern: str, moses_mini: list[str]) -> None:
    reference = basic_smiles_tokenizer()
    splitter = TokenPattern(pattern)
    hard = ["C[C@H](N)C(=O)O.[Na+]", "BrC%12CC%12Cl", "F/C=C\\F", "c1ccc2[nH]ccc2c1", "[2H]C([2H])[2H]"]
    for smiles in [*moses_mini[:500], *hard]:
        assert splitter.split(smiles) == reference.tokenize(smiles)


@pytest.mark.parametrize(
    "smiles", ["C%(100)CC", "[Cu]<-N", "[Na", "SiC", "Na", "cl", "С", "C–C", "C\u200bC", "C C", "", "C\x00", "CC\n"]
)
def test_what_deepchem_would_lose_is_refused(smiles: str, pattern: str) -> None:
    assert TokenPattern(pattern).split(smiles) is None


def test_encoding_and_decoding_are_inverse(pattern: str, moses_mini: list[str]) -> None:
    tokenizer = SmilesTokenizer.of_corpus(moses_mini[:300], pattern)
    for smiles in moses_mini[:300]:
        ids = tokenizer.encode(smiles)
        assert ids is not None
        assert tokenizer.decode(np.array([[*ids, EOS, PAD, ids[0]]])) == [smiles]


def test_a_row_without_end_is_unfinished_and_an_immediate_end_is_empty(pattern: str) -> None:
    tokenizer = SmilesTokenizer.of_corpus(["CO"], pattern)
    c = tokenizer.encode("C")[0]
    assert tokenizer.decode(np.array([[c, c, c], [EOS, c, c], [c, EOS, PAD]])) == [None, "", "C"]


def test_ids_are_special_tokens_first_then_the_corpus_sorted(pattern: str) -> None:
    tokenizer = SmilesTokenizer.of_corpus(["OC", "NC"], pattern)
    assert [tokenizer.encode(s) for s in "CNO"] == [[3], [4], [5]]
    assert len(tokenizer) == 6


def test_randomised_training_adds_a_start_token_and_ring_labels(pattern: str) -> None:
    plain, randomized = (SmilesTokenizer.of_corpus(["C"], pattern, flag) for flag in (False, True))
    assert len(randomized) - len(plain) == 1 + len(RING_LABELS)
    assert randomized.encode("C1CC%19") is not None
    assert plain.encode("C1CC%19") is None
    assert randomized.random_start in randomized.suppressed_ids
    assert EOS not in randomized.suppressed_ids


def test_an_unknown_token_is_named_and_never_replaced(pattern: str) -> None:
    tokenizer = SmilesTokenizer.of_corpus(["CCO"], pattern)
    assert tokenizer.encode("CC[SeH]") is None
    assert tokenizer.unknown("CC[SeH]N") == ["[SeH]", "N"]


def test_a_corpus_with_an_untokenisable_string_is_refused(pattern: str) -> None:
    with pytest.raises(MolgenError, match="losslessly"):
        SmilesTokenizer.of_corpus(["CC", "C€"], pattern)


@pytest.mark.parametrize("randomized", [False, True])
def test_a_saved_tokenizer_loads_as_the_same_one(pattern: str, tmp_path: Path, randomized: bool) -> None:
    tokenizer = SmilesTokenizer.of_corpus(["CC(=O)Nc1ccccc1"], pattern, randomized)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_json())
    loaded = SmilesTokenizer.load(path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode("CC(=O)N") == tokenizer.encode("CC(=O)N")


@pytest.mark.parametrize(
    "change",
    [
        {"vocabulary": ["C", "C"]},
        {"vocabulary": ["C", 3]},
        {"vocabulary": "CNO"},
        {"vocabulary": ["<eos>"]},
        {"vocabulary": ["\ud800"]},
        {"pattern": ".{99999999999999999999}"},
        {"special": ["<pad>"]},
        {"pattern": "("},
        {"pattern": None},
        {"vocabulary": ["C"] * 100_000},
    ],
)
def test_a_damaged_tokenizer_file_is_refused(pattern: str, tmp_path: Path, change: dict) -> None:
    values = json.loads(SmilesTokenizer.of_corpus(["CC"], pattern).to_json())
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(values | change))
    with pytest.raises(MolgenError, match="tokenizer"):
        SmilesTokenizer.load(path)


def test_the_fingerprint_changes_with_the_vocabulary(pattern: str) -> None:
    a, b = (SmilesTokenizer.of_corpus([smiles], pattern) for smiles in ("CO", "CN"))
    assert a.fingerprint != b.fingerprint


def test_loading_deepchem_leaves_logging_as_it_was() -> None:
    import logging

    root = logging.root
    before = root.manager.disable, root.level, list(root.handlers)
    try:
        logging.disable(logging.INFO)
        root.setLevel(17)
        deepchem_pattern()
        assert (root.manager.disable, root.level, root.handlers) == (logging.INFO, 17, before[2])
    finally:
        logging.disable(before[0])
        root.setLevel(before[1])
