"""Metrics of decoded predictions [LCM §3.1]: concepts in, the sentences they decode to and one value an item out.

l2_r        round trip: distance of the decoded and encoded again sentence to the true concept
rouge_l     of the sentence against the true one, per cent
mi          mutual information of the sentence and its true context, nats a token; see `judge`
A sample of each group is decoded, always the same. Knows nothing of the models that predict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lcm.space import ConceptSpace
from lcm.training.concept_metrics import Truths
from lcm.training.concepts import Ints
from lcm.training.hits import GROUPS
from lcm.training.intervals import Floats
from lcm.training.judge import CONTEXT_SENTENCES, Gains, Said, TokenModel, gains, perplexity
from lcm.training.text_metrics import rouge_l

_LONGEST = 48
"""tokens that are decoded"""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The items that are decoded, and their words."""

    chosen: Ints  # [M] items
    truths: tuple[str, ...]
    randoms: tuple[str, ...]
    """a sentence that somebody else said, in the same language and group"""
    contexts: tuple[tuple[str, ...], ...]
    languages: tuple[str, ...]

    @classmethod
    def of(cls, truths: Truths, count: int, seed: int = 0) -> "Sample":
        """`count` items of each group, or all there are."""
        rng = np.random.default_rng(seed)
        own = [rng.permutation(np.flatnonzero(truths.groups == group))[:count] for group in GROUPS]
        chosen = np.concatenate(own)
        items = [truths.items.items[i] for i in chosen]
        rows = [truths.items.truth(item) for item in items]
        before = [truths.items.context(item, CONTEXT_SENTENCES)[0].tolist() for item in items]
        texts = truths.table.texts().of([*rows, *(row for context in before for row in context)])
        languages = tuple(texts[row][0] for row in rows)
        kinds = [f"{truths.groups[i]} {language}" for i, language in zip(chosen, languages, strict=True)]
        return cls(
            chosen,
            tuple(texts[row][1] for row in rows),
            tuple(texts[row][1] for row in _elsewhere(rows, kinds, rng)),
            tuple(tuple(texts[row][1] for row in context) for context in before),
            languages,
        )

    def after_context(self, sentences: Sequence[str]) -> list[Said]:
        """The sentences as if each had been said next."""
        return [Said(*row) for row in zip(sentences, self.contexts, self.languages, strict=True)]


def _elsewhere(rows: list[int], kinds: list[str], rng: np.random.Generator) -> list[int]:
    """The rows, those of a kind handed round among themselves, so that none keeps its own unless it is alone."""
    moved = list(rows)
    for kind in sorted(set(kinds)):
        own = rng.permutation([i for i, k in enumerate(kinds) if k == kind])
        for i, other in zip(own, np.roll(own, 1), strict=True):
            moved[i] = rows[other]
    return moved


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What the predictions say."""

    texts: list[str]  # M
    values: dict[str, Floats]  # [M] each


def decoded(
    predicted: Tensor, sample: Sample, truths: Truths, space: ConceptSpace, judge: TokenModel | None
) -> Decoded:
    """Of predictions [N, C] the sampled ones: `l2_r`, `rouge_l`, and with a judge `mi_nats` and `mi_tokens`."""
    texts = space.decode_text(predicted[sample.chosen], sample.languages, max_tokens=_LONGEST)
    again = space.encode_text([text or "." for text in texts], sample.languages)
    values = {
        "l2_r": (again - truths.concepts[sample.chosen]).norm(dim=1).double().numpy(),
        "rouge_l": np.array([100 * rouge_l(*pair) for pair in zip(texts, sample.truths, strict=True)]),
    }
    if judge is not None:
        values |= mutual_information(judge, sample, texts)
    return Decoded(texts, values)


def mutual_information(judge: TokenModel, sample: Sample, sentences: Sequence[str]) -> dict[str, Floats]:
    """`mi_nats` and `mi_tokens` of the sentences, had they come next."""
    found: Gains = gains(judge, sample.after_context(sentences))
    return {"mi_nats": found.nats, "mi_tokens": found.tokens}


def judge_perplexity(judge: TokenModel, sample: Sample) -> float:
    """Of the true sentences after their contexts: what the judge itself is worth."""
    return perplexity(judge, sample.after_context(sample.truths))
