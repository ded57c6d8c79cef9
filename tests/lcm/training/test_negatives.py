"""What predictions are told apart from: which sentences, and how often those of a small corpus."""

from dataclasses import replace

import numpy as np
import torch

from lcm.models.turns import ROLE_AGENT, ROLE_NARRATOR, ROLE_USER
from lcm.training.concepts import Documents
from lcm.training.negatives import Negatives

DIALOGUES = 100


def documents() -> Documents:
    """A hundred dialogues of three sentences in two turns, and a story of two."""
    told = [ROLE_USER, ROLE_AGENT, ROLE_AGENT] * DIALOGUES + [ROLE_NARRATOR] * 2
    starts = np.append(np.arange(0, 3 * DIALOGUES + 1, 3), len(told))
    names = tuple(str(number) for number in range(DIALOGUES + 1))
    corpora = np.array([0] * DIALOGUES + [1])
    rows = np.arange(len(told))
    return Documents(rows, np.array(told), rows * 0, starts, corpora, ("dialogue/a.eng", "story/b.eng"), names)


def test_they_are_first_sentences_of_replies_and_what_follows_in_stories() -> None:
    rows = Negatives.of(documents()).rows.tolist()
    assert rows == [*range(1, 3 * DIALOGUES, 3), 3 * DIALOGUES + 1]


def test_where_nobody_replies_none_are_drawn() -> None:
    told = replace(documents().only(range(DIALOGUES)), roles=np.full(3 * DIALOGUES, ROLE_USER))
    assert len(Negatives.of(told).draw(8)) == 0


def test_a_small_corpus_is_drawn_by_the_root_of_its_size() -> None:
    torch.manual_seed(0)
    drawn = Negatives.of(documents()).draw(11_000)
    story = float((drawn == 3 * DIALOGUES + 1).float().mean())
    assert abs(story - 1 / (1 + DIALOGUES**0.5)) < 0.02
    assert len(drawn.unique()) == DIALOGUES + 1
    torch.manual_seed(0)
    assert Negatives.of(documents()).draw(11_000).equal(drawn), "by the seed"
