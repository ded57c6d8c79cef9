"""Session update: what a client sets holds, or it is shown what does."""

from typing import Any

import pytest

from agent.core.inputs import Speak, Think
from agent.realtime.session_object import ListenersOffer, ResumeOffer
from tests.agent.realtime.client import Client

RESUME = ResumeOffer(token="secret", keep_s=60)
LISTENERS = ListenersOffer(token="ears", url="http://localhost/listen", qr_svg="<svg/>")


def shown(answers: list[dict[str, Any]]) -> Any:
    """The session of the `session.updated` among these."""
    [updated] = [message for message in answers if message["type"] == "session.updated"]
    return updated["session"]


def refused(answers: list[dict[str, Any]]) -> tuple[str, str]:
    """Code and field of the one error among these."""
    [error] = answers
    assert error["type"] == "error"
    return error["error"]["code"], error["error"]["param"]


def warnings(answers: list[dict[str, Any]]) -> str:
    """All that does not hold."""
    return "\n".join(message["message"] for message in answers if message["type"] == "noema.warning")


def test_the_first_session_shows_what_holds() -> None:
    session = Client().got[0]["session"]
    assert session["type"] == "realtime"
    assert session["output_modalities"] == ["audio"]
    assert session["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "transcription": None,
        "noise_reduction": None,
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.3,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 480,
            "idle_timeout_ms": None,
            "create_response": True,
            "interrupt_response": True,
        },
    }
    assert session["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "voice": "default",
        "speed": 1.0,
    }
    assert "noema" not in session
    assert "temperature" not in session


def test_only_what_a_patch_holds_is_changed() -> None:
    client = Client()
    client.detect(threshold=0.6, silence_duration_ms=700, prefix_padding_ms=100)
    session = shown(client.update(audio={"output": {"voice": "f1", "speed": 1.25}}))
    assert session["audio"]["input"]["turn_detection"]["threshold"] == 0.6
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 700
    assert session["audio"]["output"]["voice"] == "f1"
    session = shown(client.update(audio={"input": {"turn_detection": None}}))
    assert session["audio"]["input"]["turn_detection"] is None
    assert session["audio"]["output"]["speed"] == 1.25


def test_voice_and_speed_reach_the_voice() -> None:
    client = Client()
    client.update(audio={"output": {"voice": "m3", "speed": 0.5}})
    client.answers = False
    client.write("Hello.")
    client.send("response.create")
    while not isinstance(client.waiting[0], Speak):
        client.answer_next()
    assert (client.waiting[0].voice, client.waiting[0].speed) == ("m3", 0.5)


def test_silence_and_threshold_reach_the_detector() -> None:
    client = Client()
    client.detect(silence_duration_ms=1000)
    client.sound(1.0, speech=True)
    client.sound(0.8, speech=False)
    assert not client.of("input_audio_buffer.speech_stopped")
    client.sound(0.4, speech=False)
    assert client.of("input_audio_buffer.speech_stopped")


def test_a_value_out_of_bounds_is_moved_inside_and_shown() -> None:
    client = Client()
    client.update(noema={})
    answers = client.detect(silence_duration_ms=10, prefix_padding_ms=60_000, threshold=1.0, idle_timeout_ms=1)
    detection = shown(answers)["audio"]["input"]["turn_detection"]
    assert detection["silence_duration_ms"] == 160
    assert detection["prefix_padding_ms"] == 1000
    assert detection["threshold"] == 0.95
    assert detection["idle_timeout_ms"] == 1000
    assert warnings(answers).count("is possible") == 4
    client.say()
    assert client.of("response.done")


