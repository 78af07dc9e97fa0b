"""Molecules that keep fragments: the model goes on from prompts that end at an attachment point (PromptSMILES).

All rows of a step are decoded as one batch; equal beginnings are decoded once. Which of several random SMILES is the
prompt, and where a linker ends, is chosen by the model's likelihood alone. This is a proposal: molecules do not come
with the model's probability of a molecule that has the fragment.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from molgen.chem.fragments import TO_FIND, Keep, Point, Step, beginning, keep_of
from molgen.chem.pool import Workers
from molgen.errors import MolgenError
from molgen.generation.decode import Sampler, SamplingParams, extend, extend_distinct
from molgen.generation.grammar import BONDS, Grammar, is_aromatic, is_atom
from molgen.model.decoder import Decoder
from molgen.model.likelihood import token_nll
from molgen.runtime.device import Precision, autocast
from molgen.tokenizer import BOS, EOS, PAD, RANDOM, SmilesTokenizer

logger = logging.getLogger(__name__)

_ROOTINGS_OF_ALL, _ROOTINGS_OF_ONE = 16, 1  # prompts to choose one from, of rows that have the same, or each its own
_TAILS = 16  # forms of a fragment to be linked
_MOST_ENDS = 24  # places where a linker may end, per row
_FILLINGS = 8  # ways to fill the points that are not grown yet
_ALIKE = 0.9  # share of distinct molecules up to which rows are drawn together, without replacement
_CHUNK = 256  # rows of similar length that are decoded together
_BATCH_TOKENS = 16_384
_VALENCES = {"C": 4, "N": 3, "O": 2, "S": 2, "c": 3}  # of atoms at which a linker may end though it went no further


class Row(NamedTuple):
    """A molecule in the making."""

    text: str | None
    """None if it is unfinished."""
    places: list[int] | None
    """As of `Grown`; None if nothing more can be attached."""


class _Prompt(NamedTuple):
    text: str
    ids: list[int]
    """The start id and the text's."""
    places: list[int]
    key: str = ""
    """Equal for prompts of the same molecule at the same site."""
    score: float = 0.0
    """ln p of prompts that end at this site, up to a constant."""


