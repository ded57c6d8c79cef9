"""The turn machine: the same inputs, the same events; and each rule of the conversation."""

import numpy as np
import pytest

from agent.core.events import (
    Heard,
    ReplyAudio,
    ReplySentence,
    ReplyTruncated,
    SessionEnded,
    TurnCommitted,
    TurnEnded,
    UtteranceTaken,
    Warned,
)
from agent.core.input_log import event_line
from agent.core.inputs import (
    CancelTurn,
    Decode,
    Encoded,
    EncodeSpeech,
    EncodeText,
    InputEnded,
    PlaybackPosition,
    SettingsChanged,
    Speak,
    Think,
    Thought,
    TypedText,
    Voiced,
    WorkFailed,
)
from tests.agent.talk import DIM, Conversation


def test_an_utterance_is_heard_and_answered() -> None:
    talk = Conversation()
    talk.say()
    talk.push(InputEnded(talk.sample))
    assert [event.turn for event in talk.of(TurnCommitted)] == [1]
    assert talk.of(Heard)[0].text == "words"
    assert talk.of(Heard)[0].paraphrase
    assert talk.of(ReplySentence)[0].text == "sentence 0"
    assert len(talk.of(ReplyAudio)) == 1
    assert [event.status for event in talk.of(TurnEnded)] == ["done"]
    assert talk.of(SessionEnded)[0].turns == 1


def test_hearing_back_never_comes_before_the_reply() -> None:
    talk = Conversation()
    talk.say()
    kinds = [type(request) for request in talk.requests]
    assert kinds == [EncodeSpeech, Think, Decode, Speak, Decode]
    assert talk.requests[-1].index is None  # type: ignore[union-attr]


def test_replies_of_other_turns_and_sessions_are_drawn_otherwise_and_the_same_again() -> None:
    def seeds(session: int) -> list[int]:
        talk = Conversation(seed=session)
        talk.say()
        talk.say()
        return [think.seed for think in talk.of(Think)]

    assert len({*seeds(0), *seeds(1_000)}) == 4
    assert seeds(1_000) == seeds(1_000)


def test_a_thinker_of_words_hears_back_first() -> None:
    talk = Conversation(words_first=True)
    talk.say()
    kinds = [type(request) for request in talk.requests]
    assert kinds == [EncodeSpeech, Decode, Think, Decode, Speak]
    assert talk.of(Think)[0].context[0].text == "words"


def test_long_speech_is_one_turn_of_a_conversation_and_several_of_an_interpreter() -> None:
    talk, interpreter = Conversation(), Conversation(task="translate", reply_language="fra")
    for conversation in (talk, interpreter):
        conversation.say(12.0)
    assert [event.turn for event in talk.of(UtteranceTaken)] == [1, 1]
    assert len(talk.of(TurnCommitted)) == 1
    assert [event.turn for event in interpreter.of(UtteranceTaken)] == [1, 2]
    assert len(interpreter.of(TurnCommitted)) == 2


def test_endless_speech_is_answered_in_the_end() -> None:
    talk = Conversation(max_pieces=2)
    talk.sound(20.0, speech=True)
    assert len(talk.of(TurnCommitted)) == 1


def test_typed_text_joins_at_think() -> None:
    talk = Conversation()
    talk.push(TypedText(5, "Hello."))
    assert [type(request) for request in talk.requests] == [EncodeText, Think, Decode, Speak]
    assert talk.of(Heard)[0] == Heard(5, 1, "Hello.", "eng", paraphrase=False)
    assert talk.of(TurnEnded)[0].status == "done"


def test_settings_hold_from_the_next_turn_on() -> None:
    talk = Conversation()
    talk.say()
    talk.push(SettingsChanged(talk.sample, "fra", "deu", "translate"))
    talk.say()
    first, second = talk.of(TurnCommitted)
    assert (first.language, first.reply_language, first.task) == ("eng", "eng", "converse")
    assert (second.language, second.reply_language, second.task) == ("fra", "deu", "translate")


def test_turns_are_answered_one_after_the_other() -> None:
    talk = Conversation()
    talk.answers = False
    talk.say()
    talk.say()
    first, second = talk.of(EncodeSpeech)
    talk.take(second)
    assert talk.of(Think) == []
    talk.answers = True
    talk.take(first)
    assert [request.turn for request in talk.of(Think)] == [1, 2]
    assert [event.turn for event in talk.of(TurnEnded)] == [1, 2]