def test_what_cannot_be_had_is_shown_as_it_is() -> None:
    client = Client()
    wishes = {
        "model": "gpt-realtime",
        "instructions": "Be brief.",
        "temperature": 0.8,
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "tool_choice": "required",
        "max_output_tokens": 100,
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
        "tracing": "auto",
        "include": ["item.input_audio_transcription.logprobs"],
        "prompt": {"id": "p"},
        "reasoning": {"effort": "low"},
        "audio": {
            "input": {
                "noise_reduction": {"type": "near_field"},
                "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
                "transcription": {"model": "whisper-1", "language": "xx", "prompt": "names"},
            },
            "output": {"voice": "alloy"},
        },
    }
    session = shown(client.update(**wishes))
    assert session["model"] == "noema"
    assert session["instructions"] == ""
    assert session["tools"] == []
    assert session["tool_choice"] == "none"
    assert session["max_output_tokens"] == "inf"
    assert session["truncation"] == "auto"
    assert session["tracing"] is None
    assert session["audio"]["input"]["noise_reduction"] is None
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert session["audio"]["input"]["transcription"] == {"model": "noema", "language": None}
    assert session["audio"]["output"]["voice"] == "default"
    assert "noema.warning" not in client.types
    told = warnings(client.update(**wishes, noema={}))
    for name in [*wishes, "noise_reduction", "semantic_vad", "transcription.language", "transcription.prompt", "voice"]:
        assert name in told


def test_a_session_sent_back_as_it_was_shown_is_no_news() -> None:
    client = Client()
    session = client.got[0]["session"]
    client.update(noema={})
    answers = client.update(**{name: value for name, value in session.items() if name != "type"})
    assert warnings(answers) == ""
    assert shown(answers)["audio"] == session["audio"]


def test_a_thinker_of_words_is_given_instructions_and_temperature() -> None:
    client = Client(reads_words=True)
    session = shown(client.update(instructions="Be brief.", temperature=0.7))
    assert session["instructions"] == "Be brief."
    assert session["temperature"] == 0.7
    client.write("Talk like a pirate.", role="system")
    client.answers = False
    client.write("Hello.")
    client.send("response.create")
    client.answer_next()
    [think] = client.waiting
    assert isinstance(think, Think)
    assert think.instructions == "Be brief.\n\nTalk like a pirate."
    assert think.temperature == 0.7


def test_both_modalities_mean_sound_with_its_words() -> None:
    assert shown(Client().update(output_modalities=["text", "audio"]))["output_modalities"] == ["audio"]


def test_without_a_voice_replies_are_in_words() -> None:
    client = Client(can_speak=False)
    client.update(noema={})
    answers = client.update(output_modalities=["audio"])
    assert shown(answers)["output_modalities"] == ["text"]
    assert "no voice" in warnings(answers)


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "transcription"}, "session.type"),
        ({"noema": {"language": "klingon"}}, "session.noema.language"),
        ({"noema": {"reply_language": "tlh"}}, "session.noema.reply_language"),
        ({"noema": {"language": "eng,,fra"}}, "session.noema.language"),
    ],
)
def test_a_wrong_patch_changes_nothing(session: dict[str, Any], param: str) -> None:
    client = Client()
    before = shown(client.update(audio={"output": {"voice": "f1"}}))
    answers = client.update(**{"audio": {"output": {"voice": "m3"}}, **session})
    assert refused(answers) == ("invalid_value", param)
    assert shown(client.update()) == before


