"""Metrics of sentences: words in, figures out. Knows nothing of concepts or models."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from lcm.training.data import key


def rouge_l(said: str, truth: str) -> float:
    """F1 of the longest common subsequence of words [Lin 2004, §3], 0 … 1; case and punctuation do not count."""
    a, b = key(said).split(), key(truth).split()
    if not a or not b:
        return 0.0
    longest = [0] * (len(b) + 1)  # of a's words so far and b's first j
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            above = longest[j]
            longest[j] = diagonal + 1 if word == other else max(above, longest[j - 1])
            diagonal = above
    return 2 * longest[-1] / (len(a) + len(b))


def distinct_2(texts: Sequence[str]) -> float:
    """Distinct pairs of neighbouring words among all such pairs, 0 … 1 [Li et al. 2016, §5]; 0 if there is none."""
    words = [key(text).split() for text in texts]
    pairs = [pair for sentence in words for pair in pairwise(sentence)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def commonest(texts: Sequence[str], count: int) -> frozenset[str]:
    """Keys of the `count` commonest sentences; of equals the first seen."""
    return frozenset(text for text, _ in Counter(key(text) for text in texts).most_common(count))
