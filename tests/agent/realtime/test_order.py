"""The order of server events: OpenAI's, as a partial order; transcription and the deltas of one reply float."""

import base64
import itertools
from typing import Any

import numpy as np
import pytest

from agent.core.turn_options import TurnOptions
from tests.agent.realtime.client import Client

USER = (
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
)
BEGINS = (
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
)
AUDIO_ENDS = (
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
)
TEXT_ENDS = ("response.output_text.done", *AUDIO_ENDS[2:])
FLOATING = ("delta", "input_audio_transcription.completed", "noema.concepts")


def fixed(client: Client) -> list[str]:
    """What came, without what floats."""
    return [kind for kind in client.types if not kind.endswith(FLOATING)]


def test_a_session_opens_with_itself_and_its_conversation() -> None:
    client = Client()
    assert client.types == ["session.created", "conversation.created"]
    assert client.got[0]["session"]["id"] == "sess_test"
    assert client.got[1]["conversation"]["id"] == "conv_test"


def test_a_spoken_turn_and_its_spoken_reply() -> None:
    client = Client()
    client.forget()
    client.say()
    assert fixed(client) == [*USER, *BEGINS, *AUDIO_ENDS]


def test_the_items_of_a_turn_follow_each_other() -> None:
    client = Client()
    client.say()
    client.say()
    added = client.of("conversation.item.added")
    ids = [message["item"]["id"] for message in added]
    assert len(set(ids)) == 4
    assert [message["previous_item_id"] for message in added] == [None, *ids[:3]]
    assert [message["item"]["role"] for message in added] == ["user", "assistant"] * 2
    assert client.of("input_audio_buffer.speech_started")[1]["item_id"] == ids[2]
    assert client.last("input_audio_buffer.committed")["previous_item_id"] == ids[1]


def test_deltas_add_up_to_what_is_done() -> None:
    client = Client()
    client.sentences = 3
    client.say()
    deltas = [message["delta"] for message in client.of("response.output_audio_transcript.delta")]
    assert deltas == ["sentence 0", " sentence 1", " sentence 2"]
    done = client.last("response.output_audio_transcript.done")
    assert done["transcript"] == "".join(deltas)
    assert client.last("response.content_part.done")["part"] == {"type": "audio", "transcript": done["transcript"]}
    item = client.last("conversation.item.done")["item"]
    assert item["content"] == [{"type": "output_audio", "transcript": done["transcript"]}]
    assert client.last("response.done")["response"]["output"] == [item]
    sound = b"".join(base64.b64decode(message["delta"]) for message in client.of("response.output_audio.delta"))
    assert len(sound) == 3 * 2400 * 2
    assert np.frombuffer(sound, "<i2")[0] == round(0.1 * 32768)


def test_a_written_reply_is_the_same_without_sound() -> None:
    client = Client()
    client.update(output_modalities=["text"])
    client.forget()
    client.say()
    assert fixed(client) == [*USER, *BEGINS, *TEXT_ENDS]
    assert client.last("response.output_text.done")["text"] == "sentence 0"
    assert client.last("response.content_part.added")["part"] == {"type": "text", "text": ""}
    assert client.last("response.done")["response"]["output_modalities"] == ["text"]


def test_typed_text_is_answered_when_asked_for() -> None:
    client = Client()
    client.forget()
    client.write("Hello there.")
    assert client.types == ["conversation.item.added", "conversation.item.done"]
    assert client.got[0]["item"]["content"] == [{"type": "input_text", "text": "Hello there."}]
    client.forget()
    client.send("response.create")
    assert fixed(client) == [*BEGINS, *AUDIO_ENDS]


def test_a_reply_asked_for_late_says_something() -> None:
    client = Client()
    client.push_to_talk()
    client.answers = False
    client.sound(1.0, speech=True)
    client.send("input_audio_buffer.commit")
    client.answer_next()
    client.answers = True
    client.send("response.create")
    assert client.last("response.done")["response"]["output"]


def test_push_to_talk_tells_only_what_was_committed() -> None:
    client = Client()
    client.push_to_talk()
    client.forget()
    client.say()
    assert client.types == []
    client.send("input_audio_buffer.commit")
    assert fixed(client) == list(USER[2:])
    client.send("response.create")
    assert fixed(client) == [*USER[2:], *BEGINS, *AUDIO_ENDS]


def test_detection_may_leave_the_answer_to_the_client() -> None:
    client = Client()
    client.detect(create_response=False)
    client.forget()
    client.say()
    assert fixed(client) == list(USER)
    client.send("response.create")
    assert fixed(client) == [*USER, *BEGINS, *AUDIO_ENDS]


def test_words_are_told_where_they_are_wanted() -> None:
    client = Client()
    client.say()
    assert not any("transcription" in kind for kind in client.types)
    client.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
    client.forget()
    client.say()
    prefix = "conversation.item.input_audio_transcription."
    assert [kind for kind in client.types if kind.startswith(prefix)] == [f"{prefix}delta", f"{prefix}completed"]
    item_id = client.of("input_audio_buffer.committed")[0]["item_id"]
    completed = client.last(f"{prefix}completed")
    assert (completed["item_id"], completed["transcript"]) == (item_id, "words")
    assert 1.0 < completed["usage"]["seconds"] < 1.8
    retrieved = client.send("conversation.item.retrieve", item_id=item_id)
    assert retrieved[0]["item"]["content"] == [{"type": "input_audio", "transcript": "words"}]


