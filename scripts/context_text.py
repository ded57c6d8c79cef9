"""A text as long as you like, of real sentences: those of a bundle's reply bank, in an order of its own, over and over.

Gives sentences of about so many tokens, short ones joined, with the tokens of the bundle's tokenizer. Both sides of the
comparison read and write these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from lcm.reply_bank import ReplyBank
from lcm.space.tokenizer import Tokenizer

LANGUAGE = "eng"


@dataclass(frozen=True, slots=True)
class Sentence:
    """One concept's worth."""

    text: str
    tokens: list[int]


def sentences(bank: ReplyBank, tokenizer: Tokenizer, least_tokens: int) -> Iterator[Sentence]:
    """Endless; each has `least_tokens` or a few more."""
    known = [entry[LANGUAGE] for entry in bank.texts if LANGUAGE in entry]
    order = np.random.default_rng(0).permutation(len(known)).tolist()
    texts: list[str] = []
    tokens: list[int] = []
    for number in cycle(order):
        texts.append(known[number])
        tokens += tokenizer.encode(known[number])
        if len(tokens) >= least_tokens:
            yield Sentence(" ".join(texts), tokens)
            texts, tokens = [], []


def of_length(endless: Iterator[Sentence], tokens: int) -> list[Sentence]:
    """The next sentences, until they have so many tokens."""
    taken = [next(endless)]
    count = len(taken[0].tokens)
    while count < tokens:
        taken += islice(endless, 1)
        count += len(taken[-1].tokens)
    return taken
