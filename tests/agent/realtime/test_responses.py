"""Responses: asked for, refused, cancelled, interrupted, failed; each ends once, and nothing of it comes after."""

import json
from typing import Any

import pytest

from agent.core import core_state
from agent.core.inputs import Think
from agent.core.turn_options import TurnOptions
from agent.realtime.problems import ProtocolError
from tests.agent.realtime.client import DIM, OPTIONS, Client


def refused(answers: list[dict[str, Any]]) -> tuple[str, str | None]:
    """Code and field of the one error among these."""
    [error] = answers
    assert error["type"] == "error"
    return error["error"]["code"], error["error"]["param"]


def speaking(client: Client, kind: str = "response.output_audio.delta") -> None:
    """Brings a reply under way, as far as to a message of this kind."""
    client.answers = False
    client.say()
    while not client.of(kind):
        client.answer_next()


def test_a_response_is_one_of_a_time() -> None:
    client = Client()
    client.sentences = 3
    speaking(client)
    answers = client.send("response.create", event_id="mine")
    assert refused(answers) == ("conversation_already_has_active_response", None)
    assert answers[0]["error"]["event_id"] == "mine"


def test_a_reply_that_is_due_is_an_active_one() -> None:
    client = Client()
    client.answers = False
    client.write("One.")
    client.write("Two.")
    client.send("response.create")
    assert refused(client.send("response.create"))[0] == "conversation_already_has_active_response"
    client.answers = True
    client.catch_up()
    assert client.last("response.done")["response"]["status"] == "completed"
    client.send("response.create")
    assert len(client.of("response.done")) == 2


def test_nothing_to_cancel_is_said_with_the_code_that_clients_forgive() -> None:
    client = Client()
    assert refused(client.send("response.cancel"))[0] == "response_cancel_not_active"
    client.say()
    assert refused(client.send("response.cancel"))[0] == "response_cancel_not_active"
    speaking(client)
    assert refused(client.send("response.cancel", response_id="resp_other"))[0] == "response_cancel_not_active"


def test_a_cancelled_response_is_closed_and_stays_closed() -> None:
    client = Client()
    client.sentences = 3
    speaking(client)
    response = client.last("response.created")["response"]
    answers = client.send("response.cancel", response_id=response["id"])
    assert [message["type"] for message in answers] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    done = answers[-1]["response"]
    assert done["status"] == "cancelled"
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled", "error": None}
    assert done["output"][0]["status"] == "incomplete"
    client.forget()
    client.answers = True
    client.catch_up()
    client.sound(1, speech=False)
    assert client.types == []


def test_speech_cancels_a_reply_that_sounds() -> None:
    client = Client()
    client.sentences = 30
    client.say()
    client.forget()
    client.sound(0.5, speech=True)
    assert client.types == ["input_audio_buffer.speech_started"]
    speaking(client)
    client.forget()
    client.sound(0.5, speech=True)
    assert client.types[0] == "input_audio_buffer.speech_started"
    assert client.types[-1] == "response.done"
    assert client.last("response.done")["response"]["status_details"]["reason"] == "turn_detected"
    assert "response.output_audio.delta" not in client.types


def test_a_client_of_the_extension_is_told_what_was_heard() -> None:
    client = Client()
    client.update(noema={})
    client.sentences = 10
    client.say()
    item_id = client.last("response.output_item.done")["item"]["id"]
    client.forget()
    client.sound(0.5, speech=True)
    truncated = client.last("conversation.item.truncated")
    assert truncated["item_id"] == item_id
    heard_ms = truncated["audio_end_ms"]
    assert 0 < heard_ms < 1000
    transcript = client.send("conversation.item.retrieve", item_id=item_id)[0]["item"]["content"][0]["transcript"]
    assert transcript.count("sentence") == round(heard_ms / 100)


def test_what_was_heard_of_a_reply_under_way_is_told_after_its_end() -> None:
    client = Client()
    client.update(noema={})
    client.sentences = 9
    speaking(client)
    while len(client.of("response.output_audio.delta")) < 8:
        client.answer_next()
    client.forget()
    client.sound(0.5, speech=True)
    assert client.types[-2:] == ["response.done", "conversation.item.truncated"]


def test_playback_that_is_told_is_what_was_heard() -> None:
    client = Client(TurnOptions(interruptible=True))
    client.update(noema={})
    client.sentences = 10
    client.say()
    item_id = client.last("response.output_item.done")["item"]["id"]
    assert client.send("noema.playback", item_id=item_id, audio_ms=250) == []
    client.sound(0.5, speech=True)
    assert client.last("conversation.item.truncated")["audio_end_ms"] == 250
    assert client.send("noema.playback", item_id="nothing", audio_ms=1)[0]["error"]["code"] == "item_not_found"


