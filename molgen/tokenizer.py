"""The tokenizer: SMILES ⇄ token ids, with DeepChem's token pattern and a vocabulary; a JSON file on disk."""

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molgen.errors import MolgenError
from molgen.runtime.files import content_of

PAD, BOS, EOS = 0, 1, 2
SPECIAL = ("<pad>", "<bos>", "<eos>")
# Starts a randomised SMILES in place of <bos>, so that only canonical SMILES follow <bos>.
RANDOM = "<random>"
# Random SMILES have more rings open at the same time than canonical ones, so they need more ring labels.
RING_LABELS = (*"123456789", *(f"%{n}" for n in range(10, 20)))
MOST_BYTES = 2**26
"""Size limit of a tokenizer file, far above the size of a valid one."""
_MOST_TOKENS = 60_000


PATTERN = r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$|\%[0-9]{2}|[0-9])"
"""The token pattern of DeepChem 2.8.0, for Pythons that DeepChem does not support; a test holds that they are equal.

It is SMI_REGEX_PATTERN of deepchem/feat/smiles_tokenizer.py, which took it from the Molecular Transformer (Schwaller et
al. 2019). DeepChem is under the MIT licence: copyright 2017 PandeLab; see licenses/deepchem.txt.
"""


def deepchem_pattern() -> str:
    """The token pattern of DeepChem's BasicSmilesTokenizer (after Schwaller et al. 2019, Molecular Transformer).

    On Python 3.11 it is that of DeepChem's class, above it `PATTERN`, because DeepChem cannot be installed there.
    Raises MolgenError if DeepChem should be there and cannot be imported.
    """
    return _pattern_of_class() if sys.version_info < (3, 12) else PATTERN


def pattern_source() -> str:
    """Where `deepchem_pattern` has the pattern from, in words."""
    return "DeepChem's class" if sys.version_info < (3, 12) else "a copy of DeepChem's pattern"


def _pattern_of_class() -> str:
    """Only this function imports deepchem, because the import takes seconds and prints irrelevant messages.

    These are suppressed, and the settings of logging and warnings are restored.
    """
    root = logging.root
    disabled, level, handlers = root.manager.disable, root.level, list(root.handlers)
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            from deepchem.feat.smiles_tokenizer import BasicSmilesTokenizer

        return str(BasicSmilesTokenizer().regex_pattern)
    except ImportError as error:
        raise MolgenError(
            f"deepchem cannot be imported: {error}", "pip install deepchem==2.8.0 on Python 3.11"
        ) from None
    finally:
        logging.disable(disabled)
        root.setLevel(level)
        root.handlers[:] = handlers


