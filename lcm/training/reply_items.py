"""Reply items: held-out documents in, multiple-choice questions out: which of 20 sentences comes next?

The distractors decide the figure, so they are fixed here: 19 first sentences of replies from *other* dialogues of the
same corpus, of a text unlike the truth's, drawn with seed 0; beside it, distractors from the *same* dialogue. In
stories every sentence is a question, and the distractors come from the same book. Knows nothing of models.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lcm.models.turns import ROLE_AGENT
from lcm.training.concepts import SYMMETRIC, ConceptTable, Documents, Ints, exchanged
from lcm.training.data import key

CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class ReplyItem:
    """One question."""

    document: int
    at: int
    """position of the truth in the document"""
    group: str
    """dialogue, sgd or story"""
    others: tuple[int, ...]
    """table rows of 19 distractors"""
    near: tuple[int, ...]
    """table rows of distractors from the same dialogue, at most 19; none for stories"""


@dataclass(frozen=True, slots=True)
class ReplyItems:
    """Questions about one split."""

    documents: Documents
    items: tuple[ReplyItem, ...]

    def truth(self, item: ReplyItem) -> int:
        """Table row of the sentence that really comes next."""
        return int(self.documents.sentences[self.documents.rows(item.document)][item.at])

    def context(self, item: ReplyItem, longest: int) -> tuple[Ints, Ints]:
        """Table rows and roles of the latest `longest` sentences before it; in dialogues the replier is the agent."""
        rows = self.documents.rows(item.document)
        before = slice(max(rows.start, rows.start + item.at - longest), rows.start + item.at)
        roles: Ints = self.documents.roles[before].astype(np.int64)
        if item.group != "story" and self.documents.roles[rows.start + item.at] != ROLE_AGENT:
            roles = exchanged(roles)
        return self.documents.sentences[before], roles


def reply_items(documents: Documents, table: ConceptTable, *, per_corpus: int, seed: int = 0) -> ReplyItems:
    """At most `per_corpus` questions for each corpus and language (each book, for stories) that has 20 candidates."""
    texts = table.texts().of(documents.sentences)
    items: list[ReplyItem] = []
    for name in documents.corpus_names:
        members = [d for d in range(len(documents)) if documents.corpus(d) == name]
        if name.startswith("story/"):
            for document in members:
                items += _story_items(documents, document, texts, per_corpus, np.random.default_rng((seed, document)))
        else:
            rng = np.random.default_rng((seed, *name.encode()))
            items += _dialogue_items(documents, members, name, texts, per_corpus, rng)
    return ReplyItems(documents, tuple(items))


def _dialogue_items(
    documents: Documents,
    members: list[int],
    name: str,
    texts: Mapping[int, tuple[str, str]],
    count: int,
    rng: np.random.Generator,
) -> list[ReplyItem]:
    corpus = name.removeprefix("dialogue/").split(".")[0]
    replies = [(d, at) for d in members for at in documents.reply_starts(d)]
    if corpus not in SYMMETRIC:
        replies = [(d, at) for d, at in replies if documents.roles[documents.rows(d)][at] == ROLE_AGENT]
    said = np.array([documents.sentences[documents.starts[d] + at] for d, at in replies], dtype=np.int64)
    of_document: dict[int, list[int]] = defaultdict(list)
    for (document, _), row in zip(replies, said.tolist(), strict=True):
        of_document[document].append(row)
    group = "sgd" if corpus == "sgd" else "dialogue"
    items = []
    for index in rng.permutation(len(replies))[:count]:
        document, at = replies[index]
        truth = int(said[index])
        elsewhere = (int(said[i]) for i in rng.permutation(len(said)) if replies[i][0] != document)
        others = _unlike(texts, truth, elsewhere)
        near = _unlike(texts, truth, iter(of_document[document]))
        if len(others) == CANDIDATES - 1:
            items.append(ReplyItem(document, at, group, others, near))
    return items


def _story_items(
    documents: Documents, document: int, texts: Mapping[int, tuple[str, str]], count: int, rng: np.random.Generator
) -> list[ReplyItem]:
    rows = documents.sentences[documents.rows(document)].astype(np.int64)
    items = []
    for at in rng.permutation(np.arange(1, len(rows)))[:count]:
        others = _unlike(texts, int(rows[at]), (int(rows[i]) for i in rng.permutation(len(rows))))
        if len(others) == CANDIDATES - 1:
            items.append(ReplyItem(document, int(at), "story", others, ()))
    return items


def _unlike(texts: Mapping[int, tuple[str, str]], truth: int, rows: Iterator[int]) -> tuple[int, ...]:
    seen = {key(texts[truth][1])}
    chosen: list[int] = []
    for row in rows:
        if len(chosen) == CANDIDATES - 1:
            break
        if (text := key(texts[row][1])) not in seen:
            seen.add(text)
            chosen.append(row)
    return tuple(chosen)
