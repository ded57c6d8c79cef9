"""What a client may ask of the turn machine: to commit by hand, to answer when told, to remember and to forget."""

from typing import Any

import numpy as np

from agent.core.events import (
    ContextAdded,
    Heard,
    IdleTimedOut,
    ReplyAudio,
    ReplyEnded,
    ReplySentence,
    ReplyStarted,
    TurnCommitted,
    TurnEnded,
    UtteranceTaken,
    Warned,
)
from agent.core.inputs import (
    AudioCleared,
    AudioCommitted,
    AudioInput,
    CancelTurn,
    ContextForgotten,
    ContextGiven,
    EncodeSpeech,
    ReplyRequested,
    SettingsChanged,
    Speak,
    Think,
    TypedText,
)
from agent.core.open_turns import MAX_SILENT_TURNS
from agent.core.turn import MANUAL_PIECES, TurnMachine
from agent.core.turn_options import TurnOptions
from agent.stages import Work
from audio.segmenter import SegmenterOptions
from tests.agent.talk import FRAME, Conversation


def changed(talk: Conversation, **settings: Any) -> None:
    talk.push(SettingsChanged(talk.sample, "eng", None, settings.pop("task", "converse"), **settings))


def by_hand(**settings: Any) -> Conversation:
    talk = Conversation()
    changed(talk, detection="manual", auto_reply=False, **settings)
    return talk


def test_a_commit_by_hand_is_a_turn_whatever_pauses_it_has() -> None:
    talk = by_hand()
    talk.say()
    talk.say()
    assert not talk.of(TurnCommitted)
    talk.push(AudioCommitted(talk.sample))
    assert [event.turn for event in talk.of(UtteranceTaken)] == [1, 1]
    [committed] = talk.of(TurnCommitted)
    assert not committed.wants_reply
    assert not talk.of(ReplyStarted)
    assert [event.status for event in talk.of(TurnEnded)] == ["done"]
    assert len(talk.of(Heard)) == 1
    assert len(talk.machine.conversation) == 2


def test_a_reply_comes_when_it_is_asked_for() -> None:
    talk = by_hand()
    talk.say()
    talk.push(AudioCommitted(talk.sample))
    talk.push(ReplyRequested(talk.sample))
    [think] = talk.of(Think)
    assert [(entry.turn, entry.role) for entry in think.context] == [(1, 0)]
    assert len(talk.of(ReplyAudio)) == 1


def test_asking_for_the_reply_before_the_turn_is_understood_answers_that_turn() -> None:
    talk = by_hand()
    talk.answers = False
    talk.say()
    talk.push(AudioCommitted(talk.sample))
    talk.push(ReplyRequested(talk.sample, spoken=False))
    talk.answers = True
    talk.catch_up()
    assert [(event.turn, event.spoken) for event in talk.of(ReplyStarted)] == [(1, False)]
    assert talk.of(ReplySentence)
    assert not talk.of(Speak)


def test_a_reply_may_be_asked_for_with_words_of_its_own_whatever_the_settings_say_meanwhile() -> None:
    talk = by_hand(instructions="Be brief.")
    talk.answers = False
    for _ in range(2):
        talk.push(TypedText(talk.sample, "Hello.", wants_reply=False))
        talk.push(
            ReplyRequested(talk.sample, instructions="Sing." if not talk.of(TurnEnded) else None, temperature=1.5)
        )
        changed(talk, detection="manual", instructions="Be kind.", temperature=0.5)
        talk.answers = True
        talk.catch_up()
    assert [(t.instructions, t.temperature) for t in talk.of(Think)] == [("Sing.", 1.5), ("Be kind.", 1.5)]


def test_a_reply_to_nothing_new_goes_on_with_the_conversation() -> None:
    talk = Conversation()
    talk.push(TypedText(0, "Hello.", wants_reply=False))
    assert not talk.of(Think)
    talk.push(ReplyRequested(0))
    assert [(event.turn, event.source) for event in talk.of(TurnCommitted)] == [(1, "text"), (2, "none")]
    talk.push(ReplyRequested(0))
    assert [event.turn for event in talk.of(ReplyEnded)] == [2, 3]


def test_a_long_history_fills_no_line_while_the_model_is_busy_with_a_reply() -> None:
    machine, work = TurnMachine(TurnOptions()), Work()
    for number in range(3000):
        for request in machine.push(TypedText(0, f"Sentence {number}.", wants_reply=number == 0)).requests:
            work.give(request)
    assert len(work.understand) == MAX_SILENT_TURNS + 1


def test_an_interpreter_asked_afterwards_says_what_was_not_said_yet() -> None:
    talk = Conversation(task="translate", reply_language="fra")
    for text in ("One.", "Two."):
        talk.push(TypedText(0, text, wants_reply=False))
    talk.push(ReplyRequested(0))
    [think] = talk.of(Think)
    assert [entry.turn for entry in think.context] == [1, 2]
    assert think.reply_language == "fra"


def test_quiet_speech_that_no_detector_hears_is_committed_as_a_whole() -> None:
    talk = by_hand()
    talk.sound(1.0, speech=False)
    talk.push(AudioCommitted(talk.sample))
    [encode] = talk.of(EncodeSpeech)
    assert len(encode.samples) == 16_000
    talk.push(AudioCommitted(talk.sample))
    assert len(talk.of(TurnCommitted)) == 1


