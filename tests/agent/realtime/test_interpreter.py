"""The interpreter's core: what is said in, what a client is told; and the shapes as the `openai` package has them."""

import base64
import json
from typing import Any

import pytest
from openai.types.realtime import RealtimeTranslationServerEvent
from pydantic import TypeAdapter

from agent.core.inputs import EncodeSpeech, Input, InputEnded, SettingsChanged, Think, WorkFailed
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.core.turn_state import Step
from agent.realtime.defaults import KnownLanguages, SessionDefaults
from agent.realtime.interpreter import Interpreter, Taken, interpreting
from agent.realtime.problems import ProtocolError
from agent.realtime.translation import TranslationAppend, TranslationClose, TranslationUpdate, parse_translation_event
from tests.agent.talk import Conversation

_SERVER: TypeAdapter[Any] = TypeAdapter(RealtimeTranslationServerEvent)
DEFAULTS = SessionDefaults(
    KnownLanguages(("eng", "fra", "deu"), ("eng", "fra"), {"de": "deu"}), expires_at=1_900_000_000, space_id="s"
)


class Machine:
    """The turn machine as seen through the interpreter; keeps what the client is told."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self.told: list[dict[str, Any]] = [self.seen(message) for message in interpreter.opening()]

    @staticmethod
    def seen(message: Any) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(message.model_dump_json())
        if content["type"] != "error":  # there the package wants what OpenAI's always has
            assert _SERVER.validate_python({"event_id": "event_1", **content}).type == content["type"]
        return content

    def push(self, item: Input) -> Step:
        return self.take(item)

    def take(self, item: Taken) -> Step:
        [step] = self.interpreter.take(item)
        self.told += [self.seen(message) for message in step.messages]
        return step

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.told if message["type"] == kind]


@pytest.fixture
def talk() -> Conversation:
    conversation = Conversation()
    machine = TurnMachine(interpreting(TurnOptions(task="translate", interruptible=True)))
    conversation.machine = Machine(Interpreter(machine, DEFAULTS, "sess_1"))  # type: ignore[assignment]
    return conversation


def update(talk: Conversation, **audio: Any) -> Step:
    event = parse_translation_event(json.dumps({"type": "session.update", "session": {"audio": audio}}))
    assert isinstance(event, TranslationUpdate)
    return machine_of(talk).take(event)


def machine_of(talk: Conversation) -> Machine:
    machine: Any = talk.machine
    assert isinstance(machine, Machine)
    return machine


def test_what_is_said_comes_out_in_the_language_asked_for(talk: Conversation) -> None:
    machine = machine_of(talk)
    step = update(talk, output={"language": "de"}, input={"language": "fra", "transcription": {"model": "any"}})
    assert isinstance(step.item, SettingsChanged)
    talk.say()
    talk.say()
    assert [think.reply_language for think in talk.of(Think)] == ["deu", "deu"]
    assert [encode.language for encode in talk.of(EncodeSpeech)] == ["fra", "fra"]
    [created, updated] = machine.told[:2]
    assert created["session"]["audio"]["output"] == {"language": None}
    assert updated["session"]["audio"] == {
        "input": {"language": "fra", "transcription": {"model": "noema"}, "noise_reduction": None},
        "output": {"language": "deu"},
    }
    assert [m["delta"] for m in machine.of("session.output_transcript.delta")] == ["sentence 0", " sentence 0"]
    assert [m["delta"] for m in machine.of("session.input_transcript.delta")] == ["words", " words"]
    sound = machine.of("session.output_audio.delta")
    assert len(base64.b64decode(sound[0]["delta"])) == 4800
    assert sound[0]["elapsed_ms"] < sound[1]["elapsed_ms"]


def test_without_being_asked_what_was_heard_is_not_told(talk: Conversation) -> None:
    talk.say()
    assert not machine_of(talk).of("session.input_transcript.delta")


def test_speech_does_not_stop_an_interpreter(talk: Conversation) -> None:
    talk.answers = False
    talk.say()
    talk.say()
    talk.answers = True
    talk.catch_up()
    assert len(machine_of(talk).of("session.output_transcript.delta")) == 2


def test_closing_finishes_what_was_said_and_says_so(talk: Conversation) -> None:
    machine = machine_of(talk)
    talk.sound(1.0, speech=True)
    talk.push(InputEnded(talk.sample))
    assert [m["type"] for m in machine.told[-3:]] == [
        "session.output_transcript.delta",
        "session.output_audio.delta",
        "session.closed",
    ]
    assert machine.interpreter.ended


@pytest.mark.parametrize(
    ("audio", "param"),
    [
        ({"output": {"language": "klingon"}}, "session.audio.output.language"),
        ({"input": {"language": "klingon"}}, "session.audio.input.language"),
        ({"input": {"language": "deu"}}, "session.audio.input.language"),
    ],
)
def test_a_language_that_is_not_there_changes_nothing(talk: Conversation, audio: Any, param: str) -> None:
    step = update(talk, **audio)
    [error] = machine_of(talk).of("error")
    assert error["error"]["param"] == param
    assert step.item is None
    assert not machine_of(talk).of("session.updated")


def test_a_failure_is_told_and_the_session_goes_on(talk: Conversation) -> None:
    talk.answers = False
    talk.say()
    [request] = talk.of(EncodeSpeech)
    talk.waiting.clear()
    talk.push(WorkFailed(talk.sample, request.request, request.turn, "understand", "no room"))
    talk.answers = True
    talk.say()
    [error] = machine_of(talk).of("error")
    assert error["error"]["type"] == "server_error"
    assert error["error"]["message"] == "no room"
    assert machine_of(talk).of("session.output_transcript.delta")


def test_messages_are_read_and_wrong_ones_named() -> None:
    append = parse_translation_event('{"type": "session.input_audio_buffer.append", "audio": "AAAB"}')
    assert isinstance(append, TranslationAppend)
    assert append.content() == b"\0\0\1"
    assert isinstance(parse_translation_event('{"type": "session.close"}'), TranslationClose)
    with pytest.raises(ProtocolError, match=r"session\.close") as problem:
        parse_translation_event('{"type": "input_audio_buffer.append", "audio": "", "event_id": "mine"}')
    assert problem.value.client_event_id == "mine"
    with pytest.raises(ProtocolError) as problem:
        parse_translation_event('{"type": "session.update", "session": {"audio": {"output": {"language": 1}}}}')
    assert problem.value.param == "session.audio.output.language"