def test_words_of_an_interrupted_turn_are_failed() -> None:
    client = Client()
    client.update(audio={"input": {"transcription": {}}})
    client.answers = False
    client.say()
    client.answer_next()
    client.sound(1.0, speech=True)
    failed = client.last("conversation.item.input_audio_transcription.failed")
    assert failed["item_id"] == client.of("input_audio_buffer.committed")[0]["item_id"]


def test_an_interpreter_tells_each_cut_as_speech_that_began_and_ended() -> None:
    client = Client()
    client.update(noema={"task": "translate", "reply_language": "fra"})
    client.forget()
    client.sound(20, speech=True)
    client.sound(1, speech=False)
    heard = [kind for kind in client.types if kind.startswith("input_audio_buffer.")]
    assert heard == list(USER[:3]) * 3
    assert len(client.of("response.done")) == 3
    starts = [message["audio_start_ms"] for message in client.of("input_audio_buffer.speech_started")]
    ends = [message["audio_end_ms"] for message in client.of("input_audio_buffer.speech_stopped")]
    assert starts[1:] == ends[:-1]


def test_a_conversation_keeps_a_long_speech_together() -> None:
    client = Client()
    client.forget()
    client.sound(20, speech=True)
    client.sound(1, speech=False)
    assert fixed(client) == [*USER, *BEGINS, *AUDIO_ENDS]


def test_silence_after_a_reply_makes_the_agent_speak_up() -> None:
    client = Client()
    client.detect(idle_timeout_ms=2000)
    client.say()
    client.forget()
    client.sound(3, speech=False)
    timeout = client.got[0]
    assert fixed(client) == ["input_audio_buffer.timeout_triggered", *USER[2:], *BEGINS, *AUDIO_ENDS]
    assert timeout["item_id"] == client.got[1]["item_id"]
    assert timeout["audio_end_ms"] - timeout["audio_start_ms"] == pytest.approx(2000, abs=40)
    assert client.got[2]["item"]["content"] == [{"type": "input_audio", "transcript": None}]


def test_turns_that_come_too_fast_are_each_answered() -> None:
    client = Client(TurnOptions(max_waiting_turns=2))
    client.answers = False
    for _ in range(5):
        client.say()
    client.answers = True
    client.catch_up()
    assert len(client.of("input_audio_buffer.committed")) == 5
    responses = [message["response"] for message in client.of("response.done")]
    assert sorted(response["status"] for response in responses) == ["completed"] * 2 + ["failed"] * 3
    created = [message["response"]["id"] for message in client.of("response.created")]
    assert created == [response["id"] for response in responses]
    bounds = [kind for kind in client.types if kind in {"response.created", "response.done"}]
    assert bounds == ["response.created", "response.done"] * 5
    failed = next(response for response in responses if response["status"] == "failed")
    assert failed["status_details"]["error"]["code"] == "overloaded"


def test_usage_counts_concepts() -> None:
    client = Client()
    client.sentences = 2
    client.say()
    usage = client.last("response.done")["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (1, 2, 3)
    assert usage["input_token_details"]["audio_tokens"] == 1
    assert usage["output_token_details"] == {"text_tokens": 0, "audio_tokens": 2}


@pytest.mark.parametrize("answers", [True, False])
def test_usage_is_the_same_whether_a_reply_is_asked_for_before_or_after_the_text_is_understood(answers: bool) -> None:
    client = Client()
    for _ in range(2):
        client.answers = answers
        client.write("Hello there.")
        client.send("response.create")
        client.answers = True
        client.catch_up()
        usage = client.last("response.done")["response"]["usage"]
        assert (usage["input_tokens"], usage["input_token_details"]["text_tokens"]) == (1, 1)


@pytest.mark.parametrize("audio_format", ["audio/pcmu", "audio/pcma"])
def test_telephony_is_eight_thousand_bytes_a_second(audio_format: str) -> None:
    client = Client()
    client.update(audio={"output": {"format": {"type": audio_format}}})
    client.sentences = 10
    client.say()
    sound = b"".join(base64.b64decode(message["delta"]) for message in client.of("response.output_audio.delta"))
    assert len(sound) == pytest.approx(8000, abs=80)
    shown = client.last("response.done")["response"]["audio"]["output"]["format"]
    assert shown == {"type": audio_format}


def test_ids_repeat_the_session_and_never_each_other() -> None:
    client = Client()
    for _ in range(3):
        client.say()
    ids = [message["item"]["id"] for message in client.of("conversation.item.added")]
    ids += [message["response"]["id"] for message in client.of("response.created")]
    assert len(set(ids)) == len(ids)
    assert all("_test_" in name for name in ids)


def test_the_same_inputs_give_the_same_messages() -> None:
    def talk() -> list[dict[str, Any]]:
        client = Client()
        client.update(noema={"concepts": True})
        client.say()
        client.write("And this?")
        client.send("response.create")
        client.say(0.5)
        return client.got

    assert all(ours == theirs for ours, theirs in itertools.zip_longest(talk(), talk()))
