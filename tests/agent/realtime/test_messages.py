"""Messages: what is read, and how what cannot be read is refused."""

import json
from typing import Any, get_args

import pytest
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent

from agent.realtime.client_events import ClientEvent, InputAudioBufferAppend, SessionUpdate
from agent.realtime.messages import CLIENT_TYPES, error_event, parse_client_event, to_json
from agent.realtime.problems import ProtocolError
from agent.realtime.requests import _ANSWERS
from agent.realtime.server_events import ErrorEvent, ServerEvent


def refused(message: Any) -> ProtocolError:
    """The problem with a message."""
    text = message if isinstance(message, str | bytes) else json.dumps(message)
    with pytest.raises(ProtocolError) as caught:
        parse_client_event(text)
    return caught.value


def types_of(union: Any) -> set[str]:
    """The `type`s of a union of models."""
    return {get_args(shape.model_fields["type"].annotation)[0] for shape in get_args(union)}


def test_all_of_openais_client_events_are_read_and_answered() -> None:
    theirs = types_of(get_args(RealtimeClientEvent)[0])
    assert theirs == set(CLIENT_TYPES) - {"noema.playback"}
    assert set(_ANSWERS) == set(get_args(ClientEvent))


def test_what_is_sent_is_openais_or_ours_by_name() -> None:
    ours = {kind for kind in types_of(ServerEvent) if not kind.startswith("noema.")}
    assert ours < types_of(get_args(RealtimeServerEvent)[0])


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", b"\xff\xfe", '{"type": "\\ud800"}', '{"type": NaN}', "[" * 100_000, '{"a":' * 100_000],
)
def test_what_is_no_object_of_json_is_refused(text: str | bytes) -> None:
    assert refused(text).code == "invalid_json"


def test_an_unknown_type_lists_those_there_are() -> None:
    problem = refused({"type": "response.begin", "event_id": "mine"})
    assert (problem.code, problem.param, problem.client_event_id) == ("invalid_value", "type", "mine")
    assert "'response.create'" in problem.message
    assert refused({"event_id": 3}).code == "invalid_value"
    assert refused({"type": ["x"]}).param == "type"


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        ({"type": "conversation.item.create", "item": {}}, "missing_required_parameter", "item.type"),
        ({"type": "conversation.item.delete", "item_id": 5}, "invalid_type", "item_id"),
        ({"type": "conversation.item.delete", "item_id": "x" * 129}, "invalid_value", "item_id"),
        ({"type": "response.cancel", "event_id": 7}, "invalid_type", "event_id"),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}},
            "invalid_value",
            "session.audio.input.format.type",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"output": {"format": {"type": "audio/pcm", "rate": 16000}}}},
            },
            "invalid_value",
            "session.audio.output.format",
        ),
        (
            {"type": "session.update", "session": {"audio": {"output": {"speed": 9}}}},
            "invalid_value",
            "session.audio.output.speed",
        ),
        (
            {"type": "session.update", "session": {"turn_detection": {"threshold": "high"}}},
            "invalid_type",
            "session.turn_detection.threshold",
        ),
        (
            {"type": "session.update", "session": {"noema": {"resume": "yes"}}},
            "invalid_type",
            "session.noema.resume",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "message", "content": [{"type": "t", "text": 7}]}},
            "invalid_type",
            "item.content[0].text",
        ),
        (
            {"type": "response.create", "response": {"metadata": {"a": 1}}},
            "invalid_type",
            "response.metadata.a",
        ),
    ],
)
def test_a_wrong_field_is_named(message: dict[str, Any], code: str, param: str) -> None:
    problem = refused(message)
    assert (problem.code, problem.param) == (code, param)


def test_a_long_wrong_value_is_not_repeated() -> None:
    assert len(refused({"type": "x" * 100_000}).message) < 500


def test_sound_is_base64() -> None:
    event = parse_client_event('{"type": "input_audio_buffer.append", "audio": "AAEC"}')
    assert isinstance(event, InputAudioBufferAppend)
    assert event.content() == b"\x00\x01\x02"
    for wrong in ("AAE", "AAEC!", "ÄÄÄÄ"):
        event = parse_client_event(json.dumps({"type": "input_audio_buffer.append", "audio": wrong, "event_id": "e"}))
        assert isinstance(event, InputAudioBufferAppend)
        with pytest.raises(ProtocolError) as caught:
            event.content()
        assert (caught.value.param, caught.value.client_event_id) == ("audio", "e")


def test_fields_nobody_knows_are_passed_over() -> None:
    assert parse_client_event('{"type": "response.cancel", "colour": "red"}').type == "response.cancel"


def test_the_flat_fields_of_old_clients_are_put_in_their_place() -> None:
    old = {
        "modalities": ["text", "audio"],
        "voice": "alloy",
        "speed": 1.2,
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": None,
    }
    event = parse_client_event(json.dumps({"type": "session.update", "session": old}))
    assert isinstance(event, SessionUpdate)
    assert not event.session.model_extra
    assert event.session.model_dump(exclude_unset=True, exclude={"type"}) == {
        "output_modalities": ["text", "audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "whisper-1"},
                "turn_detection": None,
            },
            "output": {"format": {"type": "audio/pcm"}, "voice": "alloy", "speed": 1.2},
        },
    }


def test_a_field_in_its_new_place_counts() -> None:
    session = {"voice": "old", "audio": {"output": {"voice": {"id": "new"}}}}
    event = parse_client_event(json.dumps({"type": "session.update", "session": session}))
    assert isinstance(event, SessionUpdate)
    assert event.session.audio is not None
    assert event.session.audio.output is not None
    assert event.session.audio.output.voice == "new"
    assert refused({"type": "session.update", "session": {"voice": "old", "audio": 5}}).param == "session.audio"


def test_an_error_names_the_clients_message() -> None:
    text = to_json(error_event(ProtocolError("invalid_value", "no", "item_id", "mine")), "event_7")
    assert json.loads(text) == {
        "event_id": "event_7",
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "code": "invalid_value",
            "message": "no",
            "param": "item_id",
            "event_id": "mine",
        },
    }
    assert isinstance(error_event(ProtocolError("c", "m", kind="server_error")), ErrorEvent)