class Growth:
    """Draws strings that hold what is kept, from one model."""

    def __init__(
        self, model: Decoder, tokenizer: SmilesTokenizer, keep: str, workers: Workers, precision: Precision = "fp32"
    ) -> None:
        """`keep` is a text of `fragments.numbered`. Raises MolgenError for what the model cannot read."""
        self._model, self._tokenizer, self._workers, self._precision = model, tokenizer, workers, precision
        self.keep: Keep = keep_of(keep)
        self._device = model.embedding.weight.device
        self.knows_random_forms = RANDOM in tokenizer.special
        self._start = tokenizer.random_start if self.knows_random_forms else BOS
        size = len(tokenizer)
        names = self._texts = ["" for _ in tokenizer.special] + list(tokenizer.tokens)
        atoms = [is_atom(name) for name in names]
        single = [an_atom or name in "-/\\" for an_atom, name in zip(atoms, names, strict=True)]
        anything = [bool(name) and name not in (".", ")") for name in names]
        self._atom, self._single, self._anything = (
            ~torch.tensor(allowed, dtype=torch.bool, device=self._device).view(size)
            for allowed in (atoms, [bool(n) and ok for n, ok in zip(names, single, strict=True)], anything)
        )
        self._begin = [beginning(self.keep, i) for i in range(len(self.keep.fragments))]
        self._check()

    def draw(
        self,
        rows: int,
        params: SamplingParams,
        seed: int,
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[str | None]:
        """`rows` strings, None for an unfinished one. Some are invalid, and some do not hold what is kept."""
        rng = np.random.default_rng(seed)
        random = torch.Generator(self._device).manual_seed(seed % 2**32)
        first = int(rng.integers(len(self.keep.fragments)))
        steps = self.keep.steps(first)
        groups = [step for step in steps if step.kind == "grow"]
        grown = self._beginnings(rows, first, rng)
        first_time = len(steps)
        if len(groups) > 2:  # each group once more, now that the others are there: the first ones are too large
            steps += groups
        for number, step in enumerate(steps, 1):
            active = [i for i, row in enumerate(grown) if row.places is not None]
            if not active or stopped():
                break
            sampler = Sampler(self._model, params, self._tokenizer.suppressed_ids, random, self._precision, stopped)
            # rows differ from each other at the end, and already where the same prompts are of all of them
            distinct = number == len(steps) or step.kind != "grow"
            new = self._grown([grown[i] for i in active], step, distinct, sampler, rng)
            held = self._held(new) if number > first_time else [True] * len(new)
            for i, row, holds in zip(active, new, held, strict=True):
                grown[i] = row if holds else grown[i]
        return [row.text for row in grown]

    def _held(self, rows: Sequence[Row]) -> list[bool]:
        """Whether each row is a molecule that holds what is kept. One that is not leaves the molecule as it was."""
        found = self._workers.map("screen", [row.text or "" for row in rows], keep=self.keep.text)
        return [bool(one and one[0] and not one[1]) for one in found]

    def _beginnings(self, rows: int, first: int, rng: np.random.Generator) -> list[Row]:
        """The fragment; if more than one group is grown, with small ones in their places, in a few ways."""
        if not self._fills(first):
            return [Row(*self._begin[first])] * rows
        seeds = rng.integers(2**31, size=min(_FILLINGS, rows)).tolist()
        found = self._workers.map("filled", [[self.keep.text, first, seed] for seed in seeds], at_a_time=_FILLINGS)
        ways = [Row(*way) for way in found if way] or [Row(*self._begin[first])]
        return [ways[i % len(ways)] for i in range(rows)]

    def _fills(self, first: int) -> bool:
        """Whether the points of groups have small ones until they are grown."""
        return bool(self.keep.singles) and len(self.keep.steps(first)) > 1

    def _check(self) -> None:
        """Raises MolgenError for tokens that the vocabulary lacks, and for a fragment that leaves no room."""
        for first in range(len(self._begin)):
            step = self.keep.steps(first)[0]
            points = [point.dummy for point in step.points[: 1 if step.kind == "link" else None]]
            begun: Sequence[Any] = self._begin[first]
            if self._fills(first):
                begun = self._workers.map("filled", [[self.keep.text, first, 0]])[0] or begun
            items = [[*begun, self.keep.text, points, 0, _ROOTINGS_OF_ALL]]
            found = self._workers.map("prompts", items)[0] or []
            self._refuse_unreadable([text for site in found for text, *_ in site])
        for pair in self.keep.pairs if len(self._begin) > 1 else ():
            for point in pair:
                self._refuse_unreadable([text for text, _ in self._tails(point, 0)])

    def _refuse_unreadable(self, texts: Sequence[object]) -> None:
        strings = [str(text) for text in texts]
        lacking = [self._tokenizer.unknown(text) for text in strings or [self._begin[0].smiles]]
        if not strings and not any(lacking):
            raise MolgenError(f"--keep {self.keep.text}: no SMILES ends at a point", "mark another atom")
        if all(lacking):
            fewest = sorted(lacking, key=len)[0]
            raise MolgenError(
                f"--keep {self.keep.text}: the vocabulary lacks {' '.join(fewest)}",
                "a run that was trained on molecules with such atoms",
            )
        tokens = min(
            len(self._tokenizer.encode(text) or []) for text, no in zip(strings, lacking, strict=True) if not no
        )
        if tokens + 2 > self._model.context:
            raise MolgenError(
                f"--keep {self.keep.text}: {tokens} tokens, the context holds {self._model.context}",
                "keep a smaller part",
            )

    def _grown(
        self, rows: Sequence[Row], step: Step, distinct: bool, sampler: Sampler, rng: np.random.Generator
    ) -> list[Row]:
        """The rows after a step; with `distinct` no two alike, if there were few molecules before."""
        sources = list({row.text: row for row in rows}.values())
        few = len(sources) <= _FILLINGS
        found = self._prompts(sources if few else rows, step, int(rng.integers(2**31)))
        scores = self._scores(found)
        place = {row.text: i for i, row in enumerate(sources)}
        numbers = [place[row.text] if few else i for i, row in enumerate(rows)]
        counts = Counter(site[0].key for i in numbers for site in found[i])
        if distinct and len(counts) <= _ALIKE * len(rows):
            sites: dict[str, tuple[list[_Prompt], list[float]]] = {}
            for of_row, own in zip(found, scores, strict=True):
                sites |= {site[0].key: (site, score) for site, score in zip(of_row, own, strict=True)}
            prompts = [_picked(*sites[key], rng) for key in counts]
            if step.points:  # how often each molecule is there; of one with several sites, their probabilities count
                prompts = [prompt._replace(score=math.log(counts[prompt.key])) for prompt in prompts]
            pairs = self._from_sites(prompts, step, len(rows), sampler)
        else:
            each = [_picked(found[i][0], scores[i][0], rng) if found[i] else None for i in numbers]
            pairs = self._from_each(each, step, sampler)
        going = [i for i, pair in enumerate(pairs) if pair[0] is not None]
        begun = [prompt for prompt, _ in pairs if prompt is not None]
        drawn = [pairs[i][1] for i in going]
        if step.kind == "link":
            new = self._linked(begun, drawn, step, rng)
        else:
            new = [self._attached(*pair, step) for pair in zip(begun, drawn, strict=True)]
        result = [Row(row.text, None) for row in rows]
        for i, row in zip(going, new, strict=True):
            result[i] = row
        return result

    def _attached(self, prompt: _Prompt, drawn: list[int] | None, step: Step) -> Row:
        """A prompt with what was drawn after it."""
        if drawn is None:
            return Row(None, None)
        places = list(prompt.places)
        for point in step.points:
            places[point.dummy] = TO_FIND
        if step.kind == "grow":
            places[step.points[0].dummy] = self._atoms(prompt.ids)
        return Row(prompt.text + self._text(drawn), places)

    def _prompts(self, rows: Sequence[Row], step: Step, seed: int) -> list[list[list[_Prompt]]]:
        """The readable prompts of each site of each row."""
        points = [point.dummy for point in step.points[: 1 if step.kind == "link" else None]]
        most = _ROOTINGS_OF_ALL if len(rows) <= _FILLINGS else _ROOTINGS_OF_ONE
        items = [[row.text, row.places, self.keep.text, points, seed + 61 * i, most] for i, row in enumerate(rows)]
        at_a_time = max(1, -(-len(items) // self._workers.processes))
        found = self._workers.map("prompts", items, at_a_time=at_a_time)
        readable = [[self._read(site) for site in sites or []] for sites in found]
        return [[site for site in sites if site] for sites in readable]

    def _scores(self, found: Sequence[Sequence[Sequence[_Prompt]]]) -> list[list[list[float]]]:
        """ln p of each prompt of each site of each row; 0 for one that is alone."""
        several = [prompt for sites in found for site in sites if len(site) > 1 for prompt in site]
        scores = iter(self._log_likelihoods([(prompt.ids, 1) for prompt in several]))
        return [[[next(scores) for _ in site] if len(site) > 1 else [0.0] for site in sites] for sites in found]

    def _read(self, texts: Sequence[Sequence[Any]]) -> list[_Prompt]:
        """The prompts that the model can read and go on from."""
        prompts = []
        for text, places, *key in texts:
            ids = self._tokenizer.encode(text)
            if ids is not None and len(ids) + 2 <= self._model.context:
                prompts.append(_Prompt(text, [self._start, *ids], list(places), *key))
        return prompts

    def _from_sites(
        self, prompts: Sequence[_Prompt], step: Step, rows: int, sampler: Sampler
    ) -> list[tuple[_Prompt | None, list[int] | None]]:
        """(prompt, what the model writes after it) for each row, no two alike, from one prompt of each site."""
        if not prompts:
            return [(None, None)] * rows
        weights = torch.tensor([prompt.score for prompt in prompts], device=self._device)
        barred = torch.stack([self._barred(prompt, step) for prompt in prompts])
        grammar = self._grammar(prompts, step)
        ids, start = extend_distinct(sampler, self._padded(prompts), weights, barred, grammar, rows)
        picked = [prompts[i] for i in start.tolist()]
        return [(prompt, _ended(row, prompt)) for prompt, row in zip(picked, ids.cpu().numpy(), strict=True)]

    def _from_each(
        self, prompts: Sequence[_Prompt | None], step: Step, sampler: Sampler
    ) -> list[tuple[_Prompt | None, list[int] | None]]:
        """(prompt, what the model writes after it) for each row, which has a prompt of its own."""
        result: list[tuple[_Prompt | None, list[int] | None]] = [(None, None)] * len(prompts)
        going = [(len(prompt.ids), i, prompt) for i, prompt in enumerate(prompts) if prompt is not None]
        going.sort(key=lambda entry: entry[:2])
        for at in range(0, len(going), _CHUNK):
            chunk = going[at : at + _CHUNK]
            own = [prompt for _, _, prompt in chunk]
            barred = torch.stack([self._barred(prompt, step) for prompt in own])
            ids = extend(sampler, self._padded(own), barred, self._grammar(own, step))
            for (_, i, prompt), row in zip(chunk, ids.cpu().numpy(), strict=True):
                result[i] = (prompt, _ended(row, prompt))
        return result

    def _grammar(self, prompts: Sequence[_Prompt], step: Step) -> Grammar:
        """That of the prompts' ends: all branches are closed, and all rings but one that the model is to close."""
        grammar = Grammar(self._texts, torch.zeros(len(prompts), dtype=torch.long, device=self._device))
        ids = self._padded(prompts)
        for position in range(ids.shape[1]):
            grammar.add(ids[:, position])
        grammar.begin(at_points=step.kind != "anywhere")
        return grammar

    def _padded(self, prompts: Sequence[_Prompt]) -> Tensor:
        longest = max(len(prompt.ids) for prompt in prompts)
        rows = [[*prompt.ids, *[PAD] * (longest - len(prompt.ids))] for prompt in prompts]
        return torch.tensor(rows, device=self._device)

    def _barred(self, prompt: _Prompt, step: Step) -> Tensor:
        """The tokens that must not follow a prompt: what would not be one group with the point's bond."""
        if step.kind == "anywhere":
            return self._anything
        return self._atom if prompt.text[-1] in BONDS else self._single

    def _linked(
        self, prompts: Sequence[_Prompt], drawn: Sequence[list[int] | None], step: Step, rng: np.random.Generator
    ) -> list[Row]:
        """The prompts with a beginning of what was drawn as linker, and the other fragment.

        The end of the linker is drawn by the model's probability of the fragment, and of the end, there.
        """
        tails = self._read(self._tails(step.points[1], int(rng.integers(2**31))))
        if not tails:
            return [Row(prompt.text, None) for prompt in prompts]
        weights = _weights(self._log_likelihoods([([*tail.ids, EOS], 1) for tail in tails]))
        picks = [tails[i] for i in rng.choice(len(tails), len(prompts), p=weights).tolist()]
        ends: list[list[tuple[int, int]]] = []
        sequences = []
        for prompt, new, tail in zip(prompts, drawn, picks, strict=True):
            possible = list(self._ends(new or [], self._atoms(prompt.ids)))
            room = self._model.context - len(prompt.ids) - len(tail.ids) + 2
            possible = [end for end in possible if end[0] <= room]
            if len(possible) > _MOST_ENDS:
                possible = [possible[i] for i in sorted(rng.choice(len(possible), _MOST_ENDS, replace=False).tolist())]
            ends.append(possible)
            for stop, _ in possible:
                head = [*prompt.ids, *(new or [])[:stop]]
                sequences.append(([*head, *tail.ids[1:], EOS], len(head)))
        scores = iter(self._log_likelihoods(sequences))
        rows, seen = [], set[str]()
        for prompt, new, tail, possible in zip(prompts, drawn, picks, ends, strict=True):
            own = [next(scores) for _ in possible]
            if not possible:
                rows.append(Row(prompt.text, None) if new is not None else Row(None, None))
                continue
            linkers = [self._text((new or [])[:stop]) for stop, _ in possible]
            if not seen.issuperset(linkers):  # no linker twice, if there is another one
                own = [-math.inf if linker in seen else score for linker, score in zip(linkers, own, strict=True)]
            pick = int(rng.choice(len(possible), p=_weights(own)))
            seen.add(linkers[pick])
            stop, last = possible[pick]
            rows.append(self._joined(prompt, (new or [])[:stop], last, tail, step))
        return rows

    def _joined(self, prompt: _Prompt, linker: list[int], last: int, tail: _Prompt, step: Step) -> Row:
        """A prompt, a linker whose atom `last` bears the fragment, and the fragment."""
        before = self._atoms(prompt.ids)
        offset = before + self._atoms(linker)
        places = [
            one if one >= 0 else offset + other if other >= 0 else one
            for one, other in zip(prompt.places, tail.places, strict=True)
        ]
        places[step.points[0].dummy], places[step.points[1].dummy] = before, last
        return Row(prompt.text + self._text(linker) + tail.text, places)

    def _ends(self, ids: Sequence[int], atoms: int) -> Iterator[tuple[int, int]]:
        """(tokens, atom to bear the next one) of each beginning that has all its branches and rings closed.

        There the model itself has put one more bond, or the atom has room for one.
        """
        open_rings: set[str] = set()
        stack: list[int] = []
        current, token_of, used = -1, {-1: ""}, {-1: 0}  # the bonds of each atom so far
        order = 1
        names = self._names(ids)
        for i, token in enumerate(names, 1):
            if token in BONDS:
                order = BONDS[token]
                continue
            if is_atom(token):
                used[current] += order
                current, atoms = atoms, atoms + 1
                token_of[current], used[current] = token, order
            elif token == "(":
                stack.append(current)
            elif token == ")":
                if not stack:
                    return
                current = stack.pop()
            else:
                open_rings ^= {token}
                used[current] += order
            order = 1
            if not stack and not open_rings and current >= 0 and _has_room(token_of[current], used[current], names[i:]):
                yield i, current

    def _tails(self, point: Point, seed: int) -> list[tuple[str, list[int]]]:
        found = self._workers.map("tails", [[self.keep.text, point.dummy, seed, _TAILS]])[0]
        return [(text, places) for text, places in found or []]

    def _log_likelihoods(self, sequences: Sequence[tuple[Sequence[int], int]]) -> list[float]:
        """ln p of the ids of each sequence from a position on, given those before."""
        result = [0.0] * len(sequences)
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]))
        first = 0
        while first < len(order):
            width = len(sequences[order[first]][0])
            count = max(1, _BATCH_TOKENS // width)
            chunk = order[first : first + count]
            first += len(chunk)
            longest = max(len(sequences[i][0]) for i in chunk)
            rows = [[*sequences[i][0], *[PAD] * (longest - len(sequences[i][0]))] for i in chunk]
            ids = torch.tensor(rows, device=self._device)
            with torch.no_grad(), autocast(self._precision, self._device):
                nll = token_nll(self._model(ids[:, :-1]), ids[:, 1:]).cpu().double().numpy()
            for i, values in zip(chunk, nll, strict=True):
                result[i] = -float(values[sequences[i][1] - 1 :].sum())
        return result

    def _names(self, ids: Sequence[int]) -> list[str]:
        special = len(self._tokenizer.special)
        return [self._tokenizer.tokens[i - special] for i in ids if i >= special]

    def _text(self, ids: Sequence[int]) -> str:
        return "".join(self._names(ids))

    def _atoms(self, ids: Sequence[int]) -> int:
        return sum(map(is_atom, self._names(ids)))


def _picked(prompts: Sequence[_Prompt], scores: Sequence[float], rng: np.random.Generator) -> _Prompt:
    """One of a site's prompts, by its probability. Its score becomes that of the site: the mean probability."""
    mean = float(np.logaddexp.reduce(scores)) - math.log(len(scores))
    return prompts[int(rng.choice(len(prompts), p=_weights(scores)))]._replace(score=mean)


def _ended(row: npt.NDArray[np.int64], prompt: _Prompt) -> list[int] | None:
    """What follows a prompt in a row of ids, without `<eos>`; None for an unfinished one."""
    own: list[int] = row[len(prompt.ids) - 1 :].tolist()
    return own[: own.index(EOS)] if EOS in own else None


def _has_room(token: str, used: int, after: Sequence[str]) -> bool:
    """Whether an atom with so many bonds can have a single bond more in place of what the model wrote after it."""
    if "@" in token and token[1] in "CN":  # all bonds but this one are there
        return used == (2 if "H" in token else 3)
    aromatic = is_aromatic(token)
    if aromatic and used < 2:  # its ring comes later
        return False
    if after:
        return not aromatic or "=" not in after[:2]
    return used < _VALENCES.get(token, 0)


def _weights(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    """Probabilities in proportion to exp(score)."""
    values = np.array(scores, dtype=np.float64)
    if not len(values):
        return values
    raised = np.exp(values - values.max())
    return raised / raised.sum()  # type: ignore[no-any-return]