class TokenPattern:
    """Splits a SMILES into tokens like `BasicSmilesTokenizer.tokenize`, but only if no character is lost.

    DeepChem's `findall` silently drops characters that do not match; here such a string has no tokens.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._findall = re.compile(pattern).findall

    def split(self, smiles: str) -> list[str] | None:
        """The tokens, or None unless `"".join(tokens) == smiles` and the string is printable ASCII."""
        tokens: list[str] = self._findall(smiles)
        return tokens if tokens and "".join(tokens) == smiles and smiles.isascii() and smiles.isprintable() else None


class SmilesTokenizer:
    """A token pattern and a vocabulary: ids 0 to 2 are `<pad>`, `<bos>`, `<eos>`, then SMILES tokens.

    With `randomized`, id 3 is `<random>`, which starts randomised SMILES in place of `<bos>`.
    """

    def __init__(self, pattern: str, tokens: Sequence[str], randomized: bool, rdkit_version: str = "") -> None:
        self.splitter = TokenPattern(pattern)
        self.special = (*SPECIAL, RANDOM) if randomized else SPECIAL
        self.tokens = tuple(tokens)
        self.rdkit_version = rdkit_version
        self._ids = {token: i for i, token in enumerate(tokens, len(self.special))}
        self._texts = np.array([*([""] * len(self.special)), *tokens], dtype=object)

    @classmethod
    def of_corpus(
        cls, smiles: Iterable[str] | str, pattern: str, randomized: bool = False, rdkit_version: str = ""
    ) -> "SmilesTokenizer":
        """A tokenizer with the sorted vocabulary of a corpus (a single string is one molecule).

        With `randomized`, for training on randomised SMILES, the vocabulary has all ring labels up to %19.

        Raises MolgenError for a string that is not losslessly tokenisable.
        """
        splitter = TokenPattern(pattern)
        seen = set(RING_LABELS if randomized else ())
        for molecule in [smiles] if isinstance(smiles, str) else smiles:
            tokens = splitter.split(molecule)
            if tokens is None:
                raise MolgenError(f"{molecule!r} is not losslessly tokenisable", "remove it from the corpus")
            seen.update(tokens)
        return cls(pattern, sorted(seen), randomized, rdkit_version)

    def extended(self, other: "SmilesTokenizer") -> "SmilesTokenizer":
        """This vocabulary in its order, then the new tokens of `other`; with `<random>` if either has it.

        Raises MolgenError if the two have different token patterns.
        """
        if other.splitter.pattern != self.splitter.pattern:
            raise MolgenError("the run to start from splits SMILES by another pattern", "train it again")
        new = [token for token in other.tokens if token not in self._ids]
        randomized = RANDOM in (*self.special, *other.special)
        return SmilesTokenizer(self.splitter.pattern, (*self.tokens, *new), randomized, other.rdkit_version)

    def __len__(self) -> int:
        return len(self.special) + len(self.tokens)

    @property
    def random_start(self) -> int:
        """The id that starts a randomised SMILES. Raises ValueError for a tokenizer without it."""
        return self.special.index(RANDOM)

    @property
    def suppressed_ids(self) -> list[int]:
        """Ids that can never follow another token: all special tokens except `<eos>`."""
        return [i for i in range(len(self.special)) if i != EOS]

    def unknown(self, smiles: str) -> list[str]:
        """The tokens that the vocabulary lacks. Raises MolgenError for a string that is not losslessly tokenisable."""
        tokens = self.splitter.split(smiles)
        if tokens is None:
            raise MolgenError(f"{smiles!r} is not losslessly tokenisable", "check it for characters that SMILES lacks")
        return [token for token in dict.fromkeys(tokens) if token not in self._ids]

    def encode(self, smiles: str) -> list[int] | None:
        """Token ids without `<bos>` and `<eos>`; None if it is not losslessly tokenisable or has an unknown token."""
        tokens = self.splitter.split(smiles)
        if tokens is None:
            return None
        try:
            return [self._ids[token] for token in tokens]
        except KeyError:
            return None

    def decode(self, ids: npt.NDArray[np.integer]) -> list[str | None]:
        """Rows of ids (n, length) → SMILES; None for a row without `<eos>` (unfinished).

        Ids after the first `<eos>` are ignored; special tokens have no text.
        """
        ended = ids == EOS
        past_end = np.cumsum(ended, axis=1) > 0
        texts = self._texts[np.where(past_end, PAD, ids)]
        return ["".join(row) if end else None for row, end in zip(texts.tolist(), ended.any(axis=1), strict=True)]

    @property
    def fingerprint(self) -> str:
        """A hash (16 hex digits) of the pattern and the vocabulary."""
        return hashlib.sha256("\n".join((self.splitter.pattern, *self.special, *self.tokens)).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The content of a tokenizer file: pattern, special tokens, vocabulary in the order of ids, RDKit version."""
        return json.dumps(
            {
                "format": 1,
                "pattern": self.splitter.pattern,
                "special": list(self.special),
                "vocabulary": list(self.tokens),
                "rdkit": self.rdkit_version,
            },
            indent=1,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SmilesTokenizer":
        """Reads a file with the output of `to_json`. Raises MolgenError for any other content."""
        try:
            return cls.of_json(content_of(Path(path), MOST_BYTES, follow=True).decode())
        except (OSError, ValueError) as error:
            raise MolgenError(f"{path}: not a tokenizer file: {error}", "train again, or restore the file") from None

    @classmethod
    def of_json(cls, text: str) -> "SmilesTokenizer":
        """The tokenizer of the output of `to_json`. Raises ValueError for any other text."""
        try:
            values = json.loads(text)
            tokens, pattern, special = values["vocabulary"], values["pattern"], tuple(values["special"])
            sound = (
                special in (SPECIAL, (*SPECIAL, RANDOM))
                and isinstance(pattern, str)
                and pattern.isascii()
                and isinstance(tokens, list)
                and len(tokens) <= _MOST_TOKENS
                and all(isinstance(token, str) and token and token.isascii() for token in tokens)
                and len({*special, *tokens}) == len(special) + len(tokens)
            )
            if not sound:
                raise ValueError("fields of the wrong kind, or a token twice")
            return cls(pattern, tokens, special != SPECIAL, str(values.get("rdkit", "")))
        except (KeyError, TypeError, re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