def test_the_input_format_stays_once_sound_has_come() -> None:
    client = Client()
    pcmu = {"input": {"format": {"type": "audio/pcmu"}}}
    assert shown(client.update(audio=pcmu))["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    client.sound(0.1, speech=False)
    assert shown(client.update(audio=pcmu))["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    answers = client.update(audio={"input": {"format": {"type": "audio/pcma"}}})
    assert refused(answers) == ("invalid_value", "session.audio.input.format")


def test_languages_are_found_however_they_are_written() -> None:
    client = Client()
    noema = shown(client.update(noema={"language": "en", "reply_language": "fra_Latn"}))["noema"]
    assert (noema["language"], noema["reply_language"]) == ("en", "fra")
    assert noema["languages"] == {
        "text": ["eng", "fra", "spa", "deu", "fin"],
        "speech": ["eng", "fra", "spa", "deu"],
    }
    assert shown(client.update(noema={"reply_language": None}))["noema"]["reply_language"] is None
    assert "typed" in warnings(client.update(noema={"language": "fin"}))


def test_a_transcription_language_is_what_is_spoken() -> None:
    client = Client()
    session = shown(client.update(audio={"input": {"transcription": {"language": "fr"}}}))
    assert session["audio"]["input"]["transcription"]["language"] == "fra"
    assert shown(client.update(noema={}))["noema"]["language"] == "fra"


def test_of_several_languages_the_client_is_told_which_it_was() -> None:
    client = Client()
    client.update(noema={"language": "auto"})
    client.say()
    told = client.last("noema.language")
    assert told["item_id"] == client.last("input_audio_buffer.committed")["item_id"]
    assert (told["language"], told["reply_language"], told["probability"]) == ("deu", "deu", 0.9)


def test_an_interpreter_is_not_interrupted_unless_it_is_asked_for() -> None:
    client = Client()
    session = shown(client.update(noema={"task": "translate"}))
    assert session["audio"]["input"]["turn_detection"]["interrupt_response"] is False
    session = shown(client.detect(interrupt_response=True))
    assert session["audio"]["input"]["turn_detection"]["interrupt_response"] is True


def test_resume_is_offered_before_anything_is_said() -> None:
    client = Client(resume=RESUME, listeners=LISTENERS)
    session = shown(client.update(noema={}))
    assert session["noema"]["resume"] is None
    assert session["noema"]["listeners"] is None
    session = shown(client.update(noema={"resume": True, "listeners": True}))
    assert session["noema"]["resume"] == {"token": "secret", "keep_s": 60.0}
    assert session["noema"]["listeners"]["url"] == "http://localhost/listen"
    client.write("Hello.")
    assert shown(client.update(noema={"resume": True}))["noema"]["resume"] is not None


def test_resume_asked_for_too_late_is_refused() -> None:
    client = Client(resume=RESUME)
    client.write("Hello.")
    assert refused(client.update(noema={"resume": True})) == ("noema_resume_too_late", "session.noema.resume")


def test_what_was_to_be_forgotten_is_not_kept_again() -> None:
    client = Client(resume=RESUME)
    assert shown(client.update(noema={"resume": False}))["noema"]["resume"] is None
    assert shown(client.update(noema={"resume": True}))["noema"]["resume"] is not None  # it had not been kept
    client.write("Hello.")
    assert shown(client.update(noema={"resume": False}))["noema"]["resume"] is None
    assert refused(client.update(noema={"resume": True})) == ("noema_resume_too_late", "session.noema.resume")


def test_a_server_without_these_says_so() -> None:
    client = Client()
    answers = client.update(noema={"resume": True, "listeners": True, "record": True})
    noema = shown(answers)["noema"]
    assert (noema["resume"], noema["listeners"], noema["recording"]) == (None, None, False)
    told = warnings(answers)
    assert "noema.resume" in told
    assert "noema.listeners" in told
    assert "noema.record" in told


def test_recording_is_shown() -> None:
    assert shown(Client(records=True).update(noema={}))["noema"]["recording"] is True
    client = Client(may_record=True)
    assert shown(client.update(noema={"record": True}))["noema"]["recording"] is True
    late = Client(may_record=True)
    late.sound(0.1, speech=False)
    answers = late.update(noema={"record": True})
    assert shown(answers)["noema"]["recording"] is False
    assert "before" in warnings(answers)


def test_a_bundle_that_only_interprets_says_so() -> None:
    client = Client(task="translate", tasks=("translate", "transcribe"))
    assert shown(client.update(noema={}))["noema"]["tasks"] == ["translate", "transcribe"]
    assert refused(client.update(noema={"task": "converse"})) == ("invalid_value", "session.noema.task")
