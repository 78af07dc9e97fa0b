"""What may follow in a string that grows from a fragment."""

import csv
import gzip
import io
from pathlib import Path

import pytest
import torch

from molgen.chem.smiles import canonical, random_form
from molgen.generation.grammar import Grammar, room
from molgen.tokenizer import EOS, PAD, PATTERN, TokenPattern

NAMES = ["", "", "", "", *"CNOFScno()=#12", "[nH]", "[O-]", "[C@@H]"]


def allowed(text: list[str]) -> set[str]:
    """The tokens that may follow `text`; `<eos>` among them."""
    grammar = Grammar(NAMES, torch.zeros(1, dtype=torch.long))
    for token in text:
        grammar.add(torch.tensor([NAMES.index(token)]))
    logits = torch.zeros(1, len(NAMES))
    grammar.bar(logits)
    return {NAMES[i] or "<eos>" for i in range(EOS, len(NAMES)) if logits[0, i] == 0 and (NAMES[i] or i == EOS)}


@pytest.mark.parametrize(
    ("text", "barred", "free"),
    [
        ("C F", "C ( = 1", "<eos>"),
        ("C = O", "C (", "<eos>"),
        ("C = C", "#", "= C ( 1 <eos>"),
        ("C ( F ) ( F )", "#", "C = ( 1 <eos>"),
        ("C ( = O )", "#", "= C ("),
        ("C ( = O ) ( F )", "= #", "F 1"),
        ("C C ( C ) ( C )", "= #", "C ( 1 <eos>"),
        ("C C ( C ) ( C ) ( C )", "C = ( 1", "<eos>"),
        ("C =", "F [O-] <eos> = ( )", "C N O"),
        ("C #", "O", "N C"),
        ("C 1 C C", "F [O-] <eos>", "C N 1"),
        ("C 1 C C (", "<eos>", "F O"),
        ("C c", "C c <eos> (", "1 2"),
        ("C", "o [nH]", "c n"),
        ("C = S", "C", "= ( 1 <eos>"),
        ("C = S ( C )", "<eos>", "C = ("),
        ("C = S ( C ) ( C )", "C", "= ( <eos>"),
        ("C S", "", "C = ( 1 <eos>"),
        ("C ( S = C", "", ")"),
        ("C ( = S", "C", "= ( )"),
        ("C 1 C C c", "", "C c ( 1"),
        ("c 1 c c c ( = O )", "=", "n c"),
    ],
)
def test_no_atom_gets_more_bonds_than_it_can_have(text: str, barred: str, free: str) -> None:
    found = allowed(text.split())
    assert not found & set(barred.split())
    assert set(free.split()) <= found


def test_branches_deeper_than_bonds_are_counted_bar_nothing_real() -> None:
    text = ["C", "("] * 80 + ["F"] + [")", "F"] * 80
    for end in range(1, len(text)):
        assert text[end] in allowed(text[:end])
    assert "<eos>" in allowed(text)


def test_the_bonds_of_a_token_are_those_that_rdkit_reads() -> None:
    rooms = {"C": 4, "N": 3, "O": 2, "F": 1, "[O-]": 1, "[N+]": 4, "[NH3+]": 1, "[C@@H]": 3, "[nH]": 2, "o": 2, "(": 0}
    assert {token: room(token) for token in rooms} == rooms


def test_no_molecule_of_tox21_is_barred_in_canonical_and_random_forms(tox21: Path) -> None:
    pattern = TokenPattern(PATTERN)
    with gzip.open(tox21, "rt", encoding="utf-8") as file:
        smiles = [row["smiles"] for row in csv.DictReader(io.StringIO(file.read()))][::4]
    forms = [form for text in smiles for form in (canonical(text), random_form(text, 0)) if form and "." not in form]
    assert len(forms) > 3000
    strings = [pattern.split(form) or [] for form in forms]
    names = ["", "", "", "", *sorted({token for string in strings for token in string})]
    longest = max(map(len, strings))
    ids = torch.tensor([[*map(names.index, s), EOS, *[PAD] * (longest - len(s))] for s in strings])
    grammar = Grammar(names, torch.zeros(len(strings), dtype=torch.long))
    for position in range(longest + 1):
        logits, following = torch.zeros(len(strings), len(names)), ids[:, position]
        grammar.bar(logits)
        barred = (following != PAD) & torch.isneginf(logits.gather(1, following[:, None])[:, 0])
        assert [forms[i] for i in barred.nonzero()[:, 0].tolist()] == []
        grammar.add(following)