def test_a_failed_turn_does_not_silence_the_next() -> None:
    talk = Conversation()
    talk.answers = False
    talk.say()
    [request] = talk.of(EncodeSpeech)
    talk.push(WorkFailed(talk.sample, request.request, request.turn, "understand", "no model"))
    assert [event.status for event in talk.of(TurnEnded)] == ["failed"]
    assert talk.of(Warned)[0].message == "no model"
    talk.answers = True
    talk.say()
    assert [event.status for event in talk.of(TurnEnded)] == ["failed", "done"]


def test_a_reply_goes_on_where_only_hearing_back_failed() -> None:
    talk = Conversation()
    talk.answers = False
    talk.say()
    for kind in (EncodeSpeech, Think, Decode):
        talk.take(talk.of(kind)[0])
    [hearing] = [request for request in talk.of(Decode) if request.index is None]
    assert not hearing.urgent
    talk.push(WorkFailed(talk.sample, hearing.request, hearing.turn, "hear", "too much to do"))
    assert talk.of(TurnEnded) == []
    talk.take(talk.of(Speak)[0])
    assert [event.status for event in talk.of(TurnEnded)] == ["done"]
    assert (len(talk.of(Warned)), len(talk.of(Heard)), len(talk.of(ReplySentence))) == (1, 0, 1)


def test_who_reads_words_cannot_go_on_without_them() -> None:
    talk = Conversation(words_first=True)
    talk.answers = False
    talk.say()
    talk.take(talk.of(EncodeSpeech)[0])
    [hearing] = talk.of(Decode)
    assert hearing.urgent
    talk.push(WorkFailed(talk.sample, hearing.request, hearing.turn, "hear", "too much to do"))
    assert [event.status for event in talk.of(TurnEnded)] == ["failed"]


def test_late_results_of_a_turn_that_is_over_change_nothing() -> None:
    talk = Conversation()
    talk.say()
    before = len(talk.events)
    for request in list(talk.requests):
        talk.take(request)
    assert len(talk.events) == before


def test_waiting_turns_are_bounded() -> None:
    talk = Conversation(max_waiting_turns=3)
    talk.answers = False
    for _ in range(6):
        talk.say(0.5)
    dropped = [event.turn for event in talk.of(TurnEnded)]
    assert dropped == [2, 3, 4]
    assert [request.turn for request in talk.of(CancelTurn)] == dropped


def test_half_duplex_does_not_hear_itself() -> None:
    talk = Conversation(half_duplex=True)
    talk.say()
    talk.sound(0.25, speech=True)  # while 100 ms of reply sound, and the room after them
    assert len(talk.of(UtteranceTaken)) == 1
    talk.push(PlaybackPosition(talk.sample, 2400))
    talk.sound(0.5, speech=False)
    talk.say()
    assert len(talk.of(UtteranceTaken)) == 2


def test_speech_interrupts_the_reply_and_only_what_was_heard_stays() -> None:
    talk = Conversation(interruptible=True)
    talk.say()
    assert len(talk.machine.conversation) == 2
    talk.push(PlaybackPosition(talk.sample, 600))  # a quarter of the sentence
    talk.sound(0.3, speech=True)
    assert talk.of(ReplyTruncated)[0].kept_sentences == 0
    assert [entry.role for entry in talk.machine.conversation.view()] == [0]


def test_a_sentence_without_a_sound_does_not_take_the_heard_one_away() -> None:
    talk = Conversation(interruptible=True)
    talk.answers = False
    talk.say()
    talk.take(talk.of(EncodeSpeech)[0])
    [think] = talk.of(Think)
    for text in ("...", "A sentence.", "Another one."):
        talk.push(Thought(talk.sample, think.request, think.turn, None, text, last=False))
    silent, spoken, cut = talk.of(Speak)
    talk.push(Voiced(talk.sample, silent.request, silent.turn, silent.index, np.zeros(0, np.float32), last=True))
    for request in (spoken, cut):
        talk.take(request)
    talk.push(PlaybackPosition(talk.sample, 2400))  # all of the second, nothing of the third
    talk.sound(0.3, speech=True)
    assert talk.of(ReplyTruncated)[0].kept_sentences == 2
    assert [entry.text for entry in talk.machine.conversation.view()][1:] == ["...", "A sentence."]


