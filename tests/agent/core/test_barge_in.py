"""Barge-in: speech stops a reply once there is enough of it; what was heard stays."""

import numpy as np
import pytest

from agent.core.events import IdleTimedOut, ReplyEnded, ReplyTruncated, TurnCommitted, UserStarted
from agent.core.inputs import (
    PlaybackPosition,
    ReplyCancelled,
    ReplyHeard,
    Request,
    SettingsChanged,
    Speak,
    Think,
    Voiced,
)
from tests.agent.talk import Conversation

SECOND = 24_000


class Talker(Conversation):
    """Answers with one sentence of two seconds."""

    def answer(self, request: Request) -> list:  # type: ignore[type-arg]
        if isinstance(request, Speak):
            sound, none = np.full(2 * SECOND, 0.1, np.float32), np.zeros(0, np.float32)
            number, turn, index = request.request, request.turn, request.index
            return [
                Voiced(self.sample, number, turn, index, sound, last=False),
                Voiced(self.sample, number, turn, index, none, last=True),
            ]
        return super().answer(request)


def talker(**options: object) -> Talker:
    return Talker(interruptible=True, assume_playback=True, barge_in_ms=400, **options)


def context(talk: Conversation) -> list[tuple[int, int]]:
    return [(entry.turn, entry.role) for entry in talk.machine.conversation.view()]


def test_a_short_mhm_changes_nothing() -> None:
    talk = talker()
    talk.say()
    before = len(talk.events)
    talk.sound(0.3, speech=True)
    talk.sound(0.6, speech=False)
    assert not [event for event in talk.events[before:] if isinstance(event, UserStarted | TurnCommitted)]
    assert not talk.of(ReplyTruncated)
    assert context(talk) == [(1, 0), (1, 1)]


def test_speech_that_lasts_stops_the_reply() -> None:
    talk = talker()
    talk.say()
    talk.sound(0.38, speech=True)
    assert not talk.of(ReplyTruncated)
    talk.sound(0.04, speech=True)
    [cut] = talk.of(ReplyTruncated)
    assert (cut.turn, cut.kept_sentences) == (1, 0)
    assert context(talk) == [(1, 0)]
    assert talk.of(UserStarted)[1].start_sample < talk.sample - 0.4 * 16_000


def test_once_the_reply_is_over_little_speech_is_enough() -> None:
    talk = talker()
    talk.say()
    talk.sound(2.2, speech=False)
    talk.sound(0.1, speech=True)
    assert len(talk.of(UserStarted)) == 2


def test_a_short_answer_across_the_end_of_the_reply_counts() -> None:
    talk = talker()
    talk.say()
    talk.sound(1.7, speech=False)
    talk.sound(0.3, speech=True)
    talk.sound(0.6, speech=False)
    assert [event.turn for event in talk.of(TurnCommitted)] == [1, 2]
    assert not talk.of(ReplyTruncated)


def test_a_told_position_counts_for_more_than_an_assumed_one() -> None:
    talk = talker()
    talk.say()
    for _ in range(4):
        talk.push(PlaybackPosition(talk.sample, SECOND // 2))
        talk.sound(0.9, speech=False)
    talk.push(PlaybackPosition(talk.sample, SECOND // 2))
    talk.sound(0.5, speech=True)
    [cut] = talk.of(ReplyTruncated)
    assert cut.heard_sample == SECOND // 2


def test_a_client_that_stops_telling_its_playback_is_taken_to_play_on_from_there() -> None:
    talk = talker()
    talk.say()
    talk.push(PlaybackPosition(talk.sample, SECOND // 2))
    talk.sound(1.5, speech=False)
    talk.sound(0.5, speech=True)
    [cut] = talk.of(ReplyTruncated)
    assert SECOND < cut.heard_sample <= 1.5 * SECOND


def test_a_reply_whose_end_nobody_told_of_is_over_all_the_same() -> None:
    talk = talker()
    talk.push(SettingsChanged(0, "eng", None, "converse", idle_timeout_ms=1000))
    talk.say()
    talk.push(PlaybackPosition(talk.sample, SECOND // 2))
    talk.sound(2.2, speech=False)
    assert not talk.of(IdleTimedOut)
    talk.sound(0.1, speech=True)
    assert not talk.of(ReplyTruncated)
    assert len(talk.of(UserStarted)) == 1, "the reply sounds: so little interrupts nothing"
    talk.sound(0.6, speech=False)
    talk.sound(0.1, speech=True)
    assert len(talk.of(UserStarted)) == 2
    talk.sound(4.0, speech=False)
    assert talk.of(IdleTimedOut)


def test_speech_does_not_stop_a_reply_when_the_client_says_so() -> None:
    talk = talker()
    talk.push(SettingsChanged(0, "eng", None, "converse", auto_interrupt=False))
    talk.say()
    talk.say()
    assert not talk.of(ReplyTruncated)
    assert [event.status for event in talk.of(ReplyEnded)] == ["done", "done"]


def test_a_cancelled_reply_ends_and_the_next_turn_is_answered() -> None:
    talk = talker()
    talk.answers = False
    talk.say()
    talk.push(ReplyCancelled(talk.sample))
    assert [event.status for event in talk.of(ReplyEnded)] == ["cancelled"]
    assert talk.of(TurnCommitted)[0].turn == 1
    talk.answers = True
    talk.say()
    assert [event.status for event in talk.of(ReplyEnded)] == ["cancelled", "done"]


@pytest.mark.parametrize(("seconds", "kept"), [(0.9, 0), (1.1, 1), (2.0, 1)])
def test_the_client_knows_better_what_was_heard(seconds: float, kept: int) -> None:
    talk = talker()
    talk.say()
    talk.sound(0.5, speech=True)
    assert context(talk) == [(1, 0)]
    talk.push(ReplyHeard(talk.sample, 1, int(seconds * SECOND)))
    assert context(talk) == [(1, 0), (1, 1)][: kept + 1]
    talk.sound(0.6, speech=False)
    assert [(e.turn, e.role) for e in talk.of(Think)[1].context] == [*[(1, 0), (1, 1)][: kept + 1], (2, 0)]


def test_a_position_of_a_reply_nobody_knows_is_no_harm() -> None:
    talk = talker()
    talk.say()
    talk.push(ReplyHeard(talk.sample, 99, 100))
    assert context(talk) == [(1, 0), (1, 1)]