def test_a_reply_may_go_on_while_the_user_speaks() -> None:
    client = Client()
    client.detect(interrupt_response=False)
    client.sentences = 30
    speaking(client)
    client.forget()
    client.sound(0.5, speech=True)
    assert client.types == ["input_audio_buffer.speech_started"]


def test_a_failed_reply_says_why() -> None:
    client = Client()
    client.fails = {Think}
    client.say()
    done = client.last("response.done")["response"]
    assert done["status"] == "failed"
    assert done["output"] == []
    assert done["status_details"]["error"] == {
        "type": "server_error",
        "code": "reply_failed",
        "message": "no thinker",
    }
    client.fails = set()
    client.say()
    assert client.last("response.done")["response"]["status"] == "completed"


def test_one_response_may_be_in_words() -> None:
    client = Client()
    client.write("Hello.")
    client.send("response.create", response={"output_modalities": ["text"], "metadata": {"topic": "greeting"}})
    created, done = client.last("response.created")["response"], client.last("response.done")["response"]
    assert created["output_modalities"] == done["output_modalities"] == ["text"]
    assert created["metadata"] == done["metadata"] == {"topic": "greeting"}
    assert client.of("response.output_text.done")
    client.write("Again.")
    client.send("response.create")
    assert client.last("response.done")["response"]["output_modalities"] == ["audio"]
    assert client.last("response.done")["response"]["metadata"] is None


def test_a_response_to_nothing_new_is_one_too() -> None:
    client = Client()
    client.say()
    client.send("response.create", response={"metadata": {"n": "2"}})
    done = client.of("response.done")
    assert [message["response"]["status"] for message in done] == ["completed"] * 2
    assert done[1]["response"]["metadata"] == {"n": "2"}


@pytest.mark.parametrize(
    ("response", "param"),
    [
        ({"conversation": "none"}, "response.conversation"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "response.input"),
    ],
)
def test_a_response_outside_the_conversation_is_refused(response: dict[str, Any], param: str) -> None:
    client = Client()
    client.write("Hello.")
    assert refused(client.send("response.create", response=response)) == ("invalid_value", param)
    client.send("response.create", response={"conversation": "auto", "input": []})
    assert client.of("response.done")


def test_wishes_for_one_response_that_do_not_hold_are_warned_of() -> None:
    client = Client()
    client.update(noema={})
    client.write("Hello.")
    client.send("response.create", response={"instructions": "Sing.", "tools": [], "max_output_tokens": 5})
    told = [message["message"] for message in client.of("noema.warning")]
    assert [text.partition(":")[0] for text in told] == ["response.instructions", "response.max_output_tokens"]


def test_one_response_may_have_instructions_and_a_temperature_of_its_own() -> None:
    client = Client(reads_words=True)
    client.update(instructions="Be brief.", temperature=0.5)
    client.write("Rhyme.", role="system")
    client.answers = False
    for wishes in ({"instructions": "Sing.", "temperature": 1.25}, {"instructions": ""}, {}):
        client.write("Hello.")
        client.send("response.create", response=wishes)
        while not client.of("response.done"):
            if isinstance(think := client.waiting[0], Think):
                asked = think
            client.answer_next()
        created, done = client.last("response.created")["response"], client.last("response.done")["response"]
        for name in ("instructions", "temperature"):
            assert created.get(name) == done.get(name) == wishes.get(name)
        expected = {"Sing.": "Sing.\n\nRhyme.", "": "Rhyme."}.get(
            str(wishes.get("instructions")), "Be brief.\n\nRhyme."
        )
        assert (asked.instructions, asked.temperature) == (expected, wishes.get("temperature", 0.5))
        client.forget()