def test_a_reply_that_was_heard_is_not_interrupted() -> None:
    talk = Conversation(interruptible=True)
    talk.say()
    talk.push(PlaybackPosition(talk.sample, 2400))
    talk.say()
    assert talk.of(ReplyTruncated) == []
    assert [event.status for event in talk.of(TurnEnded)] == ["done", "done"]


def test_an_interruption_cancels_what_is_under_way() -> None:
    talk = Conversation(interruptible=True)
    talk.answers = False
    talk.say()
    talk.take(talk.of(EncodeSpeech)[0])
    talk.sound(0.3, speech=True)
    assert [event.status for event in talk.of(TurnEnded)] == ["interrupted"]
    assert [request.turn for request in talk.of(CancelTurn)] == [1]


def test_who_goes_on_speaking_before_the_answer_begins_is_not_talked_over() -> None:
    talk = Conversation(interruptible=True)
    talk.answers = False
    talk.say()
    [encode] = talk.of(EncodeSpeech)
    talk.sound(0.5, speech=True)
    talk.take(encode)  # only now it is understood, while the user speaks again
    assert talk.of(Think) == []
    assert [(event.turn, event.status) for event in talk.of(TurnEnded)] == [(1, "interrupted")]
    assert [entry.turn for entry in talk.machine.conversation.view()] == [1]  # what was said stays
    talk.answers = True
    talk.sound(1.0, speech=False)
    assert [request.turn for request in talk.of(Think)] == [2]
    assert talk.of(Think)[0].context[0].turn == 1


def test_words_of_who_went_on_speaking_are_kept_for_a_thinker_that_reads() -> None:
    talk = Conversation(interruptible=True, words_first=True)
    talk.answers = False
    talk.say()
    talk.sound(0.5, speech=True)
    talk.take(talk.of(EncodeSpeech)[0])
    talk.take(talk.of(Decode)[0])
    assert talk.of(Think) == []
    assert [entry.text for entry in talk.machine.conversation.view()] == ["words"]
    assert [event.status for event in talk.of(TurnEnded)] == ["interrupted"]


def test_a_reply_that_was_only_shown_is_not_forgotten() -> None:
    talk = Conversation(interruptible=True, spoken_reply=False)
    talk.answers = False
    talk.say()
    talk.take(talk.of(EncodeSpeech)[0])
    [think] = talk.of(Think)
    talk.push(Thought(talk.sample, think.request, think.turn, None, "Hello.", last=False))
    talk.sound(0.3, speech=True)
    assert [entry.text for entry in talk.machine.conversation.view()] == [None, "Hello."]


def test_the_context_is_bounded() -> None:
    talk = Conversation(max_context_sentences=6)
    for number in range(10):
        talk.push(TypedText(number, f"Sentence {number}."))
    assert len(talk.machine.conversation) == 6
    assert talk.of(Think)[-1].context[-1].text == "Sentence 9."


def test_an_interpreter_loses_nothing_of_a_turn_longer_than_the_context() -> None:
    talk = Conversation(task="translate", max_context_sentences=6)
    talk.answers = False
    talk.push(TypedText(0, "Many sentences."))
    [request] = talk.of(EncodeText)
    concepts = np.arange(20 * DIM, dtype=np.float32).reshape(20, DIM)
    talk.push(Encoded(0, request.request, request.turn, 0, concepts, tuple("abcdefghijklmnopqrst")))
    [think] = talk.of(Think)
    assert np.array_equal(np.stack([entry.concept for entry in think.context]), concepts)
    assert len(talk.machine.conversation) == 6


def test_silence_ends_a_session_without_turns() -> None:
    talk = Conversation()
    talk.sound(2.0, speech=False)
    talk.push(InputEnded(talk.sample))
    assert talk.events == [SessionEnded(talk.sample, 0)]


@pytest.mark.parametrize("task", ["converse", "translate"])
def test_the_same_inputs_give_the_same_events(task: str) -> None:
    def lines() -> list[str]:
        talk = Conversation(task=task)
        for _ in range(3):
            talk.say()
        talk.push(InputEnded(talk.sample))
        return [event_line(event) for event in talk.events]

    assert lines() == lines()
