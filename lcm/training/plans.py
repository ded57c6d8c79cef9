"""Plans in training texts: documents in, the same with a plan concept before each paragraph and a break after it out.

For the planning LCM. Paragraphs are those that the text marks, short ones joined; a longer one than planning knows is
cut where its neighbouring sentences resemble each other least. What is too short to plan stays as it is, and so do
dialogues, whose turns are short. Knows no words.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from lcm.models.planning import ROLE_BREAK, ROLE_PLAN
from lcm.models.turns import ROLE_NARRATOR
from lcm.planning import LEAST_PLANNED, LONGEST_PARAGRAPH, paragraph_starts, plan_concept, planned_starts
from lcm.training.concepts import ConceptTable, Documents, Ints


def with_plans(documents: Documents, table: ConceptTable) -> Documents:
    """What a narrator alone tells with plans and breaks; the break's row is the one after the table's last."""
    sentences: list[Ints] = []
    roles: list[Ints] = []
    last: list[Ints] = []
    starts = [0]
    for number in range(len(documents)):
        rows = documents.rows(number)
        if (documents.roles[rows] != ROLE_NARRATOR).any():  # also where a narrator opens it: a chat's system prompt
            parts = [(documents.sentences[rows], documents.roles[rows], documents.last[rows])]
        else:
            parts = list(_planned(documents, rows, table))
        for said, told, ends in parts:
            sentences.append(said)
            roles.append(told)
            last.append(ends)
        starts.append(starts[-1] + sum(len(said) for said, _, _ in parts))
    return Documents(
        np.concatenate(sentences), np.concatenate(roles), np.concatenate(last), np.array(starts),
        documents.corpora, documents.corpus_names, documents.names,
    )  # fmt: skip


def _planned(documents: Documents, rows: slice, table: ConceptTable) -> Iterator[tuple[Ints, Ints, Ints]]:
    for paragraph in _paragraphs(documents, rows, table):
        said = documents.sentences[paragraph]
        if len(said) < LEAST_PLANNED:
            yield said, documents.roles[paragraph], documents.last[paragraph]
            continue
        plan = said[plan_concept(table.of(said))]
        count = len(said)
        ends = np.zeros(count + 2, dtype=documents.last.dtype)
        ends[count] = 1  # the sentence before the break
        told = np.full(count + 2, ROLE_NARRATOR, dtype=documents.roles.dtype)
        told[0], told[-1] = ROLE_PLAN, ROLE_BREAK
        yield np.concatenate([[plan], said, [len(table.concepts)]]).astype(said.dtype), told, ends


def _paragraphs(documents: Documents, rows: slice, table: ConceptTable) -> Iterator[slice]:
    concepts = table.of(documents.sentences[rows])
    marked = sorted({0, *(np.flatnonzero(documents.last[rows]) + 1).tolist(), len(concepts)})
    starts: list[int] = []
    for start, end in itertools.pairwise(marked):
        cuts = paragraph_starts(concepts[start:end]) if end - start > LONGEST_PARAGRAPH else [0]
        starts += [start + cut for cut in cuts]
    for start, end in itertools.pairwise([*planned_starts(concepts, starts), len(concepts)]):
        yield slice(rows.start + start, rows.start + end)