def test_what_is_cleared_is_forgotten() -> None:
    talk = by_hand()
    talk.say()
    talk.sound(0.5, speech=True)
    talk.push(AudioCleared(talk.sample))
    assert talk.of(CancelTurn)
    talk.push(AudioCommitted(talk.sample))
    assert not talk.of(TurnCommitted)
    talk.say()
    talk.push(AudioCommitted(talk.sample))
    assert len(talk.of(TurnCommitted)) == 1


def test_nothing_typed_waits_for_somebody_who_holds_the_button() -> None:
    talk = by_hand()
    talk.say()
    talk.push(TypedText(talk.sample, "Meanwhile."))
    assert [event.status for event in talk.of(ReplyEnded)] == ["done"]
    talk.push(AudioCommitted(talk.sample))
    assert [event.turn for event in talk.of(TurnCommitted)] == [2, 1]


def test_an_endless_press_of_the_button_is_bounded() -> None:
    talk = by_hand()
    for _ in range(MANUAL_PIECES + 2):
        talk.sound(0.3, speech=True)
        talk.sound(0.6, speech=False)
    assert len(talk.of(Warned)) == 2
    talk.push(AudioCommitted(talk.sample))
    assert talk.of(UtteranceTaken)[-1].piece == MANUAL_PIECES - 1


def test_context_is_remembered_and_nobody_answers() -> None:
    talk = Conversation()
    talk.push(ContextGiven(0, "user", "Who are you?"))
    talk.push(ContextGiven(0, "agent", "I am Noema."))
    talk.push(TypedText(0, "Really?"))
    assert [(event.turn, event.role) for event in talk.of(ContextAdded)] == [(1, "user"), (2, "agent")]
    [think] = talk.of(Think)
    assert [(e.turn, e.role, e.text) for e in think.context] == [
        (1, 0, "Who are you?"),
        (2, 1, "I am Noema."),
        (3, 0, "Really?"),
    ]
    assert [event.turn for event in talk.of(TurnEnded)] == [3]


def test_what_is_forgotten_is_in_no_context() -> None:
    talk = Conversation()
    talk.push(TypedText(0, "One."))
    talk.push(TypedText(0, "Two."))
    talk.push(ContextForgotten(0, 1, "agent"))
    talk.push(ContextForgotten(0, 2, "user"))
    assert [(e.turn, e.role) for e in talk.machine.conversation.view()] == [(1, 0), (2, 1)]


def test_forgetting_what_is_being_answered_ends_it() -> None:
    talk = Conversation()
    talk.answers = False
    talk.push(TypedText(0, "One."))
    talk.push(ContextForgotten(0, 1, "user"))
    assert [event.status for event in talk.of(ReplyEnded)] == ["cancelled"]
    assert talk.of(TurnEnded)[-1].status == "cancelled"


def test_a_client_sets_its_own_hangover_and_threshold() -> None:
    talk = Conversation(adaptive_hangover=True)
    changed(talk, hangover_ms=100)
    talk.sound(0.5, speech=True)
    talk.sound(0.12, speech=False)
    assert len(talk.of(TurnCommitted)) == 1
    changed(talk, threshold=0.95)
    for _ in range(50):
        samples = np.zeros(FRAME, np.float32)
        talk.push(AudioInput(talk.sample, samples, 0.9))
        talk.sample += FRAME
    talk.sound(0.6, speech=False)
    assert len(talk.of(TurnCommitted)) == 1


def test_voice_and_words_go_where_they_are_needed() -> None:
    talk = Conversation()
    changed(talk, voice="f2", speed=1.25, instructions="Be brief.", temperature=0.5)
    talk.push(TypedText(0, "Hello."))
    assert (talk.of(Speak)[0].voice, talk.of(Speak)[0].speed) == ("f2", 1.25)
    assert (talk.of(Think)[0].instructions, talk.of(Think)[0].temperature) == ("Be brief.", 0.5)
    changed(talk, spoken=False)
    talk.push(TypedText(0, "Hello."))
    assert len(talk.of(Speak)) == 1


def test_the_agent_speaks_up_once_when_nobody_says_anything_after_a_reply() -> None:
    talk = Conversation(assume_playback=True)
    changed(talk, idle_timeout_ms=2000)
    talk.sound(5.0, speech=False)
    assert not talk.of(IdleTimedOut)
    talk.say()
    talk.sound(3.0, speech=False)
    [idle] = talk.of(IdleTimedOut)
    assert idle.turn == 2
    assert [event.source for event in talk.of(TurnCommitted)] == ["speech", "none"]
    assert 2000 <= (idle.at_sample - idle.start_sample) / 16 < 2040


def test_a_hangover_never_outgrows_what_an_utterance_may_be() -> None:
    short = SegmenterOptions(max_utterance_ms=3300)
    talk = Conversation(segmenter=short, adaptive_hangover=True)
    for _ in range(4):
        talk.sound(0.5, speech=True)
        talk.sound(0.44, speech=False)
    talk.sound(0.6, speech=False)
    assert talk.of(TurnCommitted)