def test_what_does_not_hold_for_one_response_is_shown_as_it_holds() -> None:
    client = Client()
    client.write("Hello.")
    wishes = {"instructions": "Sing.", "temperature": 1, "tools": [{"type": "function", "name": "f"}], "metadata": {}}
    voice = {"voice": "m3", "output_audio_format": "g711_ulaw", "max_response_output_tokens": 5}
    client.send("response.create", response=wishes | voice)
    for kind in ("response.created", "response.done"):
        response = client.last(kind)["response"]
        assert (response["instructions"], response["tools"], response["tool_choice"]) == ("", [], "none")
        assert "temperature" not in response
        assert response["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "default"}
        assert (response["max_output_tokens"], response["metadata"]) == ("inf", {})
    client.write("Again.")
    client.send("response.create")
    assert not {"instructions", "tools", "tool_choice"} & client.last("response.done")["response"].keys()


@pytest.mark.parametrize(("name", "value"), [("instructions", 5), ("instructions", "x" * 20_001), ("temperature", 2.1)])
def test_a_wish_of_the_wrong_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(ProtocolError) as refusal:
        Client().send("response.create", response={name: value})
    assert refusal.value.param == f"response.{name}"


def test_too_little_sound_is_no_turn() -> None:
    client = Client()
    client.push_to_talk()
    assert refused(client.send("input_audio_buffer.commit"))[0] == "input_audio_buffer_commit_empty"
    client.sound(0.08, speech=True)
    assert refused(client.send("input_audio_buffer.commit"))[0] == "input_audio_buffer_commit_empty"
    client.sound(0.02, speech=True)
    assert client.send("input_audio_buffer.commit")[0]["type"] == "input_audio_buffer.committed"
    assert refused(client.send("input_audio_buffer.commit"))[0] == "input_audio_buffer_commit_empty"


def test_a_detector_that_heard_nobody_has_nothing_to_commit() -> None:
    client = Client()
    client.sound(2, speech=False)
    assert refused(client.send("input_audio_buffer.commit"))[0] == "input_audio_buffer_commit_empty"
    client.sound(0.5, speech=True)
    kinds = [message["type"] for message in client.send("input_audio_buffer.commit")]
    assert kinds[:2] == ["input_audio_buffer.speech_stopped", "input_audio_buffer.committed"]


def test_what_is_cleared_is_forgotten() -> None:
    client = Client()
    client.sound(0.5, speech=True)
    assert [message["type"] for message in client.send("input_audio_buffer.clear")] == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.cleared",
    ]
    client.sound(1, speech=False)
    assert not client.of("input_audio_buffer.committed")
    client.push_to_talk()
    client.sound(0.5, speech=True)
    client.send("input_audio_buffer.clear")
    assert refused(client.send("input_audio_buffer.commit"))[0] == "input_audio_buffer_commit_empty"


def test_the_output_buffer_is_the_clients_own() -> None:
    assert refused(Client().send("output_audio_buffer.clear")) == ("unsupported_event", "type")


def test_concepts_are_told_to_those_who_ask() -> None:
    client = Client()
    client.say()
    assert "noema.concepts" not in client.types
    client.update(noema={"concepts": True})
    client.sentences = 2
    client.say()
    told = client.of("noema.concepts")
    assert [(message["role"], message["index"]) for message in told] == [
        ("user", 0),
        ("assistant", 0),
        ("assistant", 1),
    ]
    assert told[0]["item_id"] == client.last("input_audio_buffer.committed")["item_id"]
    assert told[1]["item_id"] == client.last("response.done")["response"]["output"][0]["id"]
    assert (told[0]["dim"], told[0]["count"], told[0]["space_id"]) == (DIM, 1, "abc")
    assert told[0]["concepts"] == "ADwAPAA8ADw="


def test_speculation_is_told_to_those_who_ask() -> None:
    client = Client(TurnOptions(speculation=True))
    client.update(noema={})
    client.sound(1, speech=True)
    client.sound(0.3, speech=False)
    client.sound(1, speech=True)
    client.sound(1, speech=False)
    told = client.of("noema.speculation")
    assert [message["used"] for message in told] == [False, True]
    assert all(message["begun_ms"] < message["audio_ms"] for message in told)
    assert len(client.of("response.done")) == 1


def test_a_session_goes_on_from_where_it_was_kept() -> None:
    client = Client(OPTIONS)
    client.update(audio={"output": {"format": {"type": "audio/pcmu"}}}, noema={"concepts": True})
    client.sentences = 3
    client.write("Before.", id="mine")
    speaking(client)
    client.core = core_state.thaw(core_state.freeze(client.core))
    before = len(client.got)
    client.answers = True
    client.catch_up()
    client.say()
    client.send("conversation.item.retrieve", item_id="mine")
    straight = Client(OPTIONS)
    straight.update(audio={"output": {"format": {"type": "audio/pcmu"}}}, noema={"concepts": True})
    straight.sentences = 3
    straight.write("Before.", id="mine")
    speaking(straight)
    assert len(straight.got) == before
    straight.answers = True
    straight.catch_up()
    straight.say()
    straight.send("conversation.item.retrieve", item_id="mine")
    assert json.dumps(client.got) == json.dumps(straight.got)


def test_a_problem_found_earlier_is_told_in_its_place() -> None:
    client = Client()
    [step] = client.core.take(ProtocolError("invalid_json", "no JSON"))
    assert step.messages[0].error.code == "invalid_json"
    assert step.item is None
