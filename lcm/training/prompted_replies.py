"""Replies to fixed prompts: a concept model in, what it says to fifty openings out, and how varied that is.

distinct_2   distinct pairs of words among all, per cent: of all replies together
generic      replies, per cent, whose first sentence is among the hundred commonest replies of the training dialogues,
             or is said to three or more of the fifty prompts
loops        of the replies of several sentences, per cent of those that say a sentence twice, or one whose concept has
             a cosine of 0.9 or more to an earlier one's
The prompts were written for this and are from no corpus. Knows nothing of sessions.
"""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.engine import ROLE_AGENT, ROLE_USER, STOP_PROBABILITY, Engine, step_seed
from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace
from lcm.space.sentences import split_sentences
from lcm.training.data import key
from lcm.training.intervals import estimate
from lcm.training.text_metrics import distinct_2

LANGUAGE = "eng"
LONGEST = 8
"""sentences of a reply; long enough for a model that does not stop to repeat itself"""
COMMON_REPLIES = 100
_SAID_TO_MANY = 3
_SAME_MEANING = 0.9
_LONGEST_SENTENCE = 48


def prompts() -> list[list[str]]:
    """Fifty openings: the user's words, or the user's, the agent's and the user's again."""
    found: list[list[str]] = json.loads(
        resources.files("lcm.training").joinpath("prompts.json").read_text(encoding="utf-8")
    )
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Prompted:
    """The prompts as a model reads them."""

    texts: list[list[str]]
    concepts: list[Tensor]  # [T, C] each
    roles: list[Tensor]  # [T] each
    sentences: list[list[str]]

    @classmethod
    def of(cls, texts: list[list[str]], space: ConceptSpace) -> "Prompted":
        """Split and encoded."""
        parts = [
            [
                (number % 2, sentence)
                for number, turn in enumerate(turns)
                for sentence in split_sentences(turn, LANGUAGE)
            ]
            for turns in texts
        ]
        encoded = space.encode_text([sentence for prompt in parts for _, sentence in prompt], LANGUAGE)
        speakers = (ROLE_USER, ROLE_AGENT)
        return cls(
            texts,
            list(encoded.split([len(prompt) for prompt in parts])),
            [torch.tensor([speakers[turn] for turn, _ in prompt]) for prompt in parts],
            [[sentence for _, sentence in prompt] for prompt in parts],
        )


class Replier(Protocol):
    """Answers prompts."""

    name: str

    def replies(self, prompted: Prompted, seed: int, longest: int = LONGEST) -> list[list[str]]:
        """Sentences for each prompt; the same for the same seed."""
        ...


class LcmReplier:
    """As the thinker `lcm`: the predicted concepts, decoded."""

    def __init__(self, engine: Engine, space: ConceptSpace) -> None:
        self.name = f"{engine.variant}:lcm"
        self._engine, self._space = engine, space

    def replies(self, prompted: Prompted, seed: int, longest: int = LONGEST) -> list[list[str]]:
        """All prompts in one batch."""
        seeds = _seeds(seed, len(prompted.concepts))
        said = self._engine.predict(prompted.concepts, prompted.roles, longest, seeds)
        written = iter(self._space.decode_text(torch.cat(said), LANGUAGE, max_tokens=_LONGEST_SENTENCE))
        return [list(itertools.islice(written, len(concepts))) for concepts in said]


class RetrieveReplier:
    """As the thinker `retrieve`: the bank's sentence nearest to each prediction; it repeats nobody's words."""

    def __init__(self, engine: Engine, bank: ReplyBank) -> None:
        self.name = f"{engine.variant}:retrieve"
        self._engine, self._bank = engine, bank

    def replies(self, prompted: Prompted, seed: int, longest: int = LONGEST) -> list[list[str]]:
        """All prompts in one batch, sentence after sentence."""
        contexts, roles = list(prompted.concepts), list(prompted.roles)
        replies: list[list[str]] = [[] for _ in contexts]
        going = list(range(len(contexts)))
        for number in range(longest):
            if not going:
                break
            seeds = [step_seed(s, number) for s in _seeds(seed, len(contexts))]  # each step draws anew
            steps = self._engine.predict_next(
                [contexts[i] for i in going], [roles[i] for i in going], [seeds[i] for i in going]
            )
            still = []
            for i, step in zip(going, steps, strict=True):
                if number and step.ended >= STOP_PROBABILITY:
                    continue
                said = {*prompted.sentences[i], *replies[i]}
                own = prompted.concepts[i][prompted.roles[i] == ROLE_USER]
                best = self._bank.nearest(step.choosing, LANGUAGE, exclude=said, avoid=own)
                if best.text in said:
                    continue
                replies[i].append(best.text)
                contexts[i] = torch.cat([contexts[i], best.concept[None]])
                roles[i] = torch.cat([roles[i], torch.tensor([ROLE_AGENT])])
                still.append(i)
            going = still
        return replies


def _seeds(seed: int, count: int) -> list[int]:
    return [seed * count + number for number in range(count)]


def reply_figures(
    replies: Sequence[Sequence[Sequence[str]]], common: frozenset[str], space: ConceptSpace
) -> dict[str, Any]:
    """Figures of the replies to each prompt, seed by seed, with 95 % intervals over prompts.

    Args:
        replies: [seeds][prompts] lists of sentences.
        common: keys of the commonest replies.
        space: which sentences mean the same.
    """
    generic = np.array([are_generic(of_seed, common) for of_seed in replies], dtype=np.float64).mean(axis=0)
    loops = [[_loop(reply, space) for reply in of_seed] for of_seed in replies]
    several = np.array([[loop is not None for loop in of_seed] for of_seed in loops], dtype=np.float64).mean(axis=0)
    looping = np.array([[loop is True for loop in of_seed] for of_seed in loops], dtype=np.float64).mean(axis=0)
    share = np.divide(looping, several, out=np.full(len(several), np.nan), where=several > 0)
    spread = np.mean([distinct_2([sentence for reply in of_seed for sentence in reply]) for of_seed in replies])
    figures: dict[str, Any] = {"distinct_2": round(100 * float(spread), 1), "ci": {}}
    figures["sentences"] = round(float(np.mean([len(reply) for of_seed in replies for reply in of_seed])), 2)
    places = np.arange(len(generic))
    for name, found in (
        ("generic", estimate(100 * generic, places)),
        ("loops", estimate(100 * share, places, several)),
    ):
        if found is not None:
            figures[name] = round(found.mean, 1)
            figures["ci"][name] = [round(found.low, 1), round(found.high, 1)]
    return figures


def are_generic(replies: Sequence[Sequence[str]], common: frozenset[str]) -> list[bool]:
    """Whether each reply says what fits anywhere; see the module."""
    first = [key(reply[0]) if reply else "" for reply in replies]
    times = Counter(first)
    return [text in common or times[text] >= _SAID_TO_MANY for text in first]


def _loop(reply: Sequence[str], space: ConceptSpace) -> bool | None:
    """Whether a reply repeats itself; None where it has one sentence only."""
    if len(reply) < 2:
        return None
    if len({key(sentence) for sentence in reply}) < len(reply):
        return True
    unit = F.normalize(space.encode_text([sentence or "." for sentence in reply], LANGUAGE), dim=1)
    return bool((torch.tril(unit @ unit.T, diagonal=-1) >= _SAME_MEANING).any())
