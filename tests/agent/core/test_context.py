"""The conversation's context: bounded, and forgetting so that whoever has read it seldom reads it anew."""

import numpy as np
import pytest

from agent.core.context import Conversation


def talked(sentences: int, most: int) -> list[tuple[int, ...]]:
    """The turns that a context of at most so many holds, after each turn of one sentence."""
    conversation, held = Conversation(most), []
    for turn in range(sentences):
        conversation.agent_said(turn, np.zeros(2, np.float32), "Yes.", "eng")
        held.append(tuple(entry.turn for entry in conversation.view()))
    return held


def test_a_full_context_forgets_its_oldest_quarter_at_once_and_then_grows_again() -> None:
    held = talked(40, most=16)
    assert [len(turns) for turns in held[:22]] == [*range(1, 17), 13, 14, 15, 16, 13, 14]
    begins = [turns[0] for turns in held]
    assert begins == sorted(begins)
    assert set(begins) == {0, 4, 8, 12, 16, 20, 24}, "only every fourth sentence is it another that comes first"
    assert all(turns[-1] == turn for turn, turns in enumerate(held))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_the_smallest_contexts_hold_what_they_can(most: int) -> None:
    assert [len(turns) for turns in talked(9, most)] == [min(count, most) for count in range(1, 10)]


def test_what_was_heard_of_a_reply_comes_back_within_the_bound() -> None:
    conversation = Conversation(8)
    for turn in range(4):
        conversation.said(turn, "user", np.zeros((1, 2), np.float32), ("Well?",), "eng")
        conversation.agent_said(turn, np.zeros(2, np.float32), f"Reply {turn}.", "eng")
    conversation.keep_heard(3, 0)
    assert [entry.text for entry in conversation.view()][-2:] == ["Reply 2.", "Well?"]
    conversation.said(4, "user", np.zeros((1, 2), np.float32), ("So?",), "eng")
    conversation.keep_heard(3, 1)
    texts = [entry.text for entry in conversation.view()]
    assert texts[-3:] == ["Well?", "Reply 3.", "So?"]
    assert len(texts) == 7
