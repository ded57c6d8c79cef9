"""Speculation: what is begun at a pause is the reply that would have come, or is never seen."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.events import (
    DomainEvent,
    Heard,
    ReplyAudio,
    ReplyEnded,
    ReplySentence,
    Speculated,
    TurnCommitted,
    UserPaused,
    UserResumed,
)
from agent.core.input_log import event_line
from agent.core.inputs import (
    CancelTurn,
    CommitTurn,
    Decode,
    EncodeSpeech,
    InputEnded,
    Speak,
    Think,
    TypedText,
    WorkFailed,
)
from tests.agent.talk import Conversation


def replies(talk: Conversation) -> list[str]:
    """What anybody could notice of the replies, places on the clock apart."""
    seen = (ReplySentence, ReplyAudio, Heard, TurnCommitted, ReplyEnded)
    return [event_line(replace(event, at_sample=0)) for event in talk.events if isinstance(event, seen)]


def kinds(events: list[DomainEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_the_reply_is_there_when_the_hangover_ends() -> None:
    talk = Conversation(speculation=True)
    talk.say()
    [committed], [audio] = talk.of(TurnCommitted), talk.of(ReplyAudio)
    assert committed.at_sample == audio.at_sample
    assert talk.of(Speculated) == [Speculated(committed.at_sample, 1, committed.at_sample - 16 * 320, used=True)]


def test_what_waits_until_it_is_certain() -> None:
    talk = Conversation(speculation=True)
    talk.sound(1.0, speech=True)
    talk.sound(0.3, speech=False)
    asked = [request for request in talk.requests if not isinstance(request, CancelTurn)]
    assert [type(request) for request in asked] == [EncodeSpeech, Think, Decode, Speak]
    assert not any(request.committed for request in asked if not isinstance(request, CommitTurn))
    assert talk.events[-1] == talk.of(UserPaused)[0]
    talk.sound(0.3, speech=False)
    [heard] = [request for request in talk.of(Decode) if request.index is None]
    assert heard.committed
    assert talk.of(CommitTurn) == [CommitTurn(1)]


def test_speech_that_goes_on_leaves_no_trace() -> None:
    talk = Conversation(speculation=True)
    talk.sound(1.0, speech=True)
    talk.sound(0.3, speech=False)
    talk.sound(0.5, speech=True)
    assert kinds(talk.events) == ["UserStarted", "UserPaused", "UserResumed", "Speculated"]
    [cancelled] = talk.of(CancelTurn)
    assert cancelled.last_request >= max(request.request for request in talk.of(Speak))
    talk.sound(0.6, speech=False)
    assert [event.turn for event in talk.of(TurnCommitted)] == [1]
    assert len(talk.of(ReplyAudio)) == 1


def test_late_results_of_what_was_discarded_are_nobodys() -> None:
    talk = Conversation(speculation=True)
    talk.answers = False
    talk.sound(1.0, speech=True)
    talk.sound(0.3, speech=False)
    [unwanted] = talk.of(EncodeSpeech)
    talk.sound(0.5, speech=True)
    talk.sound(0.3, speech=False)
    talk.take(unwanted)
    assert not talk.of(Think)
    talk.take(talk.of(EncodeSpeech)[1])
    assert len(talk.of(Think)) == 1


def test_a_failed_speculation_is_made_again() -> None:
    talk = Conversation(speculation=True)
    talk.answers = False
    talk.sound(1.0, speech=True)
    talk.sound(0.3, speech=False)
    [first] = talk.of(EncodeSpeech)
    talk.push(WorkFailed(talk.sample, first.request, 1, "understand", "no room"))
    assert kinds(talk.events) == ["UserStarted", "UserPaused"]
    talk.answers = True
    talk.sound(0.4, speech=False)
    assert [event.used for event in talk.of(Speculated)] == [False]
    assert [event.status for event in talk.of(ReplyEnded)] == ["done"]


def test_what_is_typed_meanwhile_is_answered_first_and_nothing_is_lost() -> None:
    talk = Conversation(speculation=True)
    talk.sound(1.0, speech=True)
    talk.sound(0.3, speech=False)
    talk.push(TypedText(talk.sample, "And this."))
    talk.sound(0.4, speech=False)
    assert [event.source for event in talk.of(TurnCommitted)] == ["text", "speech"]
    assert [event.turn for event in talk.of(ReplyEnded)] == [1, 2]


def test_the_end_of_the_input_is_answered() -> None:
    talk = Conversation(speculation=True)
    talk.sound(1.0, speech=True)
    talk.sound(0.3, speech=False)
    talk.push(InputEnded(talk.sample))
    assert talk.machine.ended
    assert [event.status for event in talk.of(ReplyEnded)] == ["done"]


def test_no_speculation_while_another_turn_is_open() -> None:
    talk = Conversation(speculation=True)
    talk.answers = False
    talk.push(TypedText(0, "A question."))
    talk.sound(1.0, speech=True)
    talk.sound(0.3, speech=False)
    assert not talk.of(EncodeSpeech)


STRETCHES = st.lists(st.tuples(st.booleans(), st.integers(5, 60), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(STRETCHES, st.booleans(), st.sampled_from(["converse", "translate"]), st.booleans())
def test_nobody_can_tell_the_difference(
    stretches: list[tuple[bool, int, bool]], words_first: bool, task: str, manual_answers: bool
) -> None:
    options: dict[str, Any] = {"words_first": words_first, "task": task, "reply_language": "fra"}
    with_it, without = Conversation(speculation=True, **options), Conversation(**options)
    for talk in (with_it, without):
        for speech, frames, answers in stretches:
            talk.sound(frames / 50, speech=speech)
            if manual_answers and talk is with_it:
                talk.answers = answers
                talk.catch_up()
        talk.answers = True
        talk.catch_up()
        talk.push(InputEnded(talk.sample))
        assert talk.machine.ended
    assert sorted(replies(with_it)) == sorted(replies(without))
    one, other = ([audio.samples for audio in talk.of(ReplyAudio)] for talk in (with_it, without))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(with_it.of(UserPaused)) >= len(with_it.of(Speculated))
    assert len(with_it.of(UserResumed)) == len(without.of(UserResumed))


def test_a_thinker_that_costs_money_is_asked_when_it_is_certain() -> None:
    talk = Conversation(speculation=True, costly=True)
    talk.sound(1.0, speech=True)
    talk.sound(0.3, speech=False)
    assert not talk.requests
    interpreter = Conversation(speculation=True, costly=True, task="translate", reply_language="fra")
    interpreter.sound(1.0, speech=True)
    interpreter.sound(0.3, speech=False)
    assert interpreter.requests
